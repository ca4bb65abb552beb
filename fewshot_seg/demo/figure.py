"""The demonstration's picture: one scan, three methods, and the example they were given."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.data.scan import Scan
from fewshot_seg.evaluation import get_matching, predict
from fewshot_seg.evaluation.fold import stack_of
from fewshot_seg.evaluation.matching import Part
from fewshot_seg.evaluation.metrics import dice
from fewshot_seg.interfaces import Method
from fewshot_seg.pictures import EXAMPLE, TRUTH, Panel, draw

COLOURS = ("#ff8c69", "#b197fc", "#38d9a9")
"""Of the methods, in the order of the columns."""
SHOWN = (0.3, 0.6)
"""Where in the organ's range the two slices are taken from."""

Mask = Bool[np.ndarray, "height width"]


def draw_overlay(
    path: Path,
    methods: Mapping[str, Method],
    *,
    support: tuple[Scan, PreparedScan],
    query: tuple[Scan, PreparedScan],
    class_id: int,
    class_name: str,
    matching: str,
    caption: str,
) -> None:
    """Two slices of the query under each method, beside the support slice that served them.

    support, query: each scan as stored, and as the methods see it.
    """
    stored, seen = query
    example, example_seen = support
    assert stored.labels is not None
    assert example.labels is not None
    parts, *_ = get_matching(matching).match(
        [stack_of(example_seen, example.class_slices[class_id])],
        stack_of(seen, stored.class_slices[class_id]),
    )
    size = (stored.image.shape[2], stored.image.shape[3])
    masks = {
        name: predict(
            method, [example_seen], seen.images, class_id=class_id, parts=parts, size=size
        )
        for name, method in methods.items()
    }
    box = _body(np.concatenate([stored.image[:, 0], example.image[:, 0]]))
    rows: list[list[Panel]] = []
    for z in _slices(stored.class_slices[class_id]):
        shown = _support_slice(parts, z)
        truth: Mask = stored.labels[z] == class_id
        image = stored.image[z, 0][box]
        first = not rows
        row = [
            Panel(
                example.image[shown, 0][box],
                mask=(example.labels[shown] == class_id)[box],
                title="the example given" if first else "",
                note=f"scan {example.id}, slice {shown}",
                colour=EXAMPLE,
            )
        ]
        for (name, found), colour in zip(masks.items(), COLOURS):
            score = dice(found[z][None], truth[None])
            row.append(
                Panel(
                    image,
                    mask=found[z][box],
                    truth=truth[box],
                    title=name if first else "",
                    note=f"scan {stored.id}, slice {z}   Dice {100 * score:.0f} %",
                    colour=colour,
                )
            )
        rows.append(row)
    spacing = stored.spacing or (1.0, 1.0, 1.0)
    draw(
        path,
        rows,
        title=f"{class_name}, never seen in training",
        caption=caption,
        legend=(("true outline", TRUTH, True),),
        aspect=spacing[1] / spacing[2],
    )


def _slices(shown: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(shown[int(where * (len(shown) - 1))] for where in SHOWN))


def _body(images: Float[np.ndarray, "slice height width"]) -> tuple[slice, slice]:
    """Rows and columns that hold the bodies, with a little air."""
    bright = (images > 0.1 * np.percentile(images, 99)).mean(0) > 0.02
    found = []
    for axis in (0, 1):
        inside = np.flatnonzero(bright.any(1 - axis))
        low, high = (int(inside[0]), int(inside[-1])) if len(inside) else (0, bright.shape[axis])
        air = bright.shape[axis] // 40
        found.append(slice(max(low - air, 0), high + air + 1))
    return found[0], found[1]


def _support_slice(parts: Sequence[Part], query_slice: int) -> int:
    return next(part.support[0] for part in parts if query_slice in part.query)
