"""`dataset.json` of a prepared folder: what each scan was made from, and what came of it.

It is what the library reads classes and modality from, and what a run that was stopped goes on by.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.data.layouts import natural_key
from fewshot_seg.data.manifest import FILE_NAME
from fewshot_seg.data.raw.sets import RawSet
from fewshot_seg.errors import DataError
from fewshot_seg.parsing import parse_json


@dataclass(frozen=True)
class Case:
    """One prepared scan.

    image, label: file names.   shape: (x, y, z).   voxels: class id -> count, also where 0.
    sha256: of the "source" (see `RawTree.digest`), the "image" and the "label" file.
    """

    id: str
    image: str
    label: str
    shape: tuple[int, ...]
    voxels: Mapping[int, int]
    notes: tuple[str, ...]
    sha256: Mapping[str, str]

    def is_whole(self, folder: Path, source: str) -> bool:
        """Whether both files are there as written, from this source."""
        return self.sha256["source"] == source and all(
            digest_of(folder / name) == self.sha256[kind]
            for kind, name in (("image", self.image), ("label", self.label))
        )


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file, None when it is not there."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        total = sha256()
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def read_cases(folder: Path, wanted: RawSet) -> dict[str, Case]:
    """The scans that an earlier run of the same version prepared, by id; none in a new folder.

    Raises DataError for a folder with scans of another origin, which must not be overwritten.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        if any(folder.glob("image_*")):
            raise DataError(_foreign(folder))
        return {}
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if content.get("preparation") != _preparation(wanted):
            raise DataError(_foreign(folder))
        return {entry["id"]: _case(entry) for entry in content["cases"]}
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error}); remove {folder} or choose "
            "another place for the prepared scans"
        ) from error


def write_cases(folder: Path, made: RawSet, cases: Iterable[Case]) -> None:
    """Write `dataset.json`, the same bytes for the same cases. Raises DataError."""
    content = {
        "name": made.title,
        "modality": made.modality,
        "labels": {"0": "background"} | {str(key): name for key, name in made.classes.items()},
        "preparation": _preparation(made),
        "cases": [asdict(case) for case in sorted(cases, key=lambda one: natural_key(one.id))],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_bytes(folder / FILE_NAME, text.encode())


def _preparation(of: RawSet) -> dict[str, Any]:
    return {"set": of.name, "version": of.version}


def _case(entry: Mapping[str, Any]) -> Case:
    return Case(
        id=entry["id"],
        image=entry["image"],
        label=entry["label"],
        shape=tuple(entry["shape"]),
        voxels={int(key): count for key, count in entry["voxels"].items()},
        notes=tuple(entry["notes"]),
        sha256={kind: entry["sha256"][kind] for kind in ("source", "image", "label")},
    )


def _foreign(folder: Path) -> str:
    return (
        f"{folder} holds scans that this version of `data prepare` did not write; choose another "
        "place for the prepared scans, or remove that folder"
    )
