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
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    samples = scene.pixels.detach()
    count, device = samples.shape[2], samples.device
    # drawn on the host whatever the device, so that one seed means one draw
    places = torch.randperm(count, generator=generator)[torch.arange(neurons) % count]
    rank = torch.rand(count, generator=generator)
    places, rank = (drawn.to(device, non_blocking=True) for drawn in (places, rank))
    # every pixel about as often, in a shuffled order
    order = (torch.arange(steps) % count)[torch.randperm(steps, generator=generator)]
    masks = (scene.backgrounds, scene.masks)
    starts = [_inside(samples, mask, rank, vectors) for mask in masks]
    return Draws(samples[:, :, places], order, torch.cat(starts, 2))


def _inside(
    samples: Tensor, mask: PixelMasks, rank: Float[Tensor, " pixel"], vectors: int
) -> Float[Tensor, "batch way vector dim"]:
    priority = torch.where(mask >= PURE, 1 + rank, mask)
    places = priority.topk(min(vectors, samples.shape[2]), dim=-1).indices
    return samples.gather(2, repeat(places, "b w v -> b w v d", d=samples.shape[-1]))
