"""What one scan holds, as plain numbers: all that a check needs, so the scan itself can go."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from fewshot_seg.data.orientation import axis_codes
from fewshot_seg.data.scan import Geometry, Scan

Labels = Integer[np.ndarray, "slice height width"]
Place = tuple[float, float, float]

FEW_VALUES = 64
"""A volume of whole numbers in a range below this is more likely of labels than of intensities."""


@dataclass(frozen=True)
class ScanRow:
    """What one scan holds; of a scan that does not load, only `id` and `error`.

    shape: (slice, height, width).   spacing: millimetres along these.   axes: axis codes in stored
    order.   low, high: intensity range.   digest: equal for equal images.
    labels_digest: equal for equal labels; None for a scan without labels.
    looks_like_labels: the image holds a few whole numbers only.
    shown: class id -> the slices that show it.   voxels: class id -> how many.   Both None if
        unlabelled.
    centres: class id -> where its middle lies, in RAS+ millimetres (to the right, the front and
        the head); empty for pictures.
    borders: class id -> id on the other side -> pixels of their border within slices.
    placements: edge score of the labels as given and turned over, see `placement.py`.
    """

    id: str
    error: str | None = None
    shape: tuple[int, int, int] | None = None
    channels: int | None = None
    spacing: tuple[float, float, float] | None = None
    axes: str | None = None
    slice_axis: int | None = None
    low: float | None = None
    high: float | None = None
    looks_like_labels: bool = False
    shown: Mapping[int, tuple[int, ...]] | None = None
    voxels: Mapping[int, int] | None = None
    centres: Mapping[int, Place] | None = None
    borders: Mapping[int, Mapping[int, int]] | None = None
    placements: Mapping[str, float] | None = None
    digest: str | None = None
    labels_digest: str | None = None

    @property
    def slices(self) -> dict[int, int] | None:
        """In how many slices each class is seen."""
        return None if self.shown is None else {key: len(own) for key, own in self.shown.items()}

    @property
    def gaps(self) -> dict[int, tuple[int, ...]]:
        """Slices that lie between the first and last of a class and do not show it."""
        found = {
            value: tuple(sorted(set(range(own[0], own[-1])) - set(own)))
            for value, own in (self.shown or {}).items()
        }
        return {value: missing for value, missing in found.items() if missing}


def describe(scan: Scan, scan_id: str) -> ScanRow:
    """The facts of a scan in memory."""
    slices, channels, height, width = scan.image.shape
    labels, geometry = scan.labels, scan.geometry
    seen = _Seen() if labels is None else _look(labels, geometry)
    return ScanRow(
        id=scan_id,
        shape=(slices, height, width),
        channels=channels,
        spacing=scan.spacing,
        axes=None if geometry is None else "".join(axis_codes(geometry)),
        slice_axis=None if geometry is None else geometry.slice_axis,
        low=float(scan.image.min()),
        high=float(scan.image.max()),
        looks_like_labels=_looks_like_labels(scan.image),
        digest=_digest(scan.image),
        labels_digest=None if labels is None else _digest(labels),
        **seen._asdict(),
    )


class _Seen(NamedTuple):
    """What labels show; the fields of `ScanRow` of these names."""

    shown: Mapping[int, tuple[int, ...]] | None = None
    voxels: Mapping[int, int] | None = None
    centres: Mapping[int, Place] | None = None
    borders: Mapping[int, Mapping[int, int]] | None = None


def _look(labels: Labels, geometry: Geometry | None) -> _Seen:
    # One pass over the labelled voxels, because a volume has millions and most are background.
    places = np.nonzero(labels)
    values, numbers = np.unique(labels[places], return_inverse=True)
    ids, depth = [int(value) for value in values], len(labels)
    table = np.bincount(numbers * depth + places[0], minlength=len(ids) * depth)
    per_slice = table.reshape(len(ids), depth)
    shown = {
        value: tuple(int(index) for index in np.flatnonzero(row))
        for value, row in zip(ids, per_slice)
    }
    voxels = {value: int(row.sum()) for value, row in zip(ids, per_slice)}
    centres: dict[int, Place] = {}
    if geometry is not None:
        counts = per_slice.sum(axis=1)
        middles = [np.bincount(numbers, weights=axis) / counts for axis in places]
        centres = dict(zip(ids, _to_patient(np.stack(middles), geometry)))
    return _Seen(shown, voxels, centres, _borders(labels, places))


def _to_patient(middles: Float[np.ndarray, "3 label"], geometry: Geometry) -> list[Place]:
    """RAS+ millimetres of places given as (slice, height, width)."""
    stored = np.empty_like(middles)
    stored[list(geometry.order)] = middles
    placed = geometry.affine[:3, :3] @ stored + geometry.affine[:3, 3:]
    return [(float(x), float(y), float(z)) for x, y, z in placed.T]


def _borders(labels: Labels, places: tuple[np.ndarray, ...]) -> dict[int, dict[int, int]]:
    """Between which classes, background included, neighbouring pixels of a slice lie."""
    if not len(places[0]):
        return {}
    # All that is labelled, and one pixel around it.
    box = labels[
        tuple(slice(max(0, int(axis.min()) - 1), int(axis.max()) + 2) for axis in places)
    ].astype(np.int64)
    base = int(box.max()) + 1
    found: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for one, other in ((box[:, 1:], box[:, :-1]), (box[..., 1:], box[..., :-1])):
        edge = one != other
        pairs, counts = np.unique(one[edge] * base + other[edge], return_counts=True)
        for pair, count in zip(pairs.tolist(), counts.tolist()):
            first, second = divmod(pair, base)
            found[first][second] += count
            found[second][first] += count
    return {value: dict(found[value]) for value in sorted(found) if value}


def _looks_like_labels(image: np.ndarray) -> bool:
    if image.max() - image.min() >= FEW_VALUES or image.shape[1] != 1:
        return False
    return bool((image == np.rint(image)).all())


def _digest(values: np.ndarray) -> str:
    digest = blake2b(f"{values.dtype} {values.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
