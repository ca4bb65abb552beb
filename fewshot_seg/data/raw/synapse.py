"""Synapse abdominal CT (BTCV, MICCAI 2015): `RawData/Training` to `sabs_CT_normalized`.

The steps are those of Ouyang et al. (ECCV 2020), on whose output published numbers rest, with two
departures. The plane, row and column that lie outside the scan are not written (published files
have 257 x 257 x (Z + 1) voxels, loaders drop the row and column and keep the plane, which is all
zero). And the origin follows the 32 pixels that are cut away, so that labels can be mapped back to
the patient.
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import final

import numpy as np
import SimpleITK as sitk

from fewshot_seg.data.known import SYNAPSE
from fewshot_seg.data.raw.anatomy import LEFT, LIVER, RIGHT, fault, measure
from fewshot_seg.data.raw.edges import check_placement
from fewshot_seg.data.raw.pair import read_pair
from fewshot_seg.data.raw.resample import resample
from fewshot_seg.data.raw.sets import Converted, RawScan
from fewshot_seg.data.raw.tree import RawTree
from fewshot_seg.errors import DataError

PATIENTS = (*range(1, 11), *range(21, 41))
"""Numbers of the labelled patients, in file order; a scan's id is its place in this list."""

WINDOW = (-125.0, 275.0)
"""Hounsfield units that are kept."""

AIR = -500.0
"""Every CT shows air; a volume without anything below this is not in Hounsfield units."""

SIDE, BORDER, OUT = 512, 32, 256
"""Pixels of a raw slice, cut from each of its sides, and of a prepared slice."""

MIN_SCORE = 1.15
"""Of the edge test. In a real CT, windowed, 13 organs score 1.36 as they lie and at most 1.02
in another placement."""

NAME = re.compile(r"(?P<kind>img|label)(?P<patient>\d{4})\.nii(\.gz)?", re.IGNORECASE)

REMEDY = (
    "Use Abdomen/RawData.zip of the challenge 'Multi-Atlas Labeling Beyond the Cranial Vault' "
    "(Synapse syn3193805): it holds RawData/Training/img/img0001.nii.gz and "
    "RawData/Training/label/label0001.nii.gz"
)

UNLIKE = re.compile(r"averaged-.*|regdata", re.IGNORECASE)
"""Folders of the challenge whose files are no raw scans."""

OTHERS = (
    (
        r"averaged-|_avg(_seg)?\.nii",
        "these are the averaged images of the challenge, in which kidneys are not labelled",
    ),
    (r"regdata|(img|label)\d{4}-\d{4}\.nii", "these are its registered pairs (RegData)"),
    (r"(^|/)rawdata\.zip$", "the archive is packed inside; give RawData.zip itself"),
    (r"\.(npz|npy|h5|npy\.h5)$", "these are slices that another project prepared"),
    (r"(^|/)image_\d+\.nii", "these scans are prepared already; open the folder as it is"),
    (r"(^|/)img\d{4}\.nii", "these are scans without labels, as the challenge's test set has them"),
    (r"(^|/)label\d{4}\.nii", "these are labels without their images; give the folder above both"),
)
"""What other downloads look like, the more particular first, and what they are."""


@final
class Synapse:
    """The 30 labelled scans; see `RawSet`."""

    name = "synapse"
    title = "Synapse multi-atlas abdomen CT (BTCV), few-shot benchmark preparation"
    folder = SYNAPSE.name
    modality = "CT"
    classes = SYNAPSE.classes
    version = 1
    expected = SYNAPSE.ids

    def find(self, tree: RawTree) -> list[RawScan]:
        """Scans by patient, wherever in the tree their files lie; test scans are passed over."""
        files = _training_files(tree)
        scans = [
            RawScan(str(place), *(files.get((kind, patient), ()) for kind in ("img", "label")))
            for place, patient in enumerate(PATIENTS)
        ]
        if not any(scan.image and scan.labels for scan in scans):
            raise DataError(f"{tree.path} holds no labelled scan of Synapse: {_what_else(tree)}")
        return [scan for scan in scans if scan.image or scan.labels]

    def convert(self, tree: RawTree, scan: RawScan) -> Converted:
        """Window, cut, and resample one scan in plane; its slices stay as they are."""
        image, labels, notes = read_pair(tree, scan)
        turned = _turn_note(image)
        image, labels = (sitk.DICOMOrient(each, "LPS") for each in (image, labels))
        _check_image(scan, image)
        _check_ids(self.classes, scan, labels)
        inside = (OUT, OUT, image.GetDepth())
        image, labels = _in_plane(_windowed(image), labels)
        image, labels = (sitk.RegionOfInterest(each, inside) for each in (image, labels))
        image = sitk.Cast(image, sitk.sitkFloat32)
        missing = _check_patient(self.classes, scan, image, labels)
        return Converted(image, labels, (*notes, *turned, *missing))


def _training_files(tree: RawTree) -> dict[tuple[str, int], tuple[PurePosixPath, ...]]:
    """Files by kind and patient, without those that only share the names of the raw ones."""
    found: dict[tuple[str, int], tuple[PurePosixPath, ...]] = {}
    for file in tree.files:
        match = NAME.fullmatch(file.name)
        if match is not None and not any(map(UNLIKE.fullmatch, tree.place(file).parts)):
            key = match["kind"].lower(), int(match["patient"])
            found[key] = (*found.get(key, ()), file)
    return found


def _what_else(tree: RawTree) -> str:
    places = [tree.place(file).as_posix() for file in tree.files]
    for pattern, what in OTHERS:
        if any(re.search(pattern, place, re.IGNORECASE) for place in places):
            return f"{what}. {REMEDY}"
    return f"no file is called img0001.nii.gz or the like. {REMEDY}"


def _turn_note(image: sitk.Image) -> tuple[str, ...]:
    stored = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    if stored == "LPS":
        return ()
    return (f"its axes run to {stored}, not to LPS as in the published files, and were turned",)


def _check_image(scan: RawScan, image: sitk.Image) -> None:
    if image.GetSize()[:2] != (SIDE, SIDE):
        raise DataError(
            f"{scan.image[0]} has axial slices of {image.GetWidth()} x {image.GetHeight()} pixels, "
            f"raw ones have {SIDE} x {SIDE}: it was cut, resampled or turned. {REMEDY}"
        )
    lowest = float(sitk.GetArrayViewFromImage(image).min())
    if lowest > AIR:
        raise DataError(
            f"{scan.image[0]} has no value below {lowest:g}, but air has about -1000 Hounsfield "
            f"units: its intensities were windowed or shifted. {REMEDY}"
        )


def _check_ids(classes: Mapping[int, str], scan: RawScan, labels: sitk.Image) -> None:
    unknown = sorted(set(np.unique(sitk.GetArrayViewFromImage(labels)).tolist()) - {0, *classes})
    if unknown:
        raise DataError(
            f"{scan.labels[0]} holds the ids {unknown}; Synapse has {_table(classes)}. {REMEDY}"
        )


def _check_patient(
    classes: Mapping[int, str], scan: RawScan, image: sitk.Image, labels: sitk.Image
) -> tuple[str, ...]:
    """Refuse labels that cannot be those of this patient; notes on organs that are absent."""
    file, organs = scan.labels[0], measure(labels, classes)
    absent = {value: name for value, name in classes.items() if name not in organs}
    if LIVER in absent.values():
        raise DataError(
            f"{file} has no liver: it is empty, or its ids are those of another table. Synapse "
            f"has {_table(classes)}. {REMEDY}"
        )
    if {RIGHT, LEFT} <= set(absent.values()):
        raise DataError(f"{file} has no kidney, like the challenge's averaged-* files. {REMEDY}")
    wrong = fault(organs)
    if wrong is not None:
        raise DataError(
            f"{file}: {wrong}, if ids mean {_table(classes)}. Somebody changed the ids, or "
            f"flipped or turned the volume without its header. {REMEDY}"
        )
    pixels, ids = (sitk.GetArrayFromImage(each) for each in (image, labels))
    check_placement(pixels, ids, what=str(file), min_score=MIN_SCORE)
    return tuple(f"there is no voxel of {key} {name}" for key, name in absent.items())


def _table(classes: Mapping[int, str]) -> str:
    return ", ".join(f"{key} {name}" for key, name in classes.items())


def _windowed(image: sitk.Image) -> sitk.Image:
    """Clipped to WINDOW and then stretched to 0..255 by the extremes of the whole volume."""
    values = sitk.GetArrayFromImage(image).clip(*WINDOW)
    values -= values.min()
    values *= 255.0 / values.max()
    found = sitk.GetImageFromArray(values)
    found.CopyInformation(image)
    return found


def _in_plane(image: sitk.Image, labels: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
    """Cut BORDER off each side, then 448 pixels to 256, and one more on each of the axes."""
    kept = (SIDE - 2 * BORDER, SIDE - 2 * BORDER, image.GetDepth())
    image, labels = (
        sitk.RegionOfInterest(each, kept, (BORDER, BORDER, 0)) for each in (image, labels)
    )
    x, y, z = image.GetSpacing()
    return resample(image, labels, (x * kept[0] / OUT, y * kept[1] / OUT, z))
