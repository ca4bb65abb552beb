"""A table as plain data; Markdown, LaTeX, CSV and HTML are all written from it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

UNKNOWN = "-"
"""Stands where there is nothing to say."""


@dataclass(frozen=True)
class Text:
    """Words."""

    words: str


@dataclass(frozen=True, kw_only=True)
class Number:
    """A measured value in its column's unit, not rounded; NaN when it is not known.

    sd: standard deviation.   low, high: an interval.   NaN without one.
    digits: decimals shown.   signed: shown with its sign.   best: the best of its column.
    """

    value: float
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan
    digits: int = 1
    signed: bool = False
    best: bool = False

    @property
    def known(self) -> bool:
        return not math.isnan(self.value)

    @property
    def value_words(self) -> str:
        """The value alone, rounded."""
        return self._round(self.value) if self.known else UNKNOWN

    @property
    def spread_words(self) -> str:
        """The standard deviation, rounded; empty without one."""
        return "" if math.isnan(self.sd) else f"{self.sd:.{self.digits}f}"

    @property
    def interval_words(self) -> str:
        """`[low, high]`, rounded; empty without an interval."""
        if math.isnan(self.low) or math.isnan(self.high):
            return ""
        return f"[{self._round(self.low)}, {self._round(self.high)}]"

    def _round(self, value: float) -> str:
        words = f"{value:{'+' if self.signed else ''}.{self.digits}f}"
        return words.lstrip("+-") if float(words) == 0 else words


@dataclass(frozen=True)
class PValue:
    """The p of a test; NaN when there is none, with `unknown` in its place."""

    value: float
    unknown: str = UNKNOWN

    @property
    def words(self) -> str:
        if math.isnan(self.value):
            return self.unknown
        return "<0.001" if self.value < 0.001 else f"{self.value:.3f}"


@dataclass(frozen=True)
class Tick:
    """Whether a module is in."""

    on: bool


Cell = Text | Number | PValue | Tick


def shown(cell: Cell) -> str:
    """A cell in plain words: `85.5 ± 1.2 [84.1, 86.7]`."""
    match cell:
        case Text():
            return cell.words or UNKNOWN
        case Number():
            spread = f"± {cell.spread_words}" if cell.spread_words else ""
            return " ".join(filter(None, [cell.value_words, spread, cell.interval_words]))
        case PValue():
            return cell.words
        case Tick():
            return "✓" if cell.on else ""


def sort_value(cell: Cell) -> float | str:
    """What a column is ordered by: numbers (NaN when not known), or words."""
    match cell:
        case Text():
            return cell.words.casefold()
        case Tick():
            return float(cell.on)
        case Number() | PValue():
            return cell.value


@dataclass(frozen=True)
class Column:
    """key: in a CSV file.   heading: for people.   numeric: set to the right, sorted by value."""

    key: str
    heading: str
    numeric: bool = True


@dataclass(frozen=True, kw_only=True)
class TableData:
    """A table.

    name: of its files, without an ending.   title: above it.
    note: lines under it, the protocol among them.
    origin: columns that a CSV file repeats in every line, so that tables can be joined.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str
    origin: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table '{self.name}': a row of {len(row)} cells under "
                    f"{len(self.columns)} headings"
                )

    def column(self, key: str) -> tuple[Cell, ...]:
        """The cells under one heading. Raises KeyError for a key the table does not have."""
        keys = [one.key for one in self.columns]
        if key not in keys:
            raise KeyError(f"table '{self.name}' has the columns {', '.join(keys)}; not '{key}'")
        return tuple(row[keys.index(key)] for row in self.rows)
