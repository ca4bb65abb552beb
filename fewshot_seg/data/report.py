"""What a check found: as data, and drawn for a terminal."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class ScanRow:
    """What one scan holds; of a scan that does not load, only `id` and `error`.

    shape: (slice, height, width).   spacing: millimetres along these.   axes: axis codes in stored
    order.   low, high: intensity range.   slices, voxels: counts by class id, None if unlabelled.
    digest: equal for equal images.
    """

    id: str
    error: str | None = None
    shape: tuple[int, int, int] | None = None
    channels: int | None = None
    spacing: tuple[float, float, float] | None = None
    axes: str | None = None
    slice_axis: int | None = None
    low: float | None = None
    high: float | None = None
    slices: Mapping[int, int] | None = None
    voxels: Mapping[int, int] | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Report:
    """The result of `check`.

    rows: one a scan, in the dataset's order.   problems: what must be put right before training.
    warnings: what is allowed but often a mistake.   classes: id -> name, as far as known.
    """

    name: str
    layout: str | None = None
    modality: str | None = None
    classes: Mapping[int, str] = field(default_factory=dict)
    rows: tuple[ScanRow, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is no problem; warnings do not count."""
        return not self.problems

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Ids of the scans that load but have no labels."""
        return tuple(row.id for row in self.rows if row.error is None and row.slices is None)

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
        seen = (dict.fromkeys(row.slices, 1) if row.slices else None for row in self.rows)
        return _total(self.classes, seen)

    def table(self) -> RenderableType:
        """The report for a terminal."""
        return _render(self)


def _render(report: Report) -> RenderableType:
    """What was found, one table of scans and one of classes, then warnings, problems, verdict."""
    parts: list[RenderableType] = [Text(_heading(report), style="bold")]
    if report.rows:
        parts.append(_scans(report))
    if report.classes:
        parts.append(_classes(report))
    if report.unlabelled:
        parts.append(Text(f"Without labels: {', '.join(report.unlabelled)}"))
    parts += [Text(f"warning: {text}", style="yellow") for text in report.warnings]
    parts += [Text(f"problem: {text}", style="red") for text in report.problems]
    parts.append(Text(_verdict(report), style="green" if report.ok else "bold red"))
    return Group(*parts)


def _heading(report: Report) -> str:
    facts = [report.layout and f"layout {report.layout}", report.modality]
    return ", ".join([report.name, *filter(None, facts), f"{len(report.rows)} scans"])


def _verdict(report: Report) -> str:
    if report.ok:
        return "No problems."
    return "1 problem." if len(report.problems) == 1 else f"{len(report.problems)} problems."


def _scans(report: Report) -> Table:
    table = Table("id", "slice x height x width", "mm", "axes", "intensities", "voxels by class")
    for row in report.rows:
        # As Text, because rich would read [brackets] in a file name as markup.
        table.add_row(*(Text(cell) for cell in _cells(row)))
    return table


def _cells(row: ScanRow) -> list[str]:
    if row.error is not None or row.shape is None:
        return [row.id, "does not load", "", "", "", ""]
    voxels = "none" if row.voxels == {} else "unlabelled"
    if row.voxels:
        voxels = ", ".join(f"{value}: {count}" for value, count in row.voxels.items())
    return [
        row.id,
        " x ".join(map(str, row.shape)) + (f" ({row.channels} channels)" * (row.channels != 1)),
        "" if row.spacing is None else " x ".join(f"{size:.4g}" for size in row.spacing),
        row.axes or "",
        f"{row.low:.5g} to {row.high:.5g}",
        voxels,
    ]


def _classes(report: Report) -> Table:
    table = Table("class", "name", "scans", "slices", "voxels")
    slices, voxels, scans = report.class_slices, report.class_voxels, report.class_scans
    for value in slices:
        name = Text(report.classes.get(value, "(no name)"))
        counts = (scans[value], slices[value], voxels[value])
        table.add_row(str(value), name, *map(str, counts))
    return table


def _total(classes: Mapping[int, str], parts: Iterable[Mapping[int, int] | None]) -> dict[int, int]:
    total = dict.fromkeys(classes, 0)
    for part in parts:
        for value, count in (part or {}).items():
            total[value] = total.get(value, 0) + count
    return dict(sorted(total.items()))
