"""The checkpoints of a run: folders that appear whole, of which the last two are kept."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w
from torch import Tensor, nn

from fewshot_seg.checkpoint import HasToml, read_header, save_method
from fewshot_seg.errors import CheckpointError
from fewshot_seg.parsing import parse_toml
from fewshot_seg.tensorfile import flush, load_tensors, save_tensors
from fewshot_seg.typed import make

KEPT = 2
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.toml"


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint on disk.

    step: finished steps.   seconds: of training so far.   scaler: state of the 16-bit loss scaler.
    """

    path: Path
    step: int
    seconds: float
    scaler: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        """The weights, as `load_method` reads them."""
        return self.path / MODEL

    def optimizer(self) -> dict[str, Tensor]:
        return load_tensors(self.path / OPTIMIZER)


def write_snapshot(
    folder: Path,
    method: nn.Module,
    optimizer: Mapping[str, Tensor],
    *,
    step: int,
    seconds: float,
    recipe: HasToml | None,
    notes: Mapping[str, Any],
    scaler: Mapping[str, Any],
) -> None:
    """Write a checkpoint into `folder` and remove all but the newest two.

    A kill at any moment leaves the earlier checkpoints whole, and at most a draft to clear away.
    """
    target = folder / f"step_{step:08d}"
    draft = folder / f"draft_{step:08d}"
    clear_drafts(folder)
    draft.mkdir(parents=True)
    save_method(method, draft / MODEL, recipe=recipe, notes=notes)
    checksum = save_tensors(optimizer, draft / OPTIMIZER, {})
    state = {
        "step": step,
        "seconds": seconds,
        "model": read_header(draft / MODEL).checksum,
        "optimizer": checksum,
        "scaler": dict(scaler),
    }
    (draft / STATE).write_text(tomli_w.dumps(state), encoding="utf-8")
    flush(draft / STATE)
    flush(draft)
    if target.exists():  # a damaged one that was passed over when resuming
        shutil.rmtree(target)
    draft.rename(target)
    flush(folder)
    for old in _folders(folder)[:-KEPT]:
        shutil.rmtree(old)


def newest_snapshot(folder: Path) -> tuple[Snapshot | None, list[str]]:
    """The newest whole checkpoint in `folder`, and what is wrong with newer ones."""
    complaints: list[str] = []
    for path in reversed(_folders(folder)):
        try:
            return _read(path), complaints
        except CheckpointError as error:
            complaints.append(f"the checkpoint {path} is passed over: {error}")
    return None, complaints


def clear_drafts(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for draft in folder.glob("draft_*"):
        shutil.rmtree(draft)


def _folders(folder: Path) -> list[Path]:
    """Oldest first."""
    found = {path: path.name.removeprefix("step_") for path in folder.glob("step_*")}
    return sorted((path for path, step in found.items() if step.isdecimal()), key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def _read(path: Path) -> Snapshot:
    """Read and check all three files. Raises CheckpointError."""
    try:
        state = parse_toml((path / STATE).read_text(encoding="utf-8"))
        told = {name: state[name] for name in ("step", "seconds", "scaler")}
        snapshot = make(Snapshot, {"path": path, **told})
        checksums = {MODEL: state["model"], OPTIMIZER: state["optimizer"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path / STATE} cannot be read: {error}") from error
    for name, checksum in checksums.items():
        load_tensors(path / name)
        if read_header(path / name).checksum != checksum:
            raise CheckpointError(f"{path / name} is of another checkpoint")
    return snapshot
