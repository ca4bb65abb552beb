"""SE-Net's gate as an enrichment: the support says where in the query to look."""

from typing import final

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.episode import Features
from fewshot_seg.errors import check_choice
from fewshot_seg.interfaces import Latent


@final
class SpatialExcitation(nn.Module):
    """Gates g = sigmoid(1x1 convolution of support maps and mask), position by position.

    The query's gate is the mean over ways and shots. It relies on roughly aligned anatomy, as
    SE-Net does: a support position speaks for the same query position.

    Given by `build`: dim (channels).
    join: "residual": F + mix(g F) for query and support (each support image by its own gate), with
        a 1x1 convolution that starts at zero, so the start is the identity; "product": g F for the
        query, support as it is, which is SE-Net's own rule. A gate alone changes the length of a
        feature and not its direction, so to a cosine decoder "product" is nothing at all: it needs
        a decoder that convolves (`senet`, `mutual_guidance`).
    """

    def __init__(self, *, dim: int, join: str = "residual") -> None:
        super().__init__()
        check_choice("join", join, ("residual", "product"))
        self.squeeze = nn.Conv2d(dim + 1, 1, 1)
        self.mix = _silent(dim) if join == "residual" else None

    def forward(self, features: Features, latent: Latent) -> Features:
        own = self._gates(features)
        batch, query = features.query.shape[:2]
        mean = reduce(own, "(b i) 1 r c -> b 1 r c", "mean", b=batch)
        if self.mix is None:
            return Features(
                features.support, features.support_masks, features.query * mean.unsqueeze(1)
            )
        maps = features.maps()
        gates = torch.cat([own, repeat(mean, "b 1 r c -> (b q) 1 r c", q=query)])
        return features.with_maps(maps + self.mix(gates * maps))

    def _gates(self, features: Features) -> Float[Tensor, "support 1 rows cols"]:
        """One for each support image, in the order (batch way shot)."""
        maps = rearrange(features.support, "b w s d r c -> (b w s) d r c")
        masks = rearrange(features.support_masks, "b w s r c -> (b w s) 1 r c")
        return torch.sigmoid(self.squeeze(torch.cat([maps, masks.to(maps.dtype)], 1)))


def _silent(dim: int) -> nn.Conv2d:
    mix = nn.Conv2d(dim, dim, 1)
    nn.init.zeros_(mix.weight)
    assert mix.bias is not None
    nn.init.zeros_(mix.bias)
    return mix
