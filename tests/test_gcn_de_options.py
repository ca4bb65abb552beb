"""GCN-DE's pretrained weights, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from gcn_de_cases import tiny

from fewshot_seg.architecture import architecture_only
from fewshot_seg.encoders import fetch
from fewshot_seg.errors import CheckpointError, DataError, OptionError
from fewshot_seg.testing import make_episode
from fewshot_seg_gcn_de import GCNDE
from fewshot_seg_gcn_de.trunk import Trunk


def test_weights_from_a_file_reach_both_trunks(tmp_path: Path) -> None:
    torch.manual_seed(3)
    path = tmp_path / "resnet18.pth"
    source = Trunk()
    torch.save({**source.state_dict(), "fc.weight": torch.zeros(1000, 512)}, path)
    network = GCNDE(pretrained=str(path))
    with architecture_only():
        bare = GCNDE(pretrained=str(path))
    for branch in (network.conditioner, network.segmentor):
        assert torch.equal(branch.trunk.conv1.weight, source.conv1.weight)
    assert not torch.equal(bare.segmentor.trunk.conv1.weight, source.conv1.weight)
    torch.save({"conv1.weight": source.conv1.weight}, path)
    with pytest.raises(CheckpointError, match="missing"):
        GCNDE(pretrained=str(path))


def test_imagenet_names_fit_and_offline_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    make = timm.create_model
    published = make("resnet18.tv_in1k")

    def serve(name: str, *, pretrained: bool = False, **options: Any) -> Any:
        return published if pretrained else make(name, **options)

    monkeypatch.setattr(fetch.timm, "create_model", serve)
    network = GCNDE(pretrained="imagenet")
    got = network.conditioner.trunk.layer3[1].conv2.weight
    assert torch.equal(got, published.layer3[1].conv2.weight)

    def refuse(name: str, *, pretrained: bool = False, **options: Any) -> Any:
        if pretrained:
            raise OSError("no network")
        return make(name, **options)

    monkeypatch.setattr(fetch.timm, "create_model", refuse)
    with pytest.raises(DataError, match="no network"):
        GCNDE(pretrained="imagenet")


WRONG = [
    ({"kind": "joints"}, "did you mean 'joint'"),
    ({"correlation_sites": [0, 5]}, "correlation_sites=0"),
    ({"correlation_sites": [10]}, "correlation_sites=10"),
    ({"de_mean": "dim"}, "de_mean='dim'"),
    ({"lambda_de": -0.1}, "lambda_de=-0.1"),
    ({"width_divisor": 3}, "width_divisor=3 must divide 64"),
    ({"in_channels": 0}, "in_channels"),
    ({"pretrained": "imagnet", "width_divisor": 1}, "did you mean 'imagenet'"),
    ({"pretrained": "imagenet"}, "width_divisor at 1, not 16"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        tiny(**options)


def test_wrong_images() -> None:
    with pytest.raises(ValueError, match="multiples of 32; got 64x80"):
        tiny()(make_episode(size=(64, 80), channels=1))
    with pytest.raises(ValueError, match="takes 3"):
        tiny(in_channels=3)(make_episode(channels=1))
