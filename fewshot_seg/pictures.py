"""Pictures of slices with contours: what was shown, what is right, what a method answered."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fewshot_seg.data.atomic import write_bytes

Plane = Float[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]

INK, PAPER, FAINT = "#e8eaed", "#101418", "#9aa3ad"
TRUTH = "#ffffff"
EXAMPLE = "#ffd166"
INCHES = 2.75
"""Width of a panel."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One slice.

    image: intensities.   mask: filled and outlined in `colour`; None draws none.
    truth: outlined in thin dashes; None draws none.   title, note: above and in the corner.
    """

    image: Plane
    mask: Mask | None = None
    truth: Mask | None = None
    title: str = ""
    note: str = ""
    colour: str = EXAMPLE


def draw(
    path: Path,
    rows: Sequence[Sequence[Panel]],
    *,
    title: str,
    caption: str,
    legend: Sequence[tuple[str, str, bool]] = (),
    aspect: float = 1.0,
    upright: bool = True,
) -> None:
    """Write rows of panels as a PNG, whole or not at all.

    legend: (words, colour, dashed) for each kind of line.
    aspect: height of a pixel over its width.
    upright: rows of slices run from the back to the front of the patient (as in NIfTI files whose
        axis codes end ..A.), so they are turned to show the front on top.
    Raises DataError when the file cannot be written.
    """
    columns = max(len(row) for row in rows)
    shape = rows[0][0].image.shape
    tall = INCHES * shape[0] * aspect / shape[1]
    size = (INCHES * columns + 0.3, (tall + 0.32) * len(rows) + 1.15)
    figure = Figure(figsize=size, facecolor=PAPER, dpi=150)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes_row, row in zip(grid, rows):
        for axes, panel in zip(axes_row, row):
            _panel(axes, panel, aspect, upright)
        for axes in axes_row[len(row) :]:
            axes.axis("off")
    height = size[1]
    figure.text(0.02, 1 - 0.14 / height, title, color=INK, fontsize=13, weight="bold", va="top")
    figure.text(0.02, 0.12 / height, caption, color=FAINT, fontsize=8, va="bottom")
    if legend:
        _legend(figure, legend, 1 - 0.1 / height)
    figure.subplots_adjust(
        left=0.015,
        right=0.985,
        top=1 - 0.68 / height,
        bottom=0.42 / height,
        wspace=0.03,
        hspace=0.13,
    )
    content = io.BytesIO()
    # No date and version within: equal pictures, equal bytes.
    figure.savefig(content, format="png", facecolor=PAPER, metadata={"Software": None})
    write_bytes(path, content.getvalue())


def _panel(axes: Axes, panel: Panel, aspect: float, upright: bool) -> None:
    low, high = np.percentile(panel.image, [1, 99.5])
    axes.imshow(
        panel.image,
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-6),
        interpolation="bicubic",
        aspect=aspect,
        origin="lower" if upright else "upper",
    )
    axes.set_axis_off()
    axes.set_title(panel.title, color=INK, fontsize=10, pad=5)
    if panel.mask is not None and panel.mask.any():
        ink = panel.mask.astype(np.float32)
        axes.contourf(ink, levels=[0.5, 1.5], colors=[panel.colour], alpha=0.28, zorder=2)
        axes.contour(ink, levels=[0.5], colors=[panel.colour], linewidths=1.6, zorder=3)
    if panel.truth is not None and panel.truth.any():
        axes.contour(
            panel.truth.astype(np.float32),
            levels=[0.5],
            colors=[TRUTH],
            linewidths=1.0,
            linestyles="dashed",
            zorder=4,
        )
    if panel.note:
        axes.text(
            0.03, 0.03, panel.note, color=INK, fontsize=9, transform=axes.transAxes, zorder=5,
            bbox={"facecolor": PAPER, "alpha": 0.75, "edgecolor": "none", "pad": 2.5},
        )  # fmt: skip


def _legend(figure: Figure, entries: Sequence[tuple[str, str, bool]], top: float) -> None:
    lines = [
        Line2D([], [], color=colour, linestyle="--" if dashed else "-", linewidth=1.8)
        for _, colour, dashed in entries
    ]
    figure.legend(
        lines,
        [words for words, _, _ in entries],
        loc="upper right",
        bbox_to_anchor=(0.985, top),
        ncols=len(entries),
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        handlelength=2.2,
        columnspacing=1.6,
    )
