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
INCHES, GAP, TOP, BOTTOM = 2.75, 0.09, 0.82, 0.36
"""Width of a panel, space between panels, space above and below all of them."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One slice.

    image: intensities.   mask: filled and outlined in `colour`; None draws none.
    masks: more of them, each in a colour of its own.
    truth: outlined in thin dashes; None draws none.   title, note: above and in the corner.
    """

    image: Plane
    mask: Mask | None = None
    masks: Sequence[tuple[Mask, str]] = ()
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
    width = columns * (INCHES + GAP) + GAP
    height = TOP + len(rows) * (tall + GAP) + BOTTOM
    figure = Figure(figsize=(width, height), facecolor=PAPER, dpi=150)
    FigureCanvasAgg(figure)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            left, top = GAP + j * (INCHES + GAP), TOP + i * (tall + GAP)
            box = (left / width, 1 - (top + tall) / height, INCHES / width, tall / height)
            _panel(figure.add_axes(box), panel, aspect, upright)
    start = GAP / width
    figure.text(start, 1 - 0.16 / height, title, color=INK, fontsize=13, weight="bold", va="top")
    figure.text(start, 0.13 / height, caption, color=FAINT, fontsize=9, va="bottom")
    if legend:
        _legend(figure, legend, (1 - start, 1 - 0.1 / height))
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
    own = [] if panel.mask is None else [(panel.mask, panel.colour)]
    for mask, colour in (*own, *panel.masks):
        if mask.any():
            ink = mask.astype(np.float32)
            axes.contourf(ink, levels=[0.5, 1.5], colors=[colour], alpha=0.28, zorder=2)
            axes.contour(ink, levels=[0.5], colors=[colour], linewidths=1.6, zorder=3)
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


def _legend(
    figure: Figure, entries: Sequence[tuple[str, str, bool]], corner: tuple[float, float]
) -> None:
    lines = [
        Line2D([], [], color=colour, linestyle="--" if dashed else "-", linewidth=1.8)
        for _, colour, dashed in entries
    ]
    figure.legend(
        lines,
        [words for words, _, _ in entries],
        loc="upper right",
        bbox_to_anchor=corner,
        borderaxespad=0.2,
        ncols=len(entries),
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        handlelength=2.2,
        columnspacing=1.6,
    )
