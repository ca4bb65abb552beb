"""The adaptive local prototype decoder (ALPNet section 3.3), without parameters."""

from typing import NamedTuple, final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import full_precision, masked_average, resize
from fewshot_seg.prototype_sets import (
    NORM_FLOOR,
    RESIZES,
    PrototypeSets,
    cell_averages,
    cell_purity,
    set_similarity,
    to_grid,
)

MODES = ("auto", "global", "local", "local_global")


class LocalPrototypes(NamedTuple):
    """What the support told of each label, as sets of prototypes.

    background: the cells of all ways and shots, then their mean as the last one.
    ways: the cells of a way, shot by shot and row by row, then one mean for each shot, then the
        mean over shots; in mode "global" that last one alone.
    """

    background: PrototypeSets
    ways: PrototypeSets


@final
class ALP(nn.Module):
    """Cosine with local and global prototypes, fused by a softmax-weighted sum.

    train_window, test_window: side of a cell in feature positions; on the official 32x32 grid the
        paper's "proto grid 8" is 4 in training, and 2 is used at test.
    switch_window: cells that decide in mode "auto"; the official code keeps 4 at test too.
    threshold: share of a cell that must lie within the mask (above it), for every label.
    scale: factor on the cosine.   eps: smallest length in the cosine.
    mode: of the foreground. "auto" is "local_global" for a way that fills a cell of
        `switch_window` to `threshold` in any of its shots, and "global" for others; "local_global":
        cells and each shot's mean; "global": the mean over shots; "local": cells.
    mask_resize: how masks come to the feature grid, "bilinear" (official) or "area" (an organ
        smaller than a cell is not lost).

    The background has its cells only. Background, or a way in mode "local", without any cell falls
    back to its mean over shots; the official code throws there.
    """

    def __init__(
        self,
        *,
        train_window: int = 4,
        test_window: int = 2,
        switch_window: int = 4,
        threshold: float = 0.95,
        scale: float = 20.0,
        eps: float = NORM_FLOOR,
        mode: str = "auto",
        mask_resize: str = "bilinear",
    ) -> None:
        super().__init__()
        check_choice("mode", mode, MODES)
        check_choice("mask_resize", mask_resize, RESIZES)
        if min(train_window, test_window, switch_window) < 1:
            raise OptionError(
                f"train_window={train_window}, test_window={test_window} and "
                f"switch_window={switch_window} are sides of cells and must be at least 1"
            )
        if not 0 <= threshold < 1:
            raise OptionError(f"threshold={threshold} is a share of a cell: 0 <= threshold < 1")
        if scale <= 0 or eps <= 0:
            raise OptionError(f"scale={scale} and eps={eps} must be positive")
        self.train_window, self.test_window = train_window, test_window
        self.switch_window, self.threshold = switch_window, threshold
        self.scale, self.eps = scale, eps
        self.mode, self.mask_resize = mode, mask_resize

    def describe(
        self,
        maps: Float[Tensor, "batch way shot dim rows cols"],
        masks: Float[Tensor, "batch way shot height width"],
        backgrounds: Float[Tensor, "batch way shot height width"] | None = None,
    ) -> LocalPrototypes:
        """Prototypes of each way from its own shots, of the background from all images."""
        with full_precision(maps):
            maps, grid = maps.float(), (maps.shape[-2], maps.shape[-1])
            inside = to_grid(masks, grid, self.mask_resize)
            others = 1 - masks if backgrounds is None else backgrounds
            outside = to_grid(others, grid, self.mask_resize)
            cells = cell_averages(maps, self._window)
            return LocalPrototypes(
                self._background(maps, cells, outside), self._ways(maps, cells, inside)
            )

    def forward(
        self,
        maps: Float[Tensor, "batch query dim rows cols"],
        state: LocalPrototypes,
        size: tuple[int, int],
    ) -> Float[Tensor, "batch query label height width"]:
        with full_precision(maps):
            query = maps.float()
            scores = [set_similarity(query, s, scale=self.scale, eps=self.eps) for s in state]
            return resize(torch.cat(scores, 2), size)

    @property
    def _window(self) -> int:
        return self.train_window if self.training else self.test_window

    def _background(
        self,
        maps: Float[Tensor, "batch way shot dim rows cols"],
        cells: Float[Tensor, "batch way shot cell dim"],
        outside: Float[Tensor, "batch way shot rows cols"],
    ) -> PrototypeSets:
        pure = cell_purity(outside, self._window) > self.threshold
        local = PrototypeSets(
            rearrange(cells, "b w s n d -> b 1 (w s n) d"),
            rearrange(pure, "b w s n -> b 1 (w s n)"),
        )
        mean = masked_average(maps, outside).mean((1, 2))
        none = ~local.present.any(2, keepdim=True)
        return local.joined(PrototypeSets(rearrange(mean, "b d -> b 1 1 d"), none))

    def _ways(
        self,
        maps: Float[Tensor, "batch way shot dim rows cols"],
        cells: Float[Tensor, "batch way shot cell dim"],
        inside: Float[Tensor, "batch way shot rows cols"],
    ) -> PrototypeSets:
        shots = masked_average(maps, inside)
        mean = shots.mean(2, keepdim=True)
        if self.mode == "global":
            return PrototypeSets(mean, torch.ones_like(mean[..., 0], dtype=torch.bool))
        pure = cell_purity(inside, self._window) > self.threshold
        wide = self._wide(inside)
        local = PrototypeSets(
            rearrange(cells, "b w s n d -> b w (s n) d"),
            rearrange(pure, "b w s n -> b w (s n)") & wide,
        )
        whole = torch.zeros_like(wide) if self.mode == "local" else wide
        per_shot = PrototypeSets(shots, whole.expand(shots.shape[:3]))
        told = local.present.any(2, keepdim=True) | whole
        return local.joined(per_shot).joined(PrototypeSets(mean, ~told))

    def _wide(
        self, inside: Float[Tensor, "batch way shot rows cols"]
    ) -> Bool[Tensor, "batch way 1"]:
        """Whether a way has local prototypes; in mode "auto" its widest shot decides for all."""
        fullest = cell_purity(inside, self.switch_window).amax((2, 3)).unsqueeze(2)
        if self.mode == "auto":
            return fullest >= self.threshold
        return torch.ones_like(fullest, dtype=torch.bool)
