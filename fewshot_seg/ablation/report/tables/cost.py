"""What each variant costs, beside its Dice."""

import pandas as pd

from fewshot_seg.ablation.report.groups import MEAN, Group
from fewshot_seg.ablation.report.tables.data import Cell, Column, Number, TableData, Text
from fewshot_seg.ablation.report.tables.leaderboard import dice_column
from fewshot_seg.ablation.report.tables.naming import named

COSTS = {
    "parameters": ("parameters (M)", 1e-6, 2),
    "gflops": ("GFLOPs", 1.0, 2),
    "slice_ms": ("ms per slice", 1.0, 1),
    "train_seconds": ("training (min)", 1 / 60, 1),
    "peak_mib": ("peak memory (MiB)", 1.0, 0),
}
"""Column of `Study.cells` -> heading, factor to its unit, decimals."""


def costs(group: Group) -> pd.DataFrame:
    """Means by variant in the headings' units, columns as in COSTS; NaN where not measured.

    Cells that share a training count its time once.
    """
    done = group.cells[group.cells["state"] == "done"]
    means = pd.DataFrame(index=list(group.variants))
    for name, (_, factor, _) in COSTS.items():
        known = done[done[name].notna()]
        if name == "train_seconds":
            known = known.drop_duplicates(["variant", "training"])
        means[name] = known.groupby("variant")[name].mean().astype(float) * factor
    return means


def cost_table(group: Group) -> TableData | None:
    """In the grid's order; columns that nobody measured are left out, None when that is all."""
    found = costs(group)
    measured = [name for name in COSTS if found[name].notna().any()]
    if not measured:
        return None
    columns = [
        Column("variant", "variant", numeric=False),
        *(Column(_key(name), COSTS[name][0]) for name in measured),
        Column("dice", "Dice %"),
    ]
    dice = dice_column(group, group.variants, MEAN, interval=False)
    rows: list[list[Cell]] = []
    for variant, score in zip(group.variants, dice):
        numbers = [
            Number(value=float(found.loc[variant, name]), digits=COSTS[name][2])
            for name in measured
        ]
        rows.append([Text(variant), *numbers, score])
    note = (
        "Means over runs. FLOPs count a multiplication and an addition as two; times are of the "
        "devices named under provenance."
    )
    return named(group, "cost", "Cost and Dice", columns, rows, note)


def _key(name: str) -> str:
    return {"parameters": "parameters_m", "train_seconds": "train_minutes"}.get(name, name)
