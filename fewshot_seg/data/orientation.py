"""Which way a scan's axes run in the patient, and how to present it the way another one runs.

An axis code is the side an axis runs towards: L or R, P or A, I or S. Only whole axes are swapped
and flipped; no voxel is resampled. Of the turns that mirror nothing, the one is taken that leaves
the smallest rotation between the two, so oblique scans are presented as much alike as can be; and
the choice depends on where voxels lie in the patient, never on the order in which a file has them.
"""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
from jaxtyping import Float, Integer
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy.spatial.transform import Rotation

from fewshot_seg.data.scan import Geometry, Scan
from fewshot_seg.errors import DataError, OptionError

AxisCodes = tuple[str, str, str]
SIDES = ("LR", "PA", "IS")
"""Of the patient's axes, from the lower to the higher coordinate."""

Turn = Float[np.ndarray, "3 2"]
"""For each old axis, which new one it becomes and whether it is flipped (-1) or not (1)."""
Directions = Float[np.ndarray, "3 3"]
"""Unit vectors in the patient, one a column, along stored axes."""

TURNS = tuple(
    np.diag(flips)[:, list(order)]
    for order in permutations(range(3))
    for flips in product((1.0, -1.0), repeat=3)
)
"""All 48, as matrices "old new" of 1, -1 and 0."""

NUDGE = Rotation.from_rotvec(1e-4 * np.array([0.2, 0.5, 0.8])).as_matrix()
"""Turns the patient by a hundredth of a degree: an axis exactly between two others, or at a right
angle to one, then belongs to one of them, and to the same whichever way the file stores it."""


def axis_codes(geometry: Geometry) -> AxisCodes:
    """Where the stored axes run to, for example ('L', 'A', 'S'); oblique ones to the closest."""
    turn = _closest(geometry, np.eye(3))
    first, second, third = (SIDES[int(new)][int(flip > 0)] for new, flip in turn)
    return first, second, third


def same_slicing(first: Geometry, second: Geometry) -> bool:
    """Whether the slice axis of the one is the closest in the other to its own slice axis,
    whichever way it runs."""
    return int(_closest(first, _directions(second))[first.slice_axis, 0]) == second.slice_axis


def reorient(scan: Scan, to: Geometry | AxisCodes | str, *, keep_slices: bool = False) -> Scan:
    """The scan with its stored axes in the order and, as near as whole turns come, the direction
    of `to`.

    to: another scan's geometry, whose slice axis is then taken over too; or axis codes, as
        "LAS" or ('L', 'A', 'S'), along which the scan's own slice axis is followed.
    keep_slices: turn and flip slices but cut no new ones, even where the slice axes differ. Right
        for thick slices, which cut across would be stripes.
    Every voxel keeps its place in the patient. Raises DataError when the scan has no geometry and
    OptionError for codes that are none.
    """
    geometry = _known(scan)
    if isinstance(to, Geometry):
        slice_axis = to.slice_axis
        turn = _closest(geometry, _directions(to), slice_axis if keep_slices else None)
    else:
        slice_axis = None
        turn = _closest(geometry, _axes(to))
    turned = _turn(geometry, turn, slice_axis)
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


def _axes(codes: AxisCodes | str) -> Directions:
    """The directions that axis codes stand for. Raises OptionError for codes that are none."""
    known = {side: row for row, pair in enumerate(SIDES) for side in pair}
    rows = [known.get(code, -1) for code in codes]
    if sorted(rows) != [0, 1, 2]:
        raise OptionError(
            f"'{''.join(codes)}' is no orientation; it takes one of L R, one of P A, one of I S: "
            "LAS"
        )
    return np.eye(3)[:, rows] * [1.0 if code in "RAS" else -1.0 for code in codes]


def _closest(geometry: Geometry, axes: Directions, slice_axis: int | None = None) -> Turn:
    """The turn that leaves the smallest rotation between the stored axes and `axes`.

    slice_axis: only turns that make this the slice axis, without cutting anew.
    """
    cosines = (NUDGE @ _directions(geometry)).T @ axes  # "old new"
    mirrored = np.linalg.det(cosines)
    turns = [
        turn
        for turn in TURNS
        if np.linalg.det(turn) * mirrored > 0
        and (slice_axis is None or turn[geometry.slice_axis, slice_axis])
    ]
    # the trace of what is left over is 1 + 2 cos(angle)
    best = max(turns, key=lambda turn: float((turn * cosines).sum()))
    return np.stack([np.abs(best).argmax(1), best.sum(1)], axis=1)


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


def _directions(geometry: Geometry) -> Directions:
    return geometry.affine[:3, :3] / np.linalg.norm(geometry.affine[:3, :3], axis=0)
