"""What the anatomical prior learnt: the KL of each latent, and whether it has collapsed."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fewshot_seg.ablation.report.figures.picture import (
    COLOURS,
    GREY,
    Picture,
    caption,
    entitle,
    new_figure,
    short,
)
from fewshot_seg.ablation.report.groups import Group
from fewshot_seg.ablation.report.logs import joined
from fewshot_seg.training.window import DIAGNOSTICS

KL = re.compile(re.escape(f"{DIAGNOSTICS}kl_per_dim") + r"(?:/(\d+))?")
SPREAD = f"{DIAGNOSTICS}latent_spread"
"""Variance of the latents' means over the images of a step."""
NO_INFORMATION = 0.01
"""Nats. A latent below tells nothing of the mask."""
COLLAPSED = 1e-3
"""Variance below which the latent is the same for every image."""
LAST = 10
"""The end of a training that is averaged: one in so many lines of its log."""


def prior_pictures(group: Group) -> list[Picture]:
    """One for each variant of `group.logs` that tells of an anatomical prior."""
    return [
        _picture(group, variant, logs)
        for variant, logs in group.logs.items()
        if any(len(latent_kl(log)) for log in logs)
    ]


def latent_kl(log: pd.DataFrame) -> np.ndarray:
    """Nats of each latent, in the mean over the last lines of a log; empty without a prior."""
    found = {int(match[1] or 0): name for name in log if (match := KL.fullmatch(name))}
    names = [found[index] for index in sorted(found)]
    end = log[names].tail(max(1, len(log) // LAST))
    return end.mean().to_numpy()


def collapse_words(kl: np.ndarray) -> str:
    """`3 of 32 latents are collapsed (KL < 0.01).`"""
    dead = int((kl < NO_INFORMATION).sum())
    verb = "is" if dead == 1 else "are"
    return f"{dead} of {len(kl)} latents {verb} collapsed (KL < {NO_INFORMATION:g})."


def spread_words(spread: float) -> str:
    """Whether the latent still tells images apart."""
    if np.isnan(spread):
        return ""
    verdict = "the latent has collapsed" if spread < COLLAPSED else "the latent differs by image"
    return (
        f"Variance of the latent's mean over images: {spread:.2g}, so {verdict} "
        f"(limit {COLLAPSED:g})."
    )


def _picture(group: Group, variant: str, logs: Sequence[pd.DataFrame]) -> Picture:
    several = [one for one in map(latent_kl, logs) if len(one)]
    kl = np.mean([one for one in several if len(one) == len(several[0])], axis=0)
    spread = joined(logs, SPREAD)
    figure, (bars, line) = new_figure(rows=2, height=5.0)
    _bars(bars, kl)
    _spread(line, spread)
    last = spread["mean"].dropna().tail(max(1, len(spread) // LAST)).mean()
    words = f"{collapse_words(kl)} {spread_words(float(last))}".strip()
    figure.suptitle(short(variant, 48), color=GREY, fontsize=12)
    return Picture(
        name=f"prior-{group.variants.index(variant)}",
        figure=figure,
        alt=f"KL of each of {len(kl)} latents of {variant}, and their spread over images by step. "
        f"{words}",
        caption=caption(
            f"{variant}: {words}",
            f"KL in nats between the image's latent and the mask's, at the end of training (last "
            f"{100 // LAST} %), in descending order; mean over {len(logs)} trainings.",
            group.note,
        ),
    )


def _bars(axes: Axes, kl: np.ndarray) -> None:
    ordered = np.sort(kl)[::-1]
    colours = [COLOURS[1] if value < NO_INFORMATION else COLOURS[0] for value in ordered]
    axes.bar(np.arange(1, len(ordered) + 1), ordered, color=colours)
    axes.axhline(NO_INFORMATION, color=GREY, linestyle=":", linewidth=1.2)
    axes.set_yscale("symlog", linthresh=NO_INFORMATION)
    entitle(axes, x="latent, by KL", title="KL (nats)")


def _spread(axes: Axes, spread: pd.DataFrame) -> None:
    axes.plot(spread.index, spread["mean"], color=COLOURS[2], linewidth=1.6)
    axes.fill_between(
        spread.index, spread["low"], spread["high"], color=COLOURS[2], alpha=0.15, linewidth=0
    )
    axes.axhline(COLLAPSED, color=GREY, linestyle=":", linewidth=1.2)
    axes.set_yscale("symlog", linthresh=COLLAPSED)  # a collapsed latent may have exactly 0
    entitle(axes, x="step", title="variance of the latent's mean over images")
