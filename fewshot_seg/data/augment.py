"""Random changes of labelled images in training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.data import recolour
from fewshot_seg.data.recolour import Colours
from fewshot_seg.data.warp import (
    REFERENCE,
    Affine,
    Grid,
    elastic_field,
    pixels,
    resample,
    sampling_grid,
)
from fewshot_seg.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How strongly images are changed. The defaults are the field's ("sabs_aug" in the code of
    Ouyang et al., also used by ADNet); a strength of 0 switches that change off.

    Geometry, of image and masks alike, in one bilinear resampling with 0 outside the image:
    rotation, shear: degrees, U(-v, v).          shift: pixels at size 256, U(-v, v) each way.
    zoom: the range of the factor; (1, 1) is off.
    elastic: factor on noise in (-1, 1) that was blurred by `elastic_sigma` pixels at size 256.
    flip: probability of exchanging left and right. Off: it also exchanges paired organs.

    Intensity, of z-scored images, in this order:
    gamma: the exponent is U(1 - v, 1 + v).
    remap: 0 to 1, how far a random rising curve may leave the diagonal.
    invert: probability of bright and dark changing places.
    contrast, brightness: times U(1 - v, 1 + v), plus U(-v, v).
    blur: pixels at size 256, U(0, v).           noise: standard deviation, U(0, v).

    Raises OptionError for a strength outside its range.
    """

    rotation: float = 5.0
    shift: float = 5.0
    shear: float = 5.0
    zoom: tuple[float, float] = (0.9, 1.2)
    elastic: float = 10.0
    elastic_sigma: float = 5.0
    flip: float = 0.0
    gamma: float = 0.5
    remap: float = 0.0
    invert: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rotation", "shift", "shear", "elastic", "brightness", "blur", "noise"):
            _within(name, getattr(self, name), float("inf"))
        for name in ("flip", "remap", "invert"):
            _within(name, getattr(self, name), 1.0)
        for name in ("gamma", "contrast"):
            _within(name, getattr(self, name), 0.99)
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise OptionError(f"zoom must be (low, high) with 0 < low <= high; got {self.zoom}")
        if not self.elastic_sigma > 0:
            raise OptionError(f"elastic_sigma must be positive; got {self.elastic_sigma}")

    @classmethod
    def none(cls) -> "Augmentation":
        """Every strength 0: images and masks come back untouched."""
        return cls(rotation=0.0, shift=0.0, shear=0.0, zoom=(1.0, 1.0), elastic=0.0, gamma=0.0)

    @classmethod
    def strong(cls) -> "Augmentation":
        """For encoders trained from scratch on few scans. Our choice, from no paper."""
        return cls(
            rotation=15.0,
            shift=15.0,
            shear=10.0,
            zoom=(0.75, 1.3),
            elastic=40.0,
            elastic_sigma=8.0,
            gamma=0.6,
            remap=0.6,
            invert=0.1,
            contrast=0.25,
            brightness=0.25,
            blur=1.0,
            noise=0.15,
        )

    @property
    def warps(self) -> bool:
        """Whether geometry can change at all."""
        moves = (self.rotation, self.shift, self.shear, self.elastic, self.flip)
        return any(moves) or tuple(self.zoom) != (1, 1)

    def __call__(
        self,
        image: Float[Tensor, "channel height width"],
        masks: Float[Tensor, "*mask height width"],
        generator: np.random.Generator,
    ) -> tuple[Float[Tensor, "channel height width"], Float[Tensor, "*mask height width"]]:
        """One changed image with its masks; see `many`."""
        images, changed = self.many(image[None], masks[None], generator)
        return images[0], changed[0]

    def many(
        self,
        images: Float[Tensor, "sample channel height width"],
        masks: Float[Tensor, "sample *mask height width"],
        generator: np.random.Generator,
    ) -> tuple[
        Float[Tensor, "sample channel height width"], Float[Tensor, "sample *mask height width"]
    ]:
        """Change each image on its own, and its masks by the same geometry.

        masks: 0 or 1; they come back as 0 or 1 (cut at 0.5) and disjoint ones stay disjoint. A
            mask may come back EMPTY, when it leaves the image or was tiny: the caller must look.
        generator: the only source of randomness; images are drawn for in order.
        """
        grey = images.shape[1] > 1 and images.stride(1) == 0  # channels that share their memory
        changed = images[:, :1] if grey else images
        if self.warps:
            size = (images.shape[2], images.shape[3])
            grids = [self.grid(size, generator) for _ in images]
            changed, masks = _resample_with_masks(changed, masks, grids)
        changed = torch.stack([self.recolour(image, generator) for image in changed])
        return (changed.expand(images.shape) if grey else changed), masks

    def affine(self, size: tuple[int, int], generator: np.random.Generator) -> Affine:
        """Draw an affine change of images of that height and width."""
        height, width = size
        down, right = generator.uniform(-self.shift, self.shift, 2)
        return Affine(
            rotation=generator.uniform(-self.rotation, self.rotation),
            shift=(down * height / REFERENCE, right * width / REFERENCE),
            shear=generator.uniform(-self.shear, self.shear),
            zoom=generator.uniform(*self.zoom),
            mirror=bool(generator.random() < self.flip),
        )

    def grid(self, size: tuple[int, int], generator: np.random.Generator) -> Grid:
        """Draw a geometry: where each new pixel is read from, as `grid_sample` wants it."""
        affine = self.affine(size, generator)
        field = None
        if self.elastic:
            field = elastic_field(size, self.elastic, self.elastic_sigma, generator)
        return sampling_grid(size, affine, field)

    def colours(self, size: tuple[int, int], generator: np.random.Generator) -> Colours:
        """Draw changes of intensity, without the noise itself."""
        found: dict[str, Any] = {}
        if self.gamma:
            found["exponent"] = generator.uniform(1 - self.gamma, 1 + self.gamma)
        if self.remap or self.invert:
            curve = recolour.random_curve(self.remap, generator)
            falls = generator.random() < self.invert
            found["curve"] = torch.tensor([[1 - y for y in curve] if falls else curve])
        if self.contrast or self.brightness:
            found["factor"] = generator.uniform(1 - self.contrast, 1 + self.contrast)
            found["offset"] = generator.uniform(-self.brightness, self.brightness)
        if self.blur:
            found["sigma"] = generator.uniform(0, self.blur) * pixels(size)
        if self.noise:
            found["std"] = generator.uniform(0, self.noise)
        return Colours(**found)

    def coloured(
        self,
        images: Float[Tensor, "sample channel height width"],
        colours: Colours,
        noise: Float[Tensor, "sample 1 height width"] | None,
    ) -> Float[Tensor, "sample channel height width"]:
        """Apply drawn changes of intensity.

        noise: of standard deviation 1; needed where `noise` is not 0.
        """
        if self.gamma:
            images = recolour.gamma(images, colours.exponent)
        if colours.curve is not None and (self.remap or self.invert):
            images = recolour.remap(images, colours.curve)
        if self.contrast or self.brightness:
            images = images * colours.factor + colours.offset
        if self.blur:
            size = (images.shape[2], images.shape[3])
            images = recolour.blur(images, colours.sigma, self.blur * pixels(size))
        if self.noise and noise is not None:
            images = images + noise * colours.std
        return images

    def recolour(
        self, image: Float[Tensor, "channel height width"], generator: np.random.Generator
    ) -> Float[Tensor, "channel height width"]:
        """Draw and apply the changes of intensity."""
        size = (image.shape[1], image.shape[2])
        drawn, noise = self.colours(size, generator), None
        if self.noise:
            noise = torch.from_numpy(generator.standard_normal((1, 1, *size), dtype=np.float32))
        return self.coloured(image[None], drawn, noise)[0]


def _resample_with_masks(
    images: Tensor, masks: Tensor, grids: Sequence[Grid]
) -> tuple[Tensor, Tensor]:
    """One by one: the planes and the grid of one image fit into a core's cache."""
    channels = images.shape[1]
    flat = masks.flatten(1, -3) if masks.ndim > 3 else masks[:, None]
    moved = [
        resample(torch.cat(planes)[None], grid[None])[0]
        for *planes, grid in zip(images, flat, grids, strict=True)
    ]
    # strictly above 0.5, so that no pixel can belong to two disjoint masks
    binary = torch.stack([(planes[channels:] > 0.5).float() for planes in moved])
    return torch.stack([planes[:channels] for planes in moved]), binary.reshape(masks.shape)


def _within(name: str, value: float, highest: float) -> None:
    if not 0 <= value <= highest:
        limit = "0 or more" if highest == float("inf") else f"from 0 to {highest:g}"
        raise OptionError(f"augmentation strength '{name}' must be {limit}; got {value}")
