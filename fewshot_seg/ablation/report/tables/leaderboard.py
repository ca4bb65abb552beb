"""Who is best: each variant's Dice, its spread and interval, the test and the paper beside it."""

import math
from collections.abc import Sequence

import pandas as pd

from fewshot_seg.ablation.report.groups import MEAN, Group
from fewshot_seg.ablation.report.tables.data import (
    UNKNOWN,
    Cell,
    Column,
    Number,
    PValue,
    TableData,
    Text,
)
from fewshot_seg.ablation.report.tables.naming import named
from fewshot_seg.ablation.statistics import INTERVAL_RULE


def leaderboard(group: Group) -> TableData:
    """Variants by their mean Dice in per cent, best first; incomplete ones come last.

    Each class and the mean come with the standard deviation over folds and seeds, the mean with
    its 95 % interval too; then Holm's p against the reference, the paper's mean and how far ours
    is from it, where there is such a thing.
    """
    order = group.ranking
    paper = {name: float(row[MEAN]) for name, row in group.study.paper.items() if MEAN in row}
    columns = [Column("variant", "variant", numeric=False)]
    blocks: list[Sequence[Cell]] = [[Text(name) for name in order]]
    for class_name in (*group.classes, MEAN):
        columns.append(dice_heading(class_name))
        blocks.append(dice_column(group, order, class_name, interval=class_name == MEAN))
    if group.paired is not None:
        columns.append(Column("p_holm", f"p against {group.reference}"))
        p_holm = group.paired["p_holm"].reindex(order)
        blocks.append([PValue(float(p_holm[name]), _no_p(name, group)) for name in order])
    if any(name in paper for name in order):
        columns += [Column("paper", "paper %"), Column("minus_paper", "ours − paper")]
        told = [paper.get(name, math.nan) for name in order]
        ours = [100 * _comparable_mean(group, name) for name in order]
        blocks.append([Number(value=value) for value in told])
        blocks.append([Number(value=a - b, signed=True) for a, b in zip(ours, told)])
    columns += [Column("n_runs", "runs"), Column("n_scans", "scans")]
    for key in ("n_runs", "n_scans"):
        blocks.append([Number(value=float(n), digits=0) for n in group.means[key].reindex(order)])
    if group.reconstructed:
        columns.append(Column("status", "status", numeric=False))
        marked = group.reconstructed
        blocks.append([Text("RECONSTRUCTED" if name in marked else "") for name in order])
    return named(group, "leaderboard", "Leaderboard", columns, zip(*blocks), _note(group))


def dice_heading(class_name: str) -> Column:
    """Over the Dice of a class, or of "mean"."""
    return Column(f"dice_{class_name}", f"{class_name} %")


def dice_column(
    group: Group, variants: Sequence[str], class_name: str, *, interval: bool
) -> list[Number]:
    """Dice of a class (or "mean") in per cent, for variants in their order.

    The best is marked; a mean is one only among variants with all classes and runs.
    """
    rows = group.summary.xs(class_name, level="class_name").reindex(list(variants)) * 100
    rivals = rows["mean"]
    if class_name == MEAN:
        rivals = rivals[rivals.index.isin(group.complete)]
    best = rivals.max() if len(rivals) else math.nan
    return [
        _number(row, interval, best=bool(name in rivals.index and row["mean"] == best))
        for name, row in rows.iterrows()
    ]


def _number(row: pd.Series, interval: bool, *, best: bool) -> Number:
    return Number(
        value=float(row["mean"]),
        sd=float(row["sd"]),
        low=float(row["low"]) if interval else math.nan,
        high=float(row["high"]) if interval else math.nan,
        best=best,
    )


def _comparable_mean(group: Group, variant: str) -> float:
    """NaN for a mean over other classes or runs than the paper's."""
    return float(group.means.loc[variant, "mean"]) if variant in group.complete else math.nan


def _no_p(variant: str, group: Group) -> str:
    return "reference" if variant == group.reference else UNKNOWN


def _note(group: Group) -> str:
    lines = [
        "Dice in per cent: mean ± standard deviation over folds and seeds. Bold: the best of a "
        "column.",
        f"In brackets: {INTERVAL_RULE}.",
    ]
    if group.paired is not None:
        lines.append(
            f"p: Wilcoxon's signed-rank test over scans against {group.reference}, corrected "
            "after Holm for all variants."
        )
    if group.reconstructed:
        lines.append("RECONSTRUCTED: written from a paper's text alone, no reproduction of it.")
    return "\n".join(lines)
