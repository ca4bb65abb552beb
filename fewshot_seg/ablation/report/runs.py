"""What the page tells of the study as a whole: how far it is, what failed, where it comes from."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from fewshot_seg.ablation.folder import DONE, FAILED
from fewshot_seg.ablation.report.blocks import Block, Chapter, ErrorsBlock, Section, table_block
from fewshot_seg.ablation.report.groups import MEAN, Group
from fewshot_seg.ablation.report.tables.origin import protocols_note, provenance, unfinished
from fewshot_seg.ablation.study import Study

MOST_ERRORS = 30
"""Different failures that the page shows with their traceback."""
MOST_CELLS = 5
"""Cells named beside a failure that several share."""


@dataclass(frozen=True)
class Fact:
    """One number that a reader wants first."""

    name: str
    value: str
    note: str = ""


def asked(study: Study) -> tuple[str, ...]:
    """What the study is, in plain words."""
    varied = f"What was varied: {', '.join(study.axes)}. " if study.axes else ""
    compared = f"The others are compared with “{study.reference}”. " if study.reference else ""
    return (
        f"{_count(len(study.variants), 'variant')} of a method were compared, each one row of the "
        f"tables. {varied}{compared}A cell is one variant, trained and tested on one fold, with "
        "one seed and one group of classes held out.",
        "Dice is the overlap of prediction and ground truth in per cent, 100 when they are the "
        "same. Under each table stand the rules its numbers were obtained under.",
    )


def warnings(study: Study, groups: tuple[Group, ...]) -> tuple[str, ...]:
    """What a reader must know before reading any number."""
    found = []
    if not groups:
        found.append("No cell has results yet: there is nothing to compare.")
    if len(groups) > 1:
        found.append(
            f"The results were obtained under {len(groups)} sets of rules or versions of the "
            "data. They cannot be compared, so each set has a chapter of its own."
        )
    left = study.cells.loc[study.cells["state"] != DONE, "state"].value_counts()
    if groups and len(left):
        told = ", ".join(f"{count} {state}" for state, count in left.items())
        found.append(
            f"{left.sum()} of {len(study.cells)} cells have no results ({told}). Means are over "
            "the cells that have."
        )
    return tuple(found)


def facts(study: Study, groups: tuple[Group, ...]) -> tuple[Fact, ...]:
    """How far the study is, what it took, and its best variant where there is one table."""
    done = study.cells[study.cells["state"] == DONE]
    return (
        *_best(groups),
        Fact("Cells with results", f"{len(done)} of {len(study.cells)}"),
        *_scans(study),
        *_training_time(done),
    )


def _best(groups: tuple[Group, ...]) -> Iterator[Fact]:
    if len(groups) != 1:
        return
    name = groups[0].ranking[0]
    mean, low, high = (100 * groups[0].summary.loc[(name, MEAN), ["mean", "low", "high"]]).tolist()
    interval = "" if low != low else f", 95 % interval {low:.1f} to {high:.1f}"
    yield Fact("Best mean Dice", f"{mean:.1f} %", f"{name}{interval}")


def _scans(study: Study) -> Iterator[Fact]:
    if len(study.scores):
        scans = study.scores["scan_id"].nunique()
        classes = study.scores["class_name"].nunique()
        yield Fact("Scans tested on", str(scans), f"{_count(classes, 'class', 'classes')}")


def _training_time(done: pd.DataFrame) -> Iterator[Fact]:
    trainings = done.drop_duplicates("training")["train_seconds"].dropna()
    if len(trainings):
        hours = trainings.sum() / 3600
        devices = sorted({str(one) for one in done["device"].dropna() if one})
        yield Fact("Training time", f"{hours:.1f} h", f"on {', '.join(devices)}" if devices else "")


def runs_chapter(study: Study) -> Chapter:
    """The cells without results, and where the others come from."""
    rules = "\n".join(protocols_note(study))
    errors = _errors(study.cells[study.cells["state"] == FAILED])
    left, origin = (
        None if table is None else table_block(table, rules=rules)
        for table in (unfinished(study), provenance(study))
    )
    sections = (
        _section("unfinished", "Cells without results", "", errors, left),
        _section(
            "provenance",
            "Provenance",
            "Which machine, which version of the source, when.",
            origin,
        ),
    )
    return Chapter(
        id="runs",
        title="The runs",
        sections=tuple(section for section in sections if section.blocks),
    )


def _section(key: str, title: str, words: str, *blocks: Block | None) -> Section:
    return Section(key, title, words, tuple(block for block in blocks if block is not None))


def _errors(failed: pd.DataFrame) -> ErrorsBlock | None:
    """Cells that failed alike stand together: a thousand cells may have one cause."""
    if failed.empty:
        return None
    alike = list(failed.groupby("error", sort=False))
    alike.sort(key=lambda pair: -len(pair[1]))
    entries = tuple(
        (str(error) or "unknown error", _cells(cells), str(cells["traceback"].iloc[0]))
        for error, cells in alike[:MOST_ERRORS]
    )
    shown = f" The {len(entries)} most frequent are shown." if len(entries) < len(alike) else ""
    words = (
        f"{_count(len(failed), 'cell')} failed, for {_count(len(alike), 'reason')}."
        f"{shown} Open one for its traceback."
    )
    return ErrorsBlock(entries=entries, words=words)


def _cells(cells: pd.DataFrame) -> str:
    named = [
        f"{row.variant}, {row.novel}, fold {row.fold}, seed {row.seed}"
        for row in cells.head(MOST_CELLS).itertuples()
    ]
    more = f"; and {len(cells) - MOST_CELLS} more" if len(cells) > MOST_CELLS else ""
    return "; ".join(named) + more


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
