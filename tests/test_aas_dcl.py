"""The whole AAS-DCL network: official arrays, the contract, laws, and whether it learns."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from aas_dcl_cases import Golden, arrays, close, official_network, small

from fewshot_seg.building import recipe_of
from fewshot_seg.episode import Episode, Support
from fewshot_seg.errors import EpisodeError, OptionError
from fewshot_seg.functional import segmentation_loss
from fewshot_seg.testing import check_method, make_episode, overfit
from fewshot_seg.training.config import TrainConfig
from fewshot_seg_aas_dcl import AASDCL
from fewshot_seg_aas_dcl.blocks import Gate
from fewshot_seg_aas_dcl.segmentation import soft_dice_loss

NEEDS = ("auxiliary",)


def official_episode(data: dict[str, torch.Tensor]) -> Episode:
    support = Support(data["support_image"][:, None, None], data["support_masks"][:, None, None])
    labels = torch.zeros(1, 1, *data["support_masks"].shape[-2:], dtype=torch.long)
    extras = {
        "auxiliary_images": data["aux_images"][None],
        "auxiliary_masks": data["aux_masks"][None].long(),
        "auxiliary_ids": data["aux_ids"][None],
    }
    return Episode(support, data["query_image"][None], labels, extras=extras)


def test_official_gate(golden: Golden) -> None:
    data = arrays(golden("aas_dcl"), "gate")
    gate = Gate(data["support_features"].shape[1])
    gate.load_state_dict({k.removeprefix("weights."): v for k, v in data.items() if "weights" in k})
    close(gate(data["support_features"]) * data["query_features"], data["output"])


def test_official_network(golden: Golden) -> None:
    data = arrays(golden("aas_dcl"), "network")
    model, episode = official_network(data), official_episode(data)
    with torch.no_grad():
        logits = model(episode).logits
        close(logits.softmax(2)[0], data["probabilities"], atol=1e-4)
        state = model.encode_support(episode.support)
        answer = model._answer(state, episode.query_images)
        close(model.fused(state, answer.query), data["query_fused"], atol=1e-4)
        losses, _ = model._losses(episode, state, answer, logits)
    close(losses["cip"], data["score_last"])
    close(losses["dual"], data["loss_contrastive"])


def test_training_step_is_the_official_one_with_settled_batch_norm(golden: Golden) -> None:
    """`forward` in training mode hands out the same losses as the parts."""
    data = arrays(golden("aas_dcl"), "network")
    model, episode = official_network(data), official_episode(data)
    model.train()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval()
    output = model(episode)
    close(output.losses["cip"], data["score_last"])
    close(output.losses["dual"], data["loss_contrastive"])
    assert output.weights == {"ce": 0.8, "dice": pytest.approx(0.2), "cip": 1.0, "dual": 1.0}


@pytest.mark.parametrize(
    "options",
    [{}, {"compat": "official"}, {"prototype": "concat", "cells": [2, 3], "iterations": 0}],
    ids=str,
)
def test_contract(options: dict[str, Any]) -> None:
    check_method(small(**options))


def settled_on(model: AASDCL, episode: Episode) -> AASDCL:
    """Batch norm with statistics of the episode, so that answers in eval mode are not all alike."""
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        model.train()(episode)
    return model.eval()


def test_ways_and_shots_are_runs_of_their_own() -> None:
    episode = make_episode(n_way=2, n_shot=2, n_query=2, needs=NEEDS)
    model = settled_on(small(width=3), episode)
    with torch.no_grad():
        got = model(episode).logits
        support = episode.support
        for way in range(2):
            shots = [
                model(
                    Episode(
                        Support(
                            support.images[:, [way], s : s + 1], support.masks[:, [way], s : s + 1]
                        ),
                        episode.query_images,
                    )
                ).logits.softmax(2)
                for s in range(2)
            ]
            mean = torch.stack(shots).mean(0)
            close(got[:, :, way + 1], (mean[:, :, 1] / mean[:, :, 0]).log(), atol=1e-4)
    assert got.std() > 0.01


def test_the_order_of_auxiliary_images_does_not_matter() -> None:
    episode = make_episode(batch=1, needs=NEEDS)
    model = small(width=4).train()
    other = replace(episode, extras={k: v.flip(1) for k, v in episode.extras.items()})
    close(model(other).losses["dual"], model(episode).losses["dual"], atol=1e-4)


def test_segmentation_losses_are_of_the_answer() -> None:
    episode = make_episode(n_way=2, needs=NEEDS)
    output = small(supervise="selected").train()(episode)
    assert episode.query_labels is not None
    close(output.losses["ce"], segmentation_loss(output.logits, episode.query_labels))
    close(output.losses["dice"], soft_dice_loss(output.logits, episode.query_labels))
    assert set(output.diagnostics) == {"dual_overall", "dual_local", "dual_context"}
    sums = [0.4, 0.6, 0.3]
    total = sum(f * v for f, v in zip(sums, output.diagnostics.values(), strict=True))
    close(output.losses["dual"], total)


def test_a_way_without_support_gets_no_pixel() -> None:
    episode = make_episode(batch=1, n_way=2, needs=NEEDS)
    model = settled_on(small(), episode)
    masks = episode.support.masks.clone()
    masks[:, 1] = 0
    task = Episode(Support(episode.support.images, masks), episode.query_images)
    output = model(task)
    assert output.empty_support is not None
    assert output.empty_support.tolist() == [[False, True]]
    again = model.segment(model.encode_support(task.support), task.query_images)
    for logits in (output.logits, again):
        assert logits[:, :, 2].eq(-1e4).all()
        assert logits[:, :, 1].gt(-1e3).all()


def test_grey_images_are_repeated() -> None:
    grey = make_episode(batch=1, channels=1)
    wide = Episode(
        Support(grey.support.images.expand(-1, -1, -1, 3, -1, -1), grey.support.masks),
        grey.query_images.expand(-1, -1, 3, -1, -1),
    )
    model = small().eval()
    close(model(grey).logits, model(wide).logits)


def test_auxiliary_images_are_for_training_only() -> None:
    bare, model = make_episode(batch=1), small()
    with pytest.raises(EpisodeError, match=r"aas_dcl needs extras\['auxiliary_images'\].*WithAux"):
        model.train()(bare)
    assert not model(bare.without_labels()).losses
    assert not model.eval()(bare).losses


@pytest.mark.parametrize(
    ("episode", "message"),
    [
        (make_episode(batch=1, size=(64, 72)), "multiples of 16; got 64x72"),
        (make_episode(batch=1, channels=2), "2 channels but aas_dcl was built for 3"),
    ],
)
def test_images_it_cannot_take(episode: Episode, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().eval()(episode)


def test_a_query_of_another_size_is_refused() -> None:
    model = small().eval()
    state = model.encode_support(make_episode(batch=1).support)
    with pytest.raises(ValueError, match=r"\(64, 64\); got \(64, 80\)"):
        model.segment(state, torch.zeros(1, 1, 3, 64, 80))


WRONG = [
    ({"compat": "oficial"}, "compat='oficial' .*did you mean 'official'"),
    ({"compat": ["last_only", "first_only"]}, "compat='first_only'"),
    ({"prototype": "mean"}, "prototype='mean'"),
    ({"iterations": -2}, "iterations=-2"),
    ({"width": 0}, "width=0"),
    ({"in_channels": 0}, "in_channels=0"),
    ({"lambda_s": -0.1}, "lambda_s=-0.1"),
    ({"lambda_d": -0.1}, "lambda_d=-0.1"),
    ({"cells": 0}, "cells=0"),
    ({"temperature": -1.0}, "temperature=-1.0"),
    ({"factors": [1.0]}, "three numbers"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        small(**options)


def test_quirks_can_be_asked_for_one_by_one() -> None:
    quirks = small(compat=["last_only", "per_column"]).quirks
    assert quirks.last_only
    assert quirks.minmax == "per_column"
    assert not quirks.scrambled_negatives


def test_size_and_start_of_the_papers_network() -> None:
    with torch.device("meta"):
        model = AASDCL()
    assert model.network.dim == 512
    assert 30e6 < sum(p.numel() for p in model.parameters()) < 40e6
    torch.manual_seed(0)
    conv = AASDCL(width=8).network.decoder[3][0]
    wanted = (2 / conv.weight[0].numel()) ** 0.5
    assert conv.weight.std().item() == pytest.approx(wanted, rel=0.05)
    assert conv.bias.eq(0).all()


def test_training_defaults() -> None:
    recipe = recipe_of("aas_dcl")
    config = TrainConfig.from_dict(recipe.training)
    assert (config.optimizer, config.lr, config.schedule) == ("adam", 1e-4, "cosine")
    assert config.weight_decay == 0
    assert dict(recipe.episodes) == {"source": "supervised", "auxiliary": 3}


@pytest.mark.parametrize("iterations", [0, 2])
def test_autocast_runs_and_stays_close(iterations: int) -> None:
    """Which iterate is kept may change with the precision: only the plain network is compared."""
    episode = make_episode(batch=1, needs=NEEDS)
    model = settled_on(small(width=3, iterations=iterations), episode).train()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval()
    exact = model(episode).losses
    with torch.autocast("cpu", torch.bfloat16):
        half = model(episode).losses
    assert half.keys() == exact.keys()
    for name, value in half.items():
        assert torch.isfinite(value)
        if iterations == 0:
            close(value.float(), exact[name], atol=0.05)


def test_overfits_one_episode() -> None:
    episode = make_episode(batch=1, needs=NEEDS)
    model = small(width=4, iterations=1)
    assert overfit(model, episode, lr=1e-2, steps=40, every=40, optimizer=torch.optim.Adam) > 0.9
