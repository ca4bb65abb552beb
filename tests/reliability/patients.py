"""A patient with two organs, scanned in any position."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

LEFT, RIGHT = 1, 2

Vector = tuple[float, float, float]


class Place(NamedTuple):
    """How a scan's voxels lie in the patient: a rotation vector in degrees, and millimetres."""

    turn: Vector = (0.0, 0.0, 0.0)
    spacing: Vector = (2.0, 2.0, 2.0)

    def affine(self, shape: Sequence[int]) -> np.ndarray:
        """RAS+, with the patient's origin in the middle of the volume."""
        affine = np.eye(4)
        rotation = Rotation.from_rotvec(self.turn, degrees=True).as_matrix()
        affine[:3, :3] = rotation * self.spacing
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        return affine


class Pair(NamedTuple):
    """A scan and its labels."""

    image: nib.Nifti1Image
    labels: nib.Nifti1Image

    def save(self, folder: Path, name: str) -> tuple[Path, Path]:
        paths = folder / f"{name}.nii", folder / f"{name}_labels.nii"
        nib.save(self.image, paths[0])
        nib.save(self.labels, paths[1])
        return paths


def patient(place: Place, shape: tuple[int, int, int] = (9, 8, 7), seed: int = 0) -> Pair:
    """A box of two organs, LEFT and RIGHT of the patient's middle, neither looking like its
    mirror image; everything is laid out by where a voxel lies, not by its index."""
    affine = place.affine(shape)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    where = index @ affine[:3, :3].T + affine[:3, 3]
    extent = np.abs(where).reshape(-1, 3).max(0) + 1e-3
    right, front, up = np.moveaxis(where / extent, -1, 0)
    labels = np.zeros(shape, np.uint8)
    labels[(right < -0.05) & (front > -0.6) & (up < 0.9)] = LEFT
    labels[(right > 0.05) & (front < 0.6) & (up < 0.9)] = RIGHT
    noise = np.random.default_rng(seed).normal(size=shape)
    image = (2.0 * labels + front + 0.3 * noise).astype(np.float32)
    return Pair(nib.Nifti1Image(image, affine), nib.Nifti1Image(labels, affine))
