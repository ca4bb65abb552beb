"""Every method at its smallest, and the episodes that a scanner or an organ may hand it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from tiny_methods import methods, tiny
from torch import Tensor, nn

from fewshot_seg.episode import IGNORE, Episode
from fewshot_seg.needs import needs_of
from fewshot_seg.testing import make_episode

PIPELINES = methods(pipelines=True)
METHODS = [*PIPELINES, *methods(pipelines=False)]
LEARNING = [name for name in METHODS if name != "copy"]

STRIDES = {"senet": 16, "rpnet": 16, "aas_dcl": 16, "gcn_de": 32}
"""Image pixels of a cell of the coarsest map of the whole networks; pipelines have 8."""


def stride(name: str) -> int:
    return STRIDES.get(name, 8)


def small(name: str, size: tuple[int, int] = (32, 32), **changes: Any) -> nn.Module:
    """`tiny`, made for images of that size."""
    fitted = {"image_size": list(size)} if name in PIPELINES else {}
    return tiny(name, **{**fitted, **changes})


def episode(method: nn.Module, size: tuple[int, int] = (32, 32), **options: Any) -> Episode:
    """An episode with all that the method needs."""
    return make_episode(**{"batch": 1, **options}, size=size, needs=needs_of(method))


Change = Callable[[Tensor], Tensor]


def with_images(task: Episode, change: Change) -> Episode:
    """Every image of the episode changed: support, query, unlabelled, auxiliary, second views."""
    unlabelled = task.support.unlabelled
    support = replace(
        task.support,
        images=change(task.support.images),
        unlabelled=None if unlabelled is None else change(unlabelled),
    )
    extras = {
        name: change(tensor) if name.endswith("_images") else tensor
        for name, tensor in task.extras.items()
    }
    return replace(task, support=support, query_images=change(task.query_images), extras=extras)


def with_masks(task: Episode, support: Change, query: Change) -> Episode:
    """Another support mask and other query labels."""
    assert task.query_labels is not None
    changed = replace(task.support, masks=support(task.support.masks))
    return replace(task, support=changed, query_labels=query(task.query_labels))


def _same(values: Tensor) -> Tensor:
    return values


def _metal(images: Tensor) -> Tensor:
    """A hip implant and a streak beside it: 3000 standard deviations, both ways."""
    images = images.clone()
    images[..., 8:11, 20:24] = 3e3
    images[..., 25, 5] = -3e3
    return images


def _one_pixel(masks: Tensor) -> Tensor:
    found = torch.zeros_like(masks)
    found[..., 13, 17] = 1
    return found


EXTREMES: Mapping[str, Callable[[Episode], Episode]] = {
    "metal": lambda task: with_images(task, _metal),
    "all slices zero": lambda task: with_images(task, torch.zeros_like),
    "query slice zero": lambda task: replace(
        task, query_images=torch.zeros_like(task.query_images)
    ),
    "support slice zero": lambda task: replace(
        task, support=replace(task.support, images=torch.zeros_like(task.support.images))
    ),
    "one grey value": lambda task: with_images(task, lambda one: torch.full_like(one, -1.7)),
    "a million times": lambda task: with_images(task, lambda one: one * 1e6),
    "a millionth": lambda task: with_images(task, lambda one: one * 1e-6),
    "no organ": lambda task: with_masks(task, torch.zeros_like, torch.zeros_like),
    "no organ in the support": lambda task: with_masks(task, torch.zeros_like, _same),
    "no organ in the query": lambda task: with_masks(task, _same, torch.zeros_like),
    "organ everywhere": lambda task: with_masks(task, torch.ones_like, torch.ones_like),
    "organ of one pixel": lambda task: with_masks(task, _one_pixel, _one_pixel),
    "nothing scored": lambda task: with_masks(
        task, _same, lambda one: torch.full_like(one, IGNORE)
    ),
}
"""What may not make a number infinite or NaN. Images are otherwise z-scored: values of about 1."""
