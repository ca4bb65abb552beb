"""SE-Net's parts for other methods: the gate as an enrichment, the guided decoder."""

from typing import Any

import numpy as np
import pytest
import torch
from apscl_cases import TinyEncoder, close, episode, features_of, step_of
from torch import Tensor

from fewshot_seg import build
from fewshot_seg.episode import Features
from fewshot_seg.errors import OptionError
from fewshot_seg.interfaces import Latent
from fewshot_seg.testing import (
    check_contrastive,
    check_decoder,
    check_enrichment,
    check_method,
    make_episode,
    overfit,
)
from fewshot_seg_panet.align import Align
from fewshot_seg_panet.cosine import Cosine
from fewshot_seg_senet.decoder import GuidedDecoder
from fewshot_seg_senet.excitation import SpatialExcitation


def excitation(**options: Any) -> SpatialExcitation:
    torch.manual_seed(0)
    return SpatialExcitation(dim=5, **options)


def features(**shape: int) -> Features:
    return features_of(episode(size=8, **shape), grid=4, dim=5)


def slow_gate(part: SpatialExcitation, given: Features, b: int, w: int, s: int) -> np.ndarray:
    weight, bias = part.squeeze.weight.detach()[0, :, 0, 0].numpy(), part.squeeze.bias.item()  # type: ignore[union-attr]
    gate = np.zeros((4, 4))
    for r, c in np.ndindex(4, 4):
        seen = [*given.support[b, w, s, :, r, c], given.support_masks[b, w, s, r, c]]
        gate[r, c] = 1 / (1 + np.exp(-(np.dot(weight, np.array(seen)) + bias)))
    return gate


@pytest.mark.parametrize("join", ["residual", "product"])
def test_excitation_against_a_loop(join: str) -> None:
    given = features(batch=2, way=2, shot=3, query=2)
    part = excitation(join=join)
    if part.mix is not None:
        torch.nn.init.normal_(part.mix.weight)
        torch.nn.init.normal_(part.mix.bias)  # type: ignore[arg-type]
    got = part(given, Latent())
    for b in range(2):
        gates = np.stack([[slow_gate(part, given, b, w, s) for s in range(3)] for w in range(2)])
        pairs = [(given.query[b], got.query[b], np.broadcast_to(gates.mean((0, 1)), (2, 4, 4)))]
        pairs += [(given.support[b, w], got.support[b, w], gates[w]) for w in range(2)]
        for number, (before, after, gate) in enumerate(pairs):
            gated = before * torch.from_numpy(gate.copy()).float().unsqueeze(1)
            if part.mix is None:
                close(after, gated if number == 0 else before)
                continue
            mixed = torch.einsum("ed,ndrc->nerc", part.mix.weight[:, :, 0, 0], gated)
            close(after, before + mixed + part.mix.bias.view(1, -1, 1, 1))  # type: ignore[union-attr]


def test_the_start_of_the_residual_is_the_identity() -> None:
    given = features(way=2, shot=2)
    close(excitation()(given, Latent()).maps(), given.maps())


def test_a_cosine_does_not_see_the_product() -> None:
    """Why `join` has another default: a gate changes lengths, not directions."""
    task = episode(size=8)
    given = features_of(task, grid=4, dim=5)
    gated = excitation(join="product")(given, Latent())
    assert (gated.query - given.query).abs().max() > 0.1
    decoder = Cosine()
    state = decoder.describe(given.support, task.support.masks)
    close(decoder(gated.query, state, (8, 8)), decoder(given.query, state, (8, 8)), atol=1e-4)


@pytest.mark.parametrize("join", ["residual", "product"])
def test_the_order_of_ways_and_shots_does_not_matter(join: str) -> None:
    given = features(way=2, shot=3)
    part = excitation(join=join)
    moved = Features(
        given.support[:, [1, 0]][:, :, [2, 0, 1]],
        given.support_masks[:, [1, 0]][:, :, [2, 0, 1]],
        given.query,
    )
    close(part(moved, Latent()).query, part(given, Latent()).query)


@pytest.mark.parametrize("join", ["residual", "product"])
def test_the_contract_of_the_enrichment(join: str) -> None:
    check_enrichment(SpatialExcitation(dim=8, join=join), dim=8, latent=4)


def decoder(**options: Any) -> GuidedDecoder:
    torch.manual_seed(0)
    return GuidedDecoder(**{"dim": 5, "width": 6, "guide_width": 4, **options})


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
@pytest.mark.parametrize("stride", [1, 4, 8, 14])
def test_the_contract_of_the_decoder(stride: int, upsampling: str) -> None:
    part = decoder(dim=8, stride=stride, upsampling=upsampling)
    check_decoder(part, dim=8)
    assert len(part.stages) == {1: 1, 4: 3, 8: 4, 14: 4}[stride]


def test_alignment_takes_the_decoder() -> None:
    check_contrastive(Align(), decoder(dim=8, stride=4), dim=8)


def test_mixed_precision_with_alignment() -> None:
    borrowed = {"name": "senet", "width": 6, "guide_width": 4}
    model = build("panet", encoder=TinyEncoder(), decoder=borrowed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(make_episode(channels=1))
    assert set(output.losses) == {"ce", "align"}
    output.loss.backward()


def test_the_levels_follow_the_encoder() -> None:
    encoder = TinyEncoder()
    encoder.stride = 2
    model = build("panet", encoder=encoder, decoder="senet", image_size=32)
    assert len(model.get_submodule("decoder.stages")) == 2


def test_gates_lie_at_every_level() -> None:
    given = features(way=2, shot=3)
    gates = decoder(stride=4).describe(given.support, given.support_masks).gates
    assert [tuple(gate.shape) for gate in gates] == [(1, 2, 3, side, side) for side in (4, 8, 16)]
    assert all(((gate > 0) & (gate < 1)).all() for gate in gates)


def alone(part: GuidedDecoder, given: Features, w: int, s: int) -> Tensor:
    """Way `w` by its shot `s`, as a task of one way and one shot."""
    state = part.describe(
        given.support[:, w : w + 1, s : s + 1], given.support_masks[:, w : w + 1, s : s + 1]
    )
    return part(given.query, state, (16, 16))[:, :, 1]


@torch.no_grad()
def test_ways_and_shots_are_binary_tasks_whose_logits_are_averaged() -> None:
    given = features(batch=2, way=2, shot=3, query=2)
    part = decoder(stride=4).eval()
    logits = part(given.query, part.describe(given.support, given.support_masks), (16, 16))
    assert (logits[:, :, 0] == 0).all()
    for w in range(2):
        expected = torch.stack([alone(part, given, w, s) for s in range(3)]).mean(0)
        close(logits[:, :, w + 1], expected)


@torch.no_grad()
def test_each_stage_is_gated_where_it_stands() -> None:
    """One level, so that the answer can be written down: classifier(block(F) * g)."""
    given = features()
    part = decoder(stride=1).eval()
    state = part.describe(given.support, given.support_masks)
    seen = torch.cat([given.support[:, 0, 0], given.support_masks[:, 0]], 1)
    gate = torch.sigmoid(part.squeeze[0](part.guides[0](seen)))
    close(state.gates[0][:, 0], gate)
    expected = part.classifier(part.stages[0](given.query[:, 0]) * gate)
    close(part(given.query, state, (4, 4))[:, 0, 1:], expected)


def test_masks_count_at_any_resolution() -> None:
    task = episode(size=16)
    given = features_of(task, grid=4, dim=5)
    part = decoder(stride=4).eval()
    fine, coarse = (
        part.describe(given.support, masks).gates
        for masks in (task.support.masks, given.support_masks)
    )
    for a, b in zip(fine, coarse, strict=True):
        close(a, b)
    empty = part.describe(given.support, torch.zeros_like(given.support_masks)).gates
    assert (empty[0] - coarse[0]).abs().max() > 1e-3


def test_a_size_between_the_levels() -> None:
    given = features()
    part = decoder(stride=4)
    state = part.describe(given.support, given.support_masks)
    assert part(given.query, state, (15, 19)).shape == (1, 1, 2, 15, 19)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"upsampling": "linear"}, "did you mean 'bilinear'"),
        ({"width": 0}, "width=0"),
        ({"guide_width": 0}, "guide_width=0"),
        ({"stride": 0}, "stride=0"),
    ],
)
def test_wrong_options(options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        decoder(**options)


def test_wrong_inputs() -> None:
    with pytest.raises(OptionError, match="join='sum' is not one of residual, product"):
        excitation(join="sum")
    part = decoder(stride=4)
    given = features()
    state = part.describe(given.support, given.support_masks)
    with pytest.raises(ValueError, match="4x5 cells but the gates were made for 4x4"):
        part(torch.zeros(1, 1, 5, 4, 5), state, (16, 20))
    both = episode(query=2, size=16)
    step = step_of(both, features_of(both, dim=5), decoder(stride=4))
    with pytest.raises(ValueError, match="takes one query an episode"):
        Align()(step)


@pytest.mark.parametrize(
    "changes",
    [
        {"decoder": {"name": "senet", "width": 6, "guide_width": 4}},
        {"enrichment": "sse"},
        {"enrichment": {"name": "sse", "join": "product"}, "contrastive": None},
    ],
    ids=["decoder", "sse", "product"],
)
def test_other_methods_borrow_them(changes: dict[str, Any]) -> None:
    check_method(build("panet", encoder=TinyEncoder(in_channels=3), **changes))


def test_the_decoder_learns_one_episode_by_heart() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        borrowed = {"name": "senet", "width": 8, "guide_width": 4}
        model = build("panet", encoder=TinyEncoder(), decoder=borrowed, contrastive=None)
        task = make_episode(batch=2, size=(32, 32), channels=1)
        assert overfit(model, task, lr=1e-2, target=0.95) > 0.9
