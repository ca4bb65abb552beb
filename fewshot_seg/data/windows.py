"""The runs of neighbouring slices of one supervoxel that an episode can be made of."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer


class Window(NamedTuple):
    """A supervoxel and some of its slices, in the order in which an episode takes them."""

    id: int
    slices: tuple[int, ...]


class Windows(NamedTuple):
    """What can be drawn from one scan, and with which probability.

    ids, slices: the supervoxel of each window and its slices, lowest first.
    edges: cumulated probability.
    present, usable: supervoxels of the scan, and those that have a window.
    """

    ids: Int[np.ndarray, " window"]
    slices: Int[np.ndarray, "window slice"]
    edges: Float[np.ndarray, " window"]
    present: int
    usable: int

    @classmethod
    def find(
        cls,
        voxels: Integer[np.ndarray, "slice height width"],
        kept: Sequence[int],
        *,
        length: int,
        spread: int,
        min_pixels: int,
    ) -> "Windows":
        """Every `length` entries, `spread` apart, of the list of slices that show a supervoxel.

        kept: slices that may be used; a window holds no other.
        min_pixels: of the supervoxel on a window's lowest slice.

        The probabilities are those of drawing a supervoxel uniformly, then one of its windows
        uniformly, and beginning again when the lowest slice shows too little (Hansen et al. 2022,
        official code).
        """
        pixels = np.stack([np.bincount(p.ravel(), minlength=voxels.max() + 1) for p in voxels])
        allowed = np.isin(np.arange(len(voxels)), np.array(kept, np.int64))
        steps = np.arange(length) * spread
        ids, slices, weights = [], [], []
        present = [value for value in range(1, pixels.shape[1]) if pixels[:, value].any()]
        for value in present:
            shown = np.flatnonzero(pixels[:, value])
            starts = np.arange(max(0, len(shown) - int(steps[-1])))
            runs = shown[starts[:, None] + steps]
            runs = runs[allowed[runs].all(1)]
            large = runs[pixels[runs[:, 0], value] >= min_pixels]
            ids += [value] * len(large)
            slices.append(large)
            weights += [1 / max(1, len(runs))] * len(large)
        share = np.cumsum(np.array(weights, np.float64))
        return cls(
            np.array(ids, np.int64),
            np.concatenate(slices) if slices else np.zeros((0, length), np.int64),
            share / share[-1] if len(share) else share,
            len(present),
            len(set(ids)),
        )

    @property
    def total(self) -> int:
        """Number of windows."""
        return len(self.ids)

    def draw(self, generator: np.random.Generator) -> Window:
        """A window, in half of the cases with its slices reversed."""
        place = int(np.searchsorted(self.edges, generator.random(), side="right"))
        place = min(place, self.total - 1)
        run = self.slices[place].tolist()
        return Window(int(self.ids[place]), tuple(run[::-1] if generator.random() < 0.5 else run))
