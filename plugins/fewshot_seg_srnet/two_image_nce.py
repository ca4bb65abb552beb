"""Supervised InfoNCE whose positives lie in the other image."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_seg.functional import normalise
from fewshot_seg.prototype_sets import NORM_FLOOR
from fewshot_seg_srnet.samples import Samples

BARRED = -1e9
"""Stands for log 0; finite, so that a row without any candidate has a gradient of 0, not NaN."""


def two_image_nce(
    first: Samples,
    second: Samples,
    *,
    tau: float,
    sum_inside: bool,
    background_anchors: bool,
) -> Float[Tensor, ""]:
    """-log(sum over positives / (that + sum over negatives)) of exp(cos / tau), mean over anchors.

    Positives of an anchor: its class in the other image; negatives: other classes in either image.
    Anchors that lack either are left out, so a single class gives 0 and no gradient.
    sum_inside: False takes the mean over positives outside the logarithm (supervised contrast).
    background_anchors: False keeps class 0 as negatives only.
    """
    vectors = torch.cat([first.vectors, second.vectors], 1)
    unit = normalise(vectors, 2, NORM_FLOOR)
    score = unit @ unit.mT / tau
    positive, negative = _pairs(first, second)
    log_total = torch.logsumexp(score.masked_fill(~(positive | negative), BARRED), 2)
    if sum_inside:
        log_positive = torch.logsumexp(score.masked_fill(~positive, BARRED), 2)
    else:
        log_positive = (score * positive).sum(2) / positive.sum(2).clamp_min(1)
    anchors = positive.any(2) & negative.any(2)
    if not background_anchors:
        anchors = anchors & (torch.cat([first.classes, second.classes]) > 0)
    per_anchor = (log_total - log_positive) * anchors
    return (per_anchor.sum(1) / anchors.sum(1).clamp_min(1)).mean()


def _pairs(
    first: Samples, second: Samples
) -> tuple[Bool[Tensor, "batch anchor other"], Bool[Tensor, "batch anchor other"]]:
    """Which samples are positives and which are negatives of each."""
    classes = torch.cat([first.classes, second.classes])
    of_second = torch.arange(len(classes), device=classes.device) >= len(first.classes)
    present = torch.cat([first.present, second.present], 1)
    both = present[:, :, None] & present[:, None, :]
    same = classes[:, None] == classes[None, :]
    across = of_second[:, None] != of_second[None, :]
    return both & same & across, both & ~same
