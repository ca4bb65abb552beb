"""Prepared scans, their episodes, and training on them: what every way to train has in common."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.intensity import Intensity, fit_intensity
from fewshot_seg.data.prepare import Preparation, prepare_all
from fewshot_seg.data.scan import Dataset
from fewshot_seg.experiment.episodes import EpisodeSettings, make_source, on_device
from fewshot_seg.inference import channels_of
from fewshot_seg.needs import needs_of
from fewshot_seg.training import TrainConfig, train


def fit(
    dataset: Dataset,
    ids: Sequence[str],
    method: nn.Module,
    config: TrainConfig,
    drawn: EpisodeSettings,
    notes: Callable[[Intensity, int], Mapping[str, Any]],
    *,
    base: Sequence[int],
    novel: Sequence[int],
    setting: str,
    size: tuple[int, int],
    seed: int,
    augmentation: Augmentation | None,
    window: tuple[float, float] | None,
    cache: str | Path | None,
    out: Path,
    progress: bool,
    console: Console | None,
) -> Path:
    """Prepare the scans `ids` and train; `notes` are made of the intensities and channels."""
    shown = console or Console(stderr=True)
    intensity = fit_intensity(dataset, ids, window=window, cache=cache)
    channels = channels_of(method)
    prepared = prepare_all(
        dataset, ids, size=size, intensity=intensity, channels=channels, cache=cache
    )
    _tell_failures(prepared, shown)
    needs = needs_of(method)
    source = make_source(
        prepared.scans,
        drawn,
        base=base,
        novel=novel,
        setting=setting,
        needs=needs,
        seed=seed,
        augmentation=augmentation,
        distinct=_distinct(len(base), drawn.n_way, config.episodes_per_step),
        cache=cache,
    )
    train(
        method,
        source,
        config,
        out=out,
        notes=notes(intensity, channels),
        on_device=on_device(drawn, augmentation, needs),
        progress=progress,
        console=shown,
    )
    return out / "final.safetensors"


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
