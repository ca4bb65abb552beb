"""The ablation matrix: which modules are in, and what that gives."""

from fewshot_seg.ablation.report.groups import MEAN, Group
from fewshot_seg.ablation.report.tables.data import Cell, Column, TableData, Text, Tick
from fewshot_seg.ablation.report.tables.leaderboard import dice_column, dice_heading
from fewshot_seg.ablation.report.tables.naming import named

SWITCH = ("on", "off")
"""Labels of an axis that puts a module in or leaves it out."""


def modules(group: Group) -> tuple[str, ...]:
    """The axes that put a module in or leave it out, of which both occur."""
    return tuple(axis for axis in group.labels if set(group.labels[axis]) == set(SWITCH))


def ablation_matrix(group: Group) -> TableData | None:
    """A tick for each module, then Dice by class, in the grid's order; None below two modules."""
    switches = modules(group)
    if len(switches) < 2:
        return None
    others = [
        axis for axis in group.labels if axis not in switches and group.labels[axis].nunique() > 1
    ]
    columns = [Column(axis, axis, numeric=False) for axis in (*switches, *others)]
    columns += [dice_heading(name) for name in (*group.classes, MEAN)]
    shown = [
        dice_column(group, group.variants, name, interval=name == MEAN)
        for name in (*group.classes, MEAN)
    ]
    rows: list[list[Cell]] = []
    for index, variant in enumerate(group.variants):
        labels = group.labels.loc[variant]
        ticks: list[Cell] = [Tick(labels[axis] == "on") for axis in switches]
        words: list[Cell] = [Text(str(labels[axis])) for axis in others]
        rows.append([*ticks, *words, *(column[index] for column in shown)])
    note = "Dice in per cent, mean ± standard deviation over folds and seeds; [95 % interval]."
    return named(group, "ablation-matrix", "Ablation matrix", columns, rows, note)
