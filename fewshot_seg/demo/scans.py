"""The demonstration's scans, as files in the layout that people's own scans may have."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.data.folder import Folder, open_folder
from fewshot_seg.data.nifti import write_labels
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.scan import Scan
from fewshot_seg.errors import DataError


def make_scans(folder: Path, *, n_scans: int, size: int, seed: int) -> Folder:
    """Synthetic abdomens as `image_<id>.nii.gz` and `label_<id>.nii.gz`; those there stay.

    Raises DataError when the folder holds the scans of another seed, number or size.
    """
    phantom = abdomen(n_scans=n_scans, size=size, seed=seed)
    _claim(folder, f"{n_scans} synthetic abdomens, {size} pixels, seed {seed}", phantom.classes)
    for scan_id in phantom.ids:
        image, labels = folder / f"image_{scan_id}.nii.gz", folder / f"label_{scan_id}.nii.gz"
        if not (image.exists() and labels.exists()):
            _write(phantom.load(scan_id), image, labels)
    return open_folder(root=folder, modality="mr", name="phantom_abdomen")


def _claim(folder: Path, description: str, classes: Mapping[int, str]) -> None:
    manifest = folder / "dataset.json"
    if not manifest.exists():
        table = {
            "description": description,
            "modality": {"0": "MR"},
            "labels": {"0": "background", **{str(key): name for key, name in classes.items()}},
        }
        write_bytes(manifest, (json.dumps(table, indent=1) + "\n").encode())
        return
    try:
        there = json.loads(manifest.read_text(encoding="utf-8")).get("description")
    except (OSError, ValueError) as error:
        raise DataError(f"{manifest} cannot be read: {error}; remove it") from error
    if there != description:
        raise DataError(
            f"{folder} holds {there}, but {description} were asked for; choose another folder"
        )


def _write(scan: Scan, image: Path, labels: Path) -> None:
    assert scan.geometry is not None
    assert scan.labels is not None
    write_labels(labels, scan.labels, scan.geometry)
    # Whole numbers, as scanners deliver them; written after the labels, so that an image without
    # labels is never left behind.
    stored = scan.geometry.to_stored(np.rint(scan.image[:, 0]).astype(np.int16))
    volume = nib.Nifti1Image(stored, scan.geometry.affine)
    volume.header.set_xyzt_units("mm")
    write_bytes(image, gzip.compress(volume.to_bytes(), compresslevel=6, mtime=0))
