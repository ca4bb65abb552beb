"""MS-CMRSeg 2019, the balanced SSFP scans (C0): `patient<k>_C0.nii.gz` to `cmr_MR_normalized`.

The steps are those of CHAOS at 7.99 mm between slices, as Q-Net (Shen et al. 2022) published them.
Axes are kept as stored: the stacks are oblique, and turning them to the closest patient axis would
cut some hearts along another plane.
"""

import re
from pathlib import PurePosixPath
from typing import final

import numpy as np
import SimpleITK as sitk

from fewshot_seg.data.facts import describe
from fewshot_seg.data.known import CMR
from fewshot_seg.data.raw.edges import AS_GIVEN
from fewshot_seg.data.raw.heart import contrasts, facing, ring
from fewshot_seg.data.raw.pair import as_scan, read_pair
from fewshot_seg.data.raw.resample import centre_crop_pad, clip_brightest, resample
from fewshot_seg.data.raw.sets import Converted, RawScan
from fewshot_seg.data.raw.tree import RawTree
from fewshot_seg.data.scan import Scan
from fewshot_seg.data.volume import choose_slice_axis
from fewshot_seg.errors import DataError

RAW = {value: number for number, value in CMR.raw_ids.items()}
"""The value in a raw label file of each class id."""

MUSCLE, POOL = 1, 2

SPACING = (1.25, 1.25, 7.99)
OUT = (256, 256)
BRIGHTEST = 0.5
"""Percent of the voxels, the brightest, whose values are cut."""

RINGED = 0.5
"""Least share of the blood pool's border, in plane, that faces the myocardium."""

CONTRAST = 0.5
"""Least contrast of blood pool and myocardium; see `heart.contrasts`."""

CLEAR = 1.5
"""The contrast from which labels placed another way are believed to belong there."""

NAME = re.compile(r"patient_?(?P<patient>\d+)_C0(?P<manual>_manual)?\.nii(\.gz)?", re.IGNORECASE)

REMEDY = (
    "Register for MS-CMRSeg 2019 and use its training files patient<k>_C0.nii.gz and "
    "patient<k>_C0_manual.nii.gz, k from 1 to 35; name the folder that holds both kinds"
)

OTHERS = (
    (r"(^|/)image_\d+\.nii", "these scans are prepared already; open the folder as it is"),
    (r"patient_?\d+_C0\.nii", "these are scans without their labels"),
    (r"patient_?\d+_C0_manual\.nii", "these are labels without their scans"),
    (r"patient_?\d+_(LGE|DE|T2)(_manual)?\.nii", "these are its LGE or T2 scans, not C0"),
    (r"myops_", "this is MyoPS 2020, whose scans are others"),
    (r"\.(npz|npy|h5|png)$", "these are slices that another project prepared"),
)
"""What other downloads look like, the more particular first, and what they are."""


@final
class MSCMRSeg:
    """The 35 labelled scans; see `RawSet`."""

    name = "ms-cmrseg"
    title = "MS-CMRSeg 2019 bSSFP cardiac MR (C0), few-shot benchmark preparation"
    folder = CMR.name
    modality = "MR bSSFP"
    classes = CMR.classes
    version = 1
    expected = CMR.ids

    def find(self, tree: RawTree) -> list[RawScan]:
        """Scans by patient, wherever in the tree their files lie; other sequences are let be."""
        found: dict[tuple[int, bool], tuple[PurePosixPath, ...]] = {}
        for file in tree.files:
            match = NAME.fullmatch(file.name)
            if match is not None:
                key = int(match["patient"]), match["manual"] is not None
                found[key] = (*found.get(key, ()), file)
        scans = [
            RawScan(one, *(found.get((int(one), manual), ()) for manual in (False, True)))
            for one in self.expected
        ]
        if not any(scan.image and scan.labels for scan in scans):
            raise DataError(f"{tree.path} holds no labelled C0 scan: {_what_else(tree)}")
        return [scan for scan in scans if scan.image or scan.labels]

    def convert(self, tree: RawTree, scan: RawScan) -> Converted:
        """Cut the brightest half percent, resample, and crop or pad one scan to 256 x 256."""
        image, labels, notes = read_pair(tree, scan)
        _check_slices(scan, image)
        labels = _class_ids(scan, labels)
        _check_heart(scan, as_scan(scan.id, image, labels))
        image, labels = resample(clip_brightest(image, BRIGHTEST), labels, SPACING)
        lowest = float(sitk.GetArrayViewFromImage(image).min())
        return Converted(
            centre_crop_pad(image, OUT, lowest), centre_crop_pad(labels, OUT, 0), notes
        )


def _what_else(tree: RawTree) -> str:
    for pattern, what in OTHERS:
        if any(re.search(pattern, str(file), re.IGNORECASE) for file in tree.files):
            return f"{what}. {REMEDY}"
    return f"no file is called patient1_C0.nii.gz or the like. {REMEDY}"


def _check_slices(scan: RawScan, image: sitk.Image) -> None:
    axis = choose_slice_axis(image.GetSize(), image.GetSpacing())
    if axis != 2:
        raise DataError(
            f"{scan.image[0]} has its slices along stored axis {axis + 1}, not 3: it was turned "
            f"after it was published. {REMEDY}"
        )


def _class_ids(scan: RawScan, labels: sitk.Image) -> sitk.Image:
    """Ids 1, 2, 3 in place of 200, 500, 600."""
    values = sitk.GetArrayFromImage(labels)
    present = set(np.unique(values).tolist()) - {0}
    if present and present <= set(CMR.classes):
        raise DataError(
            f"{scan.labels[0]} holds the ids {sorted(present)}, not 200, 500 and 600: somebody "
            f"changed them, and not all did it alike. {REMEDY}"
        )
    if present != set(CMR.raw_ids):
        raise DataError(
            f"{scan.labels[0]} holds the values {sorted(present)}, but each C0 scan has exactly "
            f"200 (LV myocardium), 500 (LV blood pool) and 600 (right ventricle). {REMEDY}"
        )
    ids = np.zeros(values.shape, np.uint8)
    for raw, value in CMR.raw_ids.items():
        ids[values == raw] = value
    found = sitk.GetImageFromArray(ids)
    found.CopyInformation(labels)
    return found


def _check_heart(scan: RawScan, shown: Scan) -> None:
    """Refuse labels whose ids or place cannot be right, and scans of another sequence."""
    file, row = scan.labels[0], describe(shown, scan.id)
    inner, around, share = ring(row)
    if share < RINGED:
        raise DataError(
            f"{file}: the blood pool (500) is not ringed by the myocardium (200), which faces "
            f"{facing(row, POOL, MUSCLE):.0%} of its border; the labels are damaged. {REMEDY}"
        )
    if (inner, around) != (POOL, MUSCLE):
        raise DataError(
            f"{file}: the blood pool (500) must be ringed by the myocardium (200), but here "
            f"{RAW[inner]} is ringed by {RAW[around]} ({share:.0%} of its border; 200 faces "
            f"{facing(row, POOL, MUSCLE):.0%} of that of 500). The values were swapped. {REMEDY}"
        )
    found = contrasts(shown, pool=POOL, muscle=MUSCLE)
    best = max(found, key=lambda name: found[name])
    if best != AS_GIVEN and found[best] >= CLEAR:
        raise DataError(
            f"{file} fits its image better {best} (contrast {found[best]:.2f}) than as given "
            f"({found[AS_GIVEN]:.2f}): one of the two was flipped or turned. {REMEDY}"
        )
    if best != AS_GIVEN or found[best] < CONTRAST:
        raise DataError(
            f"{file}: the blood pool is not brighter than the myocardium (contrast "
            f"{found[AS_GIVEN]:.2f}), which it is in every C0 scan. The image is of another "
            f"sequence, or the labels of another patient. {REMEDY}"
        )
