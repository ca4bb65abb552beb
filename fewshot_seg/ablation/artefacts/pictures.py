"""Grey pictures of a scan's slices, kept once for all variants of a study."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fewshot_seg.ablation.artefacts.datafile import read_data, unusable, write_data
from fewshot_seg.ablation.artefacts.squeezed import squeeze, unsqueeze, volume
from fewshot_seg.data.prepared import PreparedScan
from fewshot_seg.data.resize import resize_images
from fewshot_seg.errors import DataError

KIND = "pictures"
SIDE = 192
"""Pixels of the longer side of a picture, at most."""
LOW, HIGH = 0.5, 99.5
"""Percentiles of the scan's intensities that are black and white."""
NAME = re.compile(r"[0-9a-f]{16}")

Pictures = UInt8[np.ndarray, "slice rows cols"]


def keep_pictures(scan: PreparedScan, folder: Path, data_version: str) -> str:
    """Write the slices of `scan` into `folder`, unless they are there; the name they have."""
    told = [data_version, scan.id, scan.n_slices, picture_size(scan)]
    name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    path = path_of(folder, name)
    if not path.exists():
        pictures = draw(scan)
        table = {"scan_id": scan.id, "shape": list(pictures.shape)}
        write_data(path, KIND, {"pictures": squeeze(pictures)}, table)
    return name


def read_pictures(folder: Path, name: str) -> Pictures:
    """All slices of a scan, proportioned as its labels. Raises DataError."""
    path = path_of(folder, name)
    arrays, table = read_data(path, KIND)
    try:
        shape = volume(table["shape"])
        return unsqueeze(arrays["pictures"], int(np.prod(shape))).reshape(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise unusable(path, KIND, error) from error


def path_of(folder: Path, name: str) -> Path:
    """Raises DataError for a name that leads elsewhere."""
    if not NAME.fullmatch(name):
        raise DataError(f"{name!r} is no name of a scan's pictures; it has 16 hexadecimal digits")
    return folder / f"{name}.safetensors"


def picture_size(scan: PreparedScan) -> tuple[int, int]:
    """Proportioned as the scan itself; not larger than what the network saw, nor than SIDE."""
    height, width = scan.original_size
    longer = max(height, width)
    scale = min(1.0, SIDE / longer, max(scan.size) / longer)
    return max(1, round(height * scale)), max(1, round(width * scale))


def draw(scan: PreparedScan) -> Pictures:
    """The slices in 256 greys, their window that of the whole scan."""
    grey = scan.images.float().mean(1, keepdim=True)
    planes = resize_images(grey, picture_size(scan))[:, 0].numpy()
    low, high = np.percentile(planes, [LOW, HIGH])
    spread = max(high - low, 1e-6)
    return (np.clip((planes - low) / spread, 0, 1) * 255).round().astype(np.uint8)
