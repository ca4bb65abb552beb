"""Masks and pictures as few bytes, and back, never more of them than was promised."""

import math
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

MOST = 2**30
"""Voxels of the largest volume that is kept."""

Bytes = UInt8[np.ndarray, " byte"]


def squeeze_mask(mask: Bool[np.ndarray, "slice height width"]) -> Bytes:
    """Eight voxels to a byte, then deflated: a scan's organ is some kilobytes."""
    return squeeze(np.packbits(mask))


def unsqueeze_mask(
    data: np.ndarray, shape: tuple[int, int, int]
) -> Bool[np.ndarray, "slice height width"]:
    """The inverse of `squeeze_mask`. Raises ValueError when `data` is not such a mask."""
    voxels = math.prod(shape)
    bits = np.unpackbits(unsqueeze(data, -(-voxels // 8)), count=voxels)
    return bits.astype(bool).reshape(shape)


def squeeze(values: UInt8[np.ndarray, "..."]) -> Bytes:
    """Deflated bytes."""
    return np.frombuffer(zlib.compress(values.tobytes()), np.uint8).copy()


def unsqueeze(data: np.ndarray, size: int) -> Bytes:
    """The `size` bytes that `squeeze` was given. Raises ValueError when there are others."""
    if data.dtype != np.uint8 or data.ndim != 1:
        raise ValueError(f"bytes were expected, not {data.dtype} of shape {data.shape}")
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(data.tobytes(), size + 1)
    except zlib.error as error:
        raise ValueError(f"its bytes are damaged ({error})") from error
    if len(found) != size or not inflate.eof:
        raise ValueError(f"its bytes do not hold the {size} that were promised")
    return np.frombuffer(found, np.uint8)


def volume(values: Sequence[object]) -> tuple[int, int, int]:
    """The three numbers of a volume's shape. Raises ValueError for anything else, or a giant."""
    shape = tuple(value for value in values if type(value) is int and value > 0)
    if len(shape) != 3 or len(values) != 3:
        raise ValueError(f"{values!r} is no shape of a volume")
    if math.prod(shape) > MOST:
        raise ValueError(f"a volume of shape {shape} is larger than the {MOST} voxels allowed")
    return shape[0], shape[1], shape[2]
