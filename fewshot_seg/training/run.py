"""The folder of a run: what was asked for, where it ran, what came out, and how to go on.

recipe.toml         the method              run.toml        settings, notes, source, sessions
log.jsonl, tb/      numbers over steps      checkpoints/    the last two, each a folder
final.safetensors   the trained method, when finished
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w

from fewshot_seg.checkpoint import HasToml, plain
from fewshot_seg.errors import CheckpointError
from fewshot_seg.parsing import parse_toml
from fewshot_seg.tensorfile import replacing
from fewshot_seg.training.config import TrainConfig
from fewshot_seg.training.snapshots import Snapshot, clear_drafts, newest_snapshot

HARMLESS = frozenset({"training.workers", "training.log_every", "training.checkpoint_every"})
"""Settings that may change when a run goes on: they do not touch its weights."""


@dataclass(frozen=True)
class Request:
    """What a run is to do: a run folder belongs to one request.

    source: what the episode source says of itself.
    """

    recipe: HasToml | None
    config: TrainConfig
    notes: Mapping[str, Any]
    source: Mapping[str, Any]

    def tables(self) -> dict[str, dict[str, Any]]:
        return {
            "training": self.config.to_dict(),
            "notes": plain(self.notes),
            "source": plain(self.source, "source"),
        }


class RunFolder:
    """A run folder at `path`, which is made when it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    @property
    def final(self) -> Path:
        return self.path / "final.safetensors"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    def claim(self, request: Request) -> None:
        """Write the request down, or compare it with the one that stands there.

        Raises CheckpointError naming what differs.
        """
        run = self.path / "run.toml"
        if not run.exists():
            if request.recipe is not None:
                _write(self.path / "recipe.toml", request.recipe.to_toml())
            _write(run, tomli_w.dumps(request.tables()))
            return
        differences = self._differences(request)
        if differences:
            raise CheckpointError(
                f"{self.path} holds another run; differing: {'; '.join(differences)}. "
                "Choose another folder, or ask for what that run asked for"
            )

    def newest(self) -> tuple[Snapshot | None, list[str]]:
        """The checkpoint to go on from, and complaints about damaged newer ones."""
        clear_drafts(self.checkpoints)
        for draft in self.path.glob(".*.tmp"):  # of a process that was killed
            draft.unlink()
        return newest_snapshot(self.checkpoints)

    def add_session(self, session: Mapping[str, Any]) -> None:
        """Note in run.toml when, where and with what the run was started or went on."""
        table = _read(self.path / "run.toml")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        table.setdefault("sessions", []).append({"started": now, **plain(session, "session")})
        _write(self.path / "run.toml", tomli_w.dumps(table))

    def _differences(self, request: Request) -> list[str]:
        there, asked = _read(self.path / "run.toml"), request.tables()
        before = {name: there.get(name, {}) for name in asked}
        recipe = self.path / "recipe.toml"
        before["recipe"] = _read(recipe) if recipe.exists() else {}
        toml = "" if request.recipe is None else request.recipe.to_toml()
        after = {**asked, "recipe": parse_toml(toml)}
        old, new = _flat(before), _flat(after)
        return [
            f"{key} was {old.get(key, 'absent')!r}, is {new.get(key, 'absent')!r}"
            for key in sorted(old.keys() | new.keys())
            if key not in HARMLESS and old.get(key) != new.get(key)
        ]


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
