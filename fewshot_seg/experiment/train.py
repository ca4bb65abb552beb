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
from fewshot_seg.data.episodes import EpisodeSource, SupervisedSource
from fewshot_seg.data.folds import Fold, make_folds
from fewshot_seg.data.intensity import fit_intensity
from fewshot_seg.data.prepare import Preparation, prepare_all
from fewshot_seg.data.scan import Dataset
from fewshot_seg.data.selfsupervised import MixedSource, SuperpixelSource
from fewshot_seg.data.settings import check_setting, class_ids
from fewshot_seg.errors import DataError, OptionError
from fewshot_seg.experiment.notes import RunNotes
from fewshot_seg.inference import channels_of
from fewshot_seg.recipe import Recipe
from fewshot_seg.training import TrainConfig, train


def train_fold(
    dataset: Dataset,
    recipe: Recipe,
    *,
    novel: str | int | Sequence[str | int],
    out: Path,
    fold: int = 0,
    setting: str = "leave_one_organ",
    size: int | tuple[int, int] = 256,
    seed: int = 0,
    training: Mapping[str, Any] | None = None,
    augmentation: Augmentation | None = None,
    pairing: str = "matched",
    same_scan: str = "forbid",
    n_way: int = 1,
    n_shot: int = 1,
    n_query: int = 1,
    min_pixels: int = 1,
    pseudo: float = 0.0,
    n_folds: int = 5,
    n_support: int = 1,
    fold_rule: str = "alpnet",
    window: tuple[float, float] | None = None,
    progress: bool = True,
    console: Console | None = None,
) -> Path:
    """Train `recipe` on a fold without the labels of the classes `novel`; its checkpoint.

    novel: names or ids; every other class of the data set is a base class.
    out: the run folder; one that holds this very run goes on where it stopped.
    setting: what training may see of the novel classes, see `kept_slices`.
    size: height and width of the images.   seed: of weights, episodes and everything else.
    training: settings of `TrainConfig` that differ from the recipe's.
    augmentation: None is the field's, `Augmentation()`; `Augmentation.none()` is none.
    pairing, same_scan, n_way, n_shot, n_query, min_pixels: of the episodes, see
        `SupervisedSource`.
    pseudo: share of episodes, from 0 to below 1, whose class is a superpixel instead of an
        annotated one (`SuperpixelSource`); they need no labels and are of one way.
    n_folds, n_support, fold_rule: of the split, see `make_folds`.
    window: clip intensities to it first, in raw units (raw abdominal CT: (-125, 275)).

    The checkpoint's notes hold all that `evaluate_runs` and `segment_scans` need.
    Raises UnknownNameError, OptionError, DataError, CheckpointError or TrainingError; what is wrong
    with the request shows before any scan is read.
    """
    height, width = (size, size) if isinstance(size, int) else size
    split = choose_fold(dataset, fold, n_folds=n_folds, n_support=n_support, rule=fold_rule)
    held_out = class_ids(dataset.classes, [novel] if isinstance(novel, str | int) else novel)
    base = base_classes(dataset, held_out, setting)
    _check_pseudo(pseudo, n_way)
    settings = {**recipe.training, **(training or {}), "seed": seed}
    config = TrainConfig.from_dict(settings)
    method = fresh_method(recipe, size=(height, width), seed=seed)
    intensity = fit_intensity(dataset, split.train, window=window)
    channels = channels_of(method)
    notes = RunNotes(
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
        pseudo=pseudo,
    )
    prepared = prepare_all(
        dataset, split.train, size=(height, width), intensity=intensity, channels=channels
    )
    shown = console or Console(stderr=True)
    _tell_failures(prepared, shown)
    chosen = Augmentation() if augmentation is None else augmentation
    supervised = SupervisedSource(
        prepared.scans,
        classes=base,
        n_way=n_way,
        n_shot=n_shot,
        n_query=n_query,
        seed=seed,
        augmentation=chosen,
        same_scan=same_scan,
        pairing=pairing,
        min_pixels=min_pixels,
        exclude=held_out,
        setting=setting,
        distinct=_distinct(len(base), n_way, config.episodes_per_step),
    )
    source: EpisodeSource = supervised
    if pseudo:
        superpixel = SuperpixelSource(
            prepared.scans,
            seed=seed,
            augmentation=chosen,
            min_pixels=min_pixels,
            n_shot=n_shot,
            n_query=n_query,
            exclude=held_out,
            setting=setting,
        )
        source = MixedSource([(supervised, 1 - pseudo), (superpixel, pseudo)], seed=seed)
    train(
        method,
        source,
        config,
        out=out,
        notes=notes.to_dict(),
        progress=progress,
        console=shown,
    )
    return out / "final.safetensors"


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


def base_classes(dataset: Dataset, novel: tuple[int, ...], setting: str) -> tuple[int, ...]:
    """Every class but those held out. Raises DataError when none is left."""
    check_setting(setting, novel)
    base = tuple(value for value in dataset.classes if value not in novel)
    if not base:
        held = ", ".join(dataset.classes[value] for value in novel)
        raise DataError(
            f"{dataset.name} has no class left to train on when {held} is held out; "
            "it needs at least two classes"
        )
    return base


def _check_pseudo(pseudo: float, n_way: int) -> None:
    if not 0 <= pseudo < 1:
        raise OptionError(f"pseudo is a share of episodes, from 0 to below 1; got {pseudo}")
    if pseudo and n_way > 1:
        raise OptionError(
            f"superpixel episodes have one way, so they cannot be mixed with {n_way} ways; "
            "leave pseudo or n_way out"
        )


def _distinct(n_base: int, n_way: int, episodes: int) -> int:
    """As many different classes side by side in a step as there are: the spatial contrastive loss
    draws its negatives from the step's other classes."""
    return max(1, min(episodes, n_base // n_way))


def _tell_failures(prepared: Preparation, console: Console) -> None:
    for failure in prepared.failures:
        console.print(
            f"left out of training: scan {failure.id}: {failure.message}",
            style="yellow",
            markup=False,
            highlight=False,
        )
