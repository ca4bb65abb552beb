"""The VQ decoder's laws, and what its options mean."""

from typing import Any

import pytest
import torch
from lvqm_cases import block_masks, close, of_one, parted_maps
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fewshot_seg.errors import OptionError
from fewshot_seg_lvqm.decoder import VQ


def case(**shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Maps with their masks on the same grid, and a query."""
    masks = block_masks(**shape)
    return parted_maps(masks), masks, parted_maps(masks, seed=1)[:, 0]


def answer(decoder: VQ, maps: Tensor, masks: Tensor, query: Tensor) -> Tensor:
    return decoder(query, decoder.describe(maps, masks), (32, 32))


def test_the_three_quantisers_are_joined_in_order() -> None:
    maps, masks, _ = case()
    state = VQ(lm="none").eval().describe(maps, masks)
    grid = VQ(sovq=False, rovq="none").eval().describe(maps, masks)
    fore, back = of_one(state.foreground), of_one(state.background)
    few, many = of_one(grid.foreground), of_one(grid.background)
    assert torch.equal(fore[: len(few)], few)
    assert torch.equal(back[: len(many)], many)
    assert len(few) == 4 + 1
    n_neurons = len(fore) + len(back) - len(few) - len(many) - 4
    assert 40 < n_neurons <= 49
    only_lvq = VQ(sovq=False).eval().describe(maps, masks)
    assert len(of_one(only_lvq.foreground)) == len(few) + 2
    assert len(of_one(only_lvq.background)) == len(many) + 2


def test_a_small_way_keeps_its_mean_alone() -> None:
    maps, masks, _ = case(shot=3, side=2)
    state = VQ().eval().describe(maps, masks)
    wanted = (maps * masks.unsqueeze(3)).sum((-2, -1)) / (masks.sum((-2, -1)) + 1e-5).unsqueeze(-1)
    close(of_one(state.foreground), wanted.mean(2)[0])
    grid = VQ(sovq=False, rovq="none").eval().describe(maps, masks)
    assert torch.equal(of_one(state.background), of_one(grid.background))


def test_one_way_may_be_small_and_another_not() -> None:
    maps, masks, _ = case(way=2)
    masks[:, 1] = block_masks(side=2)[:, 0]
    state = VQ().eval().describe(maps, masks)
    assert len(of_one(state.foreground, 0)) > 7
    assert len(of_one(state.foreground, 1)) == 1


def test_shapes_do_not_depend_on_the_masks() -> None:
    maps, masks, _ = case()
    sizes = {
        tuple(sets.vectors.shape for sets in VQ().describe(maps, mask))
        for mask in (masks, masks * 0, masks * 0 + 1, block_masks(side=2))
    }
    assert len(sizes) == 1


def test_the_background_comes_from_all_supports() -> None:
    maps, masks, _ = case(way=2)
    both = VQ().eval().describe(maps, masks)
    alone = [VQ().eval().describe(maps[:, [w]], masks[:, [w]]) for w in range(2)]
    close(of_one(both.background), torch.cat([of_one(state.background) for state in alone]))
    for way, state in enumerate(alone):
        close(of_one(both.foreground, way), of_one(state.foreground))


def test_swapping_ways_swaps_labels() -> None:
    maps, masks, query = case(way=2, shot=2)
    decoder = VQ().eval()
    got = answer(decoder, maps.flip(1), masks.flip(1), query)
    close(got, answer(decoder, maps, masks, query)[:, :, [0, 2, 1]])


def test_episodes_of_a_batch_do_not_meet() -> None:
    maps, masks, query = case(batch=2)
    decoder = VQ().eval()
    together = answer(decoder, maps, masks, query)
    close(answer(decoder, maps[1:], masks[1:], query[1:]), together[1:])


def test_eval_is_deterministic_and_draws_nothing() -> None:
    maps, masks, query = case()
    decoder = VQ().eval()
    first = answer(decoder, maps, masks, query)
    before = torch.get_rng_state()
    answer(decoder, parted_maps(masks, seed=9), masks, query)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(answer(decoder, maps, masks, query), first)
    assert not torch.equal(answer(VQ(seed=1).eval(), maps, masks, query), first)


def test_training_draws_from_torchs_generator() -> None:
    maps, masks, query = case()
    decoder = VQ().train()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, other = (answer(decoder, maps, masks, query) for _ in range(2))
        torch.manual_seed(3)
        again = answer(decoder, maps, masks, query)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_gradient_reaches_the_support_through_the_neurons() -> None:
    maps, masks, _ = case()
    for detach, expected in ((False, True), (True, False)):
        leaf = maps.clone().requires_grad_()
        decoder = VQ(lm="none", rovq="none", detach=detach).eval()
        grid = VQ(sovq=False, rovq="none").eval().describe(leaf, masks)
        fore = of_one(decoder.describe(leaf, masks).foreground)[len(of_one(grid.foreground)) :]
        (gradient,) = torch.autograd.grad(fore.sum() + 0 * leaf.sum(), leaf)
        assert bool(gradient.abs().sum() > 0) == expected


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("rovq", ["glvq", "lvq_residual", "none"])
def test_odd_masks_give_finite_answers_and_gradients(value: float, rovq: str) -> None:
    maps, masks, query = case()
    leaf = maps.requires_grad_()
    logits = answer(VQ(rovq=rovq), leaf, torch.full_like(masks, value), query)
    assert torch.isfinite(logits).all()
    (gradient,) = torch.autograd.grad(logits.square().mean(), leaf)
    assert torch.isfinite(gradient).all()


def test_constant_maps_give_finite_gradients() -> None:
    """Every pixel, neuron and cell is the same vector: distances of 0 everywhere."""
    _, masks, query = case()
    leaf = torch.ones(1, 1, 1, 6, 16, 16, requires_grad=True)
    logits = answer(VQ(), leaf, masks, query)
    (gradient,) = torch.autograd.grad(logits.square().mean(), leaf)
    assert torch.isfinite(logits).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("rovq", ["glvq", "lvq_residual"])
def test_no_number_is_read_on_the_host(rovq: str) -> None:
    """Tensors without values refuse `.item()`, `bool()` and shapes that depend on values."""
    tensors = case(batch=2, way=2, shot=2)
    with FakeTensorMode() as mode:
        maps, masks, query = (mode.from_tensor(tensor) for tensor in tensors)
        for training in (True, False):
            decoder = VQ(rovq=rovq, sweeps=2, lvq_iterations=2).train(training)
            logits = answer(decoder, maps, masks, query)
            assert logits.shape == (2, 2, 3, 32, 32)


def test_autocast_stays_in_full_precision() -> None:
    maps, masks, query = (t.bfloat16().float() for t in case())
    decoder = VQ().eval()
    wanted = answer(decoder, maps, masks, query)
    with torch.autocast("cpu", torch.bfloat16):
        got = answer(decoder, maps.bfloat16(), masks, query.bfloat16())
    assert torch.equal(got, wanted)


OPTIONS = [
    {"scale": 10.0},
    {"fg_threshold": 0.95},
    {"bg_threshold": 0.0},
    {"window": 2},
    {"eval_window": 4},
    {"align_corners": False},
    {"sovq": False},
    {"som": "online", "som_steps": 60},
    {"som_size": (2, 3)},
    {"neighbourhood": "gaussian"},
    {"neighbourhood": "gaussian", "sigma": 3.0},
    {"sweeps": 1},
    {"lm": "none"},
    {"lm": "gaussian"},
    {"lm": "subtra"},
    {"neighbours": 1},
    {"rovq": "none"},
    {"rovq": "lvq_residual"},
    {"rovq_solver": "lbfgs"},
    {"lvq_vectors": 3},
    {"lvq_iterations": 1},
    {"beta": 8.0},
    {"normalize_before_vq": True},
    {"bgmode": "origin"},
    {"seed": 5},
    {"som": "online", "som_steps": 60, "detach": True},
]


def test_each_option_changes_the_answer() -> None:
    masks = block_masks(size=64, side=30)
    maps = parted_maps(block_masks(side=9), gap=1.0)
    query = parted_maps(block_masks(side=9), gap=1.0, seed=1)[:, 0]
    answers = {"default": answer(VQ().eval(), maps, masks, query)}
    for options in OPTIONS:
        got = answer(VQ(**options).eval(), maps, masks, query)
        for name, other in answers.items():
            assert not torch.allclose(got, other, atol=1e-4), f"{options} is {name}"
        answers[str(options)] = got


def test_empty_neurons_can_be_kept() -> None:
    """With more neurons than pixels some start equal, and only the first of them gets pixels."""
    maps, masks, _ = case(size=8, side=4)
    kept, dropped = (
        VQ(keep_empty=keep, som_size=(9, 9)).eval().describe(maps, masks) for keep in (True, False)
    )
    assert len(of_one(kept.background)) == len(of_one(dropped.background)) + 81 - 64


WRONG = [
    ({"rovq": "lvq"}, "rovq='lvq'"),
    ({"bgmode": "original"}, "bgmode='original' .*did you mean 'origin'"),
    ({"scale": 0.0}, "scale=0.0"),
    ({"fg_threshold": 1.0}, "fg_threshold=1.0"),
    ({"bg_threshold": -0.1}, "bg_threshold=-0.1"),
    ({"window": 0}, "window=0"),
    ({"eval_window": 0}, "eval_window=0"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        VQ(**options)
