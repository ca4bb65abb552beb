"""A study's results as tables in memory, for statistics and reports."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_seg.ablation.columns import CELL_COLUMNS, COSTS, SCORE_COLUMNS, told
from fewshot_seg.ablation.folder import DAMAGED, DONE, FAILED, StudyFolder, read_json
from fewshot_seg.errors import DataError, OptionError
from fewshot_seg.evaluation.protocol import Protocol
from fewshot_seg.evaluation.results import Results
from fewshot_seg.evaluation.scores import ScanScore

if TYPE_CHECKING:
    import pandas as pd

LETTERS = 8
SAME = ("variant", "method", "dataset", "data_version", "protocol", "cell")
"""Columns of both tables."""


@dataclass(frozen=True)
class Study:
    """What a grid gave so far.

    axes: names of what was varied.   variants: rows of a table, in the grid's order.
    reference: the variant that others are compared with, None for none.
    paper: variant -> class name or "mean" -> published Dice in per cent.
    scores: one row a scan score: `variant`, a column for each axis, and SCORE_COLUMNS.
    cells: one row a planned cell: `cell`, `variant`, the axes, and CELL_COLUMNS; `state` is done,
        failed, damaged (results changed after they were written, which are left out) or missing.
    protocols: the short hashes of the columns `protocol` -> rules, folds and seeds joined.
        Scores of different protocols or data versions are never put together.
    """

    folder: Path
    name: str
    title: str
    axes: tuple[str, ...]
    variants: tuple[str, ...]
    reference: str | None
    paper: Mapping[str, Mapping[str, float]]
    scores: "pd.DataFrame"
    cells: "pd.DataFrame"
    protocols: Mapping[str, Protocol] = field(default_factory=dict)


def load_results(folder: Path | str) -> "pd.DataFrame":
    """`read_study(folder).scores`: one row for each class of each scan of each finished cell."""
    return read_study(folder).scores


def scores_table(study: Study) -> str:
    """Every score with the device, date and commit of its cell, as CSV."""
    origin = study.cells[["cell", "device", "date", "commit"]]
    return str(study.scores.merge(origin, on="cell", how="left").to_csv(index=False))


def read_study(folder: Path | str) -> Study:
    """All that stands in a study's folder, finished or not.

    Raises DataError for a folder without a study, OptionError when pandas is not installed.
    """
    pd = _pandas()
    place = StudyFolder(folder)
    plan = place.read_plan()
    try:
        return _read(place, plan, pd)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError | OptionError):
            raise
        raise DataError(
            f"{place.plan} has been changed or was written by another version ({error!r}); start "
            "`fewshot-seg ablate` again with the same grid to have it written anew"
        ) from error


def _read(place: StudyFolder, plan: Mapping[str, Any], pd: Any) -> Study:
    axes = tuple(plan["axes"])
    scores: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    rules: dict[str, list[Protocol]] = {}
    for cell in plan["cells"]:
        row = _cell_row(place, cell)
        results = _results(place, row)
        if results is not None:
            key = short(results.protocol)
            rules.setdefault(key, []).append(results.protocol)
            row |= _origin(results, key)
            scores += _score_rows(cell, row, results)
        cells.append(row)
    heads = told(axes)
    return Study(
        folder=place.root,
        name=plan["name"],
        title=plan["title"],
        axes=axes,
        variants=tuple(plan["variants"]),
        reference=plan["reference"] or None,
        paper=plan["paper"],
        scores=pd.DataFrame(scores, columns=[*heads, *SCORE_COLUMNS]),
        cells=pd.DataFrame(cells, columns=["cell", *heads, *CELL_COLUMNS]),
        protocols={key: reduce(Protocol.joined, found) for key, found in rules.items()},
    )


def short(protocol: Protocol) -> str:
    """A few letters that stand for the rules; folds and seeds are none."""
    rules = {
        name: value for name, value in protocol.to_dict().items() if name not in ("folds", "seeds")
    }
    text = json.dumps(rules, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:LETTERS]


def _cell_row(place: StudyFolder, cell: Mapping[str, Any]) -> dict[str, Any]:
    state = place.state(cell["id"])
    row: dict[str, Any] = {
        "cell": cell["id"],
        "method": cell["method"],
        **cell["labels"],
        "variant": cell["variant"],
        "dataset": cell["dataset"],
        "data_version": cell["data_version"],
        "fold": cell["fold"],
        "seed": cell["seed"],
        "novel": "+".join(cell["novel"]),
        "state": state,
        "training": cell["training"],
        "error": "",
        "traceback": "",
    }
    if state == DONE:
        cost = read_json(place.cost(cell["id"]))
        row |= {name: cost.get(name) for name in COSTS}
    elif state == FAILED:
        failure = _maybe(place.failure(cell["id"]))
        row |= {name: failure.get(name, "") for name in ("error", "traceback", "date")}
    elif state == DAMAGED:
        row["error"] = (
            "results.json is not what was written when the cell was done; run the grid again to "
            "have the cell tested anew"
        )
    return row


def _maybe(path: Path) -> dict[str, Any]:
    """A failure that is itself damaged is still a failure."""
    try:
        return read_json(path)
    except DataError as error:
        return {"error": str(error)}


def _results(place: StudyFolder, row: dict[str, Any]) -> Results | None:
    """A finished cell's results; one that cannot be read is marked as damaged."""
    if row["state"] != DONE:
        return None
    try:
        return Results.from_json(place.results(row["cell"]))
    except DataError as error:
        row |= {"state": DAMAGED, "error": str(error)}
        return None


def _origin(results: Results, protocol: str) -> dict[str, Any]:
    found = {name: results.provenance.get(name, "") for name in ("device", "date", "commit")}
    return {"protocol": protocol, **found}


def _score_rows(
    cell: Mapping[str, Any], row: Mapping[str, Any], results: Results
) -> list[dict[str, Any]]:
    same = {name: row[name] for name in SAME}
    status = results.provenance.get("status", "")
    return [
        {
            **cell["labels"],
            **same,
            "status": status,
            **{name: _value(score, name) for name in SCORE_COLUMNS if hasattr(score, name)},
        }
        for score in results.rows
    ]


def _value(score: ScanScore, name: str) -> Any:
    """A field of a score; numbers that were not measured are NaN."""
    value = getattr(score, name)
    return math.nan if value is None else value


def _pandas() -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        raise OptionError(
            'tables of results need pandas: pip install "fewshot-seg[ablation]"'
        ) from error
    return pd
