"""GFVQ: grid average pooling as prototypes, the rule of SSL-ALPNet."""

from typing import NamedTuple, final

import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fewshot_seg.errors import OptionError
from fewshot_seg.functional import masked_average, normalise
from fewshot_seg.prototype_sets import NORM_FLOOR, PrototypeSets, cell_averages, cell_purity


class GridPrototypes(NamedTuple):
    """What the grid knows of each way (the sets' labels are ways).

    foreground: cells shot by shot, then the mean of each shot, then the mean over shots, which
        stands in where `local` is false.   background: the cells of the way's own images.
    fallback: the mean of all background, with one label; present where there is no cell at all.
    average: the mean over shots.   local: whether a cell lies well enough within the way.
    """

    foreground: PrototypeSets
    background: PrototypeSets
    fallback: PrototypeSets
    average: Float[Tensor, "batch way dim"]
    local: Bool[Tensor, "batch way"]

    def normalised(self) -> "GridPrototypes":
        """The same with vectors of length 1."""
        foreground, background, fallback = (
            PrototypeSets(normalise(sets.vectors, 3, NORM_FLOOR), sets.present)
            for sets in (self.foreground, self.background, self.fallback)
        )
        average = normalise(self.average, 2, NORM_FLOOR)
        return GridPrototypes(foreground, background, fallback, average, self.local)


@final
class Grid(nn.Module):
    """Grid cells within a mask as prototypes, and the masked mean of each shot for foreground.

    fg_threshold: share of a cell within the way's mask from which on it counts (0.55 in the code,
        0.95 in ALPNet).   bg_threshold: the same for background.
    window: side of a cell in feature pixels.   eval_window: of a background cell at test.
    """

    def __init__(
        self,
        *,
        fg_threshold: float = 0.55,
        bg_threshold: float = 0.95,
        window: int = 4,
        eval_window: int = 2,
    ) -> None:
        super().__init__()
        for name, share in (("fg_threshold", fg_threshold), ("bg_threshold", bg_threshold)):
            if not 0 <= share < 1:
                raise OptionError(f"{name}={share} is not a share in [0, 1)")
        for name, side in (("window", window), ("eval_window", eval_window)):
            if side < 1:
                raise OptionError(f"{name}={side} must be at least 1 feature pixel")
        self.fg_threshold, self.bg_threshold = fg_threshold, bg_threshold
        self.window, self.eval_window = window, eval_window

    def forward(
        self,
        maps: Float[Tensor, "batch way shot dim rows cols"],
        masks: Float[Tensor, "batch way shot rows cols"],
        backgrounds: Float[Tensor, "batch way shot rows cols"],
    ) -> GridPrototypes:
        """Masks stand on the grid of the maps, soft, in [0, 1]."""
        shots = masked_average(maps, masks)
        average = shots.mean(2, keepdim=True)
        inner, purity = self._cells(maps, masks, self.window)
        local = purity.amax(2, keepdim=True) >= self.fg_threshold
        foreground = (
            PrototypeSets(inner, (purity > self.fg_threshold) & local)
            .joined(PrototypeSets(shots, local.expand(shots.shape[:3])))
            .joined(PrototypeSets(average, ~local))
        )
        outer, purity = self._cells(
            maps, backgrounds, self.window if self.training else self.eval_window
        )
        background = PrototypeSets(outer, purity > self.bg_threshold)
        mean = reduce(masked_average(maps, backgrounds), "b w s d -> b 1 1 d", "mean")
        none = ~rearrange(background.present, "b w n -> b 1 (w n)").any(2, keepdim=True)
        return GridPrototypes(
            foreground, background, PrototypeSets(mean, none), average[:, :, 0], local[..., 0]
        )

    def _cells(
        self, maps: Tensor, masks: Tensor, window: int
    ) -> tuple[Float[Tensor, "batch way cell dim"], Float[Tensor, "batch way cell"]]:
        """Cells of all shots and the share of each that lies within the mask."""
        return (
            rearrange(cell_averages(maps, window), "b w s n d -> b w (s n) d"),
            rearrange(cell_purity(masks, window), "b w s n -> b w (s n)"),
        )


def over_supports(background: PrototypeSets, fallback: PrototypeSets) -> PrototypeSets:
    """The background of an episode: the sets of its ways as one, and what stands in for them."""
    joined = PrototypeSets(
        rearrange(background.vectors, "b w n d -> b 1 (w n) d"),
        rearrange(background.present, "b w n -> b 1 (w n)"),
    )
    return joined.joined(fallback)


def fit(
    maps: Float[Tensor, "*batch rows cols"], size: tuple[int, int], align_corners: bool
) -> Float[Tensor, "*batch height width"]:
    """Bilinear to another size; LVQM aligns corners both ways, ALPNet neither."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    flat = maps.reshape(-1, 1, *maps.shape[-2:]).float()
    scaled = F.interpolate(flat, size=size, mode="bilinear", align_corners=align_corners)
    return scaled.reshape(*maps.shape[:-2], *size)
