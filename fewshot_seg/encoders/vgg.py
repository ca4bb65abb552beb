"""VGG-16 as PANet uses it (Wang et al., ICCV 2019, section 4.1; details from the official code)."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.architecture import weights_wanted
from fewshot_seg.encoders.fetch import vgg16_state
from fewshot_seg.encoders.project import check_channels, check_sizes, projection
from fewshot_seg.encoders.weights import check_source, fit, is_file, read_state

_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of 3x3 convolutions of each block."""
_CHANNELS = 512
_DILATED = 4
"""The last block: its pool keeps the grid and its convolutions dilate by 2 instead."""


@final
class Vgg16(nn.Module):
    """Five blocks of 3x3 convolutions at stride 8; the last ReLU is left out.

    Features can so be negative, which cosine similarity profits from. The layers stand at the same
    places in `features` as torchvision's, whose weights therefore fit.
    dim, stride: see the Encoder protocol; the grid is the image size over 8, rounded up.
    Raises ValueError when images have another number of channels.
    """

    def __init__(self, *, dim: int, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.stride = 8
        self.dim = dim
        self.features = nn.Sequential(*_layers(in_channels))
        self.projection = nn.Identity() if dim == _CHANNELS else projection(_CHANNELS, dim)

    def forward(
        self, images: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image dim rows cols"]:
        check_channels(images, self.in_channels)
        return self.projection(self.features(images))


def _layers(in_channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for block, (channels, count) in enumerate(_BLOCKS):
        if block > 0:
            step = 1 if block == _DILATED else 2
            layers.append(nn.MaxPool2d(kernel_size=3, stride=step, padding=1))
        dilation = 2 if block == _DILATED else 1
        for _ in range(count):
            layers += [_convolution(in_channels, channels, dilation), nn.ReLU(inplace=True)]
            in_channels = channels
    return layers[:-1]


def _convolution(in_channels: int, channels: int, dilation: int) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, channels, 3, padding=dilation, dilation=dilation)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def vgg16(*, dim: int = _CHANNELS, in_channels: int = 3, pretrained: str = "none") -> Vgg16:
    """PANet's VGG-16: 14.7 M parameters, 512 channels at stride 8.

    dim: another number than 512 adds a bias-free 1x1 convolution.
    in_channels: of the images; weights for 3 channels are summed to 1, or repeated and rescaled.
    pretrained: "none", "imagenet" (torchvision's), or the path of a .pth, .pt or .safetensors
        file in timm's or torchvision's naming.
    Raises OptionError; DataError when weights cannot be fetched or found; CheckpointError when a
    file is damaged or belongs to something else.
    """
    check_sizes(dim=dim, in_channels=in_channels)
    check_source(pretrained, words=("none", "imagenet"), what="vgg16")
    encoder = Vgg16(dim=dim, in_channels=in_channels)
    if weights_wanted() and (pretrained == "imagenet" or is_file(pretrained)):
        state = vgg16_state() if pretrained == "imagenet" else read_state(pretrained)
        names = nn.ModuleDict({"features": encoder.features})
        fit(state, names, source=pretrained, what="vgg16")
    return encoder
