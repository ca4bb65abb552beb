"""Axes whose labels are numbers, and the curves of variants along them."""

import math
from dataclasses import dataclass

import pandas as pd

from fewshot_seg.ablation.report.groups import MEAN, Group


@dataclass(frozen=True)
class Curve:
    """Variants that differ in one axis alone, by its value.

    label: the labels of the other axes, empty when they are all the same.
    points: one row a value, ascending: `value`, `variant`, `mean`, `low`, `high`, `paper`
        (per cent, NaN where unknown).
    """

    label: str
    points: pd.DataFrame


def numeric_axes(group: Group) -> tuple[str, ...]:
    """Axes of three or more labels that are all numbers."""
    return tuple(
        axis
        for axis in group.labels
        if group.labels[axis].nunique() > 2 and group.labels[axis].map(_is_number).all()
    )


def curves(group: Group, axis: str) -> tuple[Curve, ...]:
    """A curve for each combination of the other axes that has at least two values."""
    rows = group.means[["mean", "low", "high"]] * 100
    rows = rows.assign(
        value=group.labels[axis].astype(float),
        variant=rows.index,
        paper=[group.study.paper.get(name, {}).get(MEAN, math.nan) for name in rows.index],
    )
    others = [name for name in group.labels if name != axis and group.labels[name].nunique() > 1]
    if not others:
        return (Curve("", rows.sort_values("value")),)
    found = []
    for labels, part in rows.groupby([group.labels[name] for name in others], sort=False):
        if len(part) > 1:
            words = ", ".join(f"{name} {label}" for name, label in zip(others, labels))
            found.append(Curve(words, part.sort_values("value")))
    return tuple(found)


def _is_number(label: object) -> bool:
    try:
        return math.isfinite(float(str(label)))
    except ValueError:
        return False
