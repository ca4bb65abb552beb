"""The report's figures, each with its caption and words for who cannot see it."""

from collections.abc import Iterator

from fewshot_seg.ablation.report.figures.cost import cost_picture, cost_pictures
from fewshot_seg.ablation.report.figures.curves import curve_picture, curve_pictures
from fewshot_seg.ablation.report.figures.leaderboard import leaderboard_picture
from fewshot_seg.ablation.report.figures.losses import loss_picture
from fewshot_seg.ablation.report.figures.overlays import overlay_pictures
from fewshot_seg.ablation.report.figures.picture import Picture
from fewshot_seg.ablation.report.figures.prior import prior_pictures
from fewshot_seg.ablation.report.figures.ranks import rank_picture
from fewshot_seg.ablation.report.figures.tsne import tsne_picture
from fewshot_seg.ablation.report.groups import Group

__all__ = [
    "Picture",
    "cost_picture",
    "cost_pictures",
    "curve_picture",
    "curve_pictures",
    "leaderboard_picture",
    "loss_picture",
    "overlay_pictures",
    "pictures",
    "prior_pictures",
    "rank_picture",
    "tsne_picture",
]


def pictures(group: Group) -> Iterator[Picture]:
    """All figures of one protocol and data version that its scores, logs and files allow."""
    yield leaderboard_picture(group)
    for picture in (rank_picture(group), loss_picture(group), tsne_picture(group)):
        if picture is not None:
            yield picture
    for several in (curve_pictures, cost_pictures, prior_pictures, overlay_pictures):
        yield from several(group)
