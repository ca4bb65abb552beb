"""A report drawn for a terminal: the scans, the classes, what they serve for, and the verdict."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fewshot_seg.data.facts import ScanRow
from fewshot_seg.data.placement import better_placement, given_score
from fewshot_seg.data.report import Report
from fewshot_seg.data.serves import FEWEST, HeldOut
from fewshot_seg.data.words import listed

MOST_ROWS = 40
"""Scans that are listed one by one; those with an error always are."""
MOST_COLUMNS = 6
"""Classes that have a column each; more are only counted."""
MOST_HELD_OUT = 12


def render(report: Report) -> RenderableType:
    """Tables, then warnings, problems and the verdict."""
    parts: list[RenderableType] = [Text(_heading(report), style="bold")]
    if report.rows:
        parts += _scans(report)
    if report.classes:
        parts.append(_classes(report))
    if report.unlabelled and not report.one_scan:
        parts.append(Text(f"Without labels: {listed(report.unlabelled)}"))
    if not report.one_scan:
        parts += _serves(report)
    parts += [Text(f"warning: {text}", style="yellow") for text in report.warnings]
    parts += [Text(f"problem: {text}", style="red") for text in report.problems]
    parts.append(Text(_verdict(report), style="green" if report.ok else "bold red"))
    return Group(*parts)


def _heading(report: Report) -> str:
    count = len(report.rows)
    facts = [
        report.title and f"the published set {report.title}",
        report.layout and f"layout {report.layout}",
        report.modality,
        f"{count} scan{'s' * (count != 1)}",
    ]
    return ", ".join([report.name, *filter(None, facts)])


def _verdict(report: Report) -> str:
    if not report.problems:
        count = len(report.warnings)
        told = f" {count} warning{'s' * (count != 1)}: read them once." if count else ""
        return f"No problems.{told}"
    return "1 problem." if len(report.problems) == 1 else f"{len(report.problems)} problems."


def _scans(report: Report) -> list[RenderableType]:
    shown = _worth_showing(report.rows)
    narrow = 0 < len(report.classes) <= MOST_COLUMNS
    columns = list(report.classes) if narrow else []
    placed = any(row.spacing for row in report.rows)
    table = Table("scan", "slices x height x width", *(("mm", "axes") if placed else ()))
    table.add_column("intensities")
    # As Text, because rich would read [brackets] in a name as markup.
    for value in columns:
        table.add_column(Text(report.classes[value]), justify="right")
    if not narrow:
        table.add_column("classes", justify="right")
    table.add_column("edges", justify="right")
    for row in shown:
        table.add_row(*(Text(cell) for cell in _cells(row, columns, placed)))
    notes = "Under each class: slices that show it" if narrow else "Classes: how many it shows"
    notes += " (* with holes). Edges: how well labels follow the image; 1 is chance."
    left = len(report.rows) - len(shown)
    if left:
        notes = f"{left} further scans are not listed here, but with --json. {notes}"
    return [table, Text(notes, style="dim")]


def _worth_showing(rows: Sequence[ScanRow]) -> list[ScanRow]:
    kept = {row.id for row in rows[:MOST_ROWS]}
    return [row for row in rows if row.id in kept or row.error is not None]


def _cells(row: ScanRow, columns: Sequence[int], placed: bool) -> list[str]:
    if row.error is not None or row.shape is None:
        return [row.id, "does not load"]
    sizes = " x ".join(map(str, row.shape))
    spacing = "" if row.spacing is None else " x ".join(f"{size:.4g}" for size in row.spacing)
    return [
        row.id,
        sizes + (f" ({row.channels} channels)" * (row.channels != 1)),
        *((spacing, row.axes or "") if placed else ()),
        f"{row.low:.4g} to {row.high:.4g}",
        *([_count(row, value) for value in columns] or [_number(row)]),
        _edges(row),
    ]


def _count(row: ScanRow, value: int) -> str:
    if row.slices is None:
        return "?"
    count = row.slices.get(value, 0)
    return f"{count or '-'}{'*' * (value in row.gaps)}"


def _number(row: ScanRow) -> str:
    return "?" if row.slices is None else f"{len(row.slices) or '-'}{'*' * bool(row.gaps)}"


def _edges(row: ScanRow) -> str:
    score = given_score(row)
    if score is None:
        return ""
    return f"{score:.1f}" if better_placement(row) is None else f"{score:.1f} wrong way"


def _classes(report: Report) -> Table:
    table = Table("id", "class", "scans", "slices", "voxels")
    slices, voxels, scans = report.class_slices, report.class_voxels, report.class_scans
    for value in slices:
        name = Text(report.classes.get(value, "(no name)"))
        counts = (scans[value], slices[value], voxels[value])
        table.add_row(str(value), name, *map(str, counts))
    return table


def _serves(report: Report) -> list[RenderableType]:
    found = report.serves
    if not found.pseudo:
        return []
    parts: list[RenderableType] = [Text(_folds(report))]
    if found.held_out:
        parts.append(_settings(report))
    parts += [Text(text, style="yellow") for text in _untestable(report)]
    pseudo = "superpixels, and supervoxels of neighbouring slices"
    if "supervoxel" not in found.pseudo:
        pseudo = "superpixels only, as every scan is a single slice"
    return [*parts, Text(f"Training without labels: {pseudo}.")]


def _folds(report: Report) -> str:
    folds = report.serves.folds
    if not folds:
        return f"Too few scans for cross-validation, which takes {FEWEST}."
    train, query = ([len(getattr(fold, part)) for fold in folds] for part in ("train", "query"))
    return (
        f"{len(folds)} folds: {_span(train)} scans to train on, 1 as the labelled example, "
        f"{_span(query)} to test. Fold 0 tests {listed(folds[0].query)} by the example of "
        f"{folds[0].support[0]}."
    )


def _settings(report: Report) -> RenderableType:
    found = report.serves
    table = Table("held out", "leave_one_organ, setting1", "setting2_any", "setting2_all")
    for entry in found.held_out[:MOST_HELD_OUT]:
        table.add_row(
            Text(_names(report, entry)),
            _left(found.train_slices),
            _left(entry.slices["setting2_any"]),
            _left(entry.slices["setting2_all"]),
        )
    left = len(found.held_out) - MOST_HELD_OUT
    note = "Training slices left in fold 0 (in the others: fewest to most)."
    if any(0 in counts for entry in found.held_out for counts in entry.slices.values()):
        note += " Where none is left, nothing can be trained."
    note += f" {left} further classes stand in --json." if left > 0 else ""
    return Group(table, Text(note, style="dim"))


def _untestable(report: Report) -> list[str]:
    return [
        f"{_names(report, entry)} cannot be tested in fold {listed(entry.untestable)}: "
        "the labelled example does not show all of it"
        for entry in report.serves.held_out
        if entry.untestable
    ]


def _names(report: Report, entry: HeldOut) -> str:
    return ", ".join(report.classes.get(value, f"class {value}") for value in entry.classes)


def _left(counts: Sequence[int]) -> str:
    first, *others = counts
    return str(first) if set(others) <= {first} else f"{first} ({_span(others)})"


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}-{high}"
