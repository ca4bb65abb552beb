"""An image and its labels from two NIfTI files of a download, checked against each other."""

from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from jaxtyping import Shaped

from fewshot_seg.data.grid import Affine
from fewshot_seg.data.itkfile import LPS_TO_RAS
from fewshot_seg.data.nifti import MAX_OFFSET, corner_offset
from fewshot_seg.data.raw.sets import RawScan
from fewshot_seg.data.raw.tree import RawTree
from fewshot_seg.data.scan import Geometry, Scan
from fewshot_seg.data.values import as_image, as_labels
from fewshot_seg.data.volume import Volume, load_volume
from fewshot_seg.errors import DataError

MAX_TURN = 0.05
"""How much the directions of labels and image may differ: header rounding, not a flip."""


class Pair(NamedTuple):
    """Image (float32) and labels (16 or 32 bit) on one grid, and what a user should know."""

    image: sitk.Image
    labels: sitk.Image
    notes: tuple[str, ...]


def read_pair(tree: RawTree, scan: RawScan) -> Pair:
    """The one image and the one label file of a scan, axes as stored.

    Labels of the image's shape and directions but another place are taken voxel by voxel, as the
    published preparations do, and noted.
    Raises DataError when a file is missing, there twice or damaged, or when the labels
    have another shape or run another way than the image.
    """
    image = load_volume(_only(tree, scan, scan.image, "image"))
    labels = load_volume(_only(tree, scan, scan.labels, "label"))
    notes = _check_same_grid(image, labels)
    return Pair(
        to_itk(as_image(image.path, image.data), image.affine),
        to_itk(as_labels(labels.path, labels.data), image.affine),
        notes,
    )


def to_itk(voxels: Shaped[np.ndarray, "x y z"], affine: Affine) -> sitk.Image:
    """Voxels in stored order and their RAS+ affine as SimpleITK holds them."""
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose()))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def as_scan(scan_id: str, image: sitk.Image, labels: sitk.Image) -> Scan:
    """The same, as the rest of the library holds a scan; slices are the third stored axis."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    geometry = Geometry(LPS_TO_RAS @ affine, image.GetSize())
    return Scan(
        id=scan_id,
        image=sitk.GetArrayFromImage(image)[:, None],
        labels=sitk.GetArrayFromImage(labels),
        spacing=geometry.spacing,
        geometry=geometry,
    )


def _only(tree: RawTree, scan: RawScan, files: tuple[PurePosixPath, ...], what: str) -> Path:
    if not files:
        known = (*scan.image, *scan.labels)[0]
        raise DataError(
            f"{tree.path}: {known} has no {what} file beside it; the download is incomplete, "
            "fetch the missing file"
        )
    if len(files) > 1:
        raise DataError(
            f"{tree.path} has {len(files)} {what} files of one patient: "
            f"{', '.join(map(str, files))}; keep the original one"
        )
    return tree.local(files[0])


def _check_same_grid(image: Volume, labels: Volume) -> tuple[str, ...]:
    if image.data.shape != labels.data.shape:
        raise DataError(
            f"{labels.path} has shape {labels.data.shape} but its image {image.path} has shape "
            f"{image.data.shape}: they are not of one scan. Use both as they were published"
        )
    scale = np.linalg.norm(image.affine[:3, :3], axis=0)
    if np.abs((image.affine - labels.affine)[:3, :3] / scale).max() > MAX_TURN:
        raise DataError(
            f"{labels.path} and its image {image.path} have axes that run different ways or "
            "voxels of different size: one of them was turned or resampled. Use both as they "
            "were published"
        )
    offset = corner_offset(image.affine, labels.affine, image.data.shape)
    if offset <= MAX_OFFSET * min(image.spacing):
        return ()
    return (
        f"the headers of image and labels put a corner {offset:.3g} mm apart; the voxels were "
        "taken as they are stored, and the image's header was kept",
    )
