"""Small episodes, features and steps that the tests of the APSCL and PANet parts share."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshot_seg.episode import Episode, Features, Support
from fewshot_seg.functional import area_average
from fewshot_seg.interfaces import Latent, Step
from fewshot_seg_panet.cosine import Cosine


class TinyEncoder(nn.Module):
    """Stride 8 by one convolution; fast, and every pixel matters."""

    def __init__(self, *, dim: int = 16, in_channels: int = 1) -> None:
        super().__init__()
        self.dim, self.stride, self.in_channels = dim, 8, in_channels
        self.conv = nn.Conv2d(in_channels, dim, 8, stride=8)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels_of(batch: int, query: int, way: int, size: int, seed: int) -> Tensor:
    """Every way is a rectangle somewhere; a later way covers an earlier one."""
    rng = np.random.default_rng([seed, 11])
    labels = np.zeros((batch, query, size, size), dtype=np.int64)
    for b, q, w in np.ndindex(batch, query, way):
        top, left = rng.integers(0, size // 2, 2)
        height, width = rng.integers(size * 3 // 8, size * 5 // 8, 2)
        labels[b, q, top : top + height, left : left + width] = w + 1
    return torch.from_numpy(labels)


def episode(
    *,
    batch: int = 1,
    way: int = 1,
    shot: int = 1,
    query: int = 1,
    size: int = 32,
    channel: int = 1,
    seed: int = 0,
    classes: Tensor | None = None,
) -> Episode:
    """Noise with rectangles in it; the support's background is where no way is."""
    rng = generator(seed)
    support_labels = labels_of(batch, way * shot, way, size, seed + 1)
    support_labels = support_labels.reshape(batch, way, shot, size, size)
    ways = torch.arange(1, way + 1).reshape(1, way, 1, 1, 1)
    support = Support(
        torch.randn(batch, way, shot, channel, size, size, generator=rng),
        (support_labels == ways).float(),
        (support_labels == 0).float(),
    )
    images = torch.randn(batch, query, channel, size, size, generator=rng)
    return Episode(support, images, labels_of(batch, query, way, size, seed + 2), classes)


def features_of(task: Episode, *, dim: int = 8, grid: int = 4, seed: int = 0) -> Features:
    """Random features on a square grid, with the episode's masks brought to it."""
    rng = generator(seed + 100)
    support, query = task.support.masks.shape[:3], task.query_images.shape[:2]
    return Features(
        torch.randn(*support, dim, grid, grid, generator=rng),
        area_average(task.support.masks, (grid, grid)),
        torch.randn(*query, dim, grid, grid, generator=rng),
    )


def step_of(task: Episode, features: Features, decoder: nn.Module | None = None) -> Step:
    """A training step as a contrastive term sees it."""
    decoder = decoder or Cosine()
    state = decoder.describe(features.support, task.support.masks, task.support.backgrounds)
    return Step(task, features, features, Latent(), state, decoder)


def small_apscl(method: str = "apscl", **changes: Any) -> nn.Module:
    """A preset at a size for tests: 32x32 images, 16 channels, latent 4, a light label encoder."""
    from fewshot_seg import build

    torch.manual_seed(0)
    small: Mapping[str, Any] = {
        "encoder": TinyEncoder(),
        "image_size": 32,
        "prior.latent": 4,
        "prior.hidden": 16,
        "label_encoder": "light",
    }
    return build(method, **{**small, **changes})


def close(a: Tensor, b: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)
