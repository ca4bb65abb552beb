"""Tables for programs: one header line, every digit, nothing under it."""

import csv
import io
import math

from fewshot_seg.ablation.report.tables.data import Cell, Number, PValue, TableData, Text, Tick

_PARTS = ("sd", "low", "high")


def to_csv(table: TableData) -> str:
    """Columns by key; a number's spread and interval stand in `KEY_sd`, `KEY_low`, `KEY_high`.

    What is not known is empty. The table's origin stands in every line.
    """
    parts = {column.key: _parts(table.column(column.key)) for column in table.columns}
    names = [name for key, extra in parts.items() for name in (key, *(f"{key}_{x}" for x in extra))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, *table.origin])
    for row in table.rows:
        values = [one for cell, extra in zip(row, parts.values()) for one in _values(cell, extra)]
        writer.writerow([*values, *table.origin.values()])
    return out.getvalue()


def _parts(cells: tuple[Cell, ...]) -> tuple[str, ...]:
    """Which of spread and interval any cell of a column has."""
    numbers = [cell for cell in cells if isinstance(cell, Number)]
    return tuple(
        part for part in _PARTS if any(not math.isnan(getattr(one, part)) for one in numbers)
    )


def _values(cell: Cell, extra: tuple[str, ...]) -> list[str]:
    match cell:
        case Text():
            return [cell.words, *("" for _ in extra)]
        case Tick():
            return [str(int(cell.on)), *("" for _ in extra)]
        case PValue():
            return [_plain(cell.value), *("" for _ in extra)]
        case Number():
            return [_plain(cell.value), *(_plain(getattr(cell, part)) for part in extra)]


def _plain(value: float) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
