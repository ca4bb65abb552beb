"""Where everything stands on a contact sheet."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from fewshot_seg.data.facts import ScanRow
from fewshot_seg.data.placement import better_placement
from fewshot_seg.data.report import Report
from fewshot_seg.pictures import FAINT, INK, PAPER

CELL = 176
"""Height and width in pixels of the frame that a slice is fitted into."""
SLICES = 5
"""Slices of a volume."""
PER_LINE = 8
"""Pictures side by side, of data sets whose scans are single slices."""
LINES = 60
"""Lines of a sheet at most; the first scans are on it."""
MARGIN, HEAD, FOOT, GAP = 150, 70, 26, 4
"""Pixels to the left of volumes, above and below all, between cells."""
NARROWEST = 760
NAME = 20
"""Pixels under a picture for its name."""
LEGEND_LINES = 2
WRONG = "#ff6b6b"


@dataclass(frozen=True, eq=False)
class Strip:
    """What is kept of a scan.   cells: slices as large as they are shown, with a note each.
    sides: lines about where the patient's sides lie."""

    cells: tuple[tuple[UInt8[np.ndarray, "rows cols 3"], str], ...]
    sides: tuple[str, ...]


def lay_out(
    report: Report, strips: Mapping[str, Strip], legend: Sequence[tuple[str, str]]
) -> bytes:
    """The sheet as a PNG: a line for each volume, or pictures side by side.

    strips: by scan id; a scan without one did not load.   legend: class and its colour.
    """
    single = all(len(strip.cells) == 1 for strip in strips.values())
    place = _pictures if single else _volumes
    rows = report.rows[: LINES * (PER_LINE if single else 1)]
    width, height = _size(len(rows), single)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, (8, 8), report.name, INK, 16)
    _classes(pen, legend, width)
    place(sheet, pen, rows, strips)
    left = len(report.rows) - len(rows)
    note = f"{left} further scans are not shown. " if left else ""
    if not single:
        note += "Slices as they are stored; letters: sides of the patient."
    _write(pen, (8, height - 20), note, FAINT, 11)
    content = io.BytesIO()
    sheet.save(content, format="PNG", compress_level=4)
    return content.getvalue()


def _size(count: int, single: bool) -> tuple[int, int]:
    if single:
        lines, step = -(-count // PER_LINE), CELL + NAME + GAP
        width = GAP + min(count, PER_LINE) * (CELL + GAP)
    else:
        lines, step = count, CELL + GAP
        width = MARGIN + SLICES * (CELL + GAP)
    return max(width, NARROWEST), HEAD + lines * step + FOOT


def _volumes(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    rows: Sequence[ScanRow],
    strips: Mapping[str, Strip],
) -> None:
    for number, row in enumerate(rows):
        top = HEAD + number * (CELL + GAP)
        strip = strips.get(row.id)
        _write(pen, (8, top + 6), _shortened(row.id, MARGIN - 16, 13), _colour(row), 13)
        for line, words in enumerate(("does not load",) if strip is None else strip.sides):
            _write(pen, (8, top + 28 + 16 * line), words, FAINT, 11)
        for place, (picture, note) in enumerate(() if strip is None else strip.cells):
            left = MARGIN + place * (CELL + GAP)
            _paste(sheet, picture, left, top)
            _write(pen, (left + 4, top + CELL - 16), note, INK, 10)


def _pictures(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    rows: Sequence[ScanRow],
    strips: Mapping[str, Strip],
) -> None:
    for number, row in enumerate(rows):
        line, place = divmod(number, PER_LINE)
        left, top = GAP + place * (CELL + GAP), HEAD + line * (CELL + NAME + GAP)
        name = row.id if row.id in strips else f"{row.id}: does not load"
        _write(pen, (left, top + CELL + 2), _shortened(name, CELL, 11), _colour(row), 11)
        for picture, _ in strips[row.id].cells if row.id in strips else ():
            _paste(sheet, picture, left, top)


def _classes(pen: ImageDraw.ImageDraw, legend: Sequence[tuple[str, str]], width: int) -> None:
    """Class names in their colours, as many as fit."""
    x, y = 8, 30
    for number, (name, colour) in enumerate(legend):
        words = _shortened(name, width - 60, 12)
        wide = 40 + int(_font(12).getlength(words))
        if x + wide > width:
            x, y = 8, y + 18
        last = y >= 30 + 18 * (LEGEND_LINES - 1) and number < len(legend) - 1
        if last and x + wide + 120 > width:
            _write(pen, (x, y), f"and {len(legend) - number} more", FAINT, 12)
            return
        pen.line([(x, y + 8), (x + 18, y + 8)], fill=colour, width=3)
        _write(pen, (x + 24, y), words, INK, 12)
        x += wide


def _paste(
    sheet: Image.Image, picture: UInt8[np.ndarray, "rows cols 3"], left: int, top: int
) -> None:
    height, width = picture.shape[:2]
    corner = (left + (CELL - width) // 2, top + (CELL - height) // 2)
    sheet.paste(Image.fromarray(picture), corner)


def _colour(row: ScanRow) -> str:
    return WRONG if row.error is not None or better_placement(row) is not None else INK


def _shortened(words: str, width: int, size: int) -> str:
    while _font(size).getlength(words) > width:
        words = f"{words.rstrip('…')[:-1]}…"
    return words


def _write(
    pen: ImageDraw.ImageDraw, corner: tuple[int, int], words: str, colour: str, size: int
) -> None:
    # The dark rim keeps words readable where they stand on a bright slice.
    pen.text(corner, words, colour, _font(size), stroke_width=2, stroke_fill=PAPER)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # The one that matplotlib brings along, so that sheets look the same everywhere.
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), size)
