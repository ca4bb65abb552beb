"""What became of each scan."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Written:
    """A scan that was segmented.

    labels: the file that was written.   voxels: class id -> how many of the scan's voxels.
    notes: what its owner should know.
    """

    scan: Path
    labels: Path
    voxels: Mapping[int, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failed:
    """A scan that was not segmented, and why."""

    scan: Path
    reason: str


@dataclass(frozen=True)
class SegmentationReport:
    """The outcome, in the order of the scans.

    classes: id -> name of what was looked for.   matching: how slices were paired.
    """

    classes: Mapping[int, str]
    matching: str
    written: tuple[Written, ...] = ()
    failures: tuple[Failed, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether every scan was segmented."""
        return not self.failures

    def table(self) -> RenderableType:
        """The report for a terminal."""
        parts: list[RenderableType] = []
        if self.written:
            # As Text, because rich would read [brackets] in a file name as markup.
            table = Table("scan", "labels", caption=Text(f"Matching {self.matching}."))
            for name in self.classes.values():
                table.add_column(Text(f"{name}, voxels"), justify="right")
            for one in self.written:
                counts = [str(one.voxels.get(value, 0)) for value in self.classes]
                table.add_row(Text(one.scan.name), Text(str(one.labels)), *counts)
            parts.append(table)
        for one in self.written:
            parts += [Text(f"{one.scan}: {note}", style="yellow") for note in one.notes]
        parts += [Text(f"failed: {one.scan}: {one.reason}", style="red") for one in self.failures]
        return Group(*parts)
