"""The contrastive term of SRNet (RECONSTRUCTED): classes across support and query."""

from typing import final

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import full_precision
from fewshot_seg.interfaces import Step
from fewshot_seg.prototype_sets import RESIZES, PrototypeSets, to_grid
from fewshot_seg_srnet.samples import Samples, at_most, cells_or_means, image_means, in_a_row
from fewshot_seg_srnet.two_image_nce import two_image_nce


@final
class ClassContrast(nn.Module):
    """Pull vectors of a class together across the two images, and classes apart.

    RECONSTRUCTED from the paper's abstract. All shots of an episode stand for one image, the
    support, and all its queries for the other; a support image gives its own way and its
    background, a query every way and its background.

    tau: temperature.
    level: "cell": means of `cell` x `cell` feature positions that lie within the class by more than
        `purity`; "mean": a class's mean in every image.
    most: vectors of a class and image that take part, drawn at random where there are more.
    without_cells: what stands for a class that fills no cell of an image, at level "cell": its
        "mean", as in the decoder, or nothing ("skip").
    pos_mode: the sum over an anchor's positives stands inside the logarithm ("in": one good match
        suffices) or the mean outside ("out": supervised contrast).
    bg_positive: False keeps the background as negatives only, as it pools unlike tissues.
    mask_resize: how masks come to the feature grid, "bilinear" or "area".

    Loss: "class_contrast", mean over anchors, then over episodes; 0 where only one class is there.
    Draws from torch's global generator.
    """

    def __init__(
        self,
        *,
        tau: float = 0.1,
        level: str = "cell",
        most: int = 32,
        cell: int = 4,
        purity: float = 0.95,
        without_cells: str = "mean",
        pos_mode: str = "in",
        bg_positive: bool = True,
        mask_resize: str = "bilinear",
    ) -> None:
        super().__init__()
        check_choice("level", level, ("cell", "mean"))
        check_choice("without_cells", without_cells, ("mean", "skip"))
        check_choice("pos_mode", pos_mode, ("in", "out"))
        check_choice("mask_resize", mask_resize, RESIZES)
        if tau <= 0 or most < 1 or cell < 1 or not 0 <= purity < 1:
            raise OptionError(
                f"tau={tau} must be positive, most={most} and cell={cell} at least 1, and "
                f"purity={purity} a share of a cell: 0 <= purity < 1"
            )
        self.tau, self.level, self.most = tau, level, most
        self.cell, self.purity, self.without_cells = cell, purity, without_cells
        self.pos_mode, self.bg_positive, self.mask_resize = pos_mode, bg_positive, mask_resize

    def forward(self, step: Step) -> dict[str, Float[Tensor, ""]]:
        with full_precision(step.features.query):
            loss = two_image_nce(
                self._support(step),
                self._query(step),
                tau=self.tau,
                sum_inside=self.pos_mode == "in",
                background_anchors=self.bg_positive,
            )
        return {"class_contrast": loss}

    def _support(self, step: Step) -> Samples:
        maps, support = step.features.support.float(), step.episode.support
        inside = to_grid(support.masks, step.features.grid, self.mask_resize)
        outside = to_grid(support.backgrounds, step.features.grid, self.mask_resize)
        background = self._vectors(
            rearrange(maps, "b w s d r c -> b 1 (w s) d r c"),
            rearrange(outside, "b w s r c -> b 1 (w s) r c"),
        )
        return in_a_row([background, self._vectors(maps, inside)])

    def _query(self, step: Step) -> Samples:
        labels = step.episode.query_labels
        assert labels is not None, "contrastive terms run in training, with labels"
        n_label = 1 + step.features.support.shape[1]
        classes = torch.arange(n_label, device=labels.device)
        # pixels that are not scored (255) belong to no class
        masks = (labels.unsqueeze(1) == rearrange(classes, "k -> 1 k 1 1 1")).float()
        maps = repeat(step.features.query.float(), "b q d r c -> b k q d r c", k=n_label)
        return in_a_row([self._vectors(maps, to_grid(masks, step.features.grid, self.mask_resize))])

    def _vectors(
        self,
        maps: Float[Tensor, "batch label image dim rows cols"],
        masks: Float[Tensor, "batch label image rows cols"],
    ) -> PrototypeSets:
        """What stands for some classes, each by its own images."""
        if self.level == "mean":
            return at_most(image_means(maps, masks), self.most)
        cells = cells_or_means(
            maps,
            masks,
            window=self.cell,
            purity=self.purity,
            fall_back=self.without_cells == "mean",
        )
        return at_most(cells, self.most)
