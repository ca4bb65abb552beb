"""Which file belongs to which scan: the folder layouts that people bring."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fewshot_seg.data.manifest import Manifest
from fewshot_seg.data.nifti import stem
from fewshot_seg.data.pictures import PICTURE_SUFFIXES, is_picture
from fewshot_seg.data.plain import plain_scans
from fewshot_seg.data.volume import VOLUME_SUFFIXES
from fewshot_seg.errors import DataError, OptionError, did_you_mean

CHANNEL = re.compile(r"^(?P<scan>.+)_(?P<channel>\d{4})$")


@dataclass(frozen=True)
class Files:
    """One scan's files; labels None when it is not annotated."""

    image: Path
    labels: Path | None


Listing = dict[str, Files]
"""Files by scan id, sorted numerically."""


def find_scans(
    root: Path, layout: str, manifest: Manifest, channel: int | None
) -> tuple[str, Listing]:
    """The name of the layout (found out when "auto") and the scans.

    Raises DataError when there are none or files contradict each other, OptionError for a layout
    that does not exist or a channel where images have none.
    """
    if layout == "auto":
        layout = _recognise(root, manifest)
    elif layout not in LAYOUTS:
        raise OptionError(
            f"unknown layout '{layout}'{did_you_mean(layout, LAYOUTS) or '.'} "
            f"It is one of: auto, {', '.join(LAYOUTS)}"
        )
    if layout != "nnunet" and channel is not None:
        raise OptionError(f"channel={channel} is for the layout 'nnunet'; {root} is '{layout}'")
    images, labels = LAYOUTS[layout](root, manifest, channel)
    if not images:
        raise DataError(f"{root} has no images where the layout '{layout}' keeps them. {EXPECTED}")
    _check(images, labels)
    ids = sorted(images, key=natural_key)
    return layout, {scan_id: Files(images[scan_id], labels.get(scan_id)) for scan_id in ids}


def natural_key(text: str) -> tuple[str | int, ...]:
    """Sorts numbers by value: image_9 before image_10."""
    return tuple(
        int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", text.lower())
    )


Found = tuple[dict[str, Path], dict[str, Path]]
"""Images and labels by scan id."""


def _benchmark(root: Path, manifest: Manifest, channel: int | None) -> Found:
    files = _files(root)
    return _prefixed(files, "image_"), _prefixed(files, "label_")


def _decathlon(root: Path, manifest: Manifest, channel: int | None) -> Found:
    if len(manifest.channels) > 1:
        raise DataError(
            f"{root}: its images have {len(manifest.channels)} channels "
            f"({', '.join(manifest.channels)}) in one file, but a scan has one; "
            "save the channel to use as 3-D files"
        )
    return _by_id(_files(root / "imagesTr")), _by_id(_files(root / "labelsTr"))


def _nnunet(root: Path, manifest: Manifest, channel: int | None) -> Found:
    images: dict[int, dict[str, Path]] = defaultdict(dict)
    for name, path in _by_id(_files(root / "imagesTr")).items():
        match = CHANNEL.match(name)
        if match is None:
            raise DataError(f"{path}: nnU-Net images end in a channel number, like {name}_0000")
        images[int(match["channel"])][match["scan"]] = path
    known = sorted(images)
    if channel is None and len(known) > 1:
        raise DataError(
            f"{root} has {len(known)} channels a scan, but one is used: choose with channel="
            + " or ".join(map(str, known))
        )
    chosen = known[0] if channel is None and known else channel
    if chosen is not None and chosen not in known:
        raise OptionError(f"{root} has no channel {chosen}; it has {known}")
    return images.get(chosen or 0, {}), _by_id(_files(root / "labelsTr"))


def _pairs(root: Path, manifest: Manifest, channel: int | None) -> Found:
    return _by_id(_files(root / "images")), _by_id(_files(root / "labels"))


def _scans(root: Path, manifest: Manifest, channel: int | None) -> Found:
    return plain_scans(root)[0], {}


LAYOUTS: Mapping[str, Callable[[Path, Manifest, int | None], Found]] = {
    "benchmark": _benchmark,
    "decathlon": _decathlon,
    "nnunet": _nnunet,
    "pairs": _pairs,
    "scans": _scans,
}

EXPECTED = (
    "Known layouts: image_<id>.nii.gz and label_<id>.nii.gz in one folder (benchmark); "
    "imagesTr/ and labelsTr/ (decathlon, nnunet); images/ and labels/ with files of equal "
    "names (pairs); volumes, folders of DICOM series or pictures without any labels (scans)"
)


def _recognise(root: Path, manifest: Manifest) -> str:
    found = [
        layout
        for layout, present in (
            ("benchmark", bool(_prefixed(_files(root), "image_"))),
            ("decathlon", (root / "imagesTr").is_dir()),
            ("pairs", (root / "images").is_dir()),
        )
        if present
    ]
    if len(found) > 1:
        raise DataError(f"{root} fits several layouts ({', '.join(found)}); name the one to use")
    if not found:
        scans, labels = plain_scans(root)
        if scans and not labels:
            return "scans"
        raise DataError(f"{root} has no layout this library knows{_inside(root)}. {EXPECTED}")
    return "nnunet" if found == ["decathlon"] and _is_nnunet(root, manifest) else found[0]


def _inside(root: Path) -> str:
    """The folder that was probably meant, as data/CHAOST2 has its scans one folder deeper."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if _prefixed(_files(folder), "image_") or (folder / "imagesTr").is_dir():
            return f"; did you mean {folder}?"
    return ""


def _is_nnunet(root: Path, manifest: Manifest) -> bool:
    """Whether image names carry a channel number that label names lack."""
    matches = {name: CHANNEL.match(name) for name in _by_id(_files(root / "imagesTr"))}
    labels = set(_by_id(_files(root / "labelsTr")))
    if manifest.nnunet or not matches:
        return manifest.nnunet
    scans = {match["scan"] for match in matches.values() if match}
    return all(matches.values()) and bool(scans & labels)


def _files(folder: Path) -> list[Path]:
    """Images of any format in a folder; hidden files, such as macOS leaves, are none."""
    if not folder.is_dir():
        return []
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and path.name.lower().endswith((*VOLUME_SUFFIXES, *PICTURE_SUFFIXES))
    ]


def _prefixed(paths: Iterable[Path], prefix: str) -> dict[str, Path]:
    named = _by_id(path for path in paths if path.name.startswith(prefix))
    return {name.removeprefix(prefix): path for name, path in named.items()}


def _by_id(paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        name = stem(path)
        if name in found:
            raise DataError(f"{found[name]} and {path} are the same scan; keep one of them")
        found[name] = path
    return found


def _check(images: Mapping[str, Path], labels: Mapping[str, Path]) -> None:
    orphans = [path for name, path in labels.items() if name not in images]
    if orphans:
        raise DataError(
            f"{len(orphans)} label files have no image, first {orphans[0]}; "
            "restore the images or move the labels away"
        )
    seen: dict[tuple[str | int, ...], Path] = {}
    for name, path in images.items():
        twin = seen.setdefault(natural_key(name), path)
        if twin != path:
            raise DataError(f"{twin} and {path} have the same scan number; rename one of them")
    kinds = {is_picture(path) for path in images.values()}
    if len(kinds) > 1:
        raise DataError(f"{path.parent} mixes pictures and volumes; give each a folder of its own")
