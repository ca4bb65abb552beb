"""Small synthetic episodes, with whatever else a method may need of one."""

from collections.abc import Collection
from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from fewshot_seg.episode import Episode, Features, Support
from fewshot_seg.functional import area_average


def make_episode(
    *,
    batch: int = 2,
    n_way: int = 1,
    n_shot: int = 1,
    n_query: int = 1,
    size: tuple[int, int] = (64, 64),
    channels: int = 3,
    seed: int = 0,
    needs: Collection[str] = (),
) -> Episode:
    """Noise images with a bright or dark disc for each way, whose place varies; labels included.

    needs: also give what a method needs of an episode, see `fewshot_seg.needs`.
    """
    generator = torch.Generator().manual_seed(seed)
    supports, masks = [], []
    for way in range(n_way):
        for _ in range(batch * n_shot):
            image, discs = _picture(size, channels, n_way, generator)
            supports.append(image)
            masks.append(discs[way])
    queries, labels = [], []
    for _ in range(batch * n_query):
        image, discs = _picture(size, channels, n_way, generator)
        queries.append(image)
        label = torch.zeros(size, dtype=torch.long)
        for way, disc in enumerate(discs):
            label[disc > 0] = way + 1
        labels.append(label)
    axes = {"w": n_way, "b": batch}
    episode = Episode(
        Support(
            rearrange(torch.stack(supports), "(w b s) c h x -> b w s c h x", **axes),
            rearrange(torch.stack(masks), "(w b s) h x -> b w s h x", **axes),
        ),
        rearrange(torch.stack(queries), "(b q) c h x -> b q c h x", b=batch),
        rearrange(torch.stack(labels), "(b q) h x -> b q h x", b=batch),
        classes=torch.arange(1, batch * n_way + 1).view(batch, n_way),
    )
    return _with_needs(episode, needs, generator)


def _with_needs(episode: Episode, needs: Collection[str], generator: torch.Generator) -> Episode:
    """Two unlabelled images, two auxiliary ones with four quarters as superpixels, and each image
    mirrored as its second view."""
    support, extras = episode.support, dict(episode.extras)
    batch, channels = episode.query_images.shape[0], episode.query_images.shape[2]
    height, width = episode.size
    further = torch.randn(2, batch, 2, channels, height, width, generator=generator)
    if "unlabelled" in needs:
        support = replace(support, unlabelled=further[0])
    if "auxiliary" in needs:
        rows = (torch.arange(height) >= height // 2).long()
        cols = (torch.arange(width) >= width // 2).long()
        quarters = 1 + rows[:, None] + 2 * cols[None]
        extras["auxiliary_images"] = further[1]
        extras["auxiliary_masks"] = quarters.expand(batch, 2, height, width).clone()
        extras["auxiliary_ids"] = torch.randint(1, 5, (batch, 2), generator=generator)
    if "second_view" in needs:
        images = torch.cat([support.images.flatten(1, 2), episode.query_images], 1)
        extras["second_view_images"] = images.flip(-1)
        mirror = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])[None]
        grid = F.affine_grid(mirror, [1, 1, height, width], align_corners=False)
        extras["second_view_grid"] = grid.expand(*images.shape[:2], height, width, 2).clone()
    return replace(episode, support=support, extras=extras)


def _picture(
    size: tuple[int, int], channels: int, n_way: int, generator: torch.Generator
) -> tuple[Tensor, list[Tensor]]:
    height, width = size
    rows = torch.arange(height)[:, None]
    cols = torch.arange(width)[None]
    image = 0.3 * torch.randn(channels, height, width, generator=generator)
    discs = []
    for way in range(n_way):
        jitter = torch.rand(2, generator=generator)
        row = height * (way + 0.3 + 0.4 * jitter[0]) / n_way
        col = width * (0.3 + 0.4 * jitter[1])
        radius = 0.22 * min(height / n_way, width)
        disc = ((rows - row) ** 2 + (cols - col) ** 2 < radius**2).float()
        image = image + disc * (2.0 if way % 2 == 0 else -2.0)
        discs.append(disc)
    return image, discs


def make_features(
    *,
    dim: int,
    n_way: int = 1,
    n_shot: int = 1,
    batch: int = 2,
    seed: int = 0,
    needs: Collection[str] = (),
) -> tuple[Episode, Features]:
    """An episode of 64x64 pixels with random features on an 8x8 grid, for checks of parts."""
    episode = make_episode(batch=batch, n_way=n_way, n_shot=n_shot, seed=seed, needs=needs)
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, n_way, n_shot, dim, 8, 8)
    support = torch.randn(shape, generator=generator)
    query = torch.randn(batch, 1, dim, 8, 8, generator=generator)
    return episode, Features(support, area_average(episode.support.masks, (8, 8)), query)
