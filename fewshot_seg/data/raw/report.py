"""What preparing a download came to: as data, and drawn for a terminal."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fewshot_seg.data.raw.record import Case

Status = Literal["prepared", "unchanged", "failed"]


class Outcome(NamedTuple):
    """What became of one scan.

    status: "unchanged" when an earlier run had prepared it from the same files.
    case: None when it failed.   error: why it failed, else None.
    """

    id: str
    status: Status
    case: Case | None
    error: str | None


@dataclass(frozen=True)
class RawReport:
    """The result of `prepare_raw`.

    name: of the benchmark.   folder: where the scans are.   classes: id -> name.
    outcomes: one a scan of the download, in its order.
    missing: ids that the benchmark has and neither download nor folder.
    """

    name: str
    folder: Path
    classes: Mapping[int, str]
    outcomes: tuple[Outcome, ...]
    missing: tuple[str, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(one for one in self.outcomes if one.status == "failed")

    @property
    def ok(self) -> bool:
        """Whether every scan of the download was prepared; missing ones do not count."""
        return not self.failed

    def table(self) -> RenderableType:
        """The report for a terminal."""
        parts: list[RenderableType] = [_scans(self), *_notes(self)]
        if self.missing:
            parts.append(Text(f"warning: missing {_listed(self.missing)}", style="yellow"))
        parts += [Text(f"scan {one.id}: {one.error}", style="red") for one in self.failed]
        good = len(self.outcomes) - len(self.failed)
        parts.append(Text(f"{good} of {len(self.outcomes)} scans in {self.folder}", style="bold"))
        return Group(*parts)


def _scans(report: RawReport) -> Table:
    table = Table("id", "", "width x height x slices", "classes")
    for one in report.outcomes:
        cells = [one.id, one.status]
        if one.case is not None:
            shown = sum(count > 0 for count in one.case.voxels.values())
            cells += [" x ".join(map(str, one.case.shape)), f"{shown} of {len(report.classes)}"]
        table.add_row(*map(Text, cells))
    return table


def _notes(report: RawReport) -> list[Text]:
    return [
        Text(f"scan {one.id}: {note}", style="yellow")
        for one in report.outcomes
        if one.case is not None
        for note in one.case.notes
    ]


def _listed(ids: tuple[str, ...]) -> str:
    return f"{len(ids)} scan{'s' * (len(ids) > 1)} of this benchmark: {', '.join(ids)}"
