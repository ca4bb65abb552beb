"""Which scans are segmented already, and with what."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.inference import Failed, Written
from fewshot_seg.parsing import parse_json

FILE_NAME = "segmentations.json"

Stamp = list[int]


class Done:
    """The record of a folder of segmentations; written after every scan.

    made_from: checkpoint, labels and settings. Under another record's the scans are done anew.
    A damaged record is begun anew.
    """

    def __init__(self, path: Path, made_from: Mapping[str, Any]) -> None:
        self.path = path
        self.made_from = dict(made_from)
        before = _read(path)
        self._same = before.get("made_from") == self.made_from
        self._scans: dict[str, dict[str, Any]] = before.get("scans", {})

    def find(self, scan: Path, target: Path) -> Written | Failed | None:
        """What is known of a scan; None when it must be segmented.

        An answer that somebody has changed since stays, and under new settings that is a failure,
        so that no correction is lost.
        """
        entry = self._scans.get(target.name)
        if entry is None or not target.exists():
            return None
        changed = entry["written"] != stamp(target)
        if self._same and entry["scan"] == stamp(scan):
            voxels = {int(value): count for value, count in entry["voxels"].items()}
            more = ("was changed after it was written",) if changed else ()
            return Written(scan, target, voxels, (*entry["notes"], *more))
        if not changed:
            return None
        return Failed(
            scan,
            f"{target} was changed after it was written and is kept; give it as the labels of this "
            "scan, or move it away",
        )

    def note(self, outcome: Written | Failed) -> None:
        """Record an answer that was written. Raises DataError when the disk refuses."""
        if isinstance(outcome, Failed):
            return
        if not self._same:  # the first answer of another kind
            self._same = True
            for entry in self._scans.values():
                entry["scan"] = []
        self._scans[outcome.labels.name] = {
            "scan": stamp(outcome.scan),
            "written": stamp(outcome.labels),
            "voxels": {str(value): count for value, count in outcome.voxels.items()},
            "notes": list(outcome.notes),
        }
        table = {"made_from": self.made_from, "scans": self._scans}
        write_bytes(self.path, (json.dumps(table, indent=1) + "\n").encode())


def stamp(path: Path) -> Stamp:
    """Changes when the file does, or the files in a folder."""
    if path.is_dir():
        return [sum(numbers) for numbers in zip(*(stamp(one) for one in path.iterdir()))]
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def digest(paths: Sequence[Path]) -> list[str]:
    """A hash of each file's content."""
    return [hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() for path in paths]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if _is_record(content) else {}


def _is_record(content: object) -> bool:
    scans = content.get("scans", {}) if isinstance(content, dict) else None
    return isinstance(scans, dict) and all(map(_is_entry, scans.values()))


def _is_entry(entry: object) -> bool:
    """Whether it is what `Done.note` writes of a scan."""
    if not isinstance(entry, dict):
        return False
    voxels, words = entry.get("voxels"), entry.get("notes")
    return (
        isinstance(entry.get("scan"), list)
        and isinstance(entry.get("written"), list)
        and isinstance(voxels, dict)
        and all(key.isdecimal() and isinstance(count, int) for key, count in voxels.items())
        and isinstance(words, list)
        and all(isinstance(word, str) for word in words)
    )
