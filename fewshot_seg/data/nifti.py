"""Scans from volume files, and label volumes back onto a scan's own grid."""

import gzip
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Integer

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.data.grid import Affine, check_shape
from fewshot_seg.data.niftifile import open_nifti
from fewshot_seg.data.scan import Geometry, Scan
from fewshot_seg.data.values import as_image, as_labels
from fewshot_seg.data.volume import NIFTI_SUFFIXES, Volume, load_volume, volume_suffix
from fewshot_seg.errors import DataError

Image = Float[np.ndarray, "slice 1 height width"]
Labels = Integer[np.ndarray, "slice height width"]

MAX_OFFSET = 0.1
"""How far, in voxels, labels may lie beside their image: header rounding yes, a shift no."""

PLACEMENT = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
"""The header fields that place a volume. Others may hold a patient's name, so none is copied."""


def read_scan(
    image: Path,
    labels: Path | None = None,
    *,
    scan_id: str | None = None,
    slice_axis: int | None = None,
) -> Scan:
    """The scan in a volume file (NIfTI, MetaImage, NRRD, or a folder with one DICOM series).

    scan_id: by default the file's name without its ending.
    slice_axis: the stored axis to cut along. By default the only one of length 1, else the one
        whose spacing is more than 1.5 times that of both others, else the last.
    Raises DataError, naming the file, when one cannot be used or the two do not lie on one grid.
    """
    volume = load_volume(image)
    geometry = volume.geometry(slice_axis)
    found = None
    if labels is not None:
        annotation = load_volume(labels)
        check_same_grid(volume, annotation)
        found = as_labels(labels, geometry.to_slices(annotation.data))
    return Scan(
        id=stem(image) if scan_id is None else scan_id,
        image=_image(volume, geometry),
        labels=found,
        spacing=geometry.spacing,
        geometry=geometry,
    )


def read_image(path: Path, *, slice_axis: int | None = None) -> tuple[Image, Geometry]:
    """Raw intensities of a volume file, sliced as `read_scan` does, and its geometry."""
    volume = load_volume(path)
    geometry = volume.geometry(slice_axis)
    return _image(volume, geometry), geometry


def read_labels(path: Path, *, slice_axis: int | None = None) -> tuple[Labels, Geometry]:
    """Class ids of a volume file, sliced as `read_scan` does, and its geometry."""
    volume = load_volume(path)
    geometry = volume.geometry(slice_axis)
    return as_labels(path, geometry.to_slices(volume.data)), geometry


def stem(path: Path) -> str:
    """The file's name without the ending of its format: `image_1` of `image_1.nii.gz`."""
    if path.is_dir():
        return path.name  # a DICOM series; the dots of an UID are no ending
    suffix = volume_suffix(path)
    return path.stem if suffix is None else path.name[: -len(suffix)]


def check_same_grid(image: Volume, labels: Volume) -> None:
    """Raise DataError unless image and labels have one shape and lie in one place."""
    if image.data.shape != labels.data.shape:
        raise DataError(
            f"{image.path} has shape {image.data.shape} but its labels {labels.path} have shape "
            f"{labels.data.shape}; resample the labels onto the image's grid"
        )
    offset = corner_offset(image.affine, labels.affine, image.data.shape)
    if offset > MAX_OFFSET * min(image.spacing):
        raise DataError(
            f"{image.path} and its labels {labels.path} do not lie in the same place: their "
            f"affines put a corner {offset:.3g} mm apart (voxels are {min(image.spacing):.3g} mm). "
            "Resample the labels onto the image's grid, or copy the image's affine if only the "
            "labels' header is wrong"
        )


def corner_offset(first: Affine, second: Affine, shape: tuple[int, ...]) -> float:
    """The farthest, in millimetres, that two affines put a corner of the volume apart."""
    corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in shape))])
    return float(np.linalg.norm(corners @ (first - second).T, axis=1).max())


def write_labels(
    path: Path, labels: Labels, geometry: Geometry, header_from: Path | None = None
) -> None:
    """Write class ids as NIfTI on the grid of the scan they belong to.

    labels: 0 or above; stored in the smallest unsigned type that holds them.
    geometry: the scan's own. header_from: the scan's file; from a NIfTI file the spacing, qform,
        sform, their codes and units are taken over exactly.
    The file appears whole or not at all. Raises DataError when labels, geometry and
    `header_from` do not belong together or the file cannot be written.
    """
    if volume_suffix(path) not in NIFTI_SUFFIXES:
        raise DataError(f"{path}: label volumes are written as .nii.gz or .nii")
    if header_from is not None and path.resolve() == header_from.resolve():
        raise DataError(f"{path} is the scan itself; write its labels to another file")
    stored = geometry.to_stored(labels)
    if stored.shape != geometry.shape:
        expected = tuple(geometry.shape[axis] for axis in geometry.order)
        raise DataError(f"{path}: the labels have shape {labels.shape}, the scan has {expected}")
    if labels.min() < 0:
        raise DataError(f"{path}: class ids start at 0, but the labels hold {labels.min()}")
    voxels = stored.astype(np.min_scalar_type(int(labels.max())))
    content = _on_grid(voxels, geometry, header_from).to_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.compress(content, compresslevel=6, mtime=0)  # equal labels, equal bytes
    write_bytes(path, content)


def _image(volume: Volume, geometry: Geometry) -> Image:
    return as_image(volume.path, geometry.to_slices(volume.data))[:, None]


def _on_grid(voxels: np.ndarray, geometry: Geometry, header_from: Path | None) -> nib.Nifti1Image:
    if header_from is None or volume_suffix(header_from) not in NIFTI_SUFFIXES:
        return placed(voxels, geometry.affine)
    source = open_nifti(header_from)
    shape = check_shape(header_from, source.image.shape)
    offset = corner_offset(source.affine, geometry.affine, shape)
    if shape != geometry.shape or offset > MAX_OFFSET * min(geometry.spacing):
        raise DataError(
            f"{header_from} is not the scan these labels belong to: shape {shape} for "
            f"{geometry.shape}, corners {offset:.3g} mm apart"
        )
    image = type(source.image)(voxels, None)
    for name in PLACEMENT:
        image.header[name] = source.image.header[name]
    # A trailing axis of length 1 is dropped, and so is its spacing.
    image.header["pixdim"][4:] = 1
    return image


def placed(voxels: np.ndarray, affine: Affine) -> nib.Nifti1Image:
    """Voxels in stored order as NIfTI, in millimetres, with qform and sform set to the affine."""
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    return image
