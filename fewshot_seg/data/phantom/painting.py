"""From structures to voxels: thin sub-slices with soft borders, averaged to thick slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, UInt8

from fewshot_seg.data.phantom.anatomy import Anatomy, Structure
from fewshot_seg.data.phantom.appearance import Tissue
from fewshot_seg.data.phantom.fields import Pose, RandomField
from fewshot_seg.data.phantom.shapes import Box, Field, Points

_MARGIN = 3.0  # millimetres around a shape's box, for soft borders and first-order distances


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centres in millimetres around the scan's middle. `pixel` is square, `slab` thick."""

    size: int
    n_slices: int
    pixel: float
    slab: float

    @property
    def in_plane(self) -> Float[np.ndarray, " n"]:
        """Of the columns and, alike, of the rows."""
        return (np.arange(self.size) - (self.size - 1) / 2) * self.pixel

    def through(self, index: int) -> Float[np.ndarray, " depth"]:
        """Heights of the sub-slices that make up a slice: at most 2 mm apart, at most 6."""
        count = int(np.clip(np.ceil(self.slab / 2), 1, 6))
        parts = (np.arange(count) + 0.5) / count - 0.5
        return (index - (self.n_slices - 1) / 2 + parts) * self.slab


@dataclass(frozen=True, eq=False)
class Painter:
    """Paints the slices of one patient. `grain` is the tissue texture that all structures share."""

    anatomy: Anatomy
    pose: Pose
    tissues: Mapping[str, Tissue]
    grain: RandomField
    n_classes: int

    @cached_property
    def _boxed(self) -> list[tuple[Structure, Box]]:
        return [(structure, structure.shape.box) for structure in self.anatomy.structures]

    def slice(
        self, grid: Grid, index: int
    ) -> tuple[Float[np.ndarray, "height width"], UInt8[np.ndarray, "height width"]]:
        """Noise-free intensities and labels (the class that fills more than half a voxel)."""
        z, plane = grid.through(index), grid.in_plane
        points = self.pose.to_reference(z, plane, plane)
        grain = self.grain.on_grid(z, plane, plane)
        for shape in self.anatomy.shared:
            shape.distance(points)
        canvas = _Canvas.blank(points, grain, self.tissues, self.n_classes, grid.pixel)
        lowest, highest = points.z.min() - _MARGIN, points.z.max() + _MARGIN
        for structure, box in self._boxed:
            if box.low[2] <= highest and box.high[2] >= lowest:
                canvas.paint(structure, box)
        filled = canvas.filled.mean(1)
        label = filled.argmax(0) + 1
        return canvas.image.mean(0), np.where(filled.max(0) > 0.5, label, 0).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class _Canvas:
    """Intensities and the part of each voxel that each class fills, for a few sub-slices."""

    points: Points
    grain: Field
    tissues: Mapping[str, Tissue]
    image: Field
    filled: Float[np.ndarray, "klass depth height width"]
    pixel: float
    spans: Sequence[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def blank(
        cls,
        points: Points,
        grain: Field,
        tissues: Mapping[str, Tissue],
        n_classes: int,
        pixel: float,
    ) -> "_Canvas":
        image = np.full(points.x.shape, tissues["air"].mean, np.float32)
        filled = np.zeros((n_classes, *points.x.shape), np.float32)
        # What range of x each column and of y each row covers after bending.
        spans = [
            (points.x.min((0, 1)), points.x.max((0, 1))),
            (points.y.min((0, 2)), points.y.max((0, 2))),
        ]
        return cls(points, grain, tissues, image, filled, pixel, spans)

    def paint(self, structure: Structure, box: Box) -> None:
        """Cover what lies behind, softly at the border; organs behind give up their share."""
        window = self._window(box)
        if window is None:
            return
        rows, cols = window
        distance = structure.shape.distance(self.points.crop(rows, cols))
        cover = np.clip(0.5 - distance / self.pixel, 0, 1)
        tissue = self.tissues[structure.tissue]
        value = (
            tissue.mean + tissue.shade * structure.shade + tissue.grain * self.grain[:, rows, cols]
        )
        image = self.image[:, rows, cols]
        image += cover * (value - image)
        if not structure.inside:
            filled = self.filled[:, :, rows, cols]
            filled *= 1 - cover
            if structure.label:
                filled[structure.label - 1] += cover

    def _window(self, box: Box) -> tuple[slice, slice] | None:
        """The rows and columns that can meet the box; None when there are none."""
        found = []
        for axis, (least, most) in enumerate(self.spans):
            near = (most >= box.low[axis] - _MARGIN) & (least <= box.high[axis] + _MARGIN)
            hit = np.flatnonzero(near)
            if not len(hit):
                return None
            found.append(slice(int(hit[0]), int(hit[-1]) + 1))
        cols, rows = found
        return rows, cols
