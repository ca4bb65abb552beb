"""The contract, run from the plugin's side: this file is all the testing a plugin must have."""

import torch
from fewshot_seg_nearest import Nearest

from fewshot_seg import build
from fewshot_seg.testing import check_decoder, check_method, make_episode, overfit

TINY = {"name": "timm", "backbone": "test_resnet.r160_in1k", "dim": 32}


def test_decoder() -> None:
    check_decoder(Nearest(), dim=16)


def test_method() -> None:
    check_method(build("nearest", encoder=TINY))


def test_it_learns() -> None:
    torch.manual_seed(0)
    assert overfit(build("nearest", encoder=TINY), make_episode()) > 0.9
