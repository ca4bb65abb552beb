"""A volume as its file stores it: an array and the affine that places it in the patient.

Everything that can be wrong with one file is found here; `nifti.py` makes scans of what is left.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from fewshot_seg.data.grid import Affine, check_affine, check_shape
from fewshot_seg.data.itkfile import open_dicom, open_itk
from fewshot_seg.data.niftifile import open_nifti
from fewshot_seg.data.scan import Geometry
from fewshot_seg.errors import DataError, OptionError

NIFTI_SUFFIXES = (".nii", ".nii.gz")
OTHER_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
VOLUME_SUFFIXES = NIFTI_SUFFIXES + OTHER_SUFFIXES

THICK = 1.5
"""An axis is the slice axis when its spacing is this many times that of both others."""


@dataclass(frozen=True, eq=False)
class Volume:
    """One file's voxels in stored axis order; affine: voxel index to RAS+ millimetres."""

    path: Path
    data: Shaped[np.ndarray, "x y z"]
    affine: Affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along the stored axes."""
        x, y, z = (float(size) for size in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    def geometry(self, slice_axis: int | None = None) -> Geometry:
        """How to slice it; `slice_axis` None chooses as `choose_slice_axis` does."""
        x, y, z = self.data.shape
        if slice_axis is None:
            slice_axis = choose_slice_axis((x, y, z), self.spacing)
        elif slice_axis not in (0, 1, 2):
            raise OptionError(f"slice_axis is {slice_axis}; the stored axes are 0, 1 and 2")
        return Geometry(self.affine, (x, y, z), slice_axis)


def choose_slice_axis(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> int:
    """The only axis of length 1, else the one with clearly the largest spacing, else the last."""
    if shape.count(1) == 1:
        return shape.index(1)
    thickest = max(range(3), key=lambda axis: spacing[axis])
    others = [spacing[axis] for axis in range(3) if axis != thickest]
    return thickest if spacing[thickest] > THICK * max(others) else 2


def volume_suffix(path: Path) -> str | None:
    """The ending that says how to read the file (`.nii.gz` is one), or None for no volume."""
    name = path.name.lower()
    return next((suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix)), None)


def load_volume(path: Path) -> Volume:
    """The volume in a NIfTI, MetaImage or NRRD file, or in a folder with one DICOM series.

    Raises DataError when the file is missing, damaged, not three-dimensional, of impossible size
    or without a usable affine.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist")
    suffix = volume_suffix(path)
    if path.is_dir():
        data, affine = open_dicom(path)
    elif suffix is None:
        raise DataError(
            f"{path} is no volume this library reads; it takes {', '.join(VOLUME_SUFFIXES)} "
            "and folders of DICOM files"
        )
    elif not path.is_file():
        raise DataError(f"{path} is no file but a pipe or a device; save the scan to a file")
    elif path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); copy or download it again")
    elif suffix in NIFTI_SUFFIXES:
        nifti = open_nifti(path)
        data, affine = nifti.data(), nifti.affine
    else:
        data, affine = open_itk(path)
    x, y, z = check_shape(path, data.shape)
    return Volume(path, data.reshape(x, y, z), check_affine(path, affine))
