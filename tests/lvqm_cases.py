"""What the tests of the LVQM parts share: golden files, and small supports with blocks of a way."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_seg.prototype_sets import PrototypeSets


def files(folder: Path, pattern: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, arrays) of every golden file that fits; scalars as numbers."""
    found = []
    for path in sorted(folder.glob(f"{pattern}.npz")):
        with np.load(path) as data:
            arrays = {
                key: torch.from_numpy(data[key]) if data[key].ndim else data[key].item()
                for key in data.files
            }
        found.append((path.stem, arrays))
    assert found, f"no golden file {pattern}"
    return found


def of_one(sets: PrototypeSets, label: int = 0) -> Tensor:
    """The present vectors of the first episode: prototype dim."""
    return sets.vectors[0, label][sets.present[0, label]]


def support(data: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Maps and masks of one way: batch way shot ..."""
    return data["support_features"][None, None], data["support_masks"].float()[None, None]


def block_masks(
    *, batch: int = 1, way: int = 1, shot: int = 1, size: int = 16, side: int = 8
) -> Tensor:
    """A square of side `side` in a corner that differs by way and shot."""
    masks = torch.zeros(batch, way, shot, size, size)
    for w in range(way):
        for s in range(shot):
            top, left = (size - side) * (w % 2), (size - side) * (s % 2)
            masks[:, w, s, top : top + side, left : left + side] = 1
    return masks


def parted_maps(masks: Tensor, *, dim: int = 6, gap: float = 3.0, seed: int = 0) -> Tensor:
    """Noise by `seed`, moved along one direction inside the masks and against it outside."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(*masks.shape[:3], dim, *masks.shape[-2:], generator=rng)
    direction = torch.randn(dim, 1, 1, generator=torch.Generator().manual_seed(100))
    return noise + gap * direction * (2 * masks.unsqueeze(3) - 1)


def close(got: Tensor, wanted: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(got.float(), wanted.float(), atol=atol, rtol=1e-5)
