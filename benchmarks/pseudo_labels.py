"""Superpixels and supervoxels: how long they take, how many there are, how many can be drawn.

    python benchmarks/pseudo_labels.py                                        # the phantom
    python benchmarks/pseudo_labels.py --data path/to/chaos_MR_T2_normalized

One core, no cache, and nothing counts that happens once (imports, numba's compilation). A
supervoxel is usable when an episode of one shot can be made of it (`SupervoxelSource`).
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.prepare import PreparedScan, prepare
from fewshot_seg.data.scan import Dataset
from fewshot_seg.data.superpixels import pixels_at, superpixels
from fewshot_seg.data.supervoxels import spacing_ratio, supervoxels
from fewshot_seg.data.windows import Windows


def timed(compute: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """What it gives, and the seconds of computing it took, whatever else the machine does."""
    start = time.process_time()
    return compute(), time.process_time() - start


def pixel_row(image: np.ndarray) -> tuple[float, float, float]:
    """Milliseconds, superpixels and their median area, of a slice on average."""
    planes, seconds = timed(lambda: np.stack([superpixels(plane) for plane in image]))
    counts = [int(plane.max()) for plane in planes]
    areas = np.concatenate([np.bincount(plane.ravel())[1:] for plane in planes])
    return 1000 * seconds / len(image), float(np.mean(counts)), float(np.median(areas))


def voxel_row(
    scan: PreparedScan, image: np.ndarray, min_size: int
) -> tuple[float, Windows, np.ndarray]:
    """Seconds, what can be drawn, and the number of slices of each supervoxel."""
    ratio = spacing_ratio(scan) or 1.0
    ids, seconds = timed(lambda: supervoxels(image, spacing_ratio=ratio, min_size=min_size))
    windows = Windows.find(
        ids, range(len(ids)), length=2, spread=1, min_pixels=pixels_at(200, scan.size)
    )
    slices = np.array([int((ids == one).any((1, 2)).sum()) for one in range(1, ids.max() + 1)])
    return seconds, windows, slices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder of scans; the phantom without it")
    parser.add_argument("--size", type=int, default=256, help="pixels of the square slices")
    parser.add_argument("--min-size", type=int, default=5000, help="voxels; 1000 for heart")
    parser.add_argument("--scans", type=int, help="only so many")
    given = parser.parse_args()
    torch.set_num_threads(1)
    dataset: Dataset = abdomen() if given.data is None else open_folder(root=given.data)
    supervoxels(np.random.default_rng(0).random((2, 8, 8)), min_size=1)  # compiles
    print(f"{dataset.name}, {given.size}x{given.size}, supervoxels of {given.min_size} or more")
    head = ("scan", "slices", "ms/slice", "superpixels", "area", "s/volume", "supervoxels",
            "usable", "slices each")  # fmt: skip
    print("".join(f"{word:>13}" for word in head))
    present = usable = 0
    for scan_id in dataset.ids[: given.scans]:
        scan = prepare(dataset.load(scan_id), size=given.size, intensity=Intensity())
        image = scan.images[:, 0].numpy()
        milliseconds, count, area = pixel_row(image)
        seconds, windows, slices = voxel_row(scan, image, given.min_size)
        present, usable = present + windows.present, usable + windows.usable
        row = (scan_id, len(image), f"{milliseconds:.1f}", f"{count:.1f}", f"{area:.0f}",
               f"{seconds:.2f}", windows.present, windows.usable,
               f"{np.median(slices):.0f}")  # fmt: skip
        print("".join(f"{value:>13}" for value in row), flush=True)
    print(f"{usable} of {present} supervoxels are usable ({usable / present:.0%})")


if __name__ == "__main__":
    main()
