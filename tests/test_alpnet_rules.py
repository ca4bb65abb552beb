"""The ALPNet decoder's rules where the official code throws, its laws and its options."""

from typing import Any

import pytest
import torch
from apscl_cases import close, episode, features_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewshot_seg.errors import OptionError
from fewshot_seg.testing import check_decoder
from fewshot_seg_alpnet.decoder import ALP


def block(*, top: int, left: int, side: int, grid: int = 8) -> Tensor:
    mask = torch.zeros(1, 1, 1, grid, grid)
    mask[..., top : top + side, left : left + side] = 1
    return mask


def maps_of(n_shot: int = 1, grid: int = 8, dim: int = 6) -> Tensor:
    return torch.randn(1, 1, n_shot, dim, grid, grid, generator=torch.Generator().manual_seed(3))


def test_the_widest_shot_decides_for_all() -> None:
    masks = torch.cat([block(top=0, left=0, side=2), block(top=4, left=4, side=4)], 2)
    state = ALP().describe(maps_of(2), masks)
    assert state.ways.present[0, 0].tolist() == [False] * 7 + [True] + [True, True] + [False]
    alone = ALP().describe(maps_of(1), masks[:, :, :1])
    assert alone.ways.present[0, 0].tolist() == [False] * 4 + [False] + [True]


def test_the_switch_keeps_its_window_at_test() -> None:
    """An organ of 2x2 positions fills a cell of the test window, not of the switch."""
    mask = block(top=2, left=2, side=2)
    # 16 cells, the shot's mean, the mean over shots
    narrow = ALP().eval().describe(maps_of(), mask)
    assert narrow.ways.present[0, 0].tolist() == [False] * 17 + [True]
    wide = ALP(switch_window=2).eval().describe(maps_of(), mask)
    assert wide.ways.present[0, 0].nonzero().flatten().tolist() == [5, 16]
    assert wide.background.present.sum() == 15


def test_a_background_without_cells_falls_back_to_its_mean() -> None:
    mask = torch.ones(1, 1, 1, 8, 8)
    mask[..., 0, 0] = 0
    maps = maps_of()
    state = ALP().describe(maps, mask)
    assert state.background.present[0, 0].tolist() == [False] * 4 + [True]
    close(state.background.vectors[0, 0, -1], maps[0, 0, 0, :, 0, 0], atol=1e-4)


@pytest.mark.parametrize("mode", ["auto", "global", "local", "local_global"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_score_zero_where_nothing_is(mode: str, value: float) -> None:
    masks, maps = torch.full((1, 1, 1, 8, 8), value), maps_of().requires_grad_()
    decoder = ALP(mode=mode)
    scores = decoder(maps[:, 0], decoder.describe(maps, masks), (8, 8))
    assert scores[:, :, int(value == 0)].abs().max() == 0
    assert torch.isfinite(scores).all()
    scores.sum().backward()
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()


def test_area_keeps_what_bilinear_loses() -> None:
    masks = torch.zeros(1, 1, 1, 64, 64)
    masks[..., 8:10, 8:10] = 1
    lost, kept = (
        ALP(mask_resize=how).describe(maps_of(), masks).ways.vectors[0, 0, -1].abs().max()
        for how in ("bilinear", "area")
    )
    assert lost == 0
    assert kept > 0


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), training=st.booleans())
def test_order_of_shots_and_ways(seed: int, training: bool) -> None:
    task = episode(way=2, shot=3, size=8, seed=seed)
    features = features_of(task, grid=8, seed=seed)
    decoder = ALP().train(training)

    def scores(ways: list[int], shots: list[int]) -> Tensor:
        inputs = (features.support, task.support.masks, task.support.backgrounds)
        state = decoder.describe(*(t[:, ways][:, :, shots] for t in inputs))
        return decoder(features.query, state, (8, 8))

    plain = scores([0, 1], [0, 1, 2])
    close(scores([0, 1], [2, 0, 1]), plain, atol=1e-4)
    close(scores([1, 0], [0, 1, 2]), plain[:, :, [0, 2, 1]], atol=1e-4)
    close(scores([0, 1], [0, 1, 2, 0, 1, 2]), plain, atol=1e-4)


def test_the_decoder_keeps_the_contract() -> None:
    check_decoder(ALP(), dim=6)


def test_half_precision_inputs_are_scored_in_full() -> None:
    maps, masks = maps_of(), block(top=0, left=0, side=4)
    decoder = ALP()
    with torch.autocast("cpu", torch.bfloat16):
        state = decoder.describe(maps, masks)
        scores = decoder(maps[:, 0], state, (8, 8))
    assert scores.dtype == torch.float32
    close(scores, decoder(maps[:, 0], decoder.describe(maps, masks), (8, 8)))


WRONG = [
    ({"mode": "locl"}, "mode='locl' .*did you mean 'local'"),
    ({"mask_resize": "nearest"}, "mask_resize='nearest'"),
    ({"train_window": 0}, "train_window=0"),
    ({"threshold": 1.0}, "threshold=1.0"),
    ({"scale": 0.0}, "scale=0.0"),
    ({"eps": -1.0}, "eps=-1.0"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ALP(**options)
