"""Encoders: shapes, gradients, and above all that weights land where they belong or are refused."""

import math
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
from jaxtyping import config as jaxtyping_config
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18 as torchvision_resnet18
from torchvision.models import vgg16 as torchvision_vgg16
from torchvision.models.segmentation import deeplabv3_resnet50

from fewshot_seg.encoders import (
    resnet18,
    resnet50,
    resnet101,
    timm_encoder,
    vgg16,
    vit_small,
)
from fewshot_seg.encoders.batch_norm import FrozenBatchNorm
from fewshot_seg.errors import CheckpointError, DataError, OptionError, UnknownNameError
from fewshot_seg.interfaces import Encoder

TINY = "test_resnet"
TINY_VIT = "test_vit"


def images(*size: int, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(seed))


def scrambled(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with every weight and statistic drawn anew, so that none is a default."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.ndim > 1:
            fan_in = tensor[0].numel()
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / math.sqrt(fan_in))
        elif "running_var" in name or ("weight" in name and tensor.ndim == 1):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return network.eval()


# ---------------------------------------------------------------- shapes, names, sizes


@pytest.mark.parametrize("size", [(64, 64), (65, 50), (33, 97)])
@pytest.mark.parametrize(
    "make",
    [
        lambda: timm_encoder(backbone=TINY, dim=8),
        lambda: timm_encoder(backbone=TINY, dim=8, stride=16),
        lambda: timm_encoder(backbone=TINY_VIT, dim=8),
        lambda: vgg16(dim=8),
    ],
)
def test_grid_is_image_size_over_stride_rounded_up(
    make: Callable[[], Encoder], size: tuple[int, int]
) -> None:
    encoder = make()
    rows, cols = (math.ceil(length / encoder.stride) for length in size)
    assert encoder(images(*size)).shape == (2, 8, rows, cols)
    assert isinstance(encoder, Encoder)


def test_entry_points_name_these_functions() -> None:
    found = {
        entry.name: entry.value.split(":")[1]
        for entry in entry_points(group="fewshot_seg.encoders")
        if entry.value.startswith("fewshot_seg.encoders:")
    }
    assert {"timm": "timm_encoder", "vgg16": "vgg16"}.items() <= found.items()
    assert {"resnet18", "resnet50", "resnet101", "vit_small"} <= set(found)


@pytest.mark.parametrize(
    ("make", "trunk", "channels", "stride"),
    [
        (resnet18, 11_176_512, 512, 8),
        (resnet50, 23_508_032, 2048, 8),
        (resnet101, 42_500_160, 2048, 8),
        (vit_small, 21_665_664, 384, 16),
        (vgg16, 14_714_688, 512, 8),
    ],
)
def test_parameter_counts(
    make: Callable[..., Any], trunk: int, channels: int, stride: int, monkeypatch: Any
) -> None:
    for name in ("kaiming_normal_", "trunc_normal_", "normal_", "uniform_", "kaiming_uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *a, **k: tensor)
    encoder = make(dim=10)
    count = sum(p.numel() for p in encoder.parameters())
    assert (count, encoder.dim, encoder.stride) == (trunk + 10 * channels, 10, stride)


def test_vit_patch_8_has_stride_8() -> None:
    assert vit_small(dim=4, patch=8).stride == 8


def test_without_projection_the_backbones_channels_come_out() -> None:
    encoder = timm_encoder(backbone=TINY, project=False)
    assert encoder.dim == 96
    assert encoder(images(32, 32)).shape == (2, 96, 4, 4)
    assert vgg16().dim == 512


@pytest.mark.parametrize(
    ("backbone", "stride"),
    [("test_convnext", 8), ("densenet121", 8), ("hiera_tiny_224", 8), ("test_vit", 16)],
)
def test_other_backbones_come_as_near_to_stride_8_as_they_can(backbone: str, stride: int) -> None:
    assert timm_encoder(backbone=backbone, dim=4).stride == stride


def test_a_cut_backbone_keeps_only_the_levels_it_needs() -> None:
    encoder = timm_encoder(backbone=TINY, dim=4, stride=4)
    names = set(encoder.state_dict())
    assert any("layer1" in name for name in names)
    assert not any("layer2" in name or "fc" in name for name in names)


def test_a_backbone_of_one_size_says_so() -> None:
    encoder = timm_encoder(backbone="hiera_tiny_224", dim=4)
    with pytest.raises(ValueError, match="images are 64x64 but this backbone takes only 224x224"):
        encoder(images(64, 64))


def test_tokens_lie_over_the_whole_image() -> None:
    """Blank the last pixels of an odd-sized image: the last cell must be what changes most."""
    encoder = timm_encoder(backbone=TINY_VIT, dim=8).eval()
    before = images(40, 40)
    after = before.clone()
    after[..., -6:, -6:] += 5
    change = (encoder(after) - encoder(before)).norm(dim=1)[0]
    assert change.argmax() == change.numel() - 1


# ---------------------------------------------------------------- behaviour as a module


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [(TINY, 1), (TINY, 3), (TINY, 5), (TINY_VIT, 1), ("test_convnext", 3), ("resnet18", 3)],
)
def test_gradient_reaches_every_parameter(backbone: str, channels: int) -> None:
    encoder = timm_encoder(backbone=backbone, dim=8, in_channels=channels)
    encoder(images(48, 40, channels=channels)).square().sum().backward()
    dead = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_gradient_reaches_every_parameter_of_vgg16() -> None:
    encoder = vgg16(dim=8, in_channels=1)
    encoder(images(24, 24, channels=1)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


@pytest.mark.parametrize(
    "make",
    [
        lambda: timm_encoder(backbone=TINY, dim=8, freeze_bn=True),
        lambda: timm_encoder(backbone=TINY, dim=8, freeze_bn=False),
        lambda: timm_encoder(backbone=TINY_VIT, dim=8),
        lambda: vgg16(dim=8),
    ],
)
def test_same_maps_in_channels_last_in_bfloat16_and_compiled(
    make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = scrambled(make())
    batch = images(48, 40)
    with torch.no_grad():
        expected = encoder(batch)
        # The checks of shapes that tests switch on are all that torch.compile cannot trace.
        monkeypatch.setattr(jaxtyping_config, "jaxtyping_disable", True)
        compiled = torch.compile(encoder, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(batch), expected)
        monkeypatch.undo()
        with torch.autocast("cpu", torch.bfloat16):
            rough = encoder(batch)
        encoder.to(memory_format=torch.channels_last)
        last = encoder(batch.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, atol=1e-4, rtol=1e-4)
    assert rough.dtype == torch.bfloat16
    assert (rough - expected).abs().max() < 0.1 * expected.abs().max()


def test_frozen_batch_norm_keeps_the_type_under_autocast() -> None:
    """Float32 activations would double the memory that mixed precision is to save."""
    norm = FrozenBatchNorm(nn.BatchNorm2d(4))
    assert norm(torch.ones(1, 4, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("freeze_bn", [True, False])
def test_state_dict_holds_everything(freeze_bn: bool) -> None:
    first = timm_encoder(backbone=TINY, dim=8, freeze_bn=freeze_bn)
    scrambled(first)
    second = timm_encoder(backbone=TINY, dim=8, freeze_bn=True).eval()
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(images(32, 32)), first(images(32, 32)))


def test_wrong_number_of_channels_is_named() -> None:
    for encoder in (vgg16(dim=4, in_channels=1), timm_encoder(backbone=TINY, in_channels=1)):
        with pytest.raises(ValueError, match=r"3 channels but the encoder takes 1.*channels=3"):
            encoder(images(16, 16))


# ---------------------------------------------------------------- batch norm


def batch_norms(encoder: nn.Module) -> list[nn.Module]:
    return [m for m in encoder.modules() if isinstance(m, (nn.BatchNorm2d, FrozenBatchNorm))]


@pytest.mark.parametrize(
    ("pretrained", "freeze_bn", "frozen"),
    [
        (False, "auto", False),
        (True, "auto", True),
        (False, True, True),
        (True, False, False),
    ],
)
def test_freeze_bn(pretrained: bool, freeze_bn: bool | str, frozen: bool, tiny_file: Path) -> None:
    encoder = timm_encoder(
        backbone=TINY,
        dim=8,
        pretrained=str(tiny_file) if pretrained else "none",
        freeze_bn=freeze_bn,
    )
    norms = batch_norms(encoder)
    assert norms
    assert all(isinstance(norm, FrozenBatchNorm) is frozen for norm in norms)
    before = [norm.running_mean.clone() for norm in norms]
    learnt = {id(p) for p in encoder.parameters()}
    assert any(id(norm.weight) in learnt for norm in norms) is not frozen
    encoder.train()(images(32, 32))
    moved = [not torch.equal(a, norm.running_mean) for a, norm in zip(before, norms)]
    assert all(moved) is not frozen
    assert any(moved) is not frozen


@pytest.mark.parametrize("backbone", [TINY, "test_efficientnet"])
def test_a_frozen_encoder_gives_the_maps_of_evaluation_mode(backbone: str) -> None:
    free = timm_encoder(backbone=backbone, dim=8, freeze_bn=False)
    scrambled(free)
    frozen = timm_encoder(backbone=backbone, dim=8, freeze_bn=True).train()
    frozen.load_state_dict(free.state_dict())
    torch.testing.assert_close(frozen(images(32, 32)), free(images(32, 32)))


# ---------------------------------------------------------------- weights


@pytest.fixture
def tiny_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.pth"
    torch.save(scrambled(timm.create_model(TINY)).state_dict(), path)
    return path


def test_deeplab_trunk_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The COCO checkpoint's own network, from torchvision, and ours: dilations included."""
    theirs = scrambled(deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=True))
    path = tmp_path / "deeplab.pth"
    torch.save(theirs.state_dict(), path)
    batch = images(72, 57)
    expected = theirs.backbone(batch)["out"]
    for source in (str(path), "coco"):
        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", _serve(theirs.state_dict()))
        encoder = timm_encoder(backbone="resnet50", project=False, pretrained=source)
        assert encoder.stride == 8
        torch.testing.assert_close(encoder(batch), expected, atol=1e-4, rtol=1e-4)


def _serve(state: dict[str, Tensor]) -> Callable[..., dict[str, Tensor]]:
    def load(url: str, *, weights_only: bool, **_: object) -> dict[str, Tensor]:
        assert url.startswith("https://download.pytorch.org/models/")
        assert weights_only
        return state

    return load


@pytest.mark.parametrize("kind", ["pth", "pt", "safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone.", "encoder."])
def test_torchvision_resnet_file(tmp_path: Path, kind: str, prefix: str) -> None:
    theirs = scrambled(torchvision_resnet18())
    state = {prefix + name: tensor for name, tensor in theirs.state_dict().items()}
    path = tmp_path / f"weights.{kind}"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": state}, path)
    ours = resnet18(pretrained=str(path)).trunk.network.state_dict()
    for name, tensor in theirs.state_dict().items():
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked"):
            assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("backbone", [TINY_VIT, "test_convnext", "test_efficientnet", TINY])
def test_timm_file_gives_timms_maps(tmp_path: Path, backbone: str) -> None:
    """Whole timm classifiers, heads and all: their last maps before pooling are ours."""
    theirs = scrambled(timm.create_model(backbone, num_classes=7))
    path = tmp_path / "timm.pth"
    torch.save(theirs.state_dict(), path)
    options: dict[str, Any] = {"backbone": backbone, "project": False, "pretrained": str(path)}
    encoder = timm_encoder(stride=16 if backbone == TINY_VIT else 32, **options).eval()
    batch = images(160, 160)
    if backbone == TINY_VIT:
        tokens = theirs.forward_features(batch)[:, theirs.num_prefix_tokens :]
        expected = tokens.transpose(1, 2).reshape(2, -1, 10, 10)
    else:
        expected = theirs.forward_intermediates(batch, intermediates_only=True)[-1]
    torch.testing.assert_close(encoder(batch), expected, atol=1e-4, rtol=1e-4)


def test_vgg16_takes_torchvisions_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kaiming_normal_", "normal_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *a, **k: tensor)
    theirs = {
        name: tensor
        for name, tensor in torchvision_vgg16().state_dict().items()
        if name.startswith("features.")
    }
    scrambled(net := vgg16())
    state = {name: net.state_dict()[name] for name in theirs}
    heads = {"classifier.0.weight": torch.zeros(2, 2), "head.fc.bias": torch.zeros(3)}
    path = tmp_path / "vgg.pth"
    torch.save(state | heads, path)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", _serve(state | heads))
    for source in (str(path), "imagenet"):
        ours = vgg16(pretrained=source).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], state[name]) for name in state)


def test_vgg16_agrees_with_the_official_code(golden: Callable[[str], Path]) -> None:
    stored = np.load(golden("panet") / "encoder_vgg16.npz")
    random = np.random.RandomState(int(stored["weight_seed"]))
    encoder = vgg16()
    with torch.no_grad():
        for parameter in encoder.parameters():
            draw = random.standard_normal(tuple(parameter.shape))
            gain = 0.1 if parameter.ndim == 1 else math.sqrt(2 / parameter[0].numel())
            parameter.copy_(torch.from_numpy((draw * gain).astype(np.float32)))
        maps = encoder(torch.from_numpy(stored["image"])).numpy()
    np.testing.assert_allclose(maps[:, ::8], stored["features_channels_0_64"], atol=5e-5)
    means = maps.mean(axis=(2, 3))
    np.testing.assert_allclose(means, stored["features_mean_over_positions"], atol=5e-5)


@pytest.mark.parametrize("backbone", [TINY, TINY_VIT])
def test_one_channel_weights_are_the_sum_over_rgb(tmp_path: Path, backbone: str) -> None:
    """So a grey image gives the same maps as the same image three times over."""
    path = tmp_path / "rgb.pth"
    torch.save(scrambled(timm.create_model(backbone)).state_dict(), path)
    options: dict[str, Any] = {"backbone": backbone, "project": False, "pretrained": str(path)}
    grey = images(32, 32, channels=1)
    one = timm_encoder(in_channels=1, **options).eval()(grey)
    three = timm_encoder(in_channels=3, **options).eval()(grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(one, three, atol=1e-4, rtol=1e-4)


def test_one_channel_vgg16_is_the_sum_over_rgb(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    rgb = vgg16()
    torch.save(rgb.state_dict(), path)
    grey = images(16, 16, channels=1)
    one = vgg16(in_channels=1, pretrained=str(path))(grey)
    torch.testing.assert_close(one, rgb(grey.repeat(1, 3, 1, 1)), atol=1e-4, rtol=1e-4)


def test_imagenet_weights_come_from_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    published = scrambled(timm.create_model(TINY)).state_dict()
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict_from_hf", lambda *a, **k: dict(published)
    )
    encoder = timm_encoder(backbone=TINY, pretrained="imagenet", in_channels=1)
    ours = encoder.trunk.network.state_dict()
    assert torch.equal(ours["layer4.0.conv2.weight"], published["layer4.0.conv2.weight"])
    first = published["conv1.0.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(ours["conv1.0.weight"], first)
    assert all(isinstance(norm, FrozenBatchNorm) for norm in batch_norms(encoder))


# ---------------------------------------------------------------- what is refused


def test_offline_says_so_and_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    for make in (
        lambda: timm_encoder(backbone=TINY, pretrained="imagenet"),
        lambda: resnet50(pretrained="coco"),
        lambda: vgg16(pretrained="imagenet"),
    ):
        with pytest.raises(DataError, match=r"could not be fetched .*no route.*give its path"):
            make()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backbone": "resnet5O"}, UnknownNameError, "no backbone 'resnet5O'; did you mean 'res"),
        ({"backbone": "resnet50.tv_in2k"}, UnknownNameError, "did you mean 'tv_in1k'"),
        ({"backbone": TINY, "pretrained": "imagnet"}, OptionError, "did you mean 'imagenet'"),
        ({"backbone": TINY, "pretrained": "coco"}, OptionError, "'test_resnet' has no pre"),
        ({"backbone": TINY, "pretrained": "no/file.pth"}, DataError, "'no/file.pth' cannot be op"),
        ({"backbone": TINY, "pretrained": "file.pth"}, DataError, "No such file"),
        ({"backbone": TINY, "pretrained": "no.safetensors"}, DataError, "cannot be opened"),
        ({"backbone": TINY, "freeze_bn": "yes"}, OptionError, "true, false or 'auto', not 'yes'"),
        ({"backbone": TINY_VIT, "freeze_bn": True}, OptionError, "has no batch norm"),
        ({"backbone": TINY, "dim": 0}, OptionError, "dim must be at least 1, not 0"),
        ({"backbone": TINY, "in_channels": 0}, OptionError, "in_channels must be at least 1"),
        ({"backbone": TINY, "dim": 8, "project": False}, OptionError, "dim=8 asks for a proj"),
        ({"backbone": TINY, "stride": 64}, OptionError, "it can do 2 or 4 or 8 or 16 or 32"),
        ({"backbone": TINY_VIT, "stride": 8}, OptionError, "stride 8; it can do 16"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        timm_encoder(**options)


def test_wrong_options_of_named_encoders() -> None:
    with pytest.raises(OptionError, match="8 or 16 pixels, not 14"):
        vit_small(patch=14)
    with pytest.raises(OptionError, match=r"'resnet18\.tv_in1k' has no pretrained weights 'coco'"):
        resnet18(pretrained="coco")
    with pytest.raises(OptionError, match="vgg16 has no pretrained weights 'coco'"):
        vgg16(pretrained="coco")


def _drop(state: dict[str, Any]) -> Any:
    return {name: tensor for name, tensor in state.items() if "layer4" not in name}


def _add(state: dict[str, Any]) -> Any:
    return state | {f"decoder.{i}": torch.zeros(1) for i in range(5)}


def _reshape(state: dict[str, Any]) -> Any:
    return state | {"layer1.0.conv1.weight": torch.zeros(3, 4)}


def _twice(state: dict[str, Any]) -> Any:
    return state | {"encoder.bn1.weight": torch.zeros(32)}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_drop, r"does not fit backbone 'test_resnet': missing layer4\S+, \S+, \S+ and \d+ more"),
        (_add, "unexpected decoder.0, decoder.1, decoder.2 and 2 more"),
        (_reshape, "misshapen layer1.0.conv1.weight is 3x4 but should be 32x32x3x3"),
        (_twice, "holds two networks: 'bn1.weight' comes twice"),
        (lambda state: [1, 2], "holds no state_dict"),
        (lambda state: {}, "holds no state_dict"),
        (lambda state: {"epoch": 3}, "holds no state_dict"),
        (lambda state: {"state_dict": {"conv1.weight": 3.0}}, "holds no state_dict"),
        (lambda state: Path("x"), "is damaged or no file of weights"),
    ],
)
def test_wrong_contents(tiny_file: Path, spoil: Callable[[Any], Any], message: str) -> None:
    torch.save(spoil(torch.load(tiny_file, weights_only=True)), tiny_file)
    with pytest.raises(CheckpointError, match=message):
        timm_encoder(backbone=TINY, pretrained=str(tiny_file))


@pytest.mark.parametrize("kept", [0, 10, 1000, 0.5, 0.99])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_truncated_files(tiny_file: Path, kept: float, suffix: str) -> None:
    path = tiny_file.with_suffix(f".{suffix}")
    if suffix == "safetensors":
        save_file(torch.load(tiny_file, weights_only=True), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match="is damaged or no file of weights"):
        timm_encoder(backbone=TINY, pretrained=str(path))


@pytest.mark.parametrize("content", [b"<html>404</html>", b"\x80\x02garbage", b"\x00" * 64])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_of_something_else(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"page.{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged or no file of weights"):
        timm_encoder(backbone=TINY, pretrained=str(path))


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be opened"):
        timm_encoder(backbone=TINY, pretrained=str(tmp_path))


def test_weights_of_another_depth_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision_resnet18().state_dict(), path)
    with pytest.raises(CheckpointError, match=r"missing .*unexpected|missing .*misshapen"):
        timm_encoder(backbone="resnet26", pretrained=str(path))
