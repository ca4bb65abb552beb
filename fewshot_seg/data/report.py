"""What a check found, as data; `report_text.py` draws it for a terminal."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.data.facts import ScanRow
from fewshot_seg.data.serves import Serves

__all__ = ["Report", "ScanRow"]

FORMAT = 1
"""Rises when a program that reads the JSON of a report must be changed."""


@dataclass(frozen=True)
class Report:
    """The result of `check`.

    source: what was checked, as a command line names it.   title: of the published set it is.
    one_scan: a single scan was checked, so nothing is said of folds.
    rows: one a scan, in the dataset's order.   problems: what must be put right before training.
    warnings: what is allowed but often a mistake.   classes: id -> name, as far as known.
    serves: folds, settings and pseudo-labels that the set allows.   next_step: in words.
    """

    name: str
    source: str = ""
    title: str | None = None
    layout: str | None = None
    modality: str | None = None
    one_scan: bool = False
    classes: Mapping[int, str] = field(default_factory=dict)
    rows: tuple[ScanRow, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    serves: Serves = field(default_factory=Serves)
    next_step: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is no problem; warnings do not count."""
        return not self.problems

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Ids of the scans that load but have no labels."""
        return tuple(row.id for row in self.rows if row.error is None and row.shown is None)

    @property
    def class_slices(self) -> dict[int, int]:
        """In how many slices of all scans each class is seen, by id."""
        return _total(self.classes, (row.slices for row in self.rows))

    @property
    def class_voxels(self) -> dict[int, int]:
        """How many voxels of all scans each class has, by id."""
        return _total(self.classes, (row.voxels for row in self.rows))

    @property
    def class_scans(self) -> dict[int, int]:
        """In how many scans each class is seen, by id."""
        return _total(self.classes, (dict.fromkeys(row.shown or (), 1) for row in self.rows))

    def table(self) -> RenderableType:
        """The report for a terminal."""
        # Here, because what draws reports imports this module.
        from fewshot_seg.data.report_text import render

        return render(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, everything that was found."""
        return {"format": FORMAT, "ok": self.ok, **asdict(self)}

    def to_json(self, path: Path | str) -> None:
        """Write `to_dict`, whole or not at all. Raises DataError when that cannot be."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
        write_bytes(Path(path), f"{text}\n".encode())


def _total(classes: Mapping[int, str], parts: Iterable[Mapping[int, int] | None]) -> dict[int, int]:
    total = dict.fromkeys(classes, 0)
    for part in parts:
        for value, count in (part or {}).items():
            total[value] = total.get(value, 0) + count
    return dict(sorted(total.items()))
