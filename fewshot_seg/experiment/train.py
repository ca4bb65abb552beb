"""Train a method on one fold with classes held out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from fewshot_seg.building import build
from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.folds import Fold, make_folds
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.pseudo_cache import AUTO
from fewshot_seg.data.scan import Dataset
from fewshot_seg.data.settings import check_setting, class_ids
from fewshot_seg.errors import DataError, OptionError
from fewshot_seg.experiment.episodes import EpisodeSettings
from fewshot_seg.experiment.fit import fit
from fewshot_seg.experiment.notes import RunNotes
from fewshot_seg.recipe import Recipe
from fewshot_seg.training import TrainConfig


def train_fold(
    dataset: Dataset,
    recipe: Recipe,
    *,
    novel: str | int | Sequence[str | int],
    out: Path,
    fold: int = 0,
    setting: str | None = None,
    size: int | tuple[int, int] = 256,
    seed: int = 0,
    training: Mapping[str, Any] | None = None,
    augmentation: Augmentation | None = None,
    episodes: Mapping[str, Any] | None = None,
    n_folds: int = 5,
    n_support: int = 1,
    fold_rule: str = "alpnet",
    window: tuple[float, float] | None = None,
    cache: str | Path | None = AUTO,
    progress: bool = True,
    console: Console | None = None,
) -> Path:
    """Train `recipe` on a fold without the labels of the classes `novel`; its checkpoint.

    novel: names or ids; every other class of the data set is a base class. Methods that train
        without labels may hold out all classes at once.
    out: the run folder; one that holds this very run goes on where it stopped.
    setting: what training may see of the novel classes, see `kept_slices`; None is
        "leave_one_organ", or "setting1" for episodes without labels.
    size: height and width of the images.   seed: of weights, episodes and everything else.
    training: settings of `TrainConfig` that differ from the recipe's.
    augmentation: None is the field's, `Augmentation()`; `Augmentation.none()` is none.
    episodes: settings of `EpisodeSettings` that differ from the recipe's.
    cache: folder for prepared scans and pseudo-labels, with which the next run starts at once;
        "auto" for the user's cache folder, None for none. See `fewshot_seg.data.store`.
    n_folds, n_support, fold_rule: of the split, see `make_folds`.
    window: clip intensities to it first, in raw units (raw abdominal CT: (-125, 275)).

    The checkpoint's notes hold all that `evaluate_runs` and `segment_scans` need.
    Raises UnknownNameError, OptionError, DataError, CheckpointError or TrainingError; what is wrong
    with the request shows before any scan is read.
    """
    height, width = (size, size) if isinstance(size, int) else size
    split = choose_fold(dataset, fold, n_folds=n_folds, n_support=n_support, rule=fold_rule)
    held_out = class_ids(dataset.classes, [novel] if isinstance(novel, str | int) else novel)
    # kept in the recipe, as testing must give the method what training gave it
    recipe = replace(recipe, episodes={**recipe.episodes, **(episodes or {})})
    drawn = EpisodeSettings.from_dict(recipe.episodes)
    if setting is None:
        setting = "leave_one_organ" if drawn.reads_labels else "setting1"
    base = base_classes(dataset, held_out, setting, reads_labels=drawn.reads_labels)
    settings = {**recipe.training, **(training or {}), "seed": seed}
    config = TrainConfig.from_dict(settings)
    method = fresh_method(recipe, size=(height, width), seed=seed)

    def notes(intensity: Intensity, channels: int) -> dict[str, Any]:
        return RunNotes(
            dataset=dataset.name,
            modality=dataset.modality,
            classes=dict(dataset.classes),
            ids=tuple(dataset.ids),
            novel=held_out,
            base=base,
            fold=fold,
            n_folds=n_folds,
            n_support=n_support,
            fold_rule=fold_rule,
            setting=setting,
            size=(height, width),
            channels=channels,
            intensity=intensity,
            window=window,
            seed=seed,
            episodes=drawn.words,
        ).to_dict()

    return fit(
        dataset, split.train, method, config, drawn, notes, base=base, novel=held_out,
        setting=setting, size=(height, width), seed=seed, augmentation=augmentation, window=window,
        cache=cache, out=out, progress=progress, console=console,
    )  # fmt: skip


def fresh_method(recipe: Recipe, *, size: tuple[int, int], seed: int) -> nn.Module:
    """The method with the weights that `seed` gives it; torch's global generator is left alone.

    size: handed to the parts that must know the size of the feature grid.
    """
    if recipe.is_pipeline and "image_size" not in recipe.options:
        recipe = replace(recipe, options={**recipe.options, "image_size": list(size)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(recipe)


def run_name(fold: int, novel: Iterable[str | int]) -> str:
    """The name of a run's folder among others: `fold0_right_kidney`."""
    return f"fold{fold}_" + "+".join(str(one).replace(" ", "_") for one in novel)


def choose_fold(dataset: Dataset, index: int, *, n_folds: int, n_support: int, rule: str) -> Fold:
    """Fold number `index`. Raises OptionError when there is none of that number."""
    folds = make_folds(dataset.ids, n_folds=n_folds, n_support=n_support, rule=rule)
    if not 0 <= index < len(folds):
        raise OptionError(f"there are folds 0 to {len(folds) - 1}; got fold {index}")
    return folds[index]


def base_classes(
    dataset: Dataset, novel: tuple[int, ...], setting: str, *, reads_labels: bool = True
) -> tuple[int, ...]:
    """Every class but those held out, none for episodes that read no labels.

    Raises DataError when labels are read and no class is left.
    """
    check_setting(setting, novel)
    if not reads_labels:
        return ()
    base = tuple(value for value in dataset.classes if value not in novel)
    if not base:
        held = ", ".join(dataset.classes[value] for value in novel)
        raise DataError(
            f"{dataset.name} has no class left to train on when {held} is held out; "
            "it needs at least two classes"
        )
    return base
