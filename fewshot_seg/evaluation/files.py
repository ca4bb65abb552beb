"""Results in files: JSON that can be read back, CSV for spreadsheets."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.evaluation.scores import ScanScore, Unscored
from fewshot_seg.typed import make


def plain(entry: Any) -> dict[str, Any]:
    """A dataclass of scores as JSON can hold it: NaN, which JSON has not, becomes "nan"."""
    return {
        name: "nan" if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(entry).items()
    }


def scan_score(data: Mapping[str, Any]) -> ScanScore:
    """The inverse of `plain`; older files have no "slice_dice".

    Raises TypeError when fields are missing, unknown or of another type, ValueError for a Dice
    that is none.
    """
    values: dict[str, Any] = {**data, "notes": tuple(data["notes"])}
    for name in ("dice", "hd95", "assd", "slice_dice"):
        if data.get(name) == "nan":
            values[name] = math.nan
    score = make(ScanScore, values)
    if not (math.isnan(score.dice) or 0 <= score.dice <= 1):
        raise ValueError(f"the Dice {score.dice} does not lie between 0 and 1")
    return score


def unscored(data: Mapping[str, Any]) -> Unscored:
    """A class without a score. Raises TypeError as `scan_score`."""
    return make(Unscored, data)


def json_bytes(data: Mapping[str, Any]) -> bytes:
    """Plain data as a JSON file holds it."""
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def write_csv(path: Path, rows: Iterable[ScanScore], matching: str) -> None:
    """One line a score; the name of the slice matching stands in each."""
    text = io.StringIO()
    columns = ["matching", *(entry.name for entry in fields(ScanScore))]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({"matching": matching, **plain(row), "notes": "; ".join(row.notes)})
    write_bytes(path, text.getvalue().encode())
