"""Cost against Dice, with the front that nothing beats in both."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fewshot_seg.ablation.report.figures.picture import (
    COLOURS,
    GREY,
    POINTS,
    Picture,
    caption,
    entitle,
    listed,
    new_figure,
    short,
    spread_axis,
)
from fewshot_seg.ablation.report.groups import Group
from fewshot_seg.ablation.report.tables.cost import COSTS, costs
from fewshot_seg.errors import check_choice

MOST_NAMES = 12
"""Variants of the front that are named."""


def cost_pictures(group: Group) -> list[Picture]:
    """One for each cost in which measured variants differ."""
    found = costs(group)
    differ = [name for name in COSTS if found[name].nunique() > 1]
    return [cost_picture(group, name) for name in differ]


def cost_picture(group: Group, cost: str = "gflops") -> Picture:
    """Every variant's mean Dice over one of its costs, a column of `Study.cells`.

    Raises OptionError for a cost that there is not.
    """
    check_choice("cost", cost, COSTS)
    heading = COSTS[cost][0]
    points = pd.DataFrame({"cost": costs(group)[cost], "dice": group.means["mean"] * 100})
    points = points[points.index.isin(group.complete)].dropna()
    front = pareto(points)
    figure, (axes,) = new_figure(height=3.0 + 0.2 * min(len(front), MOST_NAMES))
    axes.plot(points["cost"], points["dice"], "o", color=GREY, markersize=6, alpha=0.8)
    axes.step(front["cost"], front["dice"], where="post", color=COLOURS[0], linewidth=1.4)
    axes.plot(front["cost"], front["dice"], "o", color=COLOURS[0], markersize=8)
    _number(figure, axes, front.head(MOST_NAMES))
    axes.margins(0.1)
    logarithmic = spread_axis(axes, "x", points["cost"])
    entitle(axes, x=f"{heading}, logarithmic" if logarithmic else heading, y="mean Dice (%)")
    missing = len(group.variants) - len(points)
    return Picture(
        name=f"cost-{cost}",
        figure=figure,
        alt=f"Mean Dice over {heading} of {len(points)} variants; on the front: "
        f"{listed(front.index, MOST_NAMES)}.",
        caption=caption(
            f"Mean Dice over {heading}. Blue: the Pareto front, of which no variant is both "
            "cheaper and better.",
            f"Left out: {missing} variants without this measurement or without all scores."
            if missing
            else "",
            group.note,
        ),
    )


def _number(figure: Figure, axes: Axes, front: pd.DataFrame) -> None:
    """A number at each point, where nothing can lie: to the left and above. Names stand below."""
    numbers = range(1, len(front) + 1)
    for number, (x, y) in zip(numbers, front.itertuples(index=False, name=None)):
        axes.annotate(
            str(number), (x, y), (-4, 3), textcoords="offset points", ha="right", color=GREY,
            fontsize=POINTS,
        )  # fmt: skip
    figure.legend(
        [Line2D([], [], linestyle="", marker=f"${number}$", color=GREY) for number in numbers],
        [short(name, 46) for name in front.index],
        loc="outside lower left",
        frameon=False,
        labelcolor=GREY,
        fontsize=POINTS - 1,
    )


def pareto(points: pd.DataFrame) -> pd.DataFrame:
    """The rows that no other row beats in `cost` (less) and `dice` (more), cheapest first."""
    ordered = points.sort_values(["cost", "dice"], ascending=[True, False], kind="stable")
    best_before = ordered["dice"].cummax().shift(fill_value=float("-inf"))
    return ordered[ordered["dice"] > best_before]
