"""Dots and whiskers: every variant's mean Dice and how sure it is."""

import numpy as np

from fewshot_seg.ablation.report.figures.picture import (
    COLOURS,
    GREY,
    Picture,
    as_list,
    caption,
    entitle,
    legend,
    new_figure,
)
from fewshot_seg.ablation.report.groups import MEAN, Group

MOST = 30
"""Variants in the picture."""


def leaderboard_picture(group: Group) -> Picture:
    """The best on top; whiskers are 95 % intervals, rings the paper's means."""
    means = group.means.loc[list(group.ranking)]
    shown = means.head(MOST) * 100
    names = list(shown.index)
    places = np.arange(len(names))
    figure, (axes,) = new_figure(height=1.3 + 0.3 * len(names))
    axes.hlines(places, shown["low"], shown["high"], color=COLOURS[0], linewidth=2, alpha=0.6)
    whole = np.array([name in group.complete for name in names])
    for which, colour, label in ((whole, COLOURS[0], "ours"), (~whole, GREY, "ours, incomplete")):
        if which.any():
            axes.plot(
                shown["mean"][which], places[which], "o", color=colour, markersize=7, label=label
            )
    paper = [group.study.paper.get(name, {}).get(MEAN, np.nan) for name in names]
    if not np.isnan(paper).all():
        axes.plot(
            paper, places, "D", color="none", markeredgecolor=COLOURS[1], markersize=7,
            markeredgewidth=1.6, label="paper",
        )  # fmt: skip
    if len(axes.get_lines()) > 1:
        legend(figure, axes)
    as_list(axes, names)
    entitle(axes, x="mean Dice (%)")
    if group.reference in names:
        axes.get_yticklabels()[names.index(group.reference)].set_fontweight("bold")
        axes.axvline(shown.loc[group.reference, "mean"], color=GREY, linestyle=":", linewidth=1.2)
    best, last = shown.iloc[0], shown.iloc[-1]
    left_out = len(means) - len(shown)
    return Picture(
        name="leaderboard",
        figure=figure,
        alt=f"Mean Dice of {len(shown)} variants, from {names[0]} with {best['mean']:.1f} % "
        f"to {names[-1]} with {last['mean']:.1f} %.",
        caption=caption(
            "Mean Dice over query scans, folds and seeds, then classes; whiskers are 95 % "
            "bootstrap intervals over scans.",
            f"Bold with a dotted line: {group.reference}." if group.reference in names else "",
            f"The best {len(shown)} of {len(means)} variants." if left_out else "",
            *group.gaps,
            group.note,
        ),
    )
