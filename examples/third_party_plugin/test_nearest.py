"""The contract, run from the plugin's side: this file is all the testing a plugin must have."""

from fewshot_seg_nearest import Nearest

from fewshot_seg import build
from fewshot_seg.testing import check_decoder, check_method


def test_decoder() -> None:
    check_decoder(Nearest(), dim=16)


def test_method() -> None:
    tiny = {"name": "timm", "backbone": "test_resnet.r160_in1k", "dim": 32}
    check_method(build("nearest", encoder=tiny))
