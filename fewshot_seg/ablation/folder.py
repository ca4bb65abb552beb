"""A study on disk: what each file is called, and how far each cell has come.

grid.toml               the grid        plan.json    its cells
cells/<id>/             results.json, cost.json, failure.json, what the report draws
trainings/<hash>/       a run folder; cells that differ only at test share it
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from fewshot_seg.ablation.cell import FORMAT
from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.errors import DataError, OptionError
from fewshot_seg.parsing import parse_json

DONE, FAILED, DAMAGED, MISSING = STATES = ("done", "failed", "damaged", "missing")


class StudyFolder:
    """The folder of a study, at `root`."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    @property
    def grid(self) -> Path:
        return self.root / "grid.toml"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    def cell(self, cell_id: str) -> Path:
        return self.root / "cells" / cell_id

    def training(self, address: str) -> Path:
        return self.root / "trainings" / address

    def results(self, cell_id: str) -> Path:
        return self.cell(cell_id) / "results.json"

    def cost(self, cell_id: str) -> Path:
        return self.cell(cell_id) / "cost.json"

    def failure(self, cell_id: str) -> Path:
        return self.cell(cell_id) / "failure.json"

    def predictions(self, cell_id: str) -> Path:
        return self.cell(cell_id) / "predictions.safetensors"

    def features(self, cell_id: str) -> Path:
        return self.cell(cell_id) / "features.safetensors"

    @property
    def scans(self) -> Path:
        """Pictures of test scans, which all cells share."""
        return self.root / "scans"

    def lock(self, path: Path) -> FileLock:
        """Of a cell's or a training's folder; the system frees it when its holder dies."""
        path.mkdir(parents=True, exist_ok=True)
        return FileLock(path / "lock")

    def claim(self, plan: Mapping[str, Any], text: str) -> None:
        """Write the plan down, replacing an earlier one of the same grid.

        Raises OptionError when the folder belongs to another grid, or holds something else.
        """
        if self.plan.exists():
            before = self.read_plan()["name"]
            if before != plan["name"]:
                raise OptionError(
                    f"{self.root} holds the study '{before}', this grid is '{plan['name']}'; "
                    "choose another folder for --out"
                )
        elif self.root.exists() and any(not _is_draft(path) for path in self.root.iterdir()):
            raise OptionError(
                f"{self.root} holds files that are no study; choose an empty folder for --out"
            )
        write_json(self.plan, {"format": FORMAT, **plan})
        write_bytes(self.grid, text.encode())

    def read_plan(self) -> dict[str, Any]:
        """Raises DataError when the folder holds no study."""
        if not self.plan.exists():
            raise DataError(f"{self.root} holds no study: there is no {self.plan.name} in it")
        plan = read_json(self.plan)
        if plan.get("format") != FORMAT or not isinstance(plan.get("cells"), list):
            raise DataError(
                f"{self.plan} is not the plan of a study of this version; "
                "start `fewshot-seg ablate` again with the same grid to have it written anew"
            )
        return plan

    def state(self, cell_id: str) -> str:
        """How far a cell has come; "damaged" when its results were changed after it was done."""
        if self.results(cell_id).exists():
            return DONE if self._sealed(cell_id) else DAMAGED
        return FAILED if self.failure(cell_id).exists() else MISSING

    def finish(self, cell_id: str, results: bytes, cost: Mapping[str, Any]) -> None:
        """Keep a cell's results; its failure, if any, is forgotten."""
        # The seal first: results without one never look finished.
        write_json(self.cost(cell_id), {**cost, "sha256": hashlib.sha256(results).hexdigest()})
        write_bytes(self.results(cell_id), results)
        self.failure(cell_id).unlink(missing_ok=True)

    def fail(self, cell_id: str, error: str, traceback: str) -> None:
        """Keep why a cell failed."""
        attempts = 1
        if self.failure(cell_id).exists():
            attempts += int(read_json(self.failure(cell_id)).get("attempts", 0))
        date = datetime.now(UTC).isoformat(timespec="seconds")
        told = {"error": error, "traceback": traceback, "date": date, "attempts": attempts}
        write_json(self.failure(cell_id), told)

    def read_failure(self, cell_id: str) -> str:
        """Why a cell failed, in one line."""
        return str(read_json(self.failure(cell_id)).get("error", "unknown"))

    def clear(self, cell_id: str) -> None:
        """Forget damaged results, so that the cell is tested again."""
        self.results(cell_id).unlink(missing_ok=True)

    def _sealed(self, cell_id: str) -> bool:
        try:
            seal = read_json(self.cost(cell_id)).get("sha256")
        except DataError:
            return False
        return bool(seal == hashlib.sha256(self.results(cell_id).read_bytes()).hexdigest())


def _is_draft(path: Path) -> bool:
    """Whether a process that was killed, or works beside, has left the file half-written."""
    return path.name.startswith(".")


def write_json(path: Path, table: Mapping[str, Any]) -> None:
    """Whole or not at all. Raises DataError when it cannot be written."""
    write_bytes(path, (json.dumps(table, indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """A table. Raises DataError when the file does not hold one."""
    try:
        table = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(table, dict):
        raise DataError(f"{path} does not hold a table")
    return table
