"""Scans in files, small enough to prepare in no time, and what a store is compared with."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from fewshot_seg.data.folder import Folder, open_folder
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.prepare import PreparedScan

OPTIONS: dict[str, Any] = {"size": 16, "intensity": Intensity(), "channels": 3}


def write(path: Path, number: int, dtype: type = np.uint8) -> None:
    """An image of noise, and labels that show class 1 and 2 on every slice."""
    rng = np.random.default_rng(number)
    labels: np.ndarray = np.zeros((24, 20, 5), dtype)
    labels[2:11, 3:12], labels[12:21, 8:18] = 1, 2
    affine = np.diag([1.5, 1.5, 6.0, 1.0])
    path.mkdir(parents=True, exist_ok=True)
    noise = rng.integers(0, 500, labels.shape).astype(np.int16)
    nib.save(nib.Nifti1Image(noise, affine), path / f"image_{number}.nii")
    nib.save(nib.Nifti1Image(labels, affine), path / f"label_{number}.nii")


def folder(path: Path) -> Folder:
    for number in range(4):
        write(path, number)
    return open_folder(root=path)


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Folder, scan_id: str) -> None:
        raise AssertionError(f"scan {scan_id} was read again")

    monkeypatch.setattr(Folder, "load", load)


def assert_same(one: PreparedScan, two: PreparedScan) -> None:
    for field in fields(PreparedScan):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b)
            assert (a.dtype, a.stride(1)) == (b.dtype, b.stride(1))
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
        elif field.name != "reopen":
            assert a == b
