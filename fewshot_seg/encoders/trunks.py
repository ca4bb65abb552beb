"""Finding the network inside a timm backbone that hands out one feature map of a wanted stride.

Three families. Convolutional nets with timm's `output_stride` trade stride for dilation and give
their deepest level. Vision transformers give their last tokens, laid back on the patch grid. All
others (Swin, DenseNet, PVT, VGG, ...) give the deepest level that has the wanted stride.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.errors import OptionError

WANTED = 8
"""The stride of the field: 256x256 pixels give 32x32 cells."""

Create = Callable[..., Any]
"""`timm.create_model` with the backbone's name, channels and weights already given."""


class Level(nn.Module):
    """The only level that a timm feature network was left with.

    only_size: height and width of the images, for the few architectures that take no others.
    """

    def __init__(self, network: nn.Module, only_size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.network = network
        self.only_size = only_size
        self.channels_come_last = str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(
        self, images: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image dim rows cols"]:
        if self.only_size not in (None, tuple(images.shape[-2:])):
            height, width = images.shape[-2:]
            raise ValueError(
                f"images are {height}x{width} but this backbone takes only "
                f"{'x'.join(map(str, self.only_size or ()))}; resize them or choose another"
            )
        maps = self.network(images)[-1]
        return maps.permute(0, 3, 1, 2) if self.channels_come_last else maps


class TokenGrid(nn.Module):
    """The last, normed tokens of a vision transformer on their grid.

    An image that does not divide into patches is stretched to the next size that does: unlike
    padding, this keeps the whole grid over the whole image, as masks and upsampling presume.
    """

    def __init__(self, network: nn.Module, patch: int) -> None:
        super().__init__()
        self.network = network
        self.patch = patch

    def forward(
        self, images: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image dim rows cols"]:
        size = [-(-length // self.patch) * self.patch for length in images.shape[-2:]]
        if size != list(images.shape[-2:]):
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        return self.network.forward_intermediates(  # type: ignore[operator]
            images, indices=1, norm=True, intermediates_only=True
        )[-1]


@dataclass(frozen=True, eq=False)
class Trunk:
    """A backbone's network. `weights_of` is the module whose keys are the backbone's own."""

    network: Level | TokenGrid
    weights_of: nn.Module
    channels: int
    stride: int


def find_trunk(create: Create, *, name: str, stride: int | None) -> Trunk:
    """The trunk of `name` at `stride`; None asks for 8, or the nearest it can do.

    Raises OptionError naming the strides it can do, or when it hands out no feature maps.
    """
    found = _dilated(create, stride or WANTED) or _tokens(create)
    if found is None:
        return _level(create, name=name, stride=stride)
    if stride not in (None, found.stride):
        raise _wrong_stride(name, stride, [found.stride])
    return found


def _unless_refused(create: Create, **options: Any) -> Any:
    """The network, or None when this architecture has no such option.

    timm has no way to ask: an architecture answers an option that it lacks with a TypeError, and
    a stride that it cannot do with an AssertionError.
    """
    try:
        return create(**options)
    except (TypeError, AssertionError):
        return None


def _dilated(create: Create, stride: int) -> Trunk | None:
    network = _unless_refused(create, features_only=True, out_indices=(-1,), output_stride=stride)
    if network is None or network.feature_info.reduction()[-1] != stride:
        return None
    return Trunk(Level(network), network, network.feature_info.channels()[-1], stride)


def _tokens(create: Create) -> Trunk | None:
    model = _unless_refused(create, dynamic_img_size=True)
    if model is None:
        return None
    last = model.feature_info[-1]
    patch = last["reduction"]
    if any(block["reduction"] != patch for block in model.feature_info):
        return None  # hierarchical, such as Swin: it has levels to choose from
    model.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
    return Trunk(TokenGrid(model, patch), model, last["num_chs"], patch)


def _level(create: Create, *, name: str, stride: int | None) -> Trunk:
    any_size = _unless_refused(create, features_only=True, dynamic_img_size=True) is not None
    options = {"dynamic_img_size": True} if any_size else {}
    try:
        whole = create(features_only=True, **options)
    except (RuntimeError, AttributeError) as error:
        raise OptionError(f"timm's backbone '{name}' hands out no feature maps") from error
    levels = [info["reduction"] for info in whole.feature_info.info]
    if stride is None:
        stride = min(levels, key=lambda level: abs(level - WANTED))
    if stride not in levels:
        raise _wrong_stride(name, stride, levels)
    index = max(index for index, level in enumerate(levels) if level == stride)
    network = create(features_only=True, out_indices=(index,), **options)
    settings = network.pretrained_cfg
    fixed = bool(settings.get("fixed_input_size")) and not any_size
    size = tuple(settings["input_size"][-2:]) if fixed else None
    # timm wraps some models whole, as `model`, and takes others apart.
    names = network.model if hasattr(network, "model") else network
    return Trunk(Level(network, size), names, network.feature_info.channels()[-1], stride)


def _wrong_stride(name: str, stride: int | None, possible: list[int]) -> OptionError:
    able = " or ".join(str(level) for level in sorted(set(possible)))
    return OptionError(f"backbone '{name}' cannot do stride {stride}; it can do {able}")
