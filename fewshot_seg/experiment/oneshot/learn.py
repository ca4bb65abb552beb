"""Training without labels, with settings that suit one's own scans, once for a folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from fewshot_seg.data.folder import Folder
from fewshot_seg.data.scan import Scan
from fewshot_seg.experiment.notes import FINAL
from fewshot_seg.experiment.oneshot.choose import Chosen
from fewshot_seg.experiment.oneshot.plan import Plan, settle
from fewshot_seg.experiment.sources import resolve_recipe
from fewshot_seg.experiment.unlabelled import train_unlabelled
from fewshot_seg.inference.files import read

METHOD, METHOD_2D = "adnet", "alpnet"
"""Supervoxels need neighbouring slices, which pictures do not have."""

STEPS = 600
SIZES = (64, 128)
"""The smallest and the largest image size that is chosen without being asked for."""

CHANGES: Mapping[str, Any] = {
    "encoder": "resnet18",
    "training.optimizer": "adamw",
    "training.lr": 1e-3,
    "training.weight_decay": 0.01,
    "training.schedule": "one_cycle",
    "training.clip_norm": 5.0,
    "training.episodes_per_step": 2,
    "training.precision": "auto",
    "training.channels_last": True,
    "training.checkpoint_every": 100,
}
"""A published recipe made small enough for minutes on a laptop: benchmarks/results has the same."""


@dataclass(frozen=True, eq=False)
class _Unlabelled:
    """The scans of a folder as a dataset whose label files are not even opened."""

    folder: Folder
    classes: Mapping[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def modality(self) -> str:
        return self.folder.modality

    @property
    def ids(self) -> tuple[str, ...]:
        return self.folder.ids

    def load(self, scan_id: str) -> Scan:
        return replace(read(self.folder.files[scan_id].image), id=scan_id)

    def reads(self, scan_id: str) -> tuple[list[Path], dict[str, Any]]:
        """So that prepared scans are kept on disk, see `fewshot_seg.data.identity`."""
        return [self.folder.files[scan_id].image], {}


def learn(
    chosen: Chosen,
    out: Path,
    method: str | None,
    changes: Mapping[str, Any],
    steps: int,
    size: int | None,
    seed: int,
    window: tuple[float, float] | None,
    progress: bool,
    console: Console,
) -> tuple[Plan, Path]:
    name = method or (METHOD_2D if chosen.pictures else METHOD)
    recipe = resolve_recipe(name, {**CHANGES, "training.steps": steps, **changes})
    plan = Plan(
        scans=str(chosen.dataset.root.resolve()),
        recipe=recipe.to_toml(),
        size=_size(chosen) if size is None else size,
        steps=int(recipe.training["steps"]),
        seed=seed,
        modality=chosen.dataset.modality,
        window=window,
        train=tuple(key for key in chosen.dataset.ids if _is_scan(chosen, key)),
    )
    plan = settle(plan, out)
    checkpoint = out / "run" / FINAL
    if checkpoint.is_file():
        console.print(Text(f"trained already: {checkpoint}"), soft_wrap=True)
        return plan, checkpoint
    console.print(
        Text(
            f"training {name} without labels on {len(plan.train)} scans: {plan.steps} steps at "
            f"{plan.size}x{plan.size}; stop it whenever you like, the same command goes on",
            style="bold",
        ),
        soft_wrap=True,
    )
    made = train_unlabelled(
        _Unlabelled(chosen.dataset),
        recipe,
        out=out / "run",
        ids=plan.train,
        size=plan.size,
        seed=seed,
        window=window,
        progress=progress,
        console=console,
    )
    return plan, made


def _is_scan(chosen: Chosen, scan_id: str) -> bool:
    """Whether a file of the folder is a scan, not one of the label files that were given."""
    image = chosen.dataset.files[scan_id].image.resolve()
    return all(image != one.labels.resolve() for one in chosen.examples)


def _size(chosen: Chosen) -> int:
    """The labelled scan's longer side, in steps of 32 pixels, within SIZES."""
    longest = max(chosen.examples[0].scan.image.shape[2:])
    return min(max(-(-longest // 32) * 32, SIZES[0]), SIZES[1])
