"""A prepared scan as files that are the same bytes whenever it is prepared again."""

import gzip
from hashlib import sha256
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.data.itkfile import LPS_TO_RAS
from fewshot_seg.data.nifti import placed
from fewshot_seg.data.raw.record import Case
from fewshot_seg.data.raw.sets import Converted, RawSet


def write_scan(folder: Path, made: RawSet, scan_id: str, scan: Converted, source: str) -> Case:
    """Write `image_<id>.nii.gz` and `label_<id>.nii.gz`, each whole or not at all.

    source: digest of the raw files. Raises DataError when a file cannot be written.
    """
    labels = sitk.GetArrayViewFromImage(scan.labels)
    files = {"image": (f"image_{scan_id}.nii.gz", scan.image)}
    files["label"] = (f"label_{scan_id}.nii.gz", scan.labels)
    digests = {"source": source}
    for kind, (name, image) in files.items():
        content = gzip.compress(_nifti(image), compresslevel=6, mtime=0)
        digests[kind] = sha256(content).hexdigest()
        write_bytes(folder / name, content)
    return Case(
        id=scan_id,
        image=files["image"][0],
        label=files["label"][0],
        shape=tuple(scan.image.GetSize()),
        voxels={value: int(np.count_nonzero(labels == value)) for value in made.classes},
        notes=scan.notes,
        sha256=digests,
    )


def _nifti(image: sitk.Image) -> bytes:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    voxels = sitk.GetArrayFromImage(image).transpose()  # stored as (x, y, z)
    content: bytes = placed(voxels, LPS_TO_RAS @ affine).to_bytes()
    return content
