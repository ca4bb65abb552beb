"""Superpixels: classes invented for self-supervision (Ouyang et al., ECCV 2020, section 3.2).

Felzenszwalb's graph segmentation of each slice, kept inside the body. Ids are consecutive from 1;
the official relabelling loses a segment and leaves an id unused, so 6 % of its draws are empty.
"""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Integer
from scipy import ndimage
from skimage.segmentation import felzenszwalb, relabel_sequential

from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.data.pseudo_cache import AUTO, PseudoCache

VERSION = 1
"""Rises when the same arguments give other superpixels, so that stored ones are not used."""
REFERENCE = 256
"""Side of the slices that the published parameters are meant for."""
OFFICIAL = MappingProxyType({"min_size": 400, "sigma": 1.0, "scale": 1.0, "reference": None})
"""`superpixels(raw, **OFFICIAL, threshold=...)` gives the regions of the official code, with its
thresholds of raw intensity: 50 + 1e-4 for CHAOS, 1e-4 for CT on 0..255. Segments may then be
touched by the body's border and be smaller than `min_size`, as in ours."""


def body_mask(plane: Float[np.ndarray, "height width"], threshold: float) -> np.ndarray:
    """The largest connected region above `threshold`, holes filled; all False if nothing is."""
    regions, count = ndimage.label(plane > threshold)
    if count == 0:
        return np.zeros(plane.shape, bool)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    filled: np.ndarray = ndimage.binary_fill_holes(regions == sizes.argmax())
    return filled


def superpixels(
    plane: Float[np.ndarray, "height width"],
    *,
    min_size: int = 400,
    sigma: float = 1.0,
    scale: float = 0.003,
    threshold: float | None = None,
    reference: int | None = REFERENCE,
) -> Integer[np.ndarray, "height width"]:
    """Ids 1..n of one slice's superpixels, 0 outside the body.

    plane: z-scored intensities.   min_size: pixels of the smallest segment and sigma: smoothing in
        pixels, both for a slice of 256x256 and scaled to this one (400 and 1: "MIDDLE" of the
        official code).
    scale: Felzenszwalb's preference for large segments, in intensities. The official 1 on raw MR
        grey values of about 300 standard deviation is 0.003 here: `min_size` does the merging.
    threshold: intensity above which the body lies; None takes the midpoint between the 1st
        percentile (air) and the mean.
    reference: side of the slices that `min_size` and `sigma` are meant for; None takes them as
        given. See `OFFICIAL`.
    """
    side = 1.0 if reference is None else (plane.shape[0] * plane.shape[1]) ** 0.5 / reference
    if threshold is None:
        threshold = 0.5 * (float(np.percentile(plane, 1)) + float(plane.mean()))
    inside = body_mask(plane, threshold)
    segments = felzenszwalb(
        plane.astype(np.float64),
        scale=scale,
        sigma=sigma * side,
        min_size=pixels_at(min_size, plane.shape, reference),
        channel_axis=None,
    )
    return numbered(np.where(inside, segments + 1, 0))


def pseudo_superpixels(
    scans: Sequence[PreparedScan], *, min_size: int = 400, cache: str | Path | None = AUTO
) -> list[list[np.ndarray]]:
    """The superpixels of every slice of every scan, from the disk where they are known.

    Of images in colour the first channel is segmented.   cache: see `PseudoCache`.
    """
    store = PseudoCache(cache)
    return [list(_of_scan(scan, min_size, store)) for scan in scans]


def _of_scan(scan: PreparedScan, min_size: int, store: PseudoCache) -> np.ndarray:
    image = scan.images[:, 0].numpy()
    return store.labels(
        image,
        lambda: np.stack([superpixels(plane, min_size=min_size) for plane in image]),
        kind="superpixels",
        version=VERSION,
        min_size=min_size,
    )


def pixels_at(pixels: int, size: tuple[int, ...], reference: int | None = REFERENCE) -> int:
    """A number of pixels that is meant for a slice of side `reference`, on one of this height and
    width: at least 1. With None it is meant for every size."""
    if reference is None:
        return pixels
    return max(1, round(pixels * size[0] * size[1] / reference**2))


def numbered(segments: Integer[np.ndarray, "..."]) -> Integer[np.ndarray, "..."]:
    """The same regions with ids 1, 2, ... in the order of their old ids; 0 stays 0."""
    found, _, _ = relabel_sequential(segments)
    return found.astype(np.int32)
