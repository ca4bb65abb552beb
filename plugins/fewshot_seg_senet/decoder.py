"""SE-Net's guided decoder as a part: gates of the support at every level of upsampling."""

from itertools import pairwise
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.binary import label_logits
from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import area_average, resize
from fewshot_seg_senet.hourglass import block


class Guide(NamedTuple):
    """Gates in [0, 1] from the feature grid up, each level twice as fine as the one before."""

    gates: tuple[Float[Tensor, "batch way shot _ _"], ...]


@final
class GuidedDecoder(nn.Module):
    """Two small decoders: one turns labelled maps into gates, the other segments under them.

    Both are blocks of SE-Net (5x5 convolution, PReLU, batch norm), one on the feature grid and one
    after each doubling. Doubling interpolates, as another method's encoder leaves no pooling
    indices. The mask enters on the feature grid only: brought in at finer levels it would be copied
    to the answer (the paper's reason for having no skip connections). Every way and shot is a
    binary task of its own, folded into the batch; logits are averaged over the shots. Background
    has logit 0.

    Given by `build`: dim (channels), stride (pixels a cell; the levels double while they fit, what
        is left to the image's size is interpolated at the end).
    width, guide_width: channels of the segmenting and of the guiding decoder, 64 and 16.
    upsampling: "bilinear" or "nearest".
    """

    def __init__(
        self,
        *,
        dim: int,
        stride: int = 8,
        width: int = 64,
        guide_width: int = 16,
        upsampling: str = "bilinear",
    ) -> None:
        super().__init__()
        check_choice("upsampling", upsampling, ("bilinear", "nearest"))
        if min(dim, stride, width, guide_width) < 1:
            raise OptionError(
                f"dim={dim}, stride={stride}, width={width} and guide_width={guide_width} "
                "must be at least 1"
            )
        self.upsampling = upsampling
        levels = stride.bit_length()  # the grid itself, and log2(stride) doublings
        self.guides = _levels(dim + 1, guide_width, levels)
        self.squeeze = nn.ModuleList([nn.Conv2d(guide_width, 1, 1) for _ in range(levels)])
        self.stages = _levels(dim, width, levels)
        self.classifier = nn.Conv2d(width, 1, 1)

    def describe(
        self,
        maps: Float[Tensor, "batch way shot dim rows cols"],
        masks: Float[Tensor, "batch way shot height width"],
        backgrounds: Float[Tensor, "batch way shot height width"] | None = None,
    ) -> Guide:
        """Gates at every level for each labelled image; what is not the mask is background."""
        axes = dict(zip("bws", maps.shape[:3], strict=True))
        small = area_average(masks, (maps.shape[-2], maps.shape[-1]))
        seen = torch.cat([self._typed(maps), self._typed(small).unsqueeze(3)], 3)
        found = rearrange(seen, "b w s d r c -> (b w s) d r c")
        gates = []
        for level, (guide, squeeze) in enumerate(zip(self.guides, self.squeeze, strict=True)):
            found = guide(self._doubled(found) if level else found)
            gate = torch.sigmoid(squeeze(found))
            gates.append(rearrange(gate, "(b w s) 1 r c -> b w s r c", **axes))
        return Guide(tuple(gates))

    def forward(
        self,
        maps: Float[Tensor, "batch query dim rows cols"],
        state: Guide,
        size: tuple[int, int],
    ) -> Float[Tensor, "batch query label height width"]:
        """Logits at `size`. Raises ValueError when the grid is not that of the described maps."""
        _check_grid(maps, state)
        batch, query = maps.shape[:2]
        way, shot = state.gates[0].shape[1:3]
        # the first block sees no gate yet, so once for each query is enough
        first = self.stages[0](rearrange(self._typed(maps), "b q d r c -> (b q) d r c"))
        found = repeat(first, "(b q) d r c -> (b w s q) d r c", b=batch, w=way, s=shot)
        for level, (stage, gates) in enumerate(zip(self.stages, state.gates, strict=True)):
            found = stage(self._doubled(found)) if level else found
            found = found * repeat(gates, "b w s r c -> (b w s q) 1 r c", q=query)
        each = rearrange(
            self.classifier(found).float(), "(b w s q) 1 r c -> b q w s r c", b=batch, w=way, s=shot
        )
        return label_logits(resize(each.mean(3), size))

    def _typed(self, tensor: Tensor) -> Tensor:
        """As precise as the weights: alignment calls with autocast off and 16-bit maps."""
        return tensor.to(self.classifier.weight.dtype)

    def _doubled(self, maps: Float[Tensor, "image dim rows cols"]) -> Tensor:
        if self.upsampling == "nearest":
            return F.interpolate(maps, scale_factor=2, mode="nearest")
        return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)


def _levels(dim: int, width: int, levels: int) -> nn.ModuleList:
    return nn.ModuleList([block(a, b) for a, b in pairwise([dim, *[width] * levels])])


def _check_grid(maps: Tensor, state: Guide) -> None:
    here, there = tuple(maps.shape[-2:]), tuple(state.gates[0].shape[-2:])
    if here != there:
        raise ValueError(
            f"the maps have {here[0]}x{here[1]} cells but the gates were made for "
            f"{there[0]}x{there[1]}: decoder 'senet' gates position by position, so images must "
            "have one size (and the contrastive term 'align' takes one query an episode)"
        )
