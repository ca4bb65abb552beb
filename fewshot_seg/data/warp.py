"""Random geometric change of an image and its masks, by one resampling."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_seg.data.smoothing import gaussian_blur

REFERENCE = 256
"""Strengths in pixels are meant for images of this size and scale with others."""

Grid = Float[Tensor, "height width 2"]


@dataclass(frozen=True)
class Affine:
    """One affine change, in the order rotate, shift, shear, zoom, then mirror.

    rotation, shear: degrees; the shear pivots on the top left pixel, the rest on the centre.
    shift: pixels (down, right).   zoom: above 1 enlarges.   mirror: left and right exchanged.
    """

    rotation: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    shear: float = 0.0
    zoom: float = 1.0
    mirror: bool = False

    def matrix(self, size: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
        """Where a pixel (x, y, 1) of the old image goes in the new one."""
        height, width = size
        turn, lean = np.deg2rad(self.rotation), np.deg2rad(self.shear)
        cos, sin = np.cos(turn), np.sin(turn)
        rotate = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        shift = np.array([[1, 0, self.shift[1]], [0, 1, self.shift[0]], [0, 0, 1]])
        shear = np.array([[1, -np.sin(lean), 0], [0, np.cos(lean), 0], [0, 0, 1]])
        zoom = np.diag([self.zoom, self.zoom, 1.0])
        mirror = np.diag([-1.0 if self.mirror else 1.0, 1.0, 1.0])
        there = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1.0]])
        back = np.linalg.inv(there)
        return there @ mirror @ zoom @ back @ shear @ shift @ there @ rotate @ back


def pixels(size: tuple[int, int]) -> float:
    """What a pixel at size 256 is in an image of that height and width."""
    return float((size[0] * size[1]) ** 0.5 / REFERENCE)


def elastic_field(
    size: tuple[int, int], alpha: float, sigma: float, generator: np.random.Generator
) -> Float[Tensor, "2 height width"]:
    """Draw displacements in pixels; see `elastic`."""
    noise = torch.from_numpy(generator.random((2, *size), dtype=np.float32)).mul_(2).sub_(1)
    return elastic(noise, alpha, sigma)


def elastic(
    noise: Float[Tensor, "*sample 2 height width"], alpha: float, sigma: float
) -> Float[Tensor, "*sample 2 height width"]:
    """Displacements in pixels, (x, y): uniform noise in (-1, 1), blurred, times `alpha`.

    alpha, sigma: for a 256-pixel image. Smaller images get proportionally smaller waves and
    displacements; blurring by a sigma s leaves noise of 1/s, hence the square on alpha.
    """
    scale = pixels((noise.shape[-2], noise.shape[-1]))
    radius = max(1, round(2 * sigma * scale))
    return gaussian_blur(noise, sigma * scale, radius).mul_(alpha * scale**2)


def reading(size: tuple[int, int], affine: Affine) -> Float[np.ndarray, "2 3"]:
    """From a new pixel (x, y, 1) to where it is read from, in the coordinates of `grid_sample`:
    [-1, 1] runs from the outer edge of the first pixel to that of the last."""
    lengths = np.array([[size[1]], [size[0]]])
    rows = np.linalg.inv(affine.matrix(size))[:2] * 2 / lengths
    rows[:, 2:] += 1 / lengths - 1
    return rows


def sampling_grid(
    size: tuple[int, int], affine: Affine, field: Float[Tensor, "2 height width"] | None = None
) -> Grid:
    """Where each new pixel is read from, in the coordinates of `grid_sample`, (x, y).

    field: displacements (x, y) applied to the new pixel first, so the elastic change comes after
    the affine one.
    """
    height, width = size
    x = torch.arange(width, dtype=torch.float32)
    y = torch.arange(height, dtype=torch.float32)[:, None]
    if field is not None:
        x, y = x + field[0], y + field[1]
    planes = torch.empty(2, height, width)  # x and y apart in memory: written in half the time
    for plane, row in zip(planes, reading(size, affine).tolist()):
        a, b, c = row
        torch.add(x * a, y * b, out=plane).add_(c)
    return planes.permute(1, 2, 0)


def resample(
    planes: Float[Tensor, "sample plane height width"],
    grids: Float[Tensor, "sample height width 2"],
) -> Float[Tensor, "sample plane height width"]:
    """Bilinear; 0 outside the image, which is its mean after a z-score."""
    return functional.grid_sample(planes, grids, "bilinear", "zeros", align_corners=False)
