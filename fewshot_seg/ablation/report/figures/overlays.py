"""Masks over the best, the median and the worst scan of a class: what is right, what was found."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, UInt8
from matplotlib.axes import Axes

from fewshot_seg.ablation.artefacts import Prediction, image_of, read_predictions
from fewshot_seg.ablation.report.figures.picture import (
    COLOURS,
    GREY,
    POINTS,
    WIDTH,
    Picture,
    caption,
    entitle,
    new_figure,
    short,
)
from fewshot_seg.ablation.report.groups import Group
from fewshot_seg.ablation.report.kept import predictions_file, scans_folder
from fewshot_seg.ablation.report.slice_choice import ROLES, Choice, choose
from fewshot_seg.errors import DataError

MOST_VARIANTS = 6
"""Rows below the ground truth."""
TRUTH, FOUND = COLOURS[2], COLOURS[1]
LEAST_SHARE = 0.45
"""Of the slice's longer side that is shown around the class, at least."""
AIR = 1.6
"""How much larger than the class the shown part is."""

Mask = Bool[np.ndarray, "height width"]


@dataclass(frozen=True, eq=False)
class Shown:
    """The slice of a scan that shows most of the class, and each variant's answer in it.

    image: grey, proportioned as the masks, perhaps smaller.   dice: of the whole scan.
    """

    title: str
    image: UInt8[np.ndarray, "rows cols"]
    truth: Mask
    found: dict[str, tuple[Mask, float]]
    aspect: float
    upright: bool


def overlay_pictures(group: Group) -> list[Picture]:
    """One for each class whose predictions were kept."""
    cells = group.cells["cell"]
    kept = frozenset(cell for cell in cells if predictions_file(group, cell).exists())
    if not kept:
        return []
    choices = choose(group, kept).shown
    by_class = {name: [one for one in choices if one.class_name == name] for name in group.classes}
    pictures = [_picture(group, name, own[: len(ROLES)]) for name, own in by_class.items() if own]
    return [picture for picture in pictures if picture is not None]


def _picture(group: Group, class_name: str, choices: Sequence[Choice]) -> Picture | None:
    """A column for each scan, so that three fit a phone; ground truth on top, then variants."""
    shown, problems = _read(group, choices)
    if not shown:
        return None
    variants = [name for name in group.variants if any(name in one.found for one in shown)]
    tile = WIDTH / len(ROLES)
    rows = 1 + len(variants)
    figure, panels = new_figure(
        rows=rows, columns=len(shown), width=tile * len(shown), height=(tile + 0.25) * rows
    )
    grid = np.array(panels).reshape(rows, len(shown))
    for column, one in enumerate(shown):
        _panel(grid[0, column], one, one.truth, TRUTH)
        entitle(grid[0, column], title=one.title, y="" if column else "ground truth")
        for row, variant in enumerate(variants, start=1):
            mask, dice = one.found.get(variant, (None, np.nan))
            _panel(grid[row, column], one, mask, FOUND)
            words = "" if mask is None else f"{100 * dice:.1f} %"
            entitle(grid[row, column], title=words, y="" if column else short(variant, 20))
    told = "; ".join(f"{name} {_told(shown, name)}" for name in variants)
    return Picture(
        name=f"overlay-{group.classes.index(class_name)}",
        figure=figure,
        alt=f"{class_name} in {len(shown)} scans ({', '.join(one.title for one in shown)}): "
        f"ground truth, and what each variant found. Dice in per cent: {told}.",
        caption=caption(
            f"{class_name}: the slice that shows most of it; scans by the mean Dice of the "
            "variants. Green: ground truth; orange: found, with the Dice of the whole scan.",
            *problems,
            group.note,
        ),
    )


def _told(shown: Sequence[Shown], variant: str) -> str:
    return ", ".join(f"{100 * one.found[variant][1]:.1f}" for one in shown if variant in one.found)


def _read(group: Group, choices: Sequence[Choice]) -> tuple[list[Shown], list[str]]:
    """The scans that can be shown, and in words why others cannot."""
    problems: list[str] = []

    @cache
    def predictions(cell: str) -> list[Prediction]:
        try:
            return read_predictions(predictions_file(group, cell))
        except DataError as error:
            problems.append(f"Not shown: {error}.")
            return []

    shown = []
    for choice in choices:
        wanted = (choice.class_name, choice.scan_id)
        own = {
            variant: one
            for variant, cell in list(choice.cells.items())[:MOST_VARIANTS]
            for one in predictions(cell)
            if (one.class_name, one.scan_id) == wanted
        }
        if own:
            try:
                shown.append(_shown(group, choice, own))
            except DataError as error:
                problems.append(f"Not shown: {error}.")
    return shown, problems


def _shown(group: Group, choice: Choice, own: dict[str, Prediction]) -> Shown:
    first = next(iter(own.values()))
    index = int(first.truth.sum((1, 2)).argmax())
    return Shown(
        title=f"{choice.role}: {short(choice.scan_id, 12)}" if choice.role else choice.scan_id,
        image=image_of(first, scans_folder(group))[index],
        truth=first.truth[index],
        found={name: (one.prediction[index], one.dice) for name, one in own.items()},
        aspect=first.aspect,
        upright=first.slices != (0,),  # a scan of one slice is a photograph
    )


def _panel(axes: Axes, shown: Shown, mask: Mask | None, colour: str) -> None:
    """The part of the slice around the class; `mask` filled and outlined."""
    height, width = shown.truth.shape
    axes.imshow(
        shown.image,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(0, width, height, 0),
        aspect=shown.aspect,
    )
    if mask is not None and mask.any():
        place = (np.arange(width) + 0.5, np.arange(height) + 0.5, mask.astype(np.float32))
        axes.contourf(*place, levels=[0.5, 1.5], colors=[colour], alpha=0.3)
        axes.contour(*place, levels=[0.5], colors=[colour], linewidths=1.6)
    (left, right), (low, high) = _window(shown)
    axes.set_xlim(left, right)
    axes.set_ylim(*((low, high) if shown.upright else (high, low)))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    if mask is None:
        axes.text(
            0.5, 0.5, "not kept", transform=axes.transAxes, color=GREY, fontsize=POINTS, ha="center"
        )


def _window(shown: Shown) -> tuple[tuple[float, float], tuple[float, float]]:
    """Columns and rows to show: a square in millimetres around the truth."""
    height, width = shown.truth.shape
    tall = shown.aspect
    rows, cols = np.nonzero(shown.truth)
    if not len(rows):
        return (0, width), (0, height)
    box = max(float(np.ptp(cols)) + 1, (float(np.ptp(rows)) + 1) * tall)
    side = max(AIR * box, LEAST_SHARE * max(width, height * tall))
    return _within(cols, side, width), _within(rows, side / tall, height)


def _within(found: np.ndarray, side: float, size: int) -> tuple[float, float]:
    """An interval of length `side` about the middle of what was found, inside the slice."""
    middle = (float(found.min()) + float(found.max()) + 1) / 2
    low = min(max(middle - side / 2, 0.0), max(size - side, 0.0))
    return low, min(low + side, float(size))
