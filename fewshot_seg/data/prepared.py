"""A prepared scan: what a network sees of a scan, in memory or as views of a file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Float, Integer
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan as a network sees it, and what is needed to score an answer at full resolution.

    images: normalised intensities on the network's size. A grey scan's channels share their
        memory (stride 0), so write to them only after a copy.
    labels: class ids on the network's size, each pixel by majority of area; None if not annotated.
    original_labels: class ids as stored in the scan.    original_size: its height and width.
    spacing: millimetres along (slice, height, width) of the ORIGINAL voxels; None if unknown.
    class_slices: class id -> the slices that show it in the original labels. A tiny structure can
        be listed here and yet be gone on the network's size.
    reopen: opens the very same scan from its file, where the arrays are views of one (see
        `fewshot_seg.data.store`). Sent to another process, such a scan travels as its file's name.
        `dataclasses.replace` forgets it, because its result is another scan.
    """

    id: str
    images: Float[Tensor, "slice channel height width"]
    labels: Integer[Tensor, "slice height width"] | None
    original_labels: Integer[np.ndarray, "slice full_height full_width"] | None
    original_size: tuple[int, int]
    spacing: tuple[float, float, float] | None
    class_slices: dict[int, tuple[int, ...]]
    reopen: Callable[[], "PreparedScan"] | None = field(default=None, init=False, repr=False)

    @property
    def n_slices(self) -> int:
        return self.images.shape[0]

    def position(self, index: int) -> float:
        """Where slice `index` lies, from 0 (first) to 1 (last); 0.5 in a scan of one slice."""
        return index / (self.n_slices - 1) if self.n_slices > 1 else 0.5

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.images.shape[2], self.images.shape[3]

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        return super().__reduce_ex__(protocol) if self.reopen is None else (self.reopen, ())
