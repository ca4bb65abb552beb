"""Supervoxels: 3-D classes invented for self-supervision (Hansen et al., MedIA 2022, section 3).

Felzenszwalb's graph segmentation of a whole scan, kept inside the body. numba is imported on the
first call only.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.data.pseudo_cache import AUTO, PseudoCache
from fewshot_seg.data.superpixels import REFERENCE, body_mask, numbered, pixels_at
from fewshot_seg.errors import OptionError

VERSION = 1
"""Rises when the same arguments give other supervoxels, so that stored ones are not used."""
RANGE = 255.0
"""Volumes are scaled to 0..255, which is what `scale` and `threshold` are meant for."""


def supervoxels(
    volume: Float[np.ndarray, "slice height width"],
    *,
    spacing_ratio: float = 1.0,
    min_size: int = 5000,
    scale: float = 1 / 255,
    threshold: float = 10.0,
    reference: int | None = REFERENCE,
    consecutive: bool = True,
) -> Integer[np.ndarray, "slice height width"]:
    """Ids 1..n of a volume's supervoxels, 0 outside the body.

    volume: intensities in any linear unit; the result does not depend on it.
    spacing_ratio: distance of slices over that of pixels, see `spacing_ratio`.
    min_size: voxels of the smallest segment before the body mask: 5000 for abdomen, 1000 for heart
        (the official values).
    scale: Felzenszwalb's preference for large segments. At the official 1/255 the first pass joins
        little but flat areas, and `min_size` does the merging.
    threshold: the body of each slice is the largest region above it, holes filled.
    reference: side of the slices that `min_size` is meant for; it is scaled to the area of these.
        None takes it as given.
    consecutive: False numbers as the official code does: segments by their first voxel, also those
        outside the body, and the one numbered 0 after the last. The regions are the same.

    A constant volume has no supervoxel. Raises OptionError for numbers out of range, ValueError
    for values that are not finite.
    """
    from fewshot_seg.data.felzenszwalb3d import segment

    if min_size < 1:
        raise OptionError(f"min_size must be at least 1; got {min_size}")
    values = _scaled(volume)
    segments = segment(
        values,
        spacing_ratio=spacing_ratio,
        scale=scale,
        min_size=pixels_at(min_size, values.shape[1:], reference),
    )
    inside = np.stack([body_mask(plane, threshold) for plane in values])
    if consecutive:
        return numbered(np.where(inside, segments + 1, 0))
    segments[segments == 0] = segments.max() + 1
    return np.where(inside, segments, 0)


def pseudo_supervoxels(
    scans: Sequence[PreparedScan], *, min_size: int = 5000, cache: str | Path | None = AUTO
) -> list[np.ndarray]:
    """The supervoxels of every scan, from the disk where they are known; a scan without spacing
    counts as one of cubic voxels.

    Of images in colour the first channel is segmented.   cache: see `PseudoCache`.
    """
    store = PseudoCache(cache)
    return [_of_scan(scan, min_size, store) for scan in scans]


def _of_scan(scan: PreparedScan, min_size: int, store: PseudoCache) -> np.ndarray:
    image = scan.images[:, 0].numpy()
    ratio = spacing_ratio(scan) or 1.0
    return store.labels(
        image,
        lambda: supervoxels(image, spacing_ratio=ratio, min_size=min_size),
        kind="supervoxels",
        version=VERSION,
        min_size=min_size,
        spacing_ratio=ratio,
    )


def spacing_ratio(scan: PreparedScan) -> float | None:
    """Distance of the scan's slices over that of its pixels on the network's size; of pixels that
    are not square, the geometric mean of both sides. None when the spacing is unknown."""
    if scan.spacing is None or not all(0 < one < float("inf") for one in scan.spacing):
        return None
    (slices, *sides), full, now = scan.spacing, scan.original_size, scan.size
    area = np.prod([side * a / b for side, a, b in zip(sides, full, now, strict=True)])
    return float(slices / area**0.5)


def _scaled(volume: Float[np.ndarray, "slice height width"]) -> np.ndarray:
    """Affinely to 0..255 in float64; a constant volume to 0."""
    values = volume.astype(np.float64)
    values -= values.min()
    span = values.max()
    return values / span * RANGE if span > 0 else values
