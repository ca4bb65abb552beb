"""A scan in memory: slices first, with what writing an answer on the file's grid needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer


@dataclass(frozen=True, eq=False)
class Geometry:
    """How a file's voxel axes map to a scan's (slice, height, width) and to patient space.

    affine: 4x4, stored voxel index to RAS+ millimetres.
    shape: the stored spatial shape.
    slice_axis: which stored axis became the slice axis. The other two follow in reverse order, so
        a stored (x, y, z) array with slice_axis 2 becomes (z, y, x), as SimpleITK reads it.
    """

    affine: Float[np.ndarray, "4 4"]
    shape: tuple[int, int, int]
    slice_axis: int = 2

    @property
    def order(self) -> tuple[int, int, int]:
        """Stored axes in the order (slice, height, width)."""
        first, second = (axis for axis in range(3) if axis != self.slice_axis)
        return self.slice_axis, second, first

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along (slice, height, width)."""
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0)
        slices, rows, cols = (float(sizes[axis]) for axis in self.order)
        return slices, rows, cols

    def to_slices(self, stored: np.ndarray) -> np.ndarray:
        """A stored 3-D array as (slice, height, width)."""
        return stored.transpose(self.order)

    def to_stored(self, slices: np.ndarray) -> np.ndarray:
        """The inverse of `to_slices`."""
        return slices.transpose(tuple(int(axis) for axis in np.argsort(self.order)))


@dataclass(frozen=True, eq=False)
class Scan:
    """One image volume (a 2-D picture is a volume of one slice) and, where known, its labels.

    image: raw intensities; one channel for CT and MR, three for colour pictures.
    labels: class ids, 0 background; None when the scan is not annotated.
    spacing: millimetres along (slice, height, width); None when the file does not say.
    geometry: None for pictures without one.
    """

    id: str
    image: Float[np.ndarray, "slice channel height width"]
    labels: Integer[np.ndarray, "slice height width"] | None = None
    spacing: tuple[float, float, float] | None = None
    geometry: Geometry | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and self.labels.shape != (
            self.image.shape[0],
            *self.image.shape[2:],
        ):
            raise ValueError(
                f"scan {self.id}: the image is {self.image.shape} (slice, channel, height, width) "
                f"but the labels are {self.labels.shape}"
            )

    @cached_property
    def class_slices(self) -> dict[int, tuple[int, ...]]:
        """For each class id present, the sorted indices of the slices that show it."""
        if self.labels is None:
            return {}
        found: dict[int, list[int]] = {}
        for index, plane in enumerate(self.labels):
            for value in np.unique(plane):
                if value:
                    found.setdefault(int(value), []).append(index)
        return {value: tuple(found[value]) for value in sorted(found)}


@runtime_checkable
class Dataset(Protocol):
    """Scans of one kind, named classes, loaded one at a time.

    name: for tables and run folders.   modality: "mr", "ct" or "picture"; decides normalisation.
    classes: class id -> name, without background.   ids: scan ids, sorted numerically.
    """

    # Properties, so that constants, frozen fields and computed values all satisfy the protocol.
    @property
    def name(self) -> str: ...
    @property
    def modality(self) -> str: ...
    @property
    def classes(self) -> Mapping[int, str]: ...
    @property
    def ids(self) -> tuple[str, ...]: ...

    def load(self, scan_id: str) -> Scan: ...
