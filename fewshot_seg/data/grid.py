"""What a stored grid of voxels may be: three axes, a sane size, an affine that can be inverted."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fewshot_seg.data.memory import memory
from fewshot_seg.errors import DataError

Affine = Float[np.ndarray, "4 4"]

MAX_VOXELS = 2**31
"""More voxels than any scanner delivers (1290 cubed, 8 GiB as float32): such a header lies."""

BYTES_PER_VOXEL = 8
"""What reading takes at least: the voxels as stored, and as float32."""

MAX_COSINE = 0.05
"""Of the angle between two axes, 3 degrees off a right angle: header rounding yes, a shear no."""


def check_shape(path: Path, shape: Sequence[int]) -> tuple[int, int, int]:
    """The spatial shape behind a stored one. Raises DataError unless it is 3-D, filled and sane."""
    shape = tuple(int(size) for size in shape)
    if any(size < 1 for size in shape):
        raise DataError(f"{path} has shape {shape}: an axis without voxels; export it again")
    spatial = (*shape, 1)[:3] if len(shape) == 2 else shape[:3]
    if len(spatial) != 3 or prod(shape) != prod(spatial):
        raise DataError(
            f"{path} has shape {shape}, but a scan has three axes; "
            "save each volume (time point, channel) as a 3-D file of its own"
        )
    if prod(spatial) > MAX_VOXELS:
        raise DataError(
            f"{path} claims the shape {shape}, {prod(spatial):.3g} voxels; at most "
            f"{MAX_VOXELS:.3g} are read. Its header is damaged, or the volume must be cropped"
        )
    if prod(spatial) * BYTES_PER_VOXEL > memory():
        raise DataError(
            f"{path} has the shape {shape} and would take {prod(spatial) * BYTES_PER_VOXEL:.3g} "
            f"bytes of memory, but there are {memory():.3g}; crop or resample it"
        )
    x, y, z = spatial
    return x, y, z


def check_affine(path: Path, affine: np.ndarray) -> Affine:
    """The affine as float64. Raises DataError unless it is finite and can be inverted."""
    affine = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        raise DataError(f"{path} has an affine that is not finite; repair its header")
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    check_spacing(path, sizes)
    if abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-4:
        raise DataError(
            f"{path} has an affine that cannot be inverted: two of its axes point the same way. "
            "Repair its header (qform or sform)"
        )
    axes = affine[:3, :3] / sizes
    if np.abs(axes.T @ axes - np.eye(3)).max() > MAX_COSINE:
        raise DataError(
            f"{path} has an affine whose axes are not at right angles (sheared, as a tilted gantry "
            "or an affine registration leave it); resample it to a grid that is"
        )
    return affine


def check_spacing(path: Path, sizes: np.ndarray) -> None:
    """Raise DataError unless all millimetres between voxels are above zero."""
    if (sizes < 1e-6).any():
        raise DataError(
            f"{path} has the spacing {' x '.join(f'{size:g}' for size in sizes)} mm; every axis "
            "needs one above zero. Repair its header (pixdim, qform or sform)"
        )
