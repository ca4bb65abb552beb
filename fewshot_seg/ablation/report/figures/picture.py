"""How the report's figures look: see-through, mid-grey frames, colours for every eye and page."""

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

COLOURS = ("#3366ff", "#f56918", "#10a366", "#ad57a6")
"""Contrast of 3 and more on white and on near black; apart for the colour-blind, too."""
STYLES = ("-", "--", ":")
MARKERS = ("o", "s", "^")
MOST_LINES = len(COLOURS) * len(STYLES)
"""Lines that a figure can tell apart, by colour and then by dashes."""
GREY = "#7a7f87"
"""Of frames and words: the same contrast, above 4, on white and on near black."""
WIDTH = 4.8
"""Inches. A phone shows it at 360 points, words of POINTS then are as tall as its own."""
POINTS = 11.0
LOG_SPREAD = 20.0
"""From this ratio of largest to smallest on, an axis is logarithmic."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, and what stands around it.

    name: of its file, without an ending.   alt: says what is to be seen, for who cannot see it.
    caption: how to read it, with the protocol.
    """

    name: str
    figure: Figure
    alt: str
    caption: str

    def svg(self) -> bytes:
        """Vectors; equal figures give equal bytes."""
        with mpl.rc_context({"svg.hashsalt": "fewshot-seg"}):
            return self._saved("svg", metadata={"Date": None, "Creator": None})

    def png(self, *, dpi: int = 150) -> bytes:
        """Pixels, with a see-through background."""
        return self._saved("png", dpi=dpi, metadata={"Software": None})

    def _saved(self, kind: str, **options: Any) -> bytes:
        content = io.BytesIO()
        self.figure.savefig(content, format=kind, bbox_inches="tight", pad_inches=0.06, **options)
        return content.getvalue()


def new_figure(
    *, rows: int = 1, columns: int = 1, height: float = 3.2, width: float = WIDTH
) -> tuple[Figure, list[Axes]]:
    """A figure with its axes row by row, and their grid and frames in grey.

    height, width: of the whole figure in inches.
    """
    figure = Figure(figsize=(width, height), facecolor="none", layout="constrained")
    FigureCanvasAgg(figure)
    found = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes in found:
        _plain(axes)
    return figure, found


def _plain(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.tick_params(colors=GREY, labelsize=POINTS)
    axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)


def entitle(axes: Axes, *, x: str = "", y: str = "", title: str = "") -> None:
    """Names of the axes, and a title above them."""
    axes.set_xlabel(x, color=GREY, fontsize=POINTS)
    axes.set_ylabel(y, color=GREY, fontsize=POINTS)
    axes.set_title(title, color=GREY, fontsize=POINTS, loc="left")


def style(index: int) -> dict[str, Any]:
    """Colour, dashes and marker of the index-th line; they repeat after MOST_LINES."""
    turn = index // len(COLOURS) % len(STYLES)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": STYLES[turn],
        "marker": MARKERS[turn],
    }


def legend(figure: Figure, axes: Axes, *, columns: int = 2, enlarge: float = 1.0) -> None:
    """What the lines are, below the axes, where it covers none of them; markers enlarged."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            [short(label, 40 // columns) for label in labels],
            loc="outside lower center",
            ncols=columns,
            markerscale=enlarge,
            frameon=False,
            labelcolor=GREY,
            fontsize=POINTS - 1,
        )


def spread_axis(axes: Axes, side: str, values: Iterable[float]) -> bool:
    """Make the `side` ("x" or "y") axis logarithmic if the values need it; whether it is."""
    known = [value for value in values if not math.isnan(value)]
    if not known or min(known) <= 0 or max(known) / min(known) <= LOG_SPREAD:
        return False
    axes.set(**{f"{side}scale": "log"})
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())
    return True


def short(words: str, most: int = 28) -> str:
    """Words cut to `most` letters, and safe from being read as mathematics."""
    cut = words if len(words) <= most else f"{words[: most - 1]}…"
    return cut.replace("$", r"\$")


def as_list(axes: Axes, names: Sequence[str]) -> None:
    """Make the y axis a list of names, the first on top."""
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def listed(names: Iterable[str], most: int = 5) -> str:
    """`a; b; c and 4 more`; names may have commas in them."""
    known = list(names)
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return "; ".join(known[:most]) + more


def caption(*sentences: str) -> str:
    """Sentences one after the other, without the empty ones."""
    return " ".join(filter(None, sentences))
