"""How the losses fell."""

from matplotlib.axes import Axes

from fewshot_seg.ablation.report.figures.picture import (
    Picture,
    caption,
    entitle,
    legend,
    new_figure,
    style,
)
from fewshot_seg.ablation.report.groups import Group
from fewshot_seg.ablation.report.logs import (
    MOST_LOGS,
    MOST_VARIANTS,
    Logs,
    joined,
    loss_names,
)

MOST_PANELS = 4
MOST_POINTS = 120
"""Of a line; more would only make the file larger."""


def loss_picture(group: Group) -> Picture | None:
    """A panel for the total loss and for each of its first terms; None without any log.

    The best MOST_VARIANTS by Dice; bands go from the lowest to the highest training.
    """
    logs = group.logs
    names = loss_names(logs)[:MOST_PANELS]
    if not names:
        return None
    extra = 0.26 * ((len(logs) + 1) // 2)
    figure, panels = new_figure(rows=len(names), height=0.5 + 1.9 * len(names) + extra)
    for axes, name in zip(panels, names):
        _panel(axes, logs, name)
        entitle(axes, title=name, x="step" if axes is panels[-1] else "")
    legend(figure, panels[0])
    ends = {variant: joined(own, names[0])["mean"].dropna() for variant, own in logs.items()}
    told = [f"{variant} {line.iloc[-1]:.3g}" for variant, line in ends.items() if len(line)]
    left_out = len(group.variants) - len(logs)
    return Picture(
        name="losses",
        figure=figure,
        alt=f"Training losses ({', '.join(names)}) over steps; {names[0]} at the end: "
        f"{', '.join(told)}.",
        caption=caption(
            "Training losses, smoothed; a line is the mean over trainings (folds, seeds and held "
            "out classes), its band reaches from the lowest to the highest.",
            f"At most {MOST_LOGS} trainings of a variant.",
            f"Left out: {left_out} variants without a log or not among the best {MOST_VARIANTS}."
            if left_out
            else "",
            group.note,
        ),
    )


def _panel(axes: Axes, logs: Logs, name: str) -> None:
    for index, (variant, own) in enumerate(logs.items()):
        line = joined(own, name)
        if line.empty:  # another variant's term
            continue
        line = line.iloc[:: max(1, len(line) // MOST_POINTS)]
        look = style(index)
        axes.plot(
            line.index, line["mean"], color=look["color"], linestyle=look["linestyle"],
            linewidth=1.6, label=variant,
        )  # fmt: skip
        if len(own) > 1:
            axes.fill_between(
                line.index, line["low"], line["high"], color=look["color"], alpha=0.15, linewidth=0
            )
