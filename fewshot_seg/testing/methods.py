"""The contract of a whole method."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fewshot_seg.episode import Episode, Output, Support
from fewshot_seg.interfaces import EncodesQueries, Method
from fewshot_seg.needs import needs_of
from fewshot_seg.testing.asserts import check_losses, check_refusal, check_same, check_state
from fewshot_seg.testing.episodes import make_episode


def check_method(
    method: nn.Module, *, size: tuple[int, int] = (64, 64), channels: int = 3, grey: bool = True
) -> None:
    """A whole method: shapes, finiteness, gradients, repeatability, and the two laws of the test
    path (`forward` equals `segment(encode_support(...))`; query labels are never read).

    size, channels: of images that the method must take. Other sizes, several ways, shots and
        queries must work too, or raise a ValueError that says what the limit is.
    The method is left in eval mode with its weights unchanged.
    """
    assert isinstance(method, Method), (
        f"{type(method).__name__} lacks forward, encode_support or segment"
    )
    check_state(method)
    episode = make_episode(size=size, channels=channels, needs=needs_of(method))
    _check_training(method, episode)
    _check_test_path(method, episode)
    _check_repeatable(method, episode)
    _check_masks(method, episode)
    _check_shapes(method, size, channels)
    method.eval()


def _check_training(method: nn.Module, episode: Episode) -> None:
    twin = copy.deepcopy(method).train()
    output = twin(episode)
    _check_output(output, episode)
    assert output.losses, "in training mode, with labels, there must be losses"
    check_losses(output.losses)
    trained = [(name, p) for name, p in twin.named_parameters() if p.requires_grad]
    if trained:
        output.loss.backward()
    for name, parameter in trained:
        assert parameter.grad is not None, f"no gradient reaches the parameter '{name}'"
        assert torch.isfinite(parameter.grad).all(), f"the gradient of '{name}' is not finite"
    assert not twin(episode.without_labels()).losses, "without labels there can be no losses"


def _check_output(output: Output, episode: Episode) -> None:
    batch, queries = episode.query_images.shape[:2]
    expected = (batch, queries, 1 + episode.support.n_way, *episode.size)
    got = tuple(output.logits.shape)
    assert got == expected, f"logits have shape {got}; they should have {expected}"
    assert torch.isfinite(output.logits).all(), "logits are not finite"


@torch.no_grad()
def _check_test_path(method: nn.Module, episode: Episode) -> None:
    method.eval()
    output = method(episode)
    _check_output(output, episode)
    assert not output.losses, "in eval mode there must be no losses"
    segment: Callable[..., Tensor] = method.segment  # type: ignore[assignment]
    encode: Callable[[Support], Any] = method.encode_support  # type: ignore[assignment]
    state = encode(episode.support)
    check_same(segment(state, episode.query_images), output.logits, "segment(encode_support(...))")
    check_same(segment(state, episode.query_images), output.logits, "segment called a second time")
    if isinstance(method, EncodesQueries):
        apart = method.segment_encoded(
            state, method.encode_query(episode.query_images), episode.size
        )
        check_same(apart, output.logits, "segment_encoded(..., encode_query(...))")
    blind = method(episode.without_labels()).logits
    check_same(blind, output.logits, "forward without query labels")
    assert episode.query_labels is not None
    wrong = Episode(
        episode.support,
        episode.query_images,
        torch.flip(episode.query_labels, (-1,)),
        episode.classes,
        episode.extras,
    )
    check_same(method(wrong).logits, output.logits, "forward with other query labels")


def _check_repeatable(method: nn.Module, episode: Episode) -> None:
    twin = copy.deepcopy(method).train()
    torch_state = torch.get_rng_state()
    results = []
    for _ in range(2):
        again = copy.deepcopy(twin)
        torch.manual_seed(7)
        results.append(again(episode).logits.detach())
    check_same(results[0], results[1], "the same call with the same seed")
    torch.set_rng_state(torch_state)
    method.eval()
    with torch.no_grad():
        first = method(episode).logits
        size, channels = episode.size, episode.query_images.shape[2]
        method(make_episode(size=size, channels=channels, seed=1, needs=needs_of(method)))
        check_same(method(episode).logits, first, "forward after another episode in eval mode")


@torch.no_grad()
def _check_masks(method: nn.Module, episode: Episode) -> None:
    method.eval()
    support = episode.support
    for name, value in (("an empty", 0.0), ("a full", 1.0)):
        masks = torch.full_like(support.masks, value)
        bare = Support(support.images, masks, unlabelled=support.unlabelled)
        task = Episode(bare, episode.query_images, extras=episode.extras)
        output = method(task)
        assert torch.isfinite(output.logits).all(), (
            f"{name} support mask gives logits that are not finite"
        )
        if value == 0:
            assert (output.logits.argmax(2) == 0).all(), (
                "an empty support mask must give background"
            )


def _check_shapes(method: nn.Module, size: tuple[int, int], channels: int) -> None:
    other = (size[0], size[1] + size[1] // 2)
    cases: list[dict[str, Any]] = [
        {"n_shot": 3},
        {"n_query": 2},
        {"n_way": 2},
        {"n_way": 3, "n_shot": 2, "n_query": 2},
        {"size": other},
    ]
    for case in cases:
        wanted = needs_of(method)
        episode = make_episode(channels=channels, needs=wanted, **{"size": size, **case})
        for training in (True, False):
            twin = copy.deepcopy(method).train(training)
            try:
                with torch.set_grad_enabled(training):
                    output = twin(episode)
            except ValueError as error:
                check_refusal(error, case)
                continue
            _check_output(output, episode)
            check_losses(output.losses)
