"""Published weights, fetched on first use and cached by timm and torch.hub."""

import pickle
from typing import Any

import timm
import torch
from torch import Tensor
from torchvision.models import VGG16_Weights
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights, DeepLabV3_ResNet101_Weights

from fewshot_seg.errors import DataError

COCO: dict[str, str] = {
    "resnet50": DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.url,
    "resnet101": DeepLabV3_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1.url,
}
"""Where torchvision publishes DeepLabV3, trained on COCO images with the 21 labels of VOC."""


def create_pretrained(backbone: str, **options: Any) -> Any:
    """`timm.create_model` with timm's weights for this name.

    Raises DataError when nobody published any or when they cannot be fetched.
    """
    published = timm.get_pretrained_cfg(backbone)
    if published is None or not published.has_weights:
        raise DataError(
            f"timm publishes no weights for backbone '{backbone}'; "
            "give pretrained='none' or the path of a checkpoint"
        )
    timm.create_model(backbone, **options)
    try:
        return timm.create_model(backbone, pretrained=True, **options)
    # The same call without weights has just worked, so whatever fails now is the fetching, and
    # each hub client has its own errors for that.
    except Exception as error:
        raise _not_fetched(f"timm's weights for backbone '{backbone}'", error) from error


def coco_state(backbone: str) -> dict[str, Tensor]:
    """The state of torchvision's DeepLabV3 on `backbone`. Raises DataError when offline."""
    return _download(COCO[backbone.split(".")[0]])


def vgg16_state() -> dict[str, Tensor]:
    """The state of torchvision's VGG-16 for ImageNet. Raises DataError when offline."""
    return _download(VGG16_Weights.IMAGENET1K_V1.url)


def _download(url: str) -> dict[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", weights_only=True, check_hash=True
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise _not_fetched(f"the weights at {url}", error) from error


def _not_fetched(what: str, error: Exception) -> DataError:
    return DataError(
        f"{what} could not be fetched ({type(error).__name__}: {str(error)[:200]}). "
        "Connect once, or copy the file here and give its path as `pretrained`"
    )
