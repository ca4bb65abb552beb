"""Mean ranks with the critical difference, as a list that also fits a phone."""

import numpy as np

from fewshot_seg.ablation.report.figures.picture import (
    COLOURS,
    Picture,
    as_list,
    caption,
    entitle,
    new_figure,
)
from fewshot_seg.ablation.report.groups import Group

MOST = 30
"""Variants in the picture."""


def rank_picture(group: Group) -> Picture | None:
    """The best on top; bars reach half the critical difference to each side.

    So two variants differ at the 5 % level exactly when their bars do not meet. None where there
    is no critical difference: fewer than three variants, or than two scans that all of them have.
    """
    found = group.ranks.sort_values("mean_rank", kind="stable")
    critical = float(found["critical_difference"].iloc[0])
    if np.isnan(critical):
        return None
    shown = found.head(MOST)
    places, ranks = np.arange(len(shown)), shown["mean_rank"].to_numpy()
    figure, (axes,) = new_figure(height=1.0 + 0.3 * len(shown))
    axes.hlines(
        places, ranks - critical / 2, ranks + critical / 2, color=COLOURS[0], linewidth=6, alpha=0.3
    )
    axes.plot(ranks, places, "o", color=COLOURS[0], markersize=7)
    as_list(axes, list(shown["variant"]))
    entitle(axes, x="mean rank (1 is best)")
    first, blocks = shown.iloc[0], int(found["n_blocks"].iloc[0])
    p = float(found["friedman_p"].iloc[0])
    dropped = int(found["n_dropped"].iloc[0])
    return Picture(
        name="ranks",
        figure=figure,
        alt=f"Mean ranks of {len(shown)} variants; best {first['variant']} with "
        f"{first['mean_rank']:.2f}; critical difference {critical:.2f}.",
        caption=caption(
            f"Mean ranks over {blocks} blocks (a class in a scan). Variants whose bars do not meet "
            f"differ at the 5 % level (Nemenyi, critical difference {critical:.2f}); Friedman's "
            f"test of any difference: p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}.",
            f"{dropped} blocks that some variant lacks are left out." if dropped else "",
            f"The best {len(shown)} of {len(found)} variants." if len(shown) < len(found) else "",
            group.note,
        ),
    )
