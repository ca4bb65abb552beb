"""Dice along a hyper-parameter, with the paper's curve beside ours."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from fewshot_seg.ablation.report.figures.labels import Curve, curves, numeric_axes
from fewshot_seg.ablation.report.figures.picture import (
    GREY,
    MOST_LINES,
    Picture,
    caption,
    entitle,
    legend,
    new_figure,
    spread_axis,
    style,
)
from fewshot_seg.ablation.report.groups import Group, file_name


def curve_pictures(group: Group) -> list[Picture]:
    """One for each axis whose labels are numbers."""
    pictures = [curve_picture(group, axis) for axis in numeric_axes(group)]
    return [picture for picture in pictures if picture is not None]


def curve_picture(group: Group, axis: str) -> Picture | None:
    """Mean Dice over the values of `axis`, a line for each setting of the other axes.

    None when no two variants differ in this axis alone.
    """
    found = curves(group, axis)
    if not found:
        return None
    figure, (axes,) = new_figure()
    for index, curve in enumerate(found[:MOST_LINES]):
        _draw(axes, curve, style(index))
    values = pd.concat([curve.points["value"] for curve in found])
    logarithmic = spread_axis(axes, "x", values)
    ticks = sorted(set(values))
    if len(ticks) <= 8:
        axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
    entitle(axes, x=f"{axis} (logarithmic)" if logarithmic else axis, y="mean Dice (%)")
    legend(figure, axes, columns=1 if any(curve.label for curve in found) else 2)
    first = found[0].points
    best = first.loc[first["mean"].idxmax()]
    left_out = len(found) - MOST_LINES
    return Picture(
        name=f"curve-{file_name(axis)}",
        figure=figure,
        alt=f"Mean Dice over {axis}: from {first['mean'].iloc[0]:.1f} % at "
        f"{first['value'].iloc[0]:g} to {first['mean'].iloc[-1]:.1f} % at "
        f"{first['value'].iloc[-1]:g}; best {best['mean']:.1f} % at {best['value']:g}"
        + (f" ({found[0].label})." if found[0].label else "."),
        caption=caption(
            f"Mean Dice over {axis}; bars are 95 % bootstrap intervals over scans.",
            f"The first {MOST_LINES} of {len(found)} lines." if left_out > 0 else "",
            *group.gaps,
            group.note,
        ),
    )


def _draw(axes: Axes, curve: Curve, look: dict[str, Any]) -> None:
    points = curve.points
    below, above = points["mean"] - points["low"], points["high"] - points["mean"]
    axes.errorbar(
        points["value"],
        points["mean"],
        yerr=[below.clip(lower=0), above.clip(lower=0)],
        label=curve.label or "ours",
        capsize=3,
        **look,
    )
    published = points[points["paper"].notna()]
    if len(published):
        axes.plot(
            published["value"],
            published["paper"],
            color=GREY if not curve.label else look["color"],
            linestyle="-.",
            marker="D",
            markerfacecolor="none",
            label=f"paper, {curve.label}" if curve.label else "paper",
        )
