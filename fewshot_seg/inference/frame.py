"""The pixel grid that a network sees: scans of any spacing and size on one canvas, and back.

All scans are brought to the millimetres a pixel that the labelled scan has on the network's size,
so that an organ appears in every scan as large as it appears in the example. What is then smaller
than the canvas is padded on all sides; nothing is ever cut off.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from fewshot_seg.data.resize import resize_images
from fewshot_seg.data.scan import Scan
from fewshot_seg.errors import DataError

Size = tuple[int, int]
MOST_SCALE = 50
"""No field of view is so many times another: a whole body has 2 m, a prostate 4 cm."""
STEP = 32
"""Canvases grow in steps of so many pixels: a multiple of every encoder's stride."""


@dataclass(frozen=True)
class Placement:
    """Where a scan's slices lie on a canvas.

    full: height and width of the scan's own slices.   scaled: theirs on the canvas, in pixels.
    canvas: of the canvas, at least `scaled`.
    """

    full: Size
    scaled: Size
    canvas: Size

    @property
    def pad(self) -> tuple[int, int, int, int]:
        """Pixels left, right, above and below, as `torch.nn.functional.pad` wants them."""
        down, across = (self.canvas[axis] - self.scaled[axis] for axis in (0, 1))
        return across // 2, across - across // 2, down // 2, down - down // 2

    def put(
        self, images: Float[Tensor, "slice channel h w"]
    ) -> Float[Tensor, "slice channel height width"]:
        """Scaled images on the canvas. Around them stands their darkest value, which is air."""
        return F.pad(images, self.pad, value=float(images.min()))

    def put_labels(self, labels: Integer[Tensor, "slice h w"]) -> Tensor:
        """Scaled labels on the canvas, background around them."""
        return F.pad(labels, self.pad)

    def take(
        self, values: Float[Tensor, "slice height width"]
    ) -> Float[Tensor, "slice full_height full_width"]:
        """The scan's part of the canvas at the scan's own resolution, bilinear."""
        left, _, top, _ = self.pad
        height, width = self.scaled
        own = values[:, None, top : top + height, left : left + width]
        return resize_images(own, self.full)[:, 0]


@dataclass(frozen=True)
class Frame:
    """The network's pixels.

    size: height and width it was trained on.   pixel: millimetres of a pixel along (height,
    width); None when the labelled scan does not say, and every scan is then stretched to `size`.
    """

    size: Size
    pixel: tuple[float, float] | None

    @classmethod
    def of(cls, support: Scan, size: Size) -> "Frame":
        """The frame in which the labelled scan fills the network's size, as in training."""
        if support.spacing is None:
            return cls(size, None)
        full = support.image.shape[2:]
        height, width = (support.spacing[axis + 1] * full[axis] / size[axis] for axis in (0, 1))
        return cls(size, (height, width))

    def scaled(self, scan: Scan) -> Size:
        """Height and width of the scan's slices in the network's pixels, at least 1."""
        if self.pixel is None or scan.spacing is None:
            return self.size
        full = scan.image.shape[2:]
        height, width = (
            max(1, round(full[axis] * scan.spacing[axis + 1] / self.pixel[axis])) for axis in (0, 1)
        )
        return height, width

    def check_scale(self, scan: Scan) -> None:
        """Raise DataError for a scan so much larger or smaller than the labelled one that the
        millimetres in one of their headers must be wrong."""
        if self.pixel is None or scan.spacing is None:
            return
        full = scan.image.shape[2:]
        ratio = max(
            full[axis] * scan.spacing[axis + 1] / (self.pixel[axis] * self.size[axis])
            for axis in (0, 1)
        )
        if not 1 / MOST_SCALE < ratio < MOST_SCALE:
            raise DataError(
                f"scan {scan.id} spans {ratio:.3g} times the field of view of the labelled scan; "
                "check the spacing and its unit in both headers, or crop the larger scan"
            )

    def canvas(self, *scaled: Size) -> Size:
        """The network's size, or as much more as the largest of the scaled scans needs."""
        height, width = (
            max(self.size[axis], *(_up(one[axis], self.size[axis]) for one in scaled))
            for axis in (0, 1)
        )
        return height, width

    def shrunk(self, factor: float) -> "Frame":
        """The frame with pixels larger by `factor`."""
        assert self.pixel is not None
        return Frame(self.size, (self.pixel[0] * factor, self.pixel[1] * factor))


def _up(length: int, least: int) -> int:
    """`length` where `least` holds it, else the next multiple of STEP."""
    return length if length <= least else -(-length // STEP) * STEP
