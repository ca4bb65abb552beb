"""What the spatial contrastive loss compares: regions or whole images, grouped by episodes."""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

BACKGROUND = 0
"""Class of a background region."""


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of each group of episodes.

    image_of: the image each sample lies in, counted within its group.
    masks: weight of each position of that image, in [0, 1].
    classes: class id of each sample, 0 for background.
    positive: pairs of equal class.   comparable: pairs that stand in a denominator.
    Neither pairs a sample with itself.
    """

    image_of: Int[Tensor, " sample"]
    masks: Float[Tensor, "group sample position"]
    classes: Int[Tensor, "group sample"]
    positive: Bool[Tensor, "group sample sample"]
    comparable: Bool[Tensor, "group sample sample"]

    @property
    def groups(self) -> int:
        return self.masks.shape[0]


def region_samples(
    support: Float[Tensor, "batch way shot rows cols"],
    support_rest: Float[Tensor, "batch way shot rows cols"],
    query: Float[Tensor, "batch way query rows cols"],
    query_rest: Float[Tensor, "batch query rows cols"],
    classes: Int[Tensor, "batch way"],
    group: int,
) -> Samples:
    """Foreground and background of every image.

    support, query: foreground of each way on the feature grid.   support_rest, query_rest: where
    no way of the episode is. A support image gives its own way and its background, a query image
    every way and its background. Across episodes of a group, backgrounds are not compared at all:
    one episode's background may hold another's organ.
    """
    batch, way, shot = support.shape[:3]
    n_query = query.shape[2]
    device = support.device
    masks = torch.cat(
        [
            rearrange(support, "b w s r c -> b (w s) (r c)"),
            rearrange(support_rest, "b w s r c -> b (w s) (r c)"),
            rearrange(query, "b w q r c -> b (q w) (r c)"),
            rearrange(query_rest, "b q r c -> b q (r c)"),
        ],
        dim=1,
    )
    supports = torch.arange(way * shot, device=device)
    queries = way * shot + torch.arange(n_query, device=device)
    image_of = torch.cat([supports, supports, queries.repeat_interleave(way), queries])
    empty = classes.new_full((batch, 1), BACKGROUND)
    labels = torch.cat(
        [
            repeat(classes, "b w -> b (w s)", s=shot),
            empty.expand(-1, way * shot),
            repeat(classes, "b w -> b (q w)", q=n_query),
            empty.expand(-1, n_query),
        ],
        dim=1,
    )
    return _grouped(image_of, masks, labels, group, images=way * shot + n_query)


def image_samples(
    support: Float[Tensor, "batch way shot rows cols"],
    classes: Int[Tensor, "batch way"],
    group: int,
    *,
    n_query: int,
) -> Samples:
    """Whole images, each of the class of its episode (one way).

    Raises ValueError for several ways: a query image would then belong to several classes.
    """
    batch, way, shot, rows, cols = support.shape
    if way != 1:
        raise ValueError(f"scl_mode 'image' needs episodes of one way; these have {way}")
    n_image = shot + n_query
    masks = support.new_ones(batch, n_image, rows * cols)
    image_of = torch.arange(n_image, device=support.device)
    return _grouped(image_of, masks, classes.expand(-1, n_image), group, images=n_image)


def _grouped(image_of: Tensor, masks: Tensor, classes: Tensor, group: int, images: int) -> Samples:
    """Join the episodes of each group and say which pairs count."""
    n_sample = masks.shape[1]
    episode = torch.arange(group, device=masks.device).repeat_interleave(n_sample)
    classes = rearrange(classes, "(g e) s -> g (e s)", e=group)
    same_episode = episode[:, None] == episode[None, :]
    background = classes == BACKGROUND
    either = background[:, :, None] | background[:, None, :]
    itself = torch.eye(group * n_sample, dtype=torch.bool, device=masks.device)
    comparable = (same_episode | ~either) & ~itself
    positive = comparable & (classes[:, :, None] == classes[:, None, :])
    return Samples(
        episode * images + image_of.repeat(group),
        rearrange(masks, "(g e) s l -> g (e s) l", e=group),
        classes,
        positive,
        comparable,
    )
