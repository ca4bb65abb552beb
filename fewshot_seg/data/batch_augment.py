"""All images of a step changed at once, on the device that trains."""

from collections.abc import Callable
from dataclasses import replace

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.drawn import FIRST, SECOND, Drawn
from fewshot_seg.data.warp import elastic, resample
from fewshot_seg.episode import IGNORE, Episode

Grids = Float[Tensor, "batch image height width 2"]
Draw = Callable[..., Tensor]


class BatchAugmentation:
    """Applies what `WithDrawnChanges` drew to the episodes of a step, on whatever device they are,
    without waiting for it.

    augmentation: the one that was drawn from.
    second: that of the second views, which are then made of the changed images (see
        `WithSecondView`); None makes none.
    shared: see `WithDrawnChanges`.

    The noise of elastic changes and of images comes from torch's global generator of the device.
    Where a geometry would leave too little of an image's mask (or of the query's foreground) it is
    not applied, and counted in `extras["redrawn"]`; `Augmentation` in a source draws again instead.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        *,
        second: Augmentation | None = None,
        shared: bool = False,
    ) -> None:
        self.augmentation, self.second, self.shared = augmentation, second, shared

    def __call__(self, episode: Episode) -> Episode:
        """The episodes of a step, changed. Raises KeyError when nothing was drawn for them."""
        extras = dict(episode.extras)
        drawn = Drawn.unpack(extras.pop(FIRST))
        images = torch.cat([episode.support.images.flatten(1, 2), episode.query_images], 1)
        if self.augmentation.warps:
            grids = self._grids(self.augmentation, drawn, episode)
            images, episode, undone = _moved(images, grids, drawn.least, episode, self.shared)
            extras["redrawn"] = extras.get("redrawn", 0) + undone
        images = self._coloured(self.augmentation, drawn, images, episode)
        if self.second is not None:
            drawn = Drawn.unpack(extras.pop(SECOND))
            grids = self._grids(self.second, drawn, episode)
            seen = self._coloured(self.second, drawn, _resampled(images, grids), episode)
            extras |= {"second_view_images": seen, "second_view_grid": grids}
        n_support = episode.support.n_way * episode.support.n_shot
        shown = rearrange(
            images[:, :n_support], "b (w s) c h x -> b w s c h x", w=episode.support.n_way
        )
        support = replace(episode.support, images=shown)
        return replace(episode, support=support, query_images=images[:, n_support:], extras=extras)

    def _grids(self, augmentation: Augmentation, drawn: Drawn, episode: Episode) -> Grids:
        height, width = episode.size
        rows = drawn.affine
        x = torch.arange(width, dtype=rows.dtype, device=rows.device)[None]
        y = torch.arange(height, dtype=rows.dtype, device=rows.device)[:, None]
        if augmentation.elastic:
            noise = self._noise(torch.rand, 2, episode, rows) * 2 - 1
            field = elastic(noise, augmentation.elastic, augmentation.elastic_sigma)
            field = field * drawn.elastic[..., None, None]
            x, y = x + field[:, :, 0], y + field[:, :, 1]
        a, b, c = rows[..., None, None].unbind(-3)  # each "batch image 2 1 1"
        return (a * x.unsqueeze(-3) + b * y.unsqueeze(-3) + c).movedim(-3, -1)

    def _coloured(
        self, augmentation: Augmentation, drawn: Drawn, images: Tensor, episode: Episode
    ) -> Tensor:
        noise = None
        if augmentation.noise:
            noise = self._noise(torch.randn, 1, episode, images).flatten(0, 1)
        changed = augmentation.coloured(images.flatten(0, 1), drawn.colours, noise)
        return changed.view_as(images)

    def _noise(self, draw: Draw, planes: int, episode: Episode, like: Tensor) -> Tensor:
        """Shape "batch image planes height width"; ways that share their slices share it too."""
        batch, n_way, n_shot = episode.support.images.shape[:3]
        own = 1 if self.shared else n_way
        sizes = [(batch, own * n_shot), (batch, episode.query_images.shape[1])]
        supports, queries = (
            draw(*size, planes, *episode.size, device=like.device, dtype=like.dtype)
            for size in sizes
        )
        return torch.cat([supports.repeat(1, n_way // own, 1, 1, 1), queries], 1)


def _moved(
    images: Tensor, grids: Grids, least: Tensor, episode: Episode, shared: bool
) -> tuple[Tensor, Episode, Tensor]:
    """Images and episode with masks and labels by the new geometry, and how many images of each
    episode kept their old one."""
    support = episode.support
    n_way, n_support = support.n_way, support.n_way * support.n_shot
    own, background = support.masks, support.background_masks
    # beside its own mask each support image has the union of all classes' masks
    both = torch.stack([own, own if background is None else 1 - background], 3).flatten(1, 2)
    masks = _binary(both, grids[:, :n_support])
    kept = masks[:, :, 0].sum((-2, -1)) >= least[:, :n_support, 0]
    if shared:
        kept = reduce(kept.float(), "b (w s) -> b s", "min", w=n_way).bool().repeat(1, n_way)
    planes = _planes(episode)
    labels = _binary(planes, grids[:, n_support:])
    shown = labels[:, :, :n_way].amax(2).sum((-2, -1)) >= least[:, n_support:, 0]
    masks = torch.where(kept[..., None, None, None], masks, both)
    masks = rearrange(masks, "b (w s) plane h x -> b w s plane h x", w=n_way)
    labels = torch.where(shown[..., None, None, None], labels, planes)
    still = ~torch.cat([kept, shown], 1)
    images = torch.where(still[..., None, None, None], images, _resampled(images, grids))
    own, union = masks.unbind(3)
    changed = replace(
        episode,
        support=replace(
            support, masks=own, background_masks=None if background is None else 1 - union
        ),
        query_labels=_labels(labels),
    )
    return images, changed, still.sum(1)


def _planes(episode: Episode) -> Float[Tensor, "batch query plane height width"]:
    """The query's pixels of each way, and those that are not scored."""
    labels = episode.query_labels
    assert labels is not None
    ways = [labels == 1 + way for way in range(episode.support.n_way)]
    return torch.stack([*ways, labels == IGNORE], 2).to(episode.query_images.dtype)


def _labels(planes: Float[Tensor, "batch query plane height width"]) -> Tensor:
    n_way = planes.shape[2] - 1
    values = torch.arange(1, n_way + 2, device=planes.device)
    values = torch.where(values > n_way, IGNORE, values).to(planes.dtype)
    return (planes * values[:, None, None]).sum(2).long()


def _resampled(images: Tensor, grids: Tensor) -> Tensor:
    return resample(images.flatten(0, 1), grids.flatten(0, 1)).view_as(images)


def _binary(masks: Tensor, grids: Tensor) -> Tensor:
    # strictly above 0.5, so that no pixel can belong to two disjoint masks
    return (_resampled(masks, grids) > 0.5).to(masks.dtype)
