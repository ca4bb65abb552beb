"""Volumes in the other formats: MetaImage, NRRD, and a folder with the files of a DICOM series."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from fewshot_seg.data.dicom import read_series
from fewshot_seg.data.grid import Affine, check_shape
from fewshot_seg.data.itkheader import check_header
from fewshot_seg.errors import DataError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

READERS = {"mha": "MetaImageIO", "mhd": "MetaImageIO", "nrrd": "NrrdImageIO", "nhdr": "NrrdImageIO"}
"""By a file's ending; asked to choose, ITK would try readers of thirty other formats too."""


def open_itk(path: Path) -> tuple[np.ndarray, Affine]:
    """Voxels in stored order (x, y, z) and the RAS+ affine. Raises DataError."""
    check_header(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(READERS[path.suffix[1:].lower()])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        # Before the voxels are read, for a header can claim any size.
        check_shape(path, reader.GetSize())
        return _from_itk(path, reader.Execute())
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read: {_last_line(error)}") from error


def open_dicom(folder: Path) -> tuple[np.ndarray, Affine]:
    """The only DICOM series in a folder, as `open_itk`. Raises DataError."""
    return _from_itk(folder, read_series(folder))


def _from_itk(path: Path, image: sitk.Image) -> tuple[np.ndarray, Affine]:
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError(
            f"{path} has {image.GetNumberOfComponentsPerPixel()} values a voxel, but a scan has "
            "one; save each component as a file of its own"
        )
    size = image.GetDimension()
    affine = np.eye(max(size, 3) + 1)
    affine[:size, :size] = np.array(image.GetDirection()).reshape(size, size) * image.GetSpacing()
    affine[:size, -1] = image.GetOrigin()
    spatial = [0, 1, 2, -1]
    return (
        sitk.GetArrayFromImage(image).transpose(),
        LPS_TO_RAS @ affine[np.ix_(spatial, spatial)],
    )


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
