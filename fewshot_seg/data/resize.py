"""In-plane resizing of images and label maps to the size a network works on."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional

Images = Float[Tensor, "slice channel height width"]
Labels = Integer[Tensor, "slice height width"]


def resize_images(
    images: Images, size: tuple[int, int]
) -> Float[Tensor, "slice channel rows cols"]:
    """Antialiased bilinear resizing; unchanged when the size already fits."""
    if tuple(images.shape[-2:]) == size:
        return images
    return functional.interpolate(
        images, size, mode="bilinear", align_corners=False, antialias=True
    )


def resize_labels(labels: Labels, size: tuple[int, int]) -> Integer[Tensor, "slice rows cols"]:
    """Each new pixel gets the class that covers most of its area.

    A class that covers exactly as much as the background wins: small organs would otherwise
    shrink at every halving. Among classes that tie, the smaller id wins.
    """
    if tuple(labels.shape[-2:]) == size:
        return labels
    down = _coverage(labels.shape[-2], size[0])
    across = _coverage(labels.shape[-1], size[1]).T
    found = torch.zeros(labels.shape[0], *size, dtype=labels.dtype)
    most = torch.full(found.shape, -1.0)
    values = torch.unique(labels).tolist()
    for value in sorted(values, key=lambda one: (one == 0, one)):  # background last
        area = down @ (labels == value).float() @ across
        wins = area > most + 1e-5  # more than rounding
        most = torch.where(wins, area, most)
        found[wins] = value
    return found


def _coverage(given: int, wanted: int) -> Float[Tensor, "wanted given"]:
    """Which part of each new pixel is covered by each old one, along one axis; rows sum to 1."""
    edges = torch.arange(wanted + 1, dtype=torch.float64) * given / wanted
    old = torch.arange(given, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], old + 1) - torch.maximum(edges[:-1, None], old)
    return (overlap.clamp(min=0) * wanted / given).float()
