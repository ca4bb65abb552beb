"""Which way a scan's axes run in the patient, and how to present it the way another one runs.

An axis code is the side an axis runs towards: L or R, P or A, I or S. Oblique axes count as the
closest one. Only whole axes are swapped and flipped; no voxel is resampled.
"""

from dataclasses import replace
from itertools import permutations, product

import nibabel as nib
import numpy as np
from jaxtyping import Float, Integer
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from fewshot_seg.data.scan import Geometry, Scan
from fewshot_seg.errors import DataError, OptionError

AxisCodes = tuple[str, str, str]
AXIS_OF = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}

Turn = Float[np.ndarray, "3 2"]
"""For each old axis, which new one it becomes and whether it is flipped (-1) or not (1)."""


def axis_codes(geometry: Geometry) -> AxisCodes:
    """Where the stored axes run to, for example ('L', 'A', 'S')."""
    first, second, third = nib.aff2axcodes(geometry.affine)
    return first, second, third


def same_slicing(first: Geometry, second: Geometry) -> bool:
    """Whether both are cut along the same (closest) anatomical axis, whichever way it runs."""
    return _plane(first) == _plane(second)


def reorient(scan: Scan, to: Geometry | AxisCodes | str, *, keep_slices: bool = False) -> Scan:
    """The scan with its stored axes in the order and direction of `to`.

    to: another scan's geometry, whose slice axis is then taken over too; or axis codes, as
        "LAS" or ('L', 'A', 'S'), along which the scan's own slice axis is followed.
    keep_slices: turn and flip slices but cut no new ones, even where the slice axes differ. Right
        for oblique stacks (cardiac short axis), whose closest anatomical axis varies by patient.
    Every voxel keeps its place in the patient. Raises DataError when the scan has no geometry and
    OptionError for codes that are none.
    """
    geometry = _known(scan)
    if isinstance(to, Geometry) and keep_slices:
        turn = _turn_within_slices(geometry, to)
    else:
        turn = ornt_transform(io_orientation(geometry.affine), _orientation(to))
    turned = _turn(geometry, turn, to.slice_axis if isinstance(to, Geometry) else None)
    channels = [
        _turn_slices(scan.image[:, channel], geometry, turned, turn)
        for channel in range(scan.image.shape[1])
    ]
    labels = None if scan.labels is None else _turn_slices(scan.labels, geometry, turned, turn)
    return replace(
        scan,
        image=np.stack(channels, axis=1),
        labels=labels,
        spacing=turned.spacing,
        geometry=turned,
    )


def restore(
    labels: Integer[np.ndarray, "slice height width"], *, seen: Scan, original: Scan
) -> Integer[np.ndarray, "original_slice original_height original_width"]:
    """Labels of a reoriented scan on the grid of the scan it came from.

    seen: what `reorient(original, ...)` returned, whose slices the labels follow.
    Raises DataError when the labels do not fit `seen`, or `seen` is not a turned `original`.
    """
    before, after = _known(seen), _known(original)
    if labels.shape != seen.image[:, 0].shape:
        raise DataError(
            f"scan {seen.id}: the labels are {labels.shape}, its slices {seen.image[:, 0].shape}"
        )
    # A pure turn has one entry of 1 or -1 in each row and column, and zeros elsewhere.
    steps = np.linalg.inv(after.affine[:3, :3]) @ before.affine[:3, :3]
    axes = np.abs(steps).argmax(axis=0)
    turn = np.stack([axes, np.sign(steps[axes, range(3)])], axis=1)
    turned = _turn(before, turn, after.slice_axis) if len(set(axes)) == 3 else None
    if (
        turned is None
        or turned.shape != after.shape
        or not np.allclose(turned.affine, after.affine, rtol=0, atol=1e-3 * min(after.spacing))
    ):
        raise DataError(f"scan {seen.id} is not a reorientation of scan {original.id}")
    return _turn_slices(labels, before, after, turn)


def _known(scan: Scan) -> Geometry:
    if scan.geometry is None:
        raise DataError(
            f"scan {scan.id} has no geometry (it is a picture, say), so it has no orientation"
        )
    return scan.geometry


def _plane(geometry: Geometry) -> int:
    return int(io_orientation(geometry.affine)[geometry.slice_axis, 0])


def _orientation(to: Geometry | AxisCodes | str) -> Turn:
    if isinstance(to, Geometry):
        return io_orientation(to.affine)
    if sorted(AXIS_OF.get(code, -1) for code in to) != [0, 1, 2]:
        raise OptionError(
            f"'{''.join(to)}' is no orientation; it takes one of L R, one of P A, one of I S: LAS"
        )
    return axcodes2ornt(tuple(to))


def _turn(geometry: Geometry, turn: Turn, slice_axis: int | None) -> Geometry:
    """The geometry after a turn; `slice_axis` None follows the old one."""
    sizes = {int(new): size for new, size in zip(turn[:, 0], geometry.shape)}
    return Geometry(
        affine=geometry.affine @ inv_ornt_aff(turn, geometry.shape),
        shape=(sizes[0], sizes[1], sizes[2]),
        slice_axis=int(turn[geometry.slice_axis, 0]) if slice_axis is None else slice_axis,
    )


def _turn_slices(slices: np.ndarray, before: Geometry, after: Geometry, turn: Turn) -> np.ndarray:
    # Contiguous, because torch takes no negative strides.
    return np.ascontiguousarray(after.to_slices(apply_orientation(before.to_stored(slices), turn)))


def _turn_within_slices(geometry: Geometry, to: Geometry) -> Turn:
    """The turn of all 16 that keep the slices which leaves the axes closest to those of `to`."""
    cosines = _directions(geometry).T @ _directions(to)  # old axis x new axis

    def closeness(turn: Turn) -> float:
        return float(sum(flip * cosines[old, int(new)] for old, (new, flip) in enumerate(turn)))

    turns = [
        np.stack([order, flips], axis=1).astype(np.float64)
        for order in permutations(range(3))
        if order[geometry.slice_axis] == to.slice_axis
        for flips in product((1, -1), repeat=3)
    ]
    return max(turns, key=closeness)


def _directions(geometry: Geometry) -> Float[np.ndarray, "3 3"]:
    return geometry.affine[:3, :3] / np.linalg.norm(geometry.affine[:3, :3], axis=0)
