"""The spatial contrastive loss (SCL, APSCL Eq. 7-8) over regions, images or both."""

import warnings

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import area_average, full_precision
from fewshot_seg.interfaces import Step
from fewshot_seg_apscl.attention import Projected, Projections
from fewshot_seg_apscl.memory import Memory
from fewshot_seg_apscl.relevance import relevance, relevance_to_others
from fewshot_seg_apscl.samples import Samples, image_samples, region_samples

MODES = ("region", "image", "region_meta")
MIN_AREA = 0.5
"""Cells; a smaller region says nothing about its organ."""
BARRED = -1e9
"""Stands for log 0; finite, so that a row without any candidate has a gradient of 0, not NaN."""


class SpatialContrast(nn.Module):
    """Pull regions of the same class together and others apart, through cross-attention.

    Given by `build`: dim (channels), grid (feature rows and columns, for the memory).

    scl_mode: "region": each image gives its foreground and background, compared within an episode;
        "image": whole images of `meta_episodes` episodes, which is Eq. 7-8 to the letter and
        constantly 0 for one episode; "region_meta": regions of `meta_episodes` episodes.
    meta_episodes: episodes of a step that are compared with each other; 0 means the whole step.
        They should have distinct classes.
    tau: temperature (the paper gives none).   sim_dim: size E' of queries, keys and values.
    qkv: "conv" or "mlp".   align: "cross" or "literal" (see `carried_agreement`).
    pos_reduction: "mean" over an anchor's positives, or Eq. 8's plain "sum".
    memory: how many samples of earlier steps serve as further negatives of other classes.

    Loss: "scl", 0 where nothing can be compared.
    """

    def __init__(
        self,
        *,
        dim: int,
        grid: tuple[int, int] = (32, 32),
        scl_mode: str = "region",
        meta_episodes: int = 0,
        tau: float = 0.1,
        sim_dim: int = 64,
        qkv: str = "conv",
        align: str = "cross",
        pos_reduction: str = "mean",
        memory: int = 0,
    ) -> None:
        super().__init__()
        check_choice("scl_mode", scl_mode, MODES)
        check_choice("align", align, ("cross", "literal"))
        check_choice("pos_reduction", pos_reduction, ("mean", "sum"))
        if tau <= 0 or sim_dim < 1 or meta_episodes < 0 or memory < 0:
            raise OptionError(
                f"tau={tau} and sim_dim={sim_dim} must be positive, "
                f"meta_episodes={meta_episodes} and memory={memory} not negative"
            )
        if scl_mode == "region" and meta_episodes:
            raise OptionError("meta_episodes needs scl_mode 'image' or 'region_meta'")
        self.scl_mode, self.meta_episodes = scl_mode, meta_episodes
        self.tau, self.align, self.pos_reduction = tau, align, pos_reduction
        self.project = Projections(dim=dim, sim_dim=sim_dim, qkv=qkv)
        self.memory = (
            Memory(size=memory, sim_dim=sim_dim, positions=grid[0] * grid[1]) if memory else None
        )

    def forward(self, step: Step) -> dict[str, Float[Tensor, ""]]:
        samples = self._samples(step)
        images = self._images(step, samples.groups)
        with full_precision(step.features.query):
            masks, comparable = samples.masks, samples.comparable
            scores = relevance(images, samples.image_of, masks, self.align)
            if self.memory is not None:
                kept, kept_masks = self.memory.recall(images.query, samples.groups)
                further = relevance_to_others(
                    images, samples.image_of, masks, kept, kept_masks, self.align
                )
                scores = torch.cat([scores, further], dim=2)
                comparable = torch.cat([comparable, self.memory.comparable(samples)], dim=2)
                masks = torch.cat([masks, kept_masks], dim=1)
                self.memory.store(images, samples)
            loss = contrast(
                scores / self.tau,
                samples.positive,
                comparable,
                masks.sum(-1) >= MIN_AREA,
                self.pos_reduction == "sum",
            )
        return {"scl": loss}

    def _group(self, step: Step) -> int:
        """Episodes compared with each other."""
        batch = step.features.query.shape[0]
        if self.scl_mode == "region":
            return 1
        episodes = batch // step.samples  # copies for further latent samples are no other episodes
        group = self.meta_episodes or episodes
        if episodes % group:
            raise ValueError(
                f"the step has {episodes} episodes, which is no multiple of meta_episodes={group}"
            )
        alone = self.scl_mode == "image" and group == 1 and self.memory is None
        if alone and not torch.compiler.is_compiling():
            warnings.warn(
                "scl_mode 'image' with one episode compares one class only: without negatives "
                "the loss teaches nothing, and with one shot it is constantly 0 "
                "(docs/methods/apscl.md). Use more episodes per step, or 'region'.",
                stacklevel=4,
            )
        return group

    def _samples(self, step: Step) -> Samples:
        group = self._group(step)
        grid = step.features.grid
        labels = step.episode.query_labels
        assert labels is not None, "contrastive terms run in training, with labels"
        # masks say where to look and are no way for a gradient to go
        support = step.features.support_masks.detach()
        classes = self._classes(step, group)
        if self.scl_mode == "image":
            return image_samples(support, classes, group, n_query=labels.shape[1])
        ways = torch.arange(1, support.shape[1] + 1, device=labels.device)
        of_way = (labels.unsqueeze(1) == rearrange(ways, "w -> 1 w 1 1 1")).float()
        return region_samples(
            support,
            area_average(step.episode.support.backgrounds.detach(), grid),
            area_average(of_way, grid),
            area_average((labels == 0).float(), grid),
            classes,
            group,
        )

    def _classes(self, step: Step, group: int) -> Int[Tensor, "batch way"]:
        """Class ids, which only comparisons across episodes need to be the data set's."""
        batch, way = step.features.support.shape[:2]
        if step.episode.classes is not None:
            return step.episode.classes
        if group > 1 or self.memory is not None:
            what = "the memory" if group == 1 else f"scl_mode '{self.scl_mode}'"
            raise ValueError(
                f"{what} compares episodes by class, and these have no `classes`: fill in "
                "Episode.classes (the library's episode sources do)"
            )
        ways = torch.arange(1, way + 1, device=step.features.support.device)
        return repeat(ways, "w -> b w", b=batch)

    def _images(self, step: Step, groups: int) -> Projected:
        """Q, K, V with axes (group, image); the images of an episode stand together."""
        features = step.features
        batch = features.query.shape[0]
        support = rearrange(features.support, "b w s d r c -> b (w s) d r c")
        maps = torch.cat([support, features.query], dim=1)
        per_episode = maps.shape[1]
        projected = self.project(rearrange(maps, "b i d r c -> (b i) d r c"))
        return projected.map_images(groups, batch // groups * per_episode)


def contrast(
    scores: Float[Tensor, "group anchor sample"],
    positive: Bool[Tensor, "group anchor anchor"],
    comparable: Bool[Tensor, "group anchor sample"],
    valid: Bool[Tensor, "group sample"],
    sum_positives: bool = False,
) -> Float[Tensor, ""]:
    """Eq. 7-8 without the pair of an anchor with itself, mean over groups.

    scores: relevance over temperature.   positive, comparable: which pairs count as positives and
    which stand in the denominator; neither includes the anchor itself.   valid: regions that are
    large enough; anchors without positives are skipped, and a group of fewer than three valid
    samples (those of the memory included) gives 0.   The anchors' sum is divided by the number of
    valid anchors less one (Eq. 8).
    """
    n_anchor = scores.shape[1]
    pair = valid[:, :n_anchor, None] & valid[:, None, :]
    comparable = comparable & pair
    positive = positive & pair[:, :, :n_anchor]
    log_total = torch.logsumexp(scores.masked_fill(~comparable, BARRED), dim=-1, keepdim=True)
    terms = (log_total - scores[:, :, :n_anchor]) * positive
    count = positive.sum(-1)
    per_anchor = terms.sum(-1)
    if not sum_positives:
        per_anchor = per_anchor / count.clamp_min(1)
    n_valid = valid[:, :n_anchor].sum(-1)
    per_group = per_anchor.sum(-1) / (n_valid - 1).clamp_min(1)
    enough = valid.sum(-1) >= 3
    return torch.where(enough, per_group, torch.zeros_like(per_group)).mean()
