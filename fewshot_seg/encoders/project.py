"""What every encoder shares: the 1x1 projection and the check of what comes in."""

from torch import Tensor, nn

from fewshot_seg.errors import OptionError


def projection(channels: int, dim: int) -> nn.Module:
    """A bias-free 1x1 convolution from `channels` to `dim`, as in SSL-ALPNet."""
    return nn.Conv2d(channels, dim, kernel_size=1, bias=False)


def check_sizes(*, dim: int, in_channels: int) -> None:
    """Raises OptionError unless both are at least 1."""
    for name, value in (("dim", dim), ("in_channels", in_channels)):
        if value < 1:
            raise OptionError(f"{name} must be at least 1, not {value}")


def check_channels(images: Tensor, in_channels: int) -> None:
    """Raises ValueError when the images have another number of channels than the encoder."""
    if images.shape[1] != in_channels:
        raise ValueError(
            f"images have {images.shape[1]} channels but the encoder takes {in_channels}; "
            f"repeat or drop channels, or build the encoder with in_channels={images.shape[1]}"
        )
