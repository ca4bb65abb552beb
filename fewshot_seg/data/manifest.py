"""`dataset.json`: what a folder says about itself, as the Decathlon or nnU-Net v2 write it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot_seg.errors import DataError
from fewshot_seg.parsing import parse_json

FILE_NAME = "dataset.json"
MODALITIES = {"ct": r"\bCT\b", "mr": r"\b(MRI?|T1\w*|T2\w*|FLAIR|bSSFP|SSFP)\b"}


@dataclass(frozen=True)
class Manifest:
    """What is known from `dataset.json`; all empty where a folder has none.

    classes: class id -> name, without background; None when no labels are listed.
    channels: names of the images' channels.   modality: "ct", "mr" or None.
    files: images and labels that it lists, relative to the folder.
    nnunet: written for nnU-Net v2, whose images carry a channel number in their names.
    """

    classes: Mapping[int, str] | None = None
    channels: tuple[str, ...] = ()
    modality: str | None = None
    files: tuple[str, ...] = ()
    nnunet: bool = field(default=False)


def read_manifest(root: Path) -> Manifest:
    """Read `root/dataset.json`. Raises DataError when it is broken; its absence is fine."""
    path = root / FILE_NAME
    if not path.exists():
        return Manifest()
    content = _parse(path)
    channels = content.get("channel_names", content.get("modality", {}))
    if not isinstance(channels, str | dict):
        raise DataError(
            f'{path}: the channels must be a name or numbered names, like {{"0": "CT"}}; '
            f"it has {channels!r}"
        )
    names = (channels,) if isinstance(channels, str) else tuple(map(str, channels.values()))
    return Manifest(
        classes=_classes(path, content["labels"]) if "labels" in content else None,
        channels=names,
        modality=_modality(" ".join(names)),
        files=_files(path, content),
        nnunet="channel_names" in content,
    )


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: broken JSON and broken UTF-8 alike
        raise DataError(f"{path} cannot be read: {error}; repair or remove it") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold an object {{...}}, not a {type(content).__name__}")
    return content


def _classes(path: Path, labels: Any) -> dict[int, str]:
    """Names by id, from {"1": "liver"} (Decathlon) or {"liver": 1} (nnU-Net v2)."""
    if not isinstance(labels, dict):
        raise DataError(f'{path}: "labels" must be an object like {{"0": "background"}}')
    pairs = [_class(path, key, value) for key, value in labels.items()]
    classes = {number: name for number, name in sorted(pairs) if number != 0}
    if len({number for number, _ in pairs}) < len(pairs) or len(set(classes.values())) < len(
        classes
    ):
        raise DataError(f'{path}: "labels" uses an id or a name twice: {labels}')
    return classes


def _class(path: Path, key: str, value: Any) -> tuple[int, str]:
    if isinstance(value, str) and key.isdecimal():
        return int(key), value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value, key
    remedy = "each entry maps an id to a name, or a name to an id"
    if isinstance(value, list):
        remedy = "regions of several ids are not supported; name each id once"
    raise DataError(f'{path}: "labels" has the entry {key!r}: {value!r}; {remedy}')


def _modality(text: str) -> str | None:
    found = [name for name, pattern in MODALITIES.items() if re.search(pattern, text, re.I)]
    return found[0] if len(found) == 1 else None


def _files(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """Image and label files listed under "training" (Decathlon) or "cases"."""
    listed = [*_entries(path, content, "training"), *_entries(path, content, "cases")]
    named = [entry[key] for entry in listed for key in ("image", "label") if entry.get(key)]
    for name in named:
        if not isinstance(name, str):
            raise DataError(f'{path}: "image" and "label" name a file each; got {name!r:.60}')
    return tuple(named)


def _entries(path: Path, content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    entries = content.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f'{path}: "{key}" must be a list of objects with "image" and "label"')
    return entries
