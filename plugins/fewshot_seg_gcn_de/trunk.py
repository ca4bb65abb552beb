"""The encoder half of each U-Net: input adapter and ResNet-18 up to layer3."""

from typing import NamedTuple, final

import timm
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from fewshot_seg.architecture import weights_wanted
from fewshot_seg.encoders.fetch import create_pretrained
from fewshot_seg.encoders.weights import check_source, fit, is_file, read_state
from fewshot_seg.errors import OptionError

BACKBONE = "resnet18.tv_in1k"
WIDTH = 64
"""Channels of ResNet-18's first stage."""


class TrunkMaps(NamedTuple):
    """Maps at half, quarter, eighth and sixteenth of the image: sites 2 to 5."""

    stem: Float[Tensor, "image width rows2 cols2"]
    layer1: Float[Tensor, "image width rows4 cols4"]
    layer2: Float[Tensor, "image width2 rows8 cols8"]
    layer3: Float[Tensor, "image width4 rows16 cols16"]


@final
class Adapter(nn.Module):
    """Three channels for an ImageNet trunk out of one (image) or two (image and mask).

    3x3 to 32 channels, BN, ReLU, 1x1 to 3, BN, ReLU. The batch norms hide the image's scale.
    """

    def __init__(self, *, in_channels: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(in_channels, 32, kernel_size=3, padding=1)
        self.norm1 = nn.BatchNorm2d(32)
        self.compress = nn.Conv2d(32, 3, kernel_size=1)
        self.norm2 = nn.BatchNorm2d(3)

    def forward(
        self, images: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image 3 height width"]:
        maps = self.norm1(self.expand(images)).relu()
        return self.norm2(self.compress(maps)).relu()


@final
class Trunk(nn.Module):
    """conv1 to layer3 of torchvision's ResNet-18, under torchvision's names.

    width: channels of the first stage, 64 in ResNet-18; the others have twice and four times that.
    """

    def __init__(self, *, width: int = WIDTH) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "image 3 height width"]) -> TrunkMaps:
        stem = self.bn1(self.conv1(images)).relu()
        layer1 = self.layer1(self.pool(stem))
        layer2 = self.layer2(layer1)
        # the blocks end in a ReLU, so the official code's further one changes nothing
        return TrunkMaps(stem, layer1, layer2, self.layer3(layer2))


def _stage(before: int, after: int, *, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or before != after:
        shortcut = nn.Sequential(
            nn.Conv2d(before, after, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(after),
        )
    return nn.Sequential(BasicBlock(before, after, stride, shortcut), BasicBlock(after, after))


def check_pretrained(pretrained: str, *, width: int) -> None:
    """Raises OptionError for a word that is no source, or weights in a net of another width."""
    check_source(pretrained, words=("none", "imagenet"), what="gcn_de")
    if pretrained != "none" and width != WIDTH:
        raise OptionError(
            f"pretrained={pretrained!r} needs the full width of ResNet-18; "
            f"leave width_divisor at 1, not {WIDTH // width}"
        )


def load_pretrained(pretrained: str, *trunks: Trunk) -> None:
    """Give every trunk the weights of "imagenet" or of a file in timm's or torchvision's naming.

    "none" leaves them as they are, and so does `architecture_only`. Raises DataError when the
    weights cannot be fetched or found, CheckpointError when a file belongs to something else.
    """
    if not weights_wanted() or not (pretrained == "imagenet" or is_file(pretrained)):
        return
    imagenet = pretrained == "imagenet"
    state = create_pretrained(BACKBONE).state_dict() if imagenet else read_state(pretrained)

    def whole() -> set[str]:
        """Names in the uncut backbone: layer4 and the classifier are left out."""
        return set(timm.create_model(BACKBONE).state_dict())

    for trunk in trunks:
        fit(state, trunk, source=pretrained, what="gcn_de's ResNet-18", whole=whole)
