"""Whether labels lie on their image the right way round: the borders of organs are edges.

Geometry decides an orientation; this test verifies it afterwards. On the 20 published CHAOS T2
scans the score is 1.70 to 2.67 as they lie and at most 1.27 flipped or turned.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import ndimage

from fewshot_seg.errors import DataError

BAND = 8
"""Pixels around a border with whose edges its own are compared."""

MIN_SCORE = 1.3
"""Between labels on their own image (1.70 and above) and on another patient's (up to 1.12)."""

Image = Float[np.ndarray, "slice height width"]
Labels = Integer[np.ndarray, "slice height width"]
Mask = Bool[np.ndarray, "slice height width"]

AS_GIVEN = "as given"


def edge_score(image: Image, labels: Labels) -> float:
    """Mean in-plane gradient on the inner borders of the labels, over the mean around them.

    About 1 when labels and image have nothing to do with each other. NaN without labels or in a
    flat image.
    """
    border, around = _borders(labels)
    return _ratio(_gradient(image), border, around)


def placements(image: Image, labels: Labels) -> dict[str, float]:
    """The score as given and of the labels flipped and, where slices are square, turned.

    Keys say what was done to the labels: "as given", "rows flipped", "turned, slices flipped".
    """
    gradient, (border, around) = _gradient(image), _borders(labels)
    return {
        name: _ratio(gradient, border.transpose(axes)[steps], around.transpose(axes)[steps])
        for name, axes, steps in ways(labels.shape[1] == labels.shape[2])
    }


def check_placement(
    image: Image, labels: Labels, *, what: str, min_score: float = MIN_SCORE
) -> float:
    """The score as given, if labels lie on their image so and in no other placement.

    what: the label files, for messages.   min_score: below it labels belong to another image.
    Raises DataError when another placement fits better or none does.
    """
    scores = placements(image, labels)
    given, best = scores[AS_GIVEN], max(scores, key=lambda name: _or_zero(scores[name]))
    if not scores[best] >= min_score:  # NaN too
        raise DataError(
            f"{what} do not follow the edges of their image in any orientation (best score "
            f"{_or_zero(scores[best]):.2f}, at least {min_score:g} expected): they belong to "
            "another scan, or files were renamed. Restore this scan from the download"
        )
    if best != AS_GIVEN:
        raise DataError(
            f"{what} fit the image better {best} (score {scores[best]:.2f}) than as given "
            f"({_or_zero(given):.2f}): image or labels were flipped, turned or reordered after "
            "the download. Restore this scan from the download"
        )
    return given


def ways(square: bool) -> Iterator[tuple[str, tuple[int, int, int], tuple[slice, ...]]]:
    """Name, order of axes and steps along them of every placement, the given one first."""
    keep, flip = slice(None), slice(None, None, -1)
    for axes in ((0, 1, 2), (0, 2, 1)) if square else ((0, 1, 2),):
        for flips in np.ndindex(2, 2, 2):
            words = ["turned"] if axes == (0, 2, 1) else []
            words += [
                f"{name} flipped"
                for name, flipped in zip(("slices", "rows", "columns"), flips)
                if flipped
            ]
            steps = tuple(flip if flipped else keep for flipped in flips)
            yield ", ".join(words) or AS_GIVEN, axes, steps


def _gradient(image: Image) -> Image:
    down, across = np.gradient(image.astype(np.float32), axis=(1, 2))
    return np.hypot(down, across)


def _borders(labels: Labels) -> tuple[Mask, Mask]:
    """The outermost pixels of each class within its slices, and what lies around these."""
    cross = ndimage.generate_binary_structure(2, 1)[None]
    border = np.zeros(labels.shape, bool)
    for value in np.unique(labels):
        if value:
            mask = labels == value
            border |= mask & ~ndimage.binary_erosion(mask, cross)
    return border, ndimage.binary_dilation(border, cross, iterations=BAND) & ~border


def _ratio(gradient: Image, border: Mask, around: Mask) -> float:
    count, total = int(border.sum()), int(around.sum())
    below = float(gradient[around].sum(dtype=np.float64)) / total if total else 0.0
    if not count or not below:
        return float("nan")
    return float(gradient[border].sum(dtype=np.float64)) / count / below


def _or_zero(score: float) -> float:
    return 0.0 if np.isnan(score) else score
