"""What a page is made of, as plain data for its templates."""

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from fewshot_seg.ablation.report.figures.picture import Picture
from fewshot_seg.ablation.report.tables.data import Cell, Number, TableData, shown, sort_value

MOST_ROWS = 300
"""Rows of a table that the page shows; the files beside it have them all."""
FILTER_FROM = 6
"""Rows from which on a table gets a field to filter it."""
SHORT = 28
"""Letters up to which words in a table stay on one line."""
MOST_SVG = 150_000
"""Bytes of a drawing above which it is shown as pixels."""

WEBP_QUALITY = 80


@dataclass(frozen=True)
class HtmlCell:
    """A cell as the page shows it.

    main, aside: what stands large and small.   value: what it is sorted by, "" when not known,
    None to sort by its words.
    """

    main: str
    aside: str = ""
    value: str | None = None
    best: bool = False

    @property
    def short(self) -> bool:
        """Whether it stays on one line."""
        return len(self.main) <= SHORT


@dataclass(frozen=True, kw_only=True)
class TableBlock:
    """A table, cut to MOST_ROWS.

    name: of its files beside the page.   heading: shown above it, empty for none.
    words: lines under it.   rules: the protocol, folded away.
    """

    kind: str = field(default="table", init=False)
    name: str
    title: str
    heading: str
    columns: tuple[Any, ...]
    rows: tuple[tuple[HtmlCell, ...], ...]
    words: tuple[str, ...]
    rules: str

    @property
    def named(self) -> bool:
        """Whether the first column says which row it is."""
        return not self.columns[0].numeric and all(row[0].value is None for row in self.rows)

    @property
    def filtered(self) -> bool:
        return len(self.rows) >= FILTER_FROM


@dataclass(frozen=True, kw_only=True)
class PictureBlock:
    """A figure as a data address; `rules`: the protocol, folded away."""

    kind: str = field(default="picture", init=False)
    source: str
    alt: str
    words: str
    rules: str


@dataclass(frozen=True, kw_only=True)
class SlicesBlock:
    """A viewer of slices.   data: what its script reads.   words: what is shown, what is not."""

    kind: str = field(default="slices", init=False)
    data: Mapping[str, Any]
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ErrorsBlock:
    """Failures, one entry for cells that failed alike: (error, cells in words, traceback)."""

    kind: str = field(default="errors", init=False)
    entries: tuple[tuple[str, str, str], ...]
    words: str


Block = TableBlock | PictureBlock | SlicesBlock | ErrorsBlock


@dataclass(frozen=True)
class Section:
    """A card of the page; it is left out when it has nothing to show."""

    id: str
    title: str
    words: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """Sections that belong together.   words: under the title, the protocol for results."""

    id: str
    title: str
    sections: tuple[Section, ...]
    words: str = ""
    warnings: tuple[str, ...] = ()


def table_block(table: TableData, *, rules: str = "", heading: str = "") -> TableBlock:
    """A table for the page.   rules: the end of its note that is folded away."""
    words = list(filter(None, table.note.removesuffix(rules).splitlines()))
    rows = table.rows[:MOST_ROWS]
    if len(rows) < len(table.rows):
        words.insert(
            0,
            f"The first {len(rows)} of {len(table.rows)} rows are shown; "
            f"tables/{table.name}.csv beside this page has them all.",
        )
    return TableBlock(
        name=table.name,
        title=table.title,
        heading=heading,
        columns=table.columns,
        rows=tuple(tuple(map(html_cell, row)) for row in rows),
        words=tuple(words),
        rules=rules,
    )


def html_cell(cell: Cell) -> HtmlCell:
    """Numbers stand apart from their spread and interval, so that a column can be read down."""
    if isinstance(cell, Number):
        spread = f"± {cell.spread_words}" if cell.spread_words else ""
        aside = " ".join(filter(None, (spread, cell.interval_words)))
        return HtmlCell(cell.value_words, aside, _plain(cell.value), cell.best)
    value = sort_value(cell)
    return HtmlCell(shown(cell), value=_plain(value) if isinstance(value, float) else None)


def picture_block(picture: Picture, *, rules: str = "") -> PictureBlock:
    """A figure for the page: vectors, or pixels where vectors would be many or scans are shown."""
    photograph = any(axes.images for axes in picture.figure.axes)
    svg = b"" if photograph else picture.svg()
    if photograph or len(svg) > MOST_SVG:
        source = data_address("image/webp", _webp(picture.png()))
    else:
        source = data_address("image/svg+xml", svg)
    return PictureBlock(
        source=source,
        alt=picture.alt,
        words=picture.caption.removesuffix(rules).strip(),
        rules=rules,
    )


def _webp(png: bytes) -> bytes:
    """A tenth of the size, for scans, whose noise PNG keeps to the last bit."""
    content = io.BytesIO()
    Image.open(io.BytesIO(png)).save(content, "webp", quality=WEBP_QUALITY)
    return content.getvalue()


def data_address(kind: str, content: bytes) -> str:
    """`data:image/png;base64,...`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _plain(value: float) -> str:
    return "" if math.isnan(value) else repr(value)
