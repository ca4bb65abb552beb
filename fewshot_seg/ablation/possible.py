"""Whether a cell can run at all, found out without training it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fewshot_seg.ablation.request import Protocols
from fewshot_seg.architecture import architecture_only
from fewshot_seg.building import build
from fewshot_seg.data.scan import Dataset
from fewshot_seg.data.settings import class_ids
from fewshot_seg.errors import OptionError
from fewshot_seg.evaluation import get_matching
from fewshot_seg.experiment.episodes import EpisodeSettings
from fewshot_seg.experiment.train import base_classes, choose_fold
from fewshot_seg.recipe import Recipe
from fewshot_seg.training import TrainConfig


class Checks:
    """Checks of methods and data; what was found good once is not checked again."""

    def __init__(self) -> None:
        self._good: set[str] = set()

    def method(self, recipe: Recipe, test: Mapping[str, Any], size: int) -> None:
        """Raises what `build` raises for parts or options that do not go together."""
        settings = repr((recipe.training, recipe.episodes))
        if settings not in self._good:
            TrainConfig.from_dict(recipe.training)
            EpisodeSettings.from_dict(recipe.episodes)
            self._good.add(settings)
        shape = _shape({"recipe": recipe.to_dict(), "test": dict(test), "size": size})
        if shape in self._good:
            return
        changes: dict[str, Any] = dict(test)
        if recipe.is_pipeline and "image_size" not in recipe.options:
            changes["image_size"] = [size, size]
        with architecture_only():
            build(recipe)
            if test:
                build(recipe, **changes)
        self._good.add(shape)

    def data(
        self, dataset: Dataset, recipe: Recipe, protocol: Protocols, novel: Sequence[str]
    ) -> None:
        """Raises UnknownNameError, OptionError or DataError for a class, fold or setting."""
        key = repr((id(dataset), recipe.episodes, protocol, novel))
        if key in self._good:
            return
        get_matching(protocol.matching)
        held_out = class_ids(dataset.classes, novel)
        for fold in protocol.folds:
            choose_fold(
                dataset, fold,
                n_folds=protocol.n_folds, n_support=protocol.n_support, rule=protocol.fold_rule,
            )  # fmt: skip
        drawn = EpisodeSettings.from_dict(recipe.episodes)
        setting = protocol.setting or ("leave_one_organ" if drawn.reads_labels else "setting1")
        base = base_classes(dataset, held_out, setting, reads_labels=drawn.reads_labels)
        if base and drawn.n_way > len(base):
            raise OptionError(
                f"episodes of {drawn.n_way} ways need as many base classes; "
                f"{dataset.name} has {len(base)} when {', '.join(novel)} is held out"
            )
        self._good.add(key)


def _shape(what: Mapping[str, Any]) -> str:
    """All that decides which modules are built: numbers with a point do not."""
    return json.dumps(_without_numbers(what), sort_keys=True, default=list)


def _without_numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_numbers(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_numbers(one) for one in value]
    return "number" if isinstance(value, float) else value
