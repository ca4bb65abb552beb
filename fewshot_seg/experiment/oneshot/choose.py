"""Which scans there are, which of them is labelled, and which are to be segmented."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewshot_seg.data.folder import Folder, open_folder
from fewshot_seg.data.nifti import stem
from fewshot_seg.data.pictures import is_picture
from fewshot_seg.data.plain import LABEL_NAME, plain_scans
from fewshot_seg.data.scan import Scan
from fewshot_seg.errors import DataError, OptionError, did_you_mean
from fewshot_seg.inference.files import read


@dataclass(frozen=True, eq=False)
class Example:
    """A labelled scan. id: among the scans of the folder, or the name of a file elsewhere."""

    id: str
    image: Path
    labels: Path
    scan: Scan


@dataclass(frozen=True, eq=False)
class Chosen:
    """dataset: the scans of the folder; their label files are never read in training.

    examples: the labelled scans.   queries: scans to segment, by id.
    left_out: files of a plain folder that are named like labels.
    """

    dataset: Folder
    examples: tuple[Example, ...]
    queries: Mapping[str, Path]
    left_out: tuple[Path, ...]

    @property
    def pictures(self) -> bool:
        return self.dataset.modality == "picture"


def choose(
    scans: Path,
    labels: Sequence[Path],
    which: Sequence[str] | None = None,
    *,
    modality: str | None = None,
) -> Chosen:
    """Open the folder and find the labelled scans in it.

    labels: a label file for each labelled scan.
    which: the scan of each, by its id in the folder or as a path of its own; found by the name of
        the label file unless given.
    Raises DataError for a folder, scan or label file that cannot be used, OptionError for unequal
    numbers of both, or a scan that stands twice.
    """
    if not labels:
        raise OptionError("no label file was given; at least one scan must be labelled")
    if which and len(which) != len(labels):
        raise OptionError(
            f"{len(labels)} label files and {len(which)} scans were given; each label file needs "
            "its scan, in the same order"
        )
    dataset = _open(scans, modality)
    given = {path.resolve() for path in labels}
    files = {
        scan_id: entry
        for scan_id, entry in dataset.files.items()
        if entry.image.resolve() not in given
    }
    images = {scan_id: entry.image for scan_id, entry in files.items()}
    examples = []
    for index, path in enumerate(labels):
        known = {key: entry.labels for key, entry in files.items() if entry.labels is not None}
        name, image = _find(which[index], images) if which else _guess(path, images, known)
        examples.append(Example(name, image, path, _labelled(image, path)))
    taken = [one.image.resolve() for one in examples]
    if len(set(taken)) < len(taken):
        raise OptionError("a labelled scan stands twice; give each one label file")
    queries = {key: path for key, path in images.items() if path.resolve() not in taken}
    if not queries:
        raise DataError(f"{scans} holds no scan but the labelled one; there is nothing to segment")
    left_out = plain_scans(scans)[1] if dataset.layout == "scans" else []
    return Chosen(
        dataset,
        tuple(examples),
        queries,
        tuple(path for path in left_out if path.resolve() not in given),
    )


def _open(scans: Path, modality: str | None) -> Folder:
    try:
        return open_folder(root=scans, modality=modality)
    except DataError:
        # Labels beside the scans make a plain folder ambiguous, but here they are known.
        if not scans.is_dir() or not plain_scans(scans)[0] or (scans / "dataset.json").exists():
            raise
        return open_folder(root=scans, layout="scans", modality=modality)


def _find(name: str, images: Mapping[str, Path]) -> tuple[str, Path]:
    if name in images:
        return name, images[name]
    path = Path(name)
    for scan_id, image in images.items():
        if image.name == name or (path.exists() and image.resolve() == path.resolve()):
            return scan_id, image
    if path.exists():
        return path.name if path.is_dir() else stem(path), path
    raise DataError(
        f"there is no scan '{name}'{did_you_mean(name, images) or '.'} {_listed(images)}"
    )


def _guess(labels: Path, images: Mapping[str, Path], known: Mapping[str, Path]) -> tuple[str, Path]:
    """By the layout of the folder, else by the name without what only says "labels"."""
    for scan_id, path in known.items():
        if path.resolve() == labels.resolve():
            return scan_id, images[scan_id]
    bare = _bare(stem(labels))
    found = [scan_id for scan_id in images if scan_id == stem(labels) or _bare(scan_id) == bare]
    if len(found) == 1:
        return found[0], images[found[0]]
    raise DataError(
        f"it does not show in its name which scan {labels} belongs to; say --scan ID. "
        f"{_listed(images)}"
    )


def _bare(name: str) -> str:
    without = re.sub(
        r"(?<![a-z])(image|img|scan)(?![a-z])", "", LABEL_NAME.sub("", name), flags=re.I
    )
    return re.sub(r"[^a-z0-9]+", " ", without.lower()).strip()


def _labelled(image: Path, labels: Path) -> Scan:
    if not labels.exists():
        raise DataError(f"{labels} does not exist")
    if is_picture(labels) != is_picture(image):
        raise DataError(f"{labels} cannot hold the labels of {image}: one of them is a picture")
    scan = read(image, labels)
    if not scan.class_slices:
        raise DataError(f"the labels in {labels} are empty; mark at least one slice")
    return scan


def _listed(images: Mapping[str, Path]) -> str:
    ids = list(images)
    more = f", ... ({len(ids)})" if len(ids) > 10 else ""
    return f"The scans are: {', '.join(ids[:10])}{more}"
