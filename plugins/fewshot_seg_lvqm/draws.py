"""What the iterative quantisers start from: drawn pixels, by place and never by content."""

from typing import NamedTuple

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_seg_lvqm.scene import PixelMasks, Scene

PURE = 1 - 1e-4
"""A pixel counts as wholly inside from here on; resizing leaves ones a digit below."""


class Draws(NamedTuple):
    """Start vectors of the map, pixels in the order of its steps (none for the batch version), and
    start vectors of the LVQ: background's, then as many foreground's."""

    neurons: Float[Tensor, "batch way neuron dim"]
    order: Int[Tensor, " step"]
    vectors: Float[Tensor, "batch way vector dim"]


def draw(scene: Scene, *, neurons: int, vectors: int, steps: int, seed: int | None) -> Draws:
    """The same places of the support in every way and episode.

    vectors: number per class.   seed: None draws from torch's global generator.
    Neurons start from different pixels as long as there are enough. LVQ vectors start from pixels
    wholly inside (outside) the mask; where there are too few, from those that are most so.
    """
    samples = scene.pixels.detach()
    count, device = samples.shape[2], samples.device
    # drawn on the host whatever the device, so that one seed means one draw
    shuffled, rank, turns = (
        _drawn(count, steps) if seed is None else _drawn_from(count, steps, seed)
    )
    places = shuffled[torch.arange(neurons) % count].to(device, non_blocking=True)
    rank = rank.to(device, non_blocking=True)
    # every pixel about as often, in a shuffled order
    order = (torch.arange(steps) % count)[turns]
    masks = (scene.backgrounds, scene.masks)
    starts = [_inside(samples, mask, rank, vectors) for mask in masks]
    return Draws(samples[:, :, places], order, torch.cat(starts, 2))


def _drawn(
    count: int, steps: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels shuffled, a number in [0, 1) for each, and the steps shuffled."""
    return (
        torch.randperm(count, generator=generator),
        torch.rand(count, generator=generator),
        torch.randperm(steps, generator=generator),
    )


@torch.library.custom_op("fewshot_seg_lvqm::drawn_from", mutates_args=())
def _drawn_from(count: int, steps: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """`_drawn` by a seed; one operator, as `torch.compile` cannot look into a generator."""
    return _drawn(count, steps, torch.Generator().manual_seed(seed))


@_drawn_from.register_fake
def _like_drawn_from(count: int, steps: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty(count, dtype=torch.long),
        torch.empty(count),
        torch.empty(steps, dtype=torch.long),
    )


def _inside(
    samples: Tensor, mask: PixelMasks, rank: Float[Tensor, " pixel"], vectors: int
) -> Float[Tensor, "batch way vector dim"]:
    priority = torch.where(mask >= PURE, 1 + rank, mask)
    places = priority.topk(min(vectors, samples.shape[2]), dim=-1).indices
    return samples.gather(2, repeat(places, "b w v -> b w v d", d=samples.shape[-1]))
