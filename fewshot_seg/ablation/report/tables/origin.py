"""What is not there, and where what is there comes from."""

from collections.abc import Iterable

import pandas as pd

from fewshot_seg.ablation.folder import DONE, StudyFolder
from fewshot_seg.ablation.report.tables.data import Cell, Column, Number, TableData, Text
from fewshot_seg.ablation.study import Study
from fewshot_seg.evaluation.results import Results

ADVICE = {
    "failed": "fewshot-seg ablate with the same --out tries them again",
    "damaged": "their results were changed after they were written and are not in any table; "
    "fewshot-seg ablate with the same --out tests them again",
    "missing": "not run yet; fewshot-seg ablate with the same --out goes on",
}
ELSEWHERE = ("date", "device", "commit", "status")
"""Entries of a result's provenance that have a column of their own."""


def unfinished(study: Study, *, most: int | None = None) -> TableData | None:
    """Cells without results, failed ones first; None when every cell is done.

    most: rows shown; all unless given. The note counts all of them.
    """
    left = study.cells[study.cells["state"] != DONE]
    if left.empty:
        return None
    order = {state: index for index, state in enumerate(ADVICE)}
    left = left.sort_values("state", key=lambda states: states.map(order), kind="stable")
    shown = left if most is None else left.head(most)
    keys = ("variant", "novel", "fold", "seed", "state", "error", "cell")
    columns = tuple(Column(key, key, numeric=key in ("fold", "seed")) for key in keys)
    rows = tuple(
        tuple(_cell(key, value) for key, value in zip(keys, row))
        for row in shown[list(keys)].itertuples(index=False, name=None)
    )
    counts = left["state"].value_counts()
    told = [f"{counts[state]} {state}: {ADVICE[state]}." for state in ADVICE if state in counts]
    if len(shown) < len(left):
        told.append(f"The first {len(shown)} of {len(left)} are shown.")
    told.append(f"{len(study.cells) - len(left)} of {len(study.cells)} cells are done.")
    note = "\n".join([*told, *protocols_note(study)])
    title = "Cells without results"
    return TableData(name="unfinished", title=title, columns=columns, rows=rows, note=note)


def provenance(study: Study) -> TableData | None:
    """A row for each device, commit, protocol and data version; None when nothing is done."""
    done = study.cells[study.cells["state"] == DONE]
    keys = ["device", "commit", "protocol", "data_version"]
    rows: list[tuple[Cell, ...]] = []
    for values, cells in done.groupby(keys, sort=False, dropna=False):
        dates = sorted(cells["date"].dropna().astype(str))
        rows.append(
            (
                *(Text(_words(value)) for value in values),
                Text(dates[0] if dates else ""),
                Text(dates[-1] if dates else ""),
                Text(_listed(cells["fold"])),
                Text(_listed(cells["seed"])),
                Number(value=float(len(cells)), digits=0),
                Text(_versions(study, str(cells["cell"].iloc[0]))),
            )
        )
    if not rows:
        return None
    heads = (*keys, "first", "last", "folds", "seeds", "cells", "versions")
    columns = tuple(Column(key, key.replace("_", " "), numeric=key == "cells") for key in heads)
    note = "\n".join(["Versions are those of each row's first cell.", *protocols_note(study)])
    return TableData(
        name="provenance", title="Provenance", columns=columns, rows=tuple(rows), note=note
    )


def protocols_note(study: Study) -> list[str]:
    """Every protocol of the study by its short name."""
    return [
        f"Protocol {key}: {' '.join(protocol.describe().splitlines())}"
        for key, protocol in study.protocols.items()
    ]


def _cell(key: str, value: object) -> Cell:
    if key in ("fold", "seed"):
        return Number(value=float(str(value)), digits=0)
    return Text(_words(value))


def _words(value: object) -> str:
    return "" if pd.isna(value) else str(value)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in sorted({int(str(value)) for value in values}))


def _versions(study: Study, cell: str) -> str:
    """Packages and their versions, as a cell's results name them."""
    found = Results.from_json(StudyFolder(study.folder).results(cell)).provenance
    return ", ".join(f"{name} {value}" for name, value in found.items() if name not in ELSEWHERE)
