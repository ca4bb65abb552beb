"""A folder of scans as a dataset."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, final

from fewshot_seg.data.found import found_classes
from fewshot_seg.data.known import PUBLISHED, Published, recognise
from fewshot_seg.data.layouts import Files, find_scans
from fewshot_seg.data.manifest import FILE_NAME, Manifest, read_manifest
from fewshot_seg.data.nifti import read_scan, stem
from fewshot_seg.data.pictures import is_picture, read_picture
from fewshot_seg.data.scan import Scan
from fewshot_seg.errors import DataError, OptionError, UnknownNameError, did_you_mean

MODALITIES = ("mr", "ct", "picture")
ONE_SCAN = "one scan"
"""The layout of what `open_scan` opens."""


def open_folder(
    *,
    root: str | Path,
    layout: str = "auto",
    classes: Mapping[int, str] | None = None,
    modality: str | None = None,
    name: str | None = None,
    channel: int | None = None,
    slice_axis: int | None = None,
) -> "Folder":
    """The scans of a folder, found by their names; no image is read yet.

    layout: "benchmark" (image_<id>.nii.gz, label_<id>.nii.gz), "decathlon" (imagesTr/, labelsTr/),
        "nnunet" (the same with channel numbers), "pairs" (images/, labels/),
        "scans" (volumes, DICOM folders or pictures without labels, however deep), or "auto".
    classes: class id -> name; default those of `dataset.json`, else of a published set, else
        "class 1", ... as the label files hold them, which are then all read. Classes given
        may be a selection; other ids in the label files are then let be.
    modality: "mr", "ct" or "picture"; default what `dataset.json` says, else that of a published
        set, else "mr" for volumes.
    name: default that of a published set, else the folder's.
    channel: of an nnU-Net set with several.
    slice_axis: stored axis to cut volumes along; default as `read_scan` chooses for each.
    The prepared sets that the field publishes (chaos_MR_T2_normalized, sabs_CT_normalized,
    cmr_MR_normalized) are recognised and need no `dataset.json`; see `fewshot_seg.data.known`.
    Raises DataError when the folder cannot be used, OptionError for a value that does not exist.
    """
    path = Path(root)
    if not path.is_dir():
        raise DataError(f"{path} {'is not a folder' if path.exists() else 'does not exist'}")
    manifest = read_manifest(path)
    layout, files = find_scans(path, layout, manifest, channel)
    _check_complete(path, layout, manifest)
    pictures = any(is_picture(entry.image) for entry in files.values())
    known = _published(path, layout, files)
    manifest = _completed(manifest, known)
    return Folder(
        root=path,
        layout=layout,
        files=files,
        classes=_classes(classes, manifest, files),
        complete=classes is None and manifest.classes is not None,
        modality=_modality(modality, manifest, pictures),
        name=_name(path, known) if name is None else name,
        slice_axis=slice_axis,
        known=known,
    )


def open_scan(
    *,
    image: str | Path,
    labels: str | Path | None = None,
    modality: str | None = None,
    name: str | None = None,
    slice_axis: int | None = None,
) -> "Folder":
    """One scan, and its labels where there are some, as a dataset; nothing is read of the scan yet.

    image: a volume or picture file, or a folder with one DICOM series.   labels: a file like it.
    modality: "mr" unless given; "picture" for a picture.   name: default the file's.
    slice_axis: as in `open_folder`.
    Raises DataError for an image that does not exist, OptionError for an unknown modality.
    """
    path, own = Path(image), None if labels is None else Path(labels)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    return Folder(
        root=path.parent,
        layout=ONE_SCAN,
        files={stem(path): Files(path, own)},
        classes={} if own is None else found_classes([own]),
        complete=False,
        modality=_modality(modality, Manifest(), is_picture(path)),
        name=path.name if name is None else name,
        slice_axis=slice_axis,
    )


@final
class Folder:
    """Scans of one folder, loaded one at a time and not kept; made by `open_folder`, `open_scan`.

    root, layout: where and how the files lie.   files: each scan's files, by id.
    ids: sorted by the numbers in them.   unlabelled: ids of scans without a label file.
    classes: class id -> name, without background.
    complete: other ids in a label file are an error, because `dataset.json` should name them.
    known: the published set that the folder holds, None for any other.
    """

    def __init__(
        self,
        *,
        root: Path,
        layout: str,
        files: Mapping[str, Files],
        classes: Mapping[int, str],
        complete: bool,
        modality: str,
        name: str,
        slice_axis: int | None,
        known: Published | None = None,
    ) -> None:
        self.root = root
        self.layout = layout
        self.files = files
        self.modality = modality
        self.name = name
        self.ids = tuple(files)
        self.unlabelled = tuple(key for key, entry in files.items() if entry.labels is None)
        self.classes = classes
        self.known = known
        self._complete = complete
        self._slice_axis = slice_axis

    def load(self, scan_id: str) -> Scan:
        """Read one scan. Raises UnknownNameError for an id, DataError for files that do not fit."""
        if scan_id not in self.files:
            raise UnknownNameError(
                f"{self.name} has no scan '{scan_id}'{did_you_mean(scan_id, self.ids) or '.'} "
                f"It has {len(self.ids)}, '{self.ids[0]}' to '{self.ids[-1]}'"
            )
        image, labels = self.files[scan_id].image, self.files[scan_id].labels
        if is_picture(image):
            scan = read_picture(image, labels, scan_id=scan_id)
        else:
            scan = read_scan(image, labels, scan_id=scan_id, slice_axis=self._slice_axis)
        if self.known is not None:
            scan = self.known.canonical(scan, self.classes)
        self._check_ids(scan, labels)
        return scan

    def reads(self, scan_id: str) -> tuple[list[Path], dict[str, Any]]:
        """The files behind a scan, and all else that decides what `load` makes of them; see
        `fewshot_seg.data.identity`."""
        files = self.files[scan_id]
        known = None if self.known is None else self.known.name
        how = {
            "slice_axis": self._slice_axis,
            "classes": sorted(self.classes),
            "complete": self._complete,
            "known": known,
        }
        return [path for path in (files.image, files.labels) if path is not None], how

    def _check_ids(self, scan: Scan, labels: Path | None) -> None:
        if not self._complete:
            return
        unknown = [value for value in scan.class_slices if value not in self.classes]
        if unknown:
            raise DataError(f"{labels} holds the class ids {unknown}, which {self._names(unknown)}")

    def _names(self, unknown: list[int]) -> str:
        """Who does not name the class ids, what is named instead, and what to do."""
        path = self.root / FILE_NAME
        if path.exists() or self.known is None:
            return (
                f"{path} does not name (it names {list(self.classes)}); add them there, or pass "
                "classes"
            )
        fitting = [one.title for one in PUBLISHED if set(unknown) <= set(one.classes)]
        hint = f"; {' and '.join(fitting)} has them" if fitting else ""
        return (
            f"{self.known.title} does not have (it has {list(self.classes)}){hint}. If the folder "
            f"holds another data set, rename it, or name its classes in {path}"
        )


def _published(root: Path, layout: str, files: Mapping[str, Files]) -> Published | None:
    if layout != "benchmark":
        return None
    labels = [entry.labels for entry in files.values() if entry.labels is not None]
    return recognise(root, tuple(files), labels)


def _completed(manifest: Manifest, known: Published | None) -> Manifest:
    """With what a published set is known to hold, where the folder does not say."""
    if known is None:
        return manifest
    return replace(
        manifest,
        classes=known.classes if manifest.classes is None else manifest.classes,
        modality=manifest.modality or known.modality,
    )


def _name(root: Path, known: Published | None) -> str:
    return root.resolve().name if known is None else known.name


def _classes(
    given: Mapping[int, str] | None, manifest: Manifest, files: Mapping[str, Files]
) -> Mapping[int, str]:
    if given is not None:
        return _check_classes(given)
    if manifest.classes is not None:
        return manifest.classes
    return found_classes(entry.labels for entry in files.values() if entry.labels is not None)


def _check_classes(classes: Mapping[int, str]) -> dict[int, str]:
    if not classes or min(classes) < 1 or len(set(classes.values())) < len(classes):
        raise OptionError(
            f"classes must map ids from 1 up (0 is background) to different names; got {classes}"
        )
    return dict(sorted(classes.items()))


def _check_complete(root: Path, layout: str, manifest: Manifest) -> None:
    # nnU-Net lists images without their channel numbers, so there only labels can be looked up.
    listed = [
        file
        for file in manifest.files
        if layout != "nnunet" or Path(file).parent.name == "labelsTr"
    ]
    missing = [file for file in listed if not _is_file(root / file)]
    if missing:
        raise DataError(
            f"{root / FILE_NAME} lists {len(missing)} files that are not there, first "
            f"{missing[0]:.200}; complete the folder or take them off the list"
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no disk can hold
        return False


def _modality(given: str | None, manifest: Manifest, pictures: bool) -> str:
    if given is None:
        return "picture" if pictures else manifest.modality or "mr"
    if given not in MODALITIES:
        raise OptionError(
            f"unknown modality '{given}'{did_you_mean(given, MODALITIES) or '.'} "
            f"It is one of: {', '.join(MODALITIES)}"
        )
    return given
