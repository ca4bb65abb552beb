"""What the scanner adds: blur, uneven coils and noise."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter

from fewshot_seg.data.phantom.anatomy import Dice
from fewshot_seg.data.phantom.fields import RandomField
from fewshot_seg.data.phantom.painting import Grid

Contrast = Literal["mr", "ct"]
CONTRASTS: tuple[Contrast, ...] = get_args(Contrast)
Volume = Float[np.ndarray, "slice height width"]

_MR_BLUR, _CT_BLUR = 0.9, 0.6  # standard deviations of the in-plane blur, millimetres


def acquire(dice: Dice, clean: Volume, grid: Grid, bias: RandomField, contrast: Contrast) -> Volume:
    """The measured volume, float32. `bias` shapes the sensitivity of the MR coils."""
    if contrast == "mr":
        return _magnetic(dice, clean, grid, bias)
    return _tomography(dice, clean, grid)


def _blurred(clean: Volume, millimetres: float, grid: Grid) -> Volume:
    sigma = millimetres / grid.pixel
    return gaussian_filter(clean, (0.0, sigma, sigma), mode="nearest", truncate=3.0)


def _magnetic(dice: Dice, clean: Volume, grid: Grid, bias: RandomField) -> Volume:
    """Coil sensitivity, then the magnitude of a complex signal with noise: Rician."""
    plane = grid.in_plane
    heights = (np.arange(grid.n_slices) - (grid.n_slices - 1) / 2) * grid.slab
    radius = np.hypot(plane[:, None], plane[None, :] / 1.5)
    # Surface coils see the rim better than the depth; on top a smooth drift of its own.
    rim = dice.uniform(0.05, 0.25) * (radius / 90.0) ** 2
    sensitivity = np.exp(0.13 * bias.on_grid(heights, plane, plane) + rim - 0.08)
    signal = _blurred(np.maximum(clean, 0) * sensitivity, _MR_BLUR, grid)
    noise = dice.uniform(8.0, 15.0)
    real, imaginary = dice.rng.standard_normal((2, *clean.shape), dtype=np.float32) * noise
    return np.hypot(signal + real, imaginary).astype(np.float32)


def _tomography(dice: Dice, clean: Volume, grid: Grid) -> Volume:
    """Noise with the grain of a soft reconstruction kernel, in Hounsfield units."""
    noise = dice.rng.standard_normal(clean.shape, dtype=np.float32)
    noise = gaussian_filter(noise, (0.0, 0.6, 0.6), mode="wrap")
    noise *= dice.uniform(9.0, 16.0) / float(noise.std())
    return np.maximum(_blurred(clean, _CT_BLUR, grid) + noise, -1024).astype(np.float32)
