"""Spatial consistency calibration: two views of an image agree position by position.

RECONSTRUCTED: the abstract of PoissonSeg names the term, its formula is ours (no official code).
"""

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fewshot_seg.errors import OptionError
from fewshot_seg.functional import area_average, full_precision, normalise
from fewshot_seg.interfaces import Step
from fewshot_seg.needs import require

SHORTEST = 1e-6
"""Smallest feature length in the cosine."""
WHOLE = 1 - 1e-4
"""Share of a cell's pixels that must come from inside the first view."""
BARRED = -1e9
"""Stands for log 0; finite, so that a row without any candidate has a gradient of 0, not NaN."""


class Pairs(NamedTuple):
    """Cells of the second views and what the first views hold at the same places."""

    first: Float[Tensor, "image cell dim"]
    second: Float[Tensor, "image cell dim"]
    valid: Bool[Tensor, "image cell"]


@final
class Consistency(nn.Module):
    """Each position of the second view must recognise its own place in the first view.

    simple: mean of 1 - cosine instead of the contrast with other positions.
    tau: temperature.
    radius: cells; positions nearer than this to l are no negatives of l. That includes l itself, as
        the notes' formula has it, so the loss can be negative.
    keep_positive: put the pair itself back into the denominator, the usual InfoNCE (at least 0).
    stop_gradient: the second view is a fixed target; False trains through both encodings.

    Needs second views (`needs`), of support and query alike; reads the encoder's maps before
    enrichment. Loss: "consistency", mean over an image's positions, then over the images that have
    any; 0 where none has. A position without negatives is left out, unless `keep_positive`.
    Raises EpisodeError for an episode without second views, ValueError for a wrong number of them.
    """

    needs: tuple[str, ...] = ("second_view",)

    def __init__(
        self,
        *,
        simple: bool = False,
        tau: float = 0.1,
        radius: float = 2.0,
        keep_positive: bool = False,
        stop_gradient: bool = True,
    ) -> None:
        super().__init__()
        if tau <= 0 or radius < 0:
            raise OptionError(f"tau={tau} must be positive and radius={radius} not negative")
        self.simple, self.tau, self.radius = simple, tau, radius
        self.keep_positive, self.stop_gradient = keep_positive, stop_gradient

    def forward(self, step: Step) -> dict[str, Float[Tensor, ""]]:
        require(step.episode, "second_view", by="Consistency")
        maps = self._both_views(step)
        grid = rearrange(step.episode.extras["second_view_grid"], "b i h w xy -> (b i) h w xy")
        with full_precision(maps[0]):
            pairs = paired(maps[0].float(), maps[1].float(), grid[: len(maps[0])].float())
            if self.simple:
                return {"consistency": simple_loss(pairs)}
            near = near_cells(maps[1].shape[-2], maps[1].shape[-1], self.radius, maps[1])
            loss = contrast_loss(pairs, near, tau=self.tau, keep_positive=self.keep_positive)
            return {"consistency": loss}

    def _both_views(self, step: Step) -> tuple[Tensor, Tensor]:
        """Maps of each image's two views, "image dim rows cols", images as in the extras."""
        assert step.encode is not None, "second views need the encoder: give Step its `encode`"
        # copies of the episodes for further latent samples hold the same encoder maps
        episodes = step.before.query.shape[0] // step.samples
        support = rearrange(step.before.support[:episodes], "b w s d r c -> b (w s) d r c")
        first = torch.cat([support, step.before.query[:episodes]], 1)
        images = step.episode.extras["second_view_images"][:episodes]
        if images.shape[:2] != first.shape[:2]:
            raise ValueError(
                f"there are second views of {images.shape[1]} images in each of {len(images)} "
                f"episodes, but {len(first)} episodes with {first.shape[1]} images of support and "
                "query"
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.stop_gradient):
            second = step.encode(rearrange(images, "b i c h w -> (b i) c h w"))
        return rearrange(first, "b i d r c -> (b i) d r c"), second


def paired(
    first: Float[Tensor, "image dim rows cols"],
    second: Float[Tensor, "image dim rows cols"],
    grid: Float[Tensor, "image height width 2"],
) -> Pairs:
    """Features at length 1 of the second view's cells and of where they lie in the first view.

    grid: where each pixel of the second view was read from, (x, y) in [-1, 1], align_corners False.
    A cell is valid if all its pixels were read from inside the first view.
    """
    size = (second.shape[-2], second.shape[-1])
    inside = (grid.abs() <= 1).all(-1).to(first.dtype)
    where = area_average(rearrange(grid, "i h w xy -> i xy h w"), size)
    places = rearrange(where, "i xy r c -> i r c xy")
    read = F.grid_sample(first, places, padding_mode="border", align_corners=False)
    return Pairs(
        normalise(rearrange(read, "i d r c -> i (r c) d"), -1, SHORTEST),
        normalise(rearrange(second, "i d r c -> i (r c) d"), -1, SHORTEST),
        rearrange(area_average(inside, size) >= WHOLE, "i r c -> i (r c)"),
    )


def near_cells(rows: int, cols: int, radius: float, like: Tensor) -> Bool[Tensor, "cell cell"]:
    """Which cells of a grid lie less than `radius` cells apart, itself included."""
    down = torch.arange(rows, device=like.device)
    across = torch.arange(cols, device=like.device)
    places = torch.cartesian_prod(down, across)
    apart = (places[:, None] - places[None]).square().sum(-1)
    return apart < radius**2


def simple_loss(pairs: Pairs) -> Float[Tensor, ""]:
    """Mean of 1 - cosine."""
    cosine = (pairs.first * pairs.second).sum(-1)
    return _mean(1 - cosine, pairs.valid)


def contrast_loss(
    pairs: Pairs, near: Bool[Tensor, "cell cell"], *, tau: float, keep_positive: bool
) -> Float[Tensor, ""]:
    """-log( exp(cos(f_l, f'_l) / tau) / sum over l' of exp(cos(f_l, f'_l') / tau) ), l' valid and
    not near l (and l itself with `keep_positive`)."""
    scores = pairs.first @ pairs.second.mT / tau
    candidate = ~near
    if keep_positive:
        candidate = candidate | torch.eye(len(near), dtype=torch.bool, device=near.device)
    candidate = candidate & pairs.valid.unsqueeze(1)
    total = torch.logsumexp(scores.masked_fill(~candidate, BARRED), -1)
    own = torch.diagonal(scores, 0, 1, 2)
    return _mean(total - own, pairs.valid & candidate.any(-1))


def _mean(
    values: Float[Tensor, "image cell"], counted: Bool[Tensor, "image cell"]
) -> Float[Tensor, ""]:
    """Mean over the counted cells of an image, then over the images that have any."""
    kept = torch.where(counted, values, 0.0)
    number = counted.sum(-1)
    per_image = kept.sum(-1) / number.clamp_min(1)
    return per_image.sum() / (number > 0).sum().clamp_min(1)
