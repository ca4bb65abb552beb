"""The three prepared sets that the field publishes, which users already have on their disks.

They come without a `dataset.json`, so what stands here is what their files do not say: class
names, modality, and where a copy departs from the table of ids or carries frames that are no
slices. Folders are known by their name, or by scan ids, grid and label values together.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fewshot_seg.data.scan import Scan
from fewshot_seg.data.volume import Volume, load_volume
from fewshot_seg.errors import DataError

PLANE = 256
"""Height and width of every slice that the field's loaders give out."""
SPACING_SLACK = 0.01
"""Part by which a stored spacing may differ from the published one: headers round."""


@dataclass(frozen=True)
class Published:
    """A prepared set of the field.

    name: its folder's, and the data set's in results.   title: of the challenge behind it.
    classes: class id -> name.   ids: scan ids, sorted numerically.
    groups: classes that are tested together under setting 2; empty where that makes no sense.
    raw_ids: ids of the challenge -> class ids, for copies whose labels were never mapped.
    spacing: millimetres along (slice, height, width); None where it differs from scan to scan.
    oversized: copies carry what resampling to floor(size) + 1 left there: slices of 257 x 257 and
        a last frame of zeros, which is no slice.
    """

    name: str
    title: str
    modality: str
    classes: Mapping[int, str]
    ids: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...] = ()
    raw_ids: Mapping[int, int] = field(default_factory=dict)
    spacing: tuple[float, float, float] | None = None
    oversized: bool = False

    def canonical(self, scan: Scan, classes: Collection[int]) -> Scan:
        """The scan as the field's loaders give it out: the first 256 rows and columns, no empty
        last frame, the ids of `classes` (the ids that the data set names)."""
        return self._mapped(_trimmed(scan) if self.oversized else scan, classes)

    @property
    def tested_together(self) -> tuple[tuple[int, ...], ...]:
        """The groups, and all of them at once, which is what some of the field do."""
        every = tuple(sorted({value for group in self.groups for value in group}))
        return (*self.groups, every) if self.groups else ()

    def spaced_like(self, spacing: tuple[float, float, float]) -> bool:
        """Whether voxels are as far apart as in the published set."""
        return self.spacing is None or bool(np.allclose(spacing, self.spacing, rtol=SPACING_SLACK))

    def _mapped(self, scan: Scan, classes: Collection[int]) -> Scan:
        raw = [value for value in self.raw_ids if value not in classes]
        if scan.labels is None or not raw or scan.labels.max() < min(raw):
            return scan
        labels = scan.labels.copy()
        for value in raw:
            labels[scan.labels == value] = self.raw_ids[value]
        return replace(scan, labels=labels)


CHAOS = Published(
    name="chaos_MR_T2_normalized",
    title="CHAOS-T2",
    modality="mr",
    classes={1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"},
    ids=(
        *("1", "2", "3", "5", "8", "10", "13", "15", "19", "20"),
        *("21", "22", "31", "32", "33", "34", "36", "37", "38", "39"),
    ),
    groups=((2, 3), (1, 4)),
    spacing=(7.7, 1.25, 1.25),
)
SYNAPSE = Published(
    name="sabs_CT_normalized",
    title="Synapse (BTCV)",
    modality="ct",
    classes={
        1: "spleen",
        2: "right kidney",
        3: "left kidney",
        4: "gallbladder",
        5: "oesophagus",
        6: "liver",
        7: "stomach",
        8: "aorta",
        9: "inferior vena cava",
        10: "portal and splenic veins",
        11: "pancreas",
        12: "right adrenal gland",
        13: "left adrenal gland",
    },
    ids=tuple(str(number) for number in range(30)),
    groups=((2, 3), (1, 6)),
    oversized=True,
)
CMR = Published(
    name="cmr_MR_normalized",
    title="MS-CMRSeg (bSSFP)",
    modality="mr",
    classes={
        1: "left ventricular myocardium",
        2: "left ventricular blood pool",
        3: "right ventricle",
    },
    ids=tuple(str(number) for number in range(1, 36)),
    raw_ids={200: 1, 500: 2, 600: 3},
    spacing=(7.99, 1.25, 1.25),
)
PUBLISHED = (CHAOS, SYNAPSE, CMR)


def recognise(root: Path, ids: Collection[str], labels: Collection[Path]) -> Published | None:
    """The published set in a folder of the layout "benchmark", None for any other.

    labels: label files, of which one is read where the folder's name decides nothing.
    """
    name = root.resolve().name.casefold()
    for one in PUBLISHED:
        if name == one.name.casefold():
            return one
    same = [one for one in PUBLISHED if set(one.ids) == set(ids)]
    if not same or not labels:
        return None
    try:
        shown = load_volume(min(labels))
    except DataError:
        return None  # loading its scan says so
    return next((one for one in same if _fits(one, shown)), None)


def with_raw_names(names: Mapping[int, str]) -> dict[int, str]:
    """Class names, also by the raw ids of a published set whose classes they are: a label file of
    an unmapped copy then has names too."""
    raw = {
        value: one.classes[own]
        for one in PUBLISHED
        for value, own in one.raw_ids.items()
        if names == one.classes
    }
    return {**names, **raw}


def _fits(one: Published, labels: Volume) -> bool:
    """Whether a label volume has the set's grid, and at least half of its classes and no other."""
    geometry = labels.geometry()
    _, *plane = geometry.to_slices(labels.data).shape
    sides = (PLANE, PLANE + one.oversized)
    if plane not in [[side, side] for side in sides] or not one.spaced_like(geometry.spacing):
        return False
    found = {float(value) for value in np.unique(labels.data)} - {0.0}
    tables = (set(one.classes), set(one.raw_ids))
    return any(found <= table and 2 * len(found) >= len(table) > 0 for table in tables)


def _trimmed(scan: Scan) -> Scan:
    """Without the row, column and frame too many, where there are such."""
    depth = len(scan.image) - _ends_empty(scan)
    side = PLANE if scan.image.shape[2:] == (PLANE + 1, PLANE + 1) else None
    if scan.geometry is None or (depth == len(scan.image) and side is None):
        return scan
    image = np.ascontiguousarray(scan.image[:depth, :, :side, :side])
    labels = scan.labels
    if labels is not None:
        labels = np.ascontiguousarray(labels[:depth, :side, :side])
    # Only high ends are cut, so the first voxel keeps its place and the affine holds.
    x, y, z = scan.geometry.to_stored(image[:, 0]).shape
    return replace(
        scan, image=image, labels=labels, geometry=replace(scan.geometry, shape=(x, y, z))
    )


def _ends_empty(scan: Scan) -> bool:
    labelled = scan.labels is not None and bool(scan.labels[-1].any())
    return len(scan.image) > 1 and not scan.image[-1].any() and not labelled
