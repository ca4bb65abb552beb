"""Results as a table for the terminal."""

import math
from collections.abc import Iterable, Mapping

from rich.table import Table
from rich.text import Text

from fewshot_seg.evaluation.protocol import Protocol
from fewshot_seg.evaluation.summary import ClassSummary


def results_table(
    name: str,
    summaries: Mapping[str, ClassSummary],
    protocol: Protocol,
    provenance: Mapping[str, str],
) -> Table:
    """A row for each class and one for the mean of the classes; protocol and origin as caption."""
    told = ["date", "device"]
    if provenance.get("precision", "32") != "32":
        told.append("precision")
    origin = ", ".join(f"{key} {provenance[key]}" for key in told if key in provenance)
    status = f"{name or 'The method'}: {provenance['status']}." if "status" in provenance else ""
    # Text, not str: rich would read brackets in a name as markup.
    table = Table(
        title=Text(name or protocol.dataset),
        caption=Text("\n".join(filter(None, [status, protocol.describe(), origin]))),
        caption_justify="left",
    )
    surfaces = any(not math.isnan(entry.hd95) for entry in summaries.values())
    units = sorted({entry.unit for entry in summaries.values() if not math.isnan(entry.hd95)})
    table.add_column("class")
    slices = any(not math.isnan(entry.slice_dice) for entry in summaries.values())
    for heading in ("Dice %", "± scans", "± folds", *(["by slice %"] if slices else [])):
        table.add_column(heading, justify="right")
    for heading in ("HD95", "ASSD") if surfaces else ():
        table.add_column(f"{heading} {'/'.join(units)}", justify="right")
    table.add_column("scans")
    for class_name, entry in summaries.items():
        distances = (entry.hd95, entry.assd) if surfaces else ()
        table.add_row(
            Text(class_name),
            *_percents(entry),
            *([_percent(entry.slice_dice)] if slices else []),
            *map(_distance, distances),
            _counts(entry),
            end_section=class_name == list(summaries)[-1],
        )
    entries = summaries.values()
    if any(not math.isnan(entry.dice) for entry in entries):
        by_slice = [_percent(_mean(entry.slice_dice for entry in entries))] if slices else []
        table.add_row("mean", _percent(_mean(entry.dice for entry in entries)), "", "", *by_slice)
    return table


def _percents(entry: ClassSummary) -> tuple[str, str, str]:
    return _percent(entry.dice), _percent(entry.sd_scans), _percent(entry.sd_folds)


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _distance(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _counts(entry: ClassSummary) -> str:
    told = [
        (entry.n_failed, "failed"),
        (entry.n_skipped, "without the class"),
        (entry.n_without_surface, "empty prediction"),
    ]
    return ", ".join([str(entry.n_scans), *(f"{n} {what}" for n, what in told if n)])
