"""From a mask to feature maps (the paper's f_phi), and from a label latent back to a mask."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.errors import check_choice
from fewshot_seg.functional import area_average
from fewshot_seg.interfaces import Privileged
from fewshot_seg.registry import Registry

KINDS = ("light", "resnet18", "resnet101")
INPUTS = ("mask", "mask+image")
RECONSTRUCTION = 32
"""Side of the reconstructed mask, cells."""


class LabelEncoder(nn.Module):
    """f_phi: masks (with the image beside them if wanted) to `dim` channels at stride 8.

    label_encoder: "light" (four 3x3 convolutions), or a registered ResNet of the library on the
        mask tiled to three channels, as the paper's "same structure" says.
    label_input: "mask" or "mask+image" (the image's mean channel beside the mask).
    """

    def __init__(self, *, dim: int, label_encoder: str, label_input: str) -> None:
        super().__init__()
        check_choice("label_encoder", label_encoder, KINDS)
        check_choice("label_input", label_input, INPUTS)
        self.with_image = label_input == "mask+image"
        self.tiled = label_encoder != "light"
        if self.tiled:
            self.body: nn.Module = Registry("encoder").build(label_encoder, dim=dim)
        else:
            self.body = _light(2 if self.with_image else 1, dim)

    def forward(self, privileged: Privileged) -> Float[Tensor, "image dim rows cols"]:
        masks = privileged.masks.unsqueeze(1)
        image = privileged.images.mean(1, keepdim=True) if self.with_image else None
        if not self.tiled:
            return self.body(masks if image is None else torch.cat([masks, image], 1))
        return self.body(torch.cat([masks, masks, masks if image is None else image], 1))


def _light(channels: int, dim: int) -> nn.Sequential:
    """3x3 convolutions 1-32-64-128 of stride 2 and 128-dim of stride 1: 0.39 M parameters."""
    layers: list[nn.Module] = []
    for source, target, stride in ((channels, 32, 2), (32, 64, 2), (64, 128, 2), (128, dim, 1)):
        groups = 8 if target % 8 == 0 else 1
        layers += [
            nn.Conv2d(source, target, 3, stride=stride, padding=1),
            nn.GroupNorm(groups, target),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class LabelDecoder(nn.Module):
    """z_y to a 32x32 mask, so that the label latent must describe the mask (not in the paper)."""

    def __init__(self, *, latent: int) -> None:
        super().__init__()
        self.seed = nn.Linear(latent, 64 * 8 * 8)
        self.middle = nn.Conv2d(64, 32, 3, padding=1)
        self.last = nn.Conv2d(32, 1, 3, padding=1)

    def forward(self, z: Float[Tensor, "image latent"]) -> Float[Tensor, "image rows cols"]:
        maps = F.relu(self.seed(z)).reshape(-1, 64, 8, 8)
        maps = F.relu(self.middle(F.interpolate(maps, scale_factor=2.0)))
        return self.last(F.interpolate(maps, scale_factor=2.0)).squeeze(1)

    def loss(
        self, z: Float[Tensor, "image latent"], masks: Float[Tensor, "image height width"]
    ) -> Float[Tensor, ""]:
        """Binary cross-entropy with the area-averaged mask, nats per cell."""
        target = area_average(masks, (RECONSTRUCTION, RECONSTRUCTION))
        return F.binary_cross_entropy_with_logits(self(z).float(), target)
