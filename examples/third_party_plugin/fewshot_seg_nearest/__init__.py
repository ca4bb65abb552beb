"""A method of one's own in one file: each query position asks its most similar support positions.

No prototypes: the score of a class is the mean cosine with the `neighbours` most similar support
positions of that class.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg import Part, Recipe
from fewshot_seg.functional import area_average, normalise, resize

BARRED = -2.0
"""Below every cosine: a position outside the class is never among the nearest."""


class Described(NamedTuple):
    """All support positions, and which of them belong to each label."""

    vectors: Float[Tensor, "batch dim position"]
    member: Float[Tensor, "batch label position"]


class Nearest(nn.Module):
    """scale * mean cosine with the nearest support positions of each label.

    neighbours: how many; fewer count where a label has fewer cells.   scale: on the cosine.
    """

    def __init__(self, *, neighbours: int = 4, scale: float = 20.0) -> None:
        super().__init__()
        self.neighbours, self.scale = neighbours, scale

    def describe(
        self,
        maps: Float[Tensor, "batch way shot dim rows cols"],
        masks: Float[Tensor, "batch way shot height width"],
        backgrounds: Float[Tensor, "batch way shot height width"] | None = None,
    ) -> Described:
        grid = (maps.shape[-2], maps.shape[-1])
        way = maps.shape[1]
        inside = area_average(masks, grid)
        outside = area_average(1 - masks if backgrounds is None else backgrounds, grid)
        # a cell speaks for a way only in that way's own images, hence the diagonal
        own = torch.eye(way, device=maps.device).view(1, way, way, 1, 1, 1)
        ways = rearrange(inside.unsqueeze(1) * own, "b l w s r c -> b l (w s r c)")
        background = rearrange(outside, "b w s r c -> b 1 (w s r c)")
        return Described(
            rearrange(normalise(maps.float(), 3, 1e-4), "b w s d r c -> b d (w s r c)"),
            torch.cat([background, ways], 1),
        )

    def forward(
        self,
        maps: Float[Tensor, "batch query dim rows cols"],
        state: Described,
        size: tuple[int, int],
    ) -> Float[Tensor, "batch query label height width"]:
        cosines = torch.einsum("bqdrc,bdn->bqrcn", normalise(maps.float(), 2, 1e-4), state.vectors)
        member = rearrange(state.member > 0.5, "b l n -> b 1 l 1 1 n")
        barred = rearrange(cosines, "b q r c n -> b q 1 r c n").masked_fill(~member, BARRED)
        k = min(self.neighbours, state.vectors.shape[-1])
        return resize(self.scale * barred.topk(k, dim=-1).values.mean(-1), size)


def nearest() -> Recipe:
    """ResNet-18 features and the decoder above; trained by cross-entropy alone."""
    return Recipe(
        "nearest",
        encoder=Part("resnet18"),
        decoder=Part("nearest"),
        training={"optimizer": "adamw", "lr": 1e-3, "schedule": "one_cycle", "steps": 2000},
    )
