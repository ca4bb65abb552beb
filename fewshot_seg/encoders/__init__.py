"""Encoders: images in, feature maps of `dim` channels on a grid `stride` times coarser out.

Every entry takes `pretrained`: "none", "imagenet" (and "coco" for resnet50 and resnet101), or the
path of a checkpoint in timm's or torchvision's naming.
"""

from fewshot_seg.encoders.named import resnet18, resnet50, resnet101, vit_small
from fewshot_seg.encoders.timm_backbone import TimmEncoder, timm_encoder
from fewshot_seg.encoders.vgg import Vgg16, vgg16

__all__ = [
    "TimmEncoder",
    "Vgg16",
    "resnet18",
    "resnet50",
    "resnet101",
    "timm_encoder",
    "vgg16",
    "vit_small",
]
