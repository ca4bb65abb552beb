"""ROVQ as the paper words it: the prototypes themselves are fine-tuned by pull and push.

w <- w + eta (x - w) for the prototype of the pixel's class that is nearest to it,
w <- w - eta (x - w) for the nearest one of the other class.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_seg.prototype_sets import PrototypeSets
from fewshot_seg_lvqm.scene import PixelMasks, Scene
from fewshot_seg_lvqm.som import memberships

SWEEPS = 10
RATE = 0.01


def refine(
    foreground: PrototypeSets,
    background: PrototypeSets,
    scene: Scene,
    where: Bool[Tensor, "batch way"],
    *,
    sweeps: int = SWEEPS,
    rate: float = RATE,
) -> tuple[PrototypeSets, PrototypeSets]:
    """Both sets (labels are ways) after `sweeps` over the pixels, with `rate` falling to 0.

    All pixels of a sweep act at once: a prototype moves by the mean of their pulls and pushes, so
    its step does not grow with the number of pixels. A border pixel counts for both classes by its
    mask. The displacement is a constant (the gradient reaches the sets as if they had not moved),
    and 0 for ways where `where` is false.
    """
    samples = scene.pixels.detach()
    moved = [foreground.vectors.detach(), background.vectors.detach()]
    sides = (foreground.present, background.present)
    speaks = scene.masks - scene.backgrounds
    for sweep in range(sweeps):
        eta = rate * (1 - sweep / sweeps)
        moved = [
            vectors + eta * _mean_pull(vectors, present, samples, sign)
            for vectors, present, sign in zip(moved, sides, (speaks, -speaks), strict=True)
        ]
    return _displaced(foreground, moved[0], where), _displaced(background, moved[1], where)


def _displaced(
    sets: PrototypeSets, moved: Tensor, where: Bool[Tensor, "batch way"]
) -> PrototypeSets:
    step = (moved - sets.vectors).detach() * rearrange(where, "b w -> b w 1 1")
    return PrototypeSets(sets.vectors + step, sets.present)


def _mean_pull(
    vectors: Tensor, present: Tensor, samples: Tensor, evidence: PixelMasks
) -> Float[Tensor, "batch way set dim"]:
    """evidence: in [-1, 1], how much a pixel speaks for the set's class (negative: pushes)."""
    mode = "donot_use_mm_for_euclid_dist"
    distance = torch.cdist(samples, vectors, compute_mode=mode)
    distance = distance.masked_fill(rearrange(~present, "b w n -> b w 1 n"), torch.inf)
    chosen = memberships(distance.argmin(-1), vectors.shape[2])
    signed = chosen * evidence.unsqueeze(-1)
    count = chosen.sum(2).clamp_min(1).unsqueeze(-1)
    return (signed.mT @ samples - signed.sum(2).unsqueeze(-1) * vectors) / count
