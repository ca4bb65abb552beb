"""A contact sheet: slices of every scan with the outlines of their labels, in one picture.

Slices are shown as they are stored, because so a network sees them; letters say which side of the
patient lies where.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8
from matplotlib.colors import to_rgb
from PIL import Image

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.data.findings import HOUNSFIELD
from fewshot_seg.data.orientation import axis_codes
from fewshot_seg.data.report import Report
from fewshot_seg.data.scan import Geometry, Scan
from fewshot_seg.data.sheet_layout import CELL, LINES, PER_LINE, SLICES, Strip, lay_out
from fewshot_seg.errors import OptionError

WINDOW = (-160.0, 240.0)
"""Hounsfield units from black to white."""
COLOURS = (
    *("#ff595e", "#8ac926", "#3a86ff", "#ffca3a", "#c77dff", "#2ec4b6", "#ff924c"),
    *("#f15bb5", "#b5e48c", "#9bf6ff", "#bc6c25", "#ffffff"),
)
"""Of class outlines; the thirteenth class begins again with the first."""
OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}

Picture = UInt8[np.ndarray, "rows cols 3"]
Ids = Integer[np.ndarray, "height width"]


class Sheet:
    """Gathers small pictures while scans are in memory, and writes them as one.

    path: of the file to write.   classes: class id -> name, whose outlines are drawn.
    Raises OptionError for a path that is no .png, so that nobody waits for nothing.
    """

    def __init__(self, path: Path, classes: Mapping[int, str]) -> None:
        if path.suffix.lower() != ".png":
            raise OptionError(f"a contact sheet is a .png file; got {path}")
        self.path = path
        self._colours = {
            value: COLOURS[number % len(COLOURS)] for number, value in enumerate(classes)
        }
        self._strips: dict[str, Strip] = {}

    def add(self, scan: Scan) -> None:
        """Keep what the sheet shows of a scan."""
        if len(self._strips) >= LINES * (PER_LINE if len(scan.image) == 1 else 1):
            return
        low, high = _window(scan)
        cells = []
        for index in _chosen(scan):
            grey = (np.clip((scan.image[index] - low) / (high - low), 0, 1) * 255).astype(np.uint8)
            picture = _fitted(grey, scan.spacing)
            if scan.labels is not None:
                self._outline(picture, scan.labels[index])
            cells.append((picture, "" if len(scan.image) == 1 else f"slice {index}"))
        sides = () if scan.geometry is None else _sides(scan.geometry)
        self._strips[scan.id] = Strip(tuple(cells), sides)

    def save(self, report: Report) -> None:
        """Write the sheet, in the order of the report. Raises DataError when that cannot be."""
        legend = [(report.classes[value], colour) for value, colour in self._colours.items()]
        write_bytes(self.path, lay_out(report, self._strips, legend))

    def _outline(self, picture: Picture, labels: Ids) -> None:
        large = _enlarged(labels, picture.shape[:2])
        padded = np.pad(large, 1, mode="edge")
        beside = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        border = np.logical_or.reduce([one != large for one in beside])
        for value, colour in self._colours.items():
            picture[border & (large == value)] = [round(255 * part) for part in to_rgb(colour)]


def _fitted(
    grey: UInt8[np.ndarray, "channel height width"], spacing: tuple[float, float, float] | None
) -> Picture:
    """As large as a cell allows, in the patient's proportions."""
    _, height, width = grey.shape
    tall, wide = (1.0, 1.0) if spacing is None else spacing[1:]
    scale = CELL / max(height * tall, width * wide)
    size = (max(1, round(width * wide * scale)), max(1, round(height * tall * scale)))
    colour = grey if len(grey) == 3 else np.repeat(grey[:1], 3, axis=0)
    upright = Image.fromarray(np.ascontiguousarray(colour.transpose(1, 2, 0)))
    return np.array(upright.resize(size, Image.Resampling.BILINEAR))


def _enlarged(labels: Ids, shape: tuple[int, ...]) -> Integer[np.ndarray, "rows cols"]:
    """Nearest neighbours: ids must not mix."""
    rows, cols = (np.arange(new) * old // new for new, old in zip(shape, labels.shape))
    return labels[np.ix_(rows, cols)]


def _window(scan: Scan) -> tuple[float, float]:
    """Intensities from black to white."""
    if float(scan.image.min()) < HOUNSFIELD:
        return WINDOW
    if scan.image.shape[1] == 3:
        return 0.0, max(255.0, float(scan.image.max()))
    some: Float[np.ndarray, "some 1 height width"] = scan.image[:: max(1, len(scan.image) // 8)]
    low, high = np.percentile(some, [1, 99.5])
    return float(low), max(float(high), float(low) + 1e-6)


def _chosen(scan: Scan) -> list[int]:
    """Slices in the middles of equal parts of those that show a label, or of all."""
    shown = sorted({index for own in scan.class_slices.values() for index in own})
    slices = shown or list(range(len(scan.image)))
    count = min(SLICES, len(slices))
    return [slices[len(slices) * (2 * part + 1) // (2 * count)] for part in range(count)]


def _sides(geometry: Geometry) -> tuple[str, str]:
    """Which side of the patient lies left and on top, and which the first slice is nearest to."""
    codes = axis_codes(geometry)
    along, down, right = (codes[axis] for axis in geometry.order)
    return f"left {OPPOSITE[right]}, top {OPPOSITE[down]}", f"first slice {OPPOSITE[along]}"
