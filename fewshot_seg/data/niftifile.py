"""NIfTI files, read whole and checked to the last byte."""

import gzip
import io
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from fewshot_seg.data.grid import Affine, check_shape, check_spacing
from fewshot_seg.errors import DataError

UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres in the header's spatial unit, by its code; files that name none, 0, mean
millimetres. The unit of time, in the upper bits, is of no use here."""

GZIP_RATIO = 1032
"""No gzip stream holds more bytes per byte of file than this."""

GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """A file's header and, as raw bytes, all of it."""

    path: Path
    image: Any

    @property
    def millimetres(self) -> float:
        """How many millimetres its spatial unit has. Raises DataError for an unknown one."""
        code = int(self.image.header["xyzt_units"]) % 8
        if code not in UNITS:
            raise DataError(
                f"{self.path} names the unit of length {code}, which NIfTI does not have; repair "
                "its header (xyzt_units is 2 for millimetres)"
            )
        return UNITS[code]

    @property
    def affine(self) -> Affine:
        """Voxel index to RAS+ millimetres."""
        return self.image.affine * np.array([[self.millimetres]] * 3 + [[1.0]])

    def data(self) -> np.ndarray:
        """The voxels with the header's slope and intercept applied; integers stay integers."""
        kind = self.image.get_data_dtype()
        if kind.kind not in "iuf":
            raise DataError(
                f"{self.path} stores {kind} voxels (colour or complex); "
                "a scan needs one number a voxel"
            )
        return np.asanyarray(self.image.dataobj)


def open_nifti(path: Path) -> NiftiFile:
    """Read a `.nii` or `.nii.gz` file.

    Raises DataError when the file is truncated or corrupt, no NIfTI at all, or of a shape that
    `check_shape` refuses.
    """
    try:
        _check_compression(path)
        header = nib.load(path)
        if not isinstance(header, nib.Nifti1Image):
            raise DataError(f"{path} is a {type(header).__name__}, not a volume of voxels")
        check_shape(path, header.shape)
        content = _read(path, _claimed_bytes(path, header))
        _check_spacing(path, type(header).header_class, content)
        return NiftiFile(path, type(header).from_bytes(content))
    except DataError:
        raise
    except ImageFileError as error:
        raise DataError(f"{path} is not a NIfTI file; look at how it was made") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} is truncated or corrupt ({error}); copy or download it again"
        ) from error
    # nibabel computes with what a header says before it checks it.
    except (OSError, HeaderDataError, ValueError, OverflowError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _check_compression(path: Path) -> None:
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    if path.name.lower().endswith(".gz") and not compressed:
        raise DataError(
            f"{path} is not gzip-compressed, though its name says so; "
            "rename it to .nii if it is a plain NIfTI file, else download it again"
        )
    if compressed and not path.name.lower().endswith(".gz"):
        raise DataError(f"{path} is gzip-compressed; rename it to {path.name}.gz")


def _check_spacing(path: Path, kind: Any, content: bytes) -> None:
    """Refuse a spacing of zero that places the volume; nibabel would make it 1 mm."""
    header = kind.from_fileobj(io.BytesIO(content), check=False)
    spacing = header["pixdim"][1 : 1 + min(3, int(header["dim"][0]))]
    if header["sform_code"] == 0 and (spacing == 0).any():
        check_spacing(path, spacing)


def _claimed_bytes(path: Path, image: Any) -> int:
    """Where the voxels end, counted in uncompressed bytes."""
    start, header = int(image.dataobj.offset), image.header.sizeof_hdr
    if start < header:
        raise DataError(
            f"{path} says that its voxels begin at byte {start}, but its header has {header} "
            "bytes; repair it (vox_offset), or export the scan again"
        )
    return start + prod(image.shape) * image.get_data_dtype().itemsize


def _read(path: Path, claimed: int) -> bytes:
    size = path.stat().st_size
    compressed = path.name.lower().endswith(".gz")
    # Before anything is allocated: what the file could hold at most.
    held = size * GZIP_RATIO if compressed else size
    content = b""
    if held >= claimed:
        with gzip.open(path) if compressed else path.open("rb") as file:
            content = file.read(claimed)
            # To the very end, for only there gzip's checksum is compared.
            while file.read(1 << 20):
                pass
    if len(content) < claimed:
        raise DataError(
            f"{path} is truncated: its header claims {claimed} bytes but the file holds "
            f"{len(content) or f'at most {held}'}; copy or download it again"
        )
    return content
