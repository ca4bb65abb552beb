"""Any timm backbone as an encoder.

At stride 8 timm's ResNets are exactly the trunk of torchvision's DeepLabV3: the first block of
stages 3 and 4 keeps the dilation of the stage before (1 and 2), the others dilate by 2 and 4. So
the COCO checkpoint that SSL-ALPNet, ADNet and APSCL start from runs in the net it was trained in;
a test holds the two against each other.
"""

from functools import partial
from typing import final

import timm
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.architecture import weights_wanted
from fewshot_seg.encoders.batch_norm import freeze_batch_norm, open_residuals, wants_frozen
from fewshot_seg.encoders.fetch import COCO, coco_state, create_pretrained
from fewshot_seg.encoders.project import check_channels, check_sizes, projection
from fewshot_seg.encoders.trunks import Trunk, find_trunk
from fewshot_seg.encoders.weights import check_source, fit, is_file, read_state
from fewshot_seg.errors import OptionError, UnknownNameError, did_you_mean

_DIM = 256


@final
class TimmEncoder(nn.Module):
    """A timm trunk and a bias-free 1x1 projection.

    dim, stride: see the Encoder protocol; the grid is the image size over stride, rounded up (some
        backbones, such as ConvNeXt and DenseNet, round down).
    Raises ValueError when images have another number of channels, or a size that the backbone
    cannot take.
    """

    def __init__(self, *, trunk: Trunk, in_channels: int, dim: int | None) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.stride = trunk.stride
        self.dim = trunk.channels if dim is None else dim
        self.trunk = trunk.network
        self.projection = nn.Identity() if dim is None else projection(trunk.channels, dim)

    def forward(
        self, images: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image dim rows cols"]:
        check_channels(images, self.in_channels)
        return self.projection(self.trunk(images))


def timm_encoder(
    *,
    backbone: str,
    dim: int = _DIM,
    in_channels: int = 3,
    stride: int | None = None,
    pretrained: str = "none",
    freeze_bn: bool | str = "auto",
    project: bool = True,
) -> TimmEncoder:
    """An encoder from the timm backbone of that name ("resnet50", "resnet50.a1_in1k", ...).

    dim: channels handed out. project False: the backbone's own channels, without the 1x1.
    in_channels: of the images; weights for 3 channels are summed to 1, or repeated and rescaled.
    stride: of the grid; None means 8, or what the backbone can do nearest to it. ResNets and their
        like trade stride for dilation; a transformer's stride is its patch; other backbones are
        cut off after their last level of that stride.
    pretrained: "none"; "imagenet", timm's weights for this name; "coco", torchvision's
        DeepLabV3 (resnet50 and resnet101); or the path of a .pth, .pt or .safetensors file in
        timm's or torchvision's naming. The projection is never part of it and starts at random.
    freeze_bn: fix the statistics and affine parameters of every batch norm (they become
        buffers). "auto" does so exactly when there are pretrained weights, because an episode
        holds too few images for good statistics of its own.
    Raises UnknownNameError, OptionError; DataError when weights cannot be fetched or found;
    CheckpointError when a file is damaged or belongs to something else.
    """
    check_sizes(dim=dim, in_channels=in_channels)
    _check_name(backbone)
    if not project and dim != _DIM:
        raise OptionError(f"dim={dim} asks for a projection but project is false; give only one")
    has_coco = backbone.split(".")[0] in COCO
    words = ("none", "imagenet", "coco") if has_coco else ("none", "imagenet")
    check_source(pretrained, words=words, what=f"backbone '{backbone}'")
    frozen = wants_frozen(freeze_bn, pretrained=pretrained)

    wanted = weights_wanted()
    maker = create_pretrained if pretrained == "imagenet" and wanted else timm.create_model
    create = partial(maker, backbone, in_chans=in_channels)
    trunk = find_trunk(create, name=backbone, stride=stride)
    if wanted and (pretrained == "coco" or is_file(pretrained)):
        _load(trunk, backbone, pretrained)
    if pretrained == "none":
        open_residuals(trunk.network)
    if frozen and not freeze_batch_norm(trunk.network) and freeze_bn is True:
        raise OptionError(f"freeze_bn is true but backbone '{backbone}' has no batch norm")
    return TimmEncoder(trunk=trunk, in_channels=in_channels, dim=dim if project else None)


def _load(trunk: Trunk, backbone: str, pretrained: str) -> None:
    state = coco_state(backbone) if pretrained == "coco" else read_state(pretrained)

    def whole() -> set[str]:
        """Names in the uncut backbone: what a file may hold beyond the levels that we use."""
        return set(timm.create_model(backbone).state_dict())

    fit(state, trunk.weights_of, source=pretrained, what=f"backbone '{backbone}'", whole=whole)


def _check_name(backbone: str) -> None:
    if not timm.is_model(backbone):
        near = did_you_mean(backbone, timm.list_models())
        raise UnknownNameError(
            f"timm has no backbone '{backbone}'{near}; timm.list_models() names them all"
        )
    architecture, _, tag = backbone.partition(".")
    known = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in known:
        raise UnknownNameError(
            f"timm's '{architecture}' has no weights '{tag}'{did_you_mean(tag, known)}; "
            f"it has: {', '.join(known) or 'none'}"
        )
