"""CHAOS T2-SPIR (ISBI 2019, Zenodo 3431873): `Train_Sets/MR` to `chaos_MR_T2_normalized`.

The steps are those of Ouyang et al. (ECCV 2020), on whose output published numbers rest, with two
departures that change no voxel: which way is up comes from the DICOM geometry and is verified, not
flipped by rule; and the origin follows the centre crop, so that labels can be mapped back.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import final

import numpy as np
import SimpleITK as sitk

from fewshot_seg.data.dicom import read_stack, stacked
from fewshot_seg.data.known import CHAOS
from fewshot_seg.data.raw.anatomy import fault, measure
from fewshot_seg.data.raw.edges import check_placement, edge_score
from fewshot_seg.data.raw.masks import read_masks
from fewshot_seg.data.raw.resample import centre_crop_pad, clip_brightest, resample
from fewshot_seg.data.raw.sets import Converted, RawScan
from fewshot_seg.data.raw.tree import RawTree
from fewshot_seg.errors import DataError

GREYS = {1: (55, 70), 2: (110, 135), 3: (175, 200), 4: (240, 255)}
"""The organisers' grey levels of each class."""

SPACING = (1.25, 1.25, 7.70)
SIDE = 256
BRIGHTEST = 0.5
"""Percent of the voxels, the brightest, whose values are cut."""

ORIENTATION = "LAS"
"""What `dcm2nii` made of these files, and so how every published copy lies."""

FILE = re.compile(
    r"(?P<scan>.*/(?P<patient>[^/]+)/T2SPIR)/"
    r"(?:(?P<image>DICOM_anon)/[^/]+\.dcm|Ground/[^/]+\.png)",
    re.IGNORECASE,
)
REMEDY = (
    "Use CHAOS_Train_Sets.zip (Zenodo record 3431873) or the unpacked folder: it holds "
    "Train_Sets/MR/1/T2SPIR/DICOM_anon/IMG-*.dcm and Train_Sets/MR/1/T2SPIR/Ground/IMG-*.png"
)
OTHERS = (
    (r"CHAOS_Train_Sets\.zip$", "the archive is packed inside; give CHAOS_Train_Sets.zip itself"),
    (r"/Test_Sets/", "this is the test part of the challenge, whose masks are secret"),
    (r"(^|/)image_\d+\.nii", "these scans are prepared already; open the folder as it is"),
    (r"/CT/[^/]+/DICOM_anon/", "this is the CT part of the challenge"),
    (r"/T1DUAL/", "these are T1 scans; the benchmark is made of T2SPIR beside them"),
)
"""What other downloads look like, and what they are."""


@final
class ChaosT2:
    """The 20 labelled scans; see `RawSet`."""

    name = "chaos-t2"
    title = "CHAOS T2-SPIR abdominal MR, few-shot benchmark preparation"
    folder = CHAOS.name
    modality = "MR T2-SPIR"
    classes = CHAOS.classes
    version = 1
    expected = CHAOS.ids

    def find(self, tree: RawTree) -> list[RawScan]:
        """Scans by patient, wherever in the tree their folders are; T1, CT, test are let be."""
        found: dict[str, tuple[list[PurePosixPath], list[PurePosixPath]]] = {}
        for file in tree.files:
            match = FILE.fullmatch(str(tree.place(file)))
            if match is not None and "/test_sets/" not in match["scan"].lower():
                images, masks = found.setdefault(match["scan"], ([], []))
                (images if match["image"] else masks).append(file)
        scans = [
            RawScan(PurePosixPath(place).parent.name, tuple(images), tuple(masks))
            for place, (images, masks) in found.items()
        ]
        if not scans:
            raise DataError(f"{tree.path} holds no T2 scan of CHAOS: {_what_else(tree)}")
        _check_patients(tree, scans)
        return sorted(scans, key=lambda scan: int(scan.id))

    def convert(self, tree: RawTree, scan: RawScan) -> Converted:
        """Cut the brightest half percent, resample, and crop or pad one scan to 256 x 256."""
        _check_counts(tree, scan)
        image, numbers = _read_image(tree, scan)
        labels, order = _read_labels(tree, scan, image, numbers)
        image, labels = (sitk.DICOMOrient(each, ORIENTATION) for each in (image, labels))
        notes = self._check_organs(tree, scan, labels)
        image, labels = resample(clip_brightest(image, BRIGHTEST), labels, SPACING)
        lowest = float(sitk.GetArrayViewFromImage(image).min())
        return Converted(
            centre_crop_pad(image, (SIDE, SIDE), lowest),
            centre_crop_pad(labels, (SIDE, SIDE), 0),
            (*order, *notes),
        )

    def _check_organs(self, tree: RawTree, scan: RawScan, labels: sitk.Image) -> tuple[str, ...]:
        """Notes on absent organs; left and right, which edges cannot tell, are verified."""
        organs = measure(labels, self.classes)
        wrong = fault(organs)
        if wrong is not None:
            raise DataError(
                f"{tree.path}: {scan.labels[0].parent}: {wrong}, so image or masks were mirrored "
                "or grey levels changed after the download. Restore this patient from it"
            )
        return tuple(
            f"no {name} is labelled" for name in self.classes.values() if name not in organs
        )


def _what_else(tree: RawTree) -> str:
    places = [str(tree.place(file)) for file in tree.files]
    for pattern, what in OTHERS:
        if any(re.search(pattern, place, re.IGNORECASE) for place in places):
            return f"{what}. {REMEDY}"
    return f"it has no folder T2SPIR/DICOM_anon. {REMEDY}"


def _check_patients(tree: RawTree, scans: Sequence[RawScan]) -> None:
    seen: dict[str, RawScan] = {}
    for scan in scans:
        folder = (*scan.image, *scan.labels)[0].parent
        if scan.id not in CHAOS.ids:
            raise DataError(
                f"{tree.path}: {folder} is of no labelled patient of CHAOS; these are "
                f"{', '.join(CHAOS.ids)}. Give it its name back, or move it away"
            )
        twin = seen.setdefault(scan.id, scan)
        if twin is not scan:
            raise DataError(
                f"{tree.path} holds patient {scan.id} twice: {folder} and "
                f"{(*twin.image, *twin.labels)[0].parent}; give the folder of one of them"
            )


def _check_counts(tree: RawTree, scan: RawScan) -> None:
    for files, missing, beside in (
        (scan.labels, "masks (T2SPIR/Ground)", scan.image),
        (scan.image, "DICOM files (T2SPIR/DICOM_anon)", scan.labels),
    ):
        if not files:
            raise DataError(f"{tree.path}: {beside[0].parent} has no {missing} beside it. {REMEDY}")
    if len(scan.image) == len(scan.labels):
        return
    images, masks = ({_number(file) for file in files} for files in (scan.image, scan.labels))
    alone = sorted(images ^ masks)
    raise DataError(
        f"{tree.path}: {scan.image[0].parent} has {len(scan.image)} DICOM files but "
        f"{len(scan.labels)} masks{f' (differing in {alone[0]:05d})' if alone else ''}; each "
        "slice needs one of both. Restore this patient from the download"
    )


def _read_image(tree: RawTree, scan: RawScan) -> tuple[sitk.Image, list[int]]:
    """The volume as stored, slices in the order of their places, and the numbers of their files."""
    folder = tree.path / scan.image[0].parent
    numbers = {tree.local(file): _number(file) for file in scan.image}
    files = stacked(folder, list(numbers))
    image = read_stack(folder, files)
    x, y, z = image.GetSpacing()
    image.SetSpacing((x, y, _slice_spacing(files[0], z)))
    if _lies(image)[2] not in "SI":
        raise DataError(
            f"{folder} is not cut from feet to head: its axes run to {_lies(image)}. {REMEDY}"
        )
    return image, [numbers[file] for file in files]


def _slice_spacing(file: Path, measured: float) -> float:
    """Millimetres between slices as the scanner noted them, to the seven digits of NIfTI.

    The positions of the slices say the same to a few nanometres, but floor(size * old / new) may
    hang on that; the published copies follow the note.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    key = "0018|0088"
    noted = float(reader.GetMetaData(key)) if reader.HasMetaDataKey(key) else measured
    return float(np.float32(noted if abs(noted - measured) < 1e-3 * measured else measured))


def _read_labels(
    tree: RawTree, scan: RawScan, image: sitk.Image, numbers: Sequence[int]
) -> tuple[sitk.Image, tuple[str, ...]]:
    """The labels on the image's grid, verified by its edges, and a note on how they came there."""
    files = sorted(scan.labels, key=_number)
    masks = read_masks(tree, files, (image.GetHeight(), image.GetWidth()), GREYS)
    if not masks.any():
        raise DataError(
            f"{tree.path}: the masks in {files[0].parent} are all empty. Restore this patient "
            "from the download"
        )
    pixels = sitk.GetArrayFromImage(image).astype(np.float32)
    by_number = _by_number(numbers, [_number(file) for file in files])
    by_place = masks if _lies(image)[2] == "S" else masks[::-1]
    labels = by_place if by_number is None else masks[by_number]
    notes: tuple[str, ...] = ()
    if edge_score(pixels, by_place) > edge_score(pixels, labels):
        labels, notes = by_place, ("masks follow the slices from the feet, not the file numbers",)
    check_placement(pixels, labels, what=f"{tree.path}: the masks in {files[0].parent}")
    found = sitk.GetImageFromArray(labels)
    found.CopyInformation(image)
    return found, notes


def _by_number(numbers: Sequence[int], masks: Sequence[int]) -> list[int] | None:
    """For each slice the place of the mask with the number of its file; None if these differ."""
    return [masks.index(number) for number in numbers] if set(numbers) == set(masks) else None


def _lies(image: sitk.Image) -> str:
    """Where its axes run to, for example LPS."""
    cosines = image.GetDirection()
    code: str = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(cosines)
    return code


def _number(file: PurePosixPath) -> int:
    """The last number in the file's name; IMG-0002-00011 is 11."""
    digits = re.findall(r"\d+", file.stem)
    return int(digits[-1]) if digits else -1
