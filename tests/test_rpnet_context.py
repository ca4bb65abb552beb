"""RP-Net's U-Net, local correlation and context relation encoder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from apscl_cases import close
from rpnet_cases import LAYERS, UNET, arrays, check_gradients, renamed
from torch import Tensor

from fewshot_seg.errors import OptionError
from fewshot_seg.testing import check_encoder
from fewshot_seg_rpnet.context import ContextRelation, local_correlation
from fewshot_seg_rpnet.unet import UNet


def test_correlation_agrees_with_the_official_code(golden: Callable[[str], Path]) -> None:
    data = arrays(golden("rpnet"), "local_correlation")
    found = local_correlation(data["map_a"], data["map_b"], int(data["radius"]))
    close(found, data["correlation"], atol=1e-4)


def test_descriptors_agree_with_the_official_code(golden: Callable[[str], Path]) -> None:
    data = arrays(golden("rpnet"), "context_relation_encoder")
    relation = ContextRelation(dim=data["features"].shape[1], radius=int(data["radius"]))
    relation.load_state_dict(renamed(data, "weights", LAYERS))
    maps, masks = data["features"], data["mask"][:, 0]
    close(relation.eval()(maps, masks), data["descriptor_eval"], atol=1e-4)
    found = relation.train()(maps, masks)
    close(found, data["descriptor_train"], atol=1e-4)
    (found * data["cotangent"]).sum().backward()
    check_gradients(relation, renamed(data, "gradient", LAYERS))


def test_unet_agrees_with_the_official_code(golden: Callable[[str], Path]) -> None:
    data = arrays(golden("rpnet"), "unet")
    unet = UNet(width=64 // int(data["width_divisor"]))
    unet.load_state_dict(renamed(data, "weights", UNET), strict=False)  # no batch counters
    close(unet.eval()(data["image"]), data["features_eval"], atol=1e-4)
    close(unet.train()(data["image"]), data["features_train"], atol=1e-4)


def slow_correlation(first: np.ndarray, second: np.ndarray, radius: int) -> np.ndarray:
    dim, rows, cols = first.shape
    side = 2 * radius + 1
    found = np.zeros((side * side, rows, cols))
    for dx, dy, row, col in np.ndindex(side, side, rows, cols):
        r, c = row + dy - radius, col + dx - radius
        if 0 <= r < rows and 0 <= c < cols:
            found[dx * side + dy, row, col] = first[:, row, col] @ second[:, r, c] / dim**0.5
    return found


@pytest.mark.parametrize("shape", [(7, 5), (3, 9), (1, 1)], ids=str)
@pytest.mark.parametrize("radius", [0, 1, 4])
def test_correlation_is_the_slow_loop(shape: tuple[int, int], radius: int) -> None:
    first, second = torch.randn(2, 2, 6, *shape, generator=torch.Generator().manual_seed(1))
    wanted = [slow_correlation(a, b, radius) for a, b in zip(first.numpy(), second.numpy())]
    close(local_correlation(first, second, radius), torch.from_numpy(np.stack(wanted)).float())


def test_correlation_gradient_is_that_of_shifted_products() -> None:
    first, second = torch.randn(2, 1, 3, 4, 5, dtype=torch.float64)
    inputs = (first.requires_grad_(), second.requires_grad_())
    torch.autograd.gradcheck(lambda a, b: local_correlation(a.float(), b.float(), 1).double(),
                             inputs, eps=1e-2, atol=1e-2)  # fmt: skip


def test_a_shifted_spot_peaks_at_its_offset() -> None:
    first, second = torch.zeros(2, 1, 4, 12, 12)
    first[0, 2, 6, 5] = 1
    second[0, 2, 8, 4] = 1  # two rows down, one column to the left
    found = local_correlation(first, second, 3)
    channel, row, col = np.unravel_index(int(found.argmax()), found.shape[1:])
    assert (channel, row, col) == ((-1 + 3) * 7 + (2 + 3), 6, 5)
    assert found.sum() == found.max() == 0.5


@pytest.mark.parametrize(("value", "side"), [(1.0, "outside"), (0.0, "inside")])
def test_a_side_without_pixels_is_constant(value: float, side: str) -> None:
    """Only the bias is left of a convolution of zeros."""
    relation = ContextRelation(dim=4, radius=1).eval()
    seen: list[Tensor] = []
    getattr(relation, side).register_forward_hook(lambda *call: seen.append(call[2]))
    found = relation(torch.randn(2, 4, 6, 6), torch.full((2, 6, 6), value))
    assert torch.isfinite(found).all()
    assert torch.equal(seen[0], seen[0][..., :1, :1].expand_as(seen[0]))


def test_only_a_window_is_seen() -> None:
    """Two 3x3 convolutions and the window: nothing further off than radius + 1 matters."""
    relation = ContextRelation(dim=3, radius=2).eval()
    maps, masks = torch.randn(1, 3, 16, 16), torch.rand(1, 16, 16)
    other = maps.clone()
    other[..., 12, 8] += 10
    changed = (relation(maps, masks) - relation(other, masks)).abs().sum(1)[0] > 0
    assert changed[9, 8]
    assert not changed[:9].any()
    assert not changed[:, :5].any()


def test_unet_is_an_encoder() -> None:
    check_encoder(UNet(width=4))
    check_encoder(UNet(width=4, in_channels=2), channels=2)
    assert (UNet().dim, UNet().stride, UNet().in_channels) == (256, 4, 1)


def test_a_repeated_grey_image_is_a_grey_image() -> None:
    unet = UNet(width=2).eval()
    image = torch.randn(1, 1, 32, 32)
    close(unet(image.repeat(1, 3, 1, 1)), unet(image))


def test_unet_names_the_size_it_needs() -> None:
    with pytest.raises(ValueError, match="divisible by 16; got 32x40"):
        UNet(width=1)(torch.zeros(1, 1, 32, 40))
    with pytest.raises(ValueError, match="2 channels but the encoder takes 3"):
        UNet(width=1, in_channels=3)(torch.zeros(1, 2, 32, 32))


WRONG = [(UNet, {"width": 0}), (UNet, {"in_channels": 0}), (ContextRelation, {"radius": -1}),
         (ContextRelation, {"width": 0})]  # fmt: skip


@pytest.mark.parametrize(("part", "options"), WRONG, ids=str)
def test_wrong_options(part: Callable[..., object], options: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="at least 1"):
        part(**({"dim": 4} if part is ContextRelation else {}), **options)
