"""The encoders with a name of their own. "imagenet" means torchvision's first ResNet weights."""

from fewshot_seg.encoders.timm_backbone import TimmEncoder, timm_encoder
from fewshot_seg.errors import OptionError

_VIT_SMALL = {8: "vit_small_patch8_224.dino", 16: "vit_small_patch16_224"}


def resnet18(
    *,
    dim: int = 256,
    in_channels: int = 3,
    pretrained: str = "none",
    freeze_bn: bool | str = "auto",
) -> TimmEncoder:
    """ResNet-18 at stride 8, for small machines. See `timm_encoder`.

    11.2 M parameters, and 0.13 M in the projection.
    """
    return timm_encoder(
        backbone="resnet18.tv_in1k",
        dim=dim,
        in_channels=in_channels,
        pretrained=pretrained,
        freeze_bn=freeze_bn,
    )


def resnet50(
    *,
    dim: int = 256,
    in_channels: int = 3,
    pretrained: str = "none",
    freeze_bn: bool | str = "auto",
) -> TimmEncoder:
    """ResNet-50 at stride 8, the trunk of torchvision's DeepLabV3; "coco" has its weights.

    23.5 M parameters, and 0.52 M in the projection. See `timm_encoder`.
    """
    return timm_encoder(
        backbone="resnet50.tv_in1k",
        dim=dim,
        in_channels=in_channels,
        pretrained=pretrained,
        freeze_bn=freeze_bn,
    )


def resnet101(
    *,
    dim: int = 256,
    in_channels: int = 3,
    pretrained: str = "none",
    freeze_bn: bool | str = "auto",
) -> TimmEncoder:
    """ResNet-101 at stride 8, the encoder of SSL-ALPNet, ADNet and APSCL (there with "coco").

    42.5 M parameters, and 0.52 M in the projection. See `timm_encoder`.
    """
    return timm_encoder(
        backbone="resnet101.tv_in1k",
        dim=dim,
        in_channels=in_channels,
        pretrained=pretrained,
        freeze_bn=freeze_bn,
    )


def vit_small(
    *, dim: int = 256, patch: int = 16, in_channels: int = 3, pretrained: str = "none"
) -> TimmEncoder:
    """ViT-S: 21.6 M parameters; `patch` (8 or 16 pixels) is its stride. See `timm_encoder`.

    "imagenet" means ImageNet-21k then 1k labels for patch 16, DINO on ImageNet-1k for patch 8.
    Raises OptionError for another patch.
    """
    if patch not in _VIT_SMALL:
        raise OptionError(
            f"vit_small has patches of 8 or 16 pixels, not {patch}; "
            "other vision transformers come through the encoder 'timm'"
        )
    return timm_encoder(
        backbone=_VIT_SMALL[patch], dim=dim, in_channels=in_channels, pretrained=pretrained
    )
