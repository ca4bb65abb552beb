"""Masks of a scan as one grey picture a slice, each organ in a range of grey levels."""

import io
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fewshot_seg.data.pictures import IDS
from fewshot_seg.data.raw.tree import RawTree
from fewshot_seg.errors import DataError

UNKNOWN = 255


def read_masks(
    tree: RawTree,
    files: Sequence[PurePosixPath],
    size: tuple[int, int],
    greys: Mapping[int, tuple[int, int]],
) -> UInt8[np.ndarray, "slice height width"]:
    """Class ids, a slice a file, in the order of `files`.

    size: the height and width they must have.   greys: class id -> lowest and highest grey level.
    Ranges, because counting the levels that occur would shift all ids where an organ is absent.
    Raises DataError, naming the file, for damage, colours, another size or an unknown grey level.
    """
    table = np.full(256, UNKNOWN, np.uint8)
    table[0] = 0
    for value, (low, high) in greys.items():
        table[low : high + 1] = value
    return np.stack([_mask(tree, file, size, table) for file in files])


def _mask(
    tree: RawTree, file: PurePosixPath, size: tuple[int, int], table: UInt8[np.ndarray, "256"]
) -> UInt8[np.ndarray, "height width"]:
    levels = _levels(tree, file)
    if levels.shape != size:
        raise DataError(
            f"{tree.path}: {file} is {_by(levels.shape)} pixels but its image is {_by(size)}; "
            "restore it from the download"
        )
    ids = table[levels.clip(0, 255)]
    strange = np.unique(levels[(ids == UNKNOWN) | (levels > 255)]).tolist()
    if strange:
        raise DataError(
            f"{tree.path}: {file} has grey levels that stand for no organ: "
            f"{', '.join(map(str, strange[:8]))}{', ...' if len(strange) > 8 else ''}. It was "
            "resized or saved with loss; restore it from the download"
        )
    return ids


def _levels(tree: RawTree, file: PurePosixPath) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(tree.read(file))) as picture:
            if picture.mode not in IDS:
                raise DataError(
                    f"{tree.path}: {file} holds colours ({picture.mode}), but masks are grey; "
                    "restore it from the download"
                )
            return np.asarray(picture).astype(np.int64)
    # Pillow reports damage as any of these, a broken PNG chunk even as SyntaxError.
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{tree.path}: {file} cannot be read as a picture ({error}); download it again"
        ) from error


def _by(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]}"
