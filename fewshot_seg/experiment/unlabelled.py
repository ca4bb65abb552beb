"""Train a method without labels on all scans there are."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.pseudo_cache import AUTO
from fewshot_seg.data.scan import Dataset
from fewshot_seg.errors import OptionError
from fewshot_seg.experiment.episodes import EpisodeSettings
from fewshot_seg.experiment.fit import fit
from fewshot_seg.experiment.train import fresh_method
from fewshot_seg.recipe import Recipe
from fewshot_seg.training import TrainConfig


def train_unlabelled(
    dataset: Dataset,
    recipe: Recipe,
    *,
    out: Path,
    ids: Sequence[str] | None = None,
    size: int | tuple[int, int] = 256,
    seed: int = 0,
    training: Mapping[str, Any] | None = None,
    augmentation: Augmentation | None = None,
    episodes: Mapping[str, Any] | None = None,
    window: tuple[float, float] | None = None,
    cache: str | Path | None = AUTO,
    progress: bool = True,
    console: Console | None = None,
) -> Path:
    """Train `recipe` on scans without any label, no fold and no class held out; its checkpoint.

    For somebody's own scans, which are all segmented afterwards: `segment_with_checkpoint` takes
    the checkpoint, `evaluate_runs` refuses it, as no scan was left out for a test.
    ids: scans to train on; all unless given.   Other arguments and errors as in `train_fold`.
    Raises OptionError for a recipe whose episodes come from labels.
    """
    height, width = (size, size) if isinstance(size, int) else size
    recipe = replace(recipe, episodes={**recipe.episodes, **(episodes or {})})
    drawn = EpisodeSettings.from_dict(recipe.episodes)
    if drawn.reads_labels:
        raise OptionError(
            f"'{recipe.method}' is trained on labels, and there are none; choose another method, "
            "as alpnet or adnet, or set episodes.source to superpixel or supervoxel"
        )
    settings = {**recipe.training, **(training or {}), "seed": seed}
    config = TrainConfig.from_dict(settings)
    method = fresh_method(recipe, size=(height, width), seed=seed)
    chosen = tuple(dataset.ids if ids is None else ids)

    def notes(intensity: Intensity, channels: int) -> dict[str, Any]:
        return {
            "dataset": dataset.name,
            "modality": dataset.modality,
            "ids": list(chosen),
            "size": [height, width],
            "channels": channels,
            "intensity": intensity.to_dict(),
            "window": window,
            "seed": seed,
            "episodes": drawn.words,
        }

    return fit(
        dataset, chosen, method, config, drawn, notes, base=(), novel=(), setting="setting1",
        size=(height, width), seed=seed, augmentation=augmentation, window=window, cache=cache,
        out=out, progress=progress, console=console,
    )  # fmt: skip
