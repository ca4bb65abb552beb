"""The settings of a run, kept beside it: the same command goes on, another is refused."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.errors import CheckpointError
from fewshot_seg.parsing import parse_json

FILE_NAME = "oneshot.json"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What decides the trained method.

    scans: the folder.   recipe: the method with all changes, as TOML.   train: ids of the scans.
    Labels are no part of it: training reads none, so other labels make use of the same training.
    """

    scans: str
    recipe: str
    size: int
    steps: int
    seed: int
    modality: str
    window: tuple[float, float] | None
    train: tuple[str, ...]
    version: int = VERSION

    @property
    def words(self) -> str:
        """What was trained and how, in a line."""
        method = tomllib.loads(self.recipe)["method"]
        return (
            f"{method} on {len(self.train)} scans without labels, {self.steps} steps at "
            f"{self.size}x{self.size} pixels, seed {self.seed}"
        )


def settle(plan: Plan, folder: Path) -> Plan:
    """The plan of a folder: the one that stands there, if it is the same, else the given one.

    `train` may differ: scans that came later are segmented, but training stays what it was.
    Raises CheckpointError when the folder holds another run, DataError when it cannot be written.
    """
    path = folder / FILE_NAME
    if not path.exists():
        write_bytes(path, (json.dumps(asdict(plan), indent=1) + "\n").encode())
        return plan
    kept = _read(path)
    differ = [
        name
        for name, value in asdict(plan).items()
        if name != "train"
        and kept.get(name) != (list(value) if name == "window" and value else value)
    ]
    if differ:
        told = ", ".join(_difference(name, kept.get(name), getattr(plan, name)) for name in differ)
        raise CheckpointError(
            f"{folder} holds a run of other settings: {told}. Give the same, or another folder"
        )
    return Plan(**{**asdict(plan), "train": tuple(kept["train"])})


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; remove its folder") from error
    train = content.get("train") if isinstance(content, dict) else None
    if not isinstance(train, list) or not all(isinstance(one, str) for one in train):
        raise CheckpointError(f"{path} was not written by this command; choose another folder")
    assert isinstance(content, dict)
    return content


def _difference(name: str, before: object, now: object) -> str:
    if name == "recipe":
        return "method or its changes (--method, --set)"
    return f"{name} {before} there, {now} now"
