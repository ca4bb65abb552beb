"""SENet: against the official code's arrays (once that runs), slow loops, and by its laws."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from apscl_cases import close, labels_of
from torch import Tensor, nn

from fewshot_seg import build
from fewshot_seg.building import recipe_of
from fewshot_seg.episode import IGNORE, Episode, Support
from fewshot_seg.errors import OptionError
from fewshot_seg.testing import check_method, make_episode, overfit
from fewshot_seg.training.config import TrainConfig
from fewshot_seg_senet import SENet
from fewshot_seg_senet.arms import Conditioner
from fewshot_seg_senet.dice import dice_loss
from fewshot_seg_senet.hourglass import SITES, Hourglass

Golden = Callable[[str], Path]
CASES = ["network_small_64x64", "network_small_batch1_96x64"]


def our_name(official: str) -> str:
    """The parameter's name in `SENet` for one of the official code."""

    def site(match: re.Match) -> str:
        short = match[1]
        arm = {"e": "encode", "d": "decode"}.get(short[0], "")
        return f"squeeze.{'bottleneck' if short == 'bn' else arm + short[1]}."

    name = official.replace("segmentor", "segmenter").replace("classifier.conv", "classifier")
    name = re.sub(r"squeeze_conv_(\w\w)\.", site, name)
    return re.sub(r"\.(\w+)\.(conv|prelu|batchnorm)\.", r".body.stages.\1.\2.", name)


def named(data: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {our_name(k[len(prefix) :]): v for k, v in data.items() if k.startswith(prefix)}


def official(golden: Golden, case: str) -> tuple[dict[str, Tensor], SENet, Episode]:
    with np.load(golden("senet") / f"{case}.npz") as file:
        data = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
    weights = named(data, "weights.")
    model = SENet(
        conditioner_width=len(weights["conditioner.body.stages.encode1.conv.bias"]),
        segmenter_width=len(weights["segmenter.body.stages.encode1.conv.bias"]),
    )
    model.load_state_dict(weights)
    pair = data["support_input"][:, None, None]  # batch way shot channel
    support = Support(pair[:, :, :, :1], pair[:, :, :, 1])
    labels = data["query_labels"][:, None].long()
    return data, model, Episode(support, data["query_input"][:, None], labels)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("case", CASES)
def test_official_network(golden: Golden, case: str, mode: str) -> None:
    """Tolerances of the arrays' readme."""
    data, model, task = official(golden, case)
    model.train(mode == "train")
    seen: list[Tensor] = []
    bottleneck = model.get_submodule("segmenter.body.stages.bottleneck")
    bottleneck.register_forward_hook(lambda _module, _given, maps: seen.append(maps))
    output = model(task)
    wanted = data[f"logits_{mode}"]
    close(output.logits[:, 0, 1], wanted[:, 1] - wanted[:, 0], atol=2e-4)
    close(output.logits[:, 0].softmax(1), data[f"probabilities_{mode}"], atol=5e-5)
    close(seen[0], data[f"stage_before_gate_{mode}.bottleneck"], atol=1e-4)
    assert task.query_labels is not None
    odds = output.logits[:, :, 1:]
    close(dice_loss(odds, task.query_labels[:, None]), data[f"loss_dice_{mode}"], atol=1e-6)
    gates = model.encode_support(task.support).gates
    for site in SITES:
        close(getattr(gates, site)[:, 0, 0], data[f"gate_{mode}.{site}"])


@pytest.mark.parametrize("case", CASES)
def test_official_training_step(golden: Golden, case: str) -> None:
    data, model, task = official(golden, case)
    output = model.train()(task)
    close(output.losses["dice"], data["loss_dice_train"], atol=1e-6)
    state = model.state_dict()
    for name, value in named(data, "after_one_train_step_forward.").items():
        close(state[name], value)
    output.loss.backward()
    wanted = named(data, "gradient.")
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        close(parameter.grad, wanted[name], atol=1e-2 * wanted[name].abs().max().item() + 1e-6)


def test_the_papers_widths_have_the_papers_size() -> None:
    model = SENet()
    sizes = [
        sum(p.numel() for p in arm.parameters()) for arm in (model.conditioner, model.segmenter)
    ]
    assert sizes == [52_594, 822_667]


# --- independent loops ---------------------------------------------------------------------------


def small(**options: int | str) -> SENet:
    torch.manual_seed(0)
    return SENet(conditioner_width=3, segmenter_width=4, **options)  # type: ignore[arg-type]


def walk(body: Hourglass, maps: Tensor) -> Iterator[Tensor]:
    """Section 3 written out, one stage at a time; the caller may change what it is sent back."""
    kept = []
    for number in (1, 2, 3, 4):
        maps = body.stages[f"encode{number}"](maps)
        pooled = nn.functional.max_pool2d(maps, 2)
        spread = pooled.repeat_interleave(2, -1).repeat_interleave(2, -2)
        kept.append(maps == spread)  # where the largest of each 2x2 stood; noise has no ties
        maps = yield pooled
    maps = yield body.stages["bottleneck"](maps)
    for number in (4, 3, 2, 1):
        spread = maps.repeat_interleave(2, -1).repeat_interleave(2, -2)
        maps = yield body.stages[f"decode{number}"](spread * kept[number - 1])


def slow_logits(model: SENet, image: Tensor, mask: Tensor, query: Tensor) -> Tensor:
    """One pair of images "1 height width" -> log-odds "height width"."""
    arm = model.conditioner
    support = walk(arm.body, torch.cat([image, mask])[None])
    guided = walk(model.segmenter.body, query[None])
    maps, wanted = next(support), next(guided)
    for number, site in enumerate(SITES):
        seen = maps if arm.spatial else maps.mean((2, 3), keepdim=True)
        wanted = wanted * torch.sigmoid(arm.squeeze[site](seen))
        if number < len(SITES) - 1:
            maps, wanted = support.send(maps), guided.send(wanted)  # type: ignore[attr-defined]
    two = model.segmenter.classifier(wanted)[0]
    return two[1] - two[0]


@torch.no_grad()
@pytest.mark.parametrize("excitation", ["spatial", "channel"])
def test_ways_and_shots_are_binary_runs_whose_logits_are_averaged(excitation: str) -> None:
    task = make_episode(n_way=2, n_shot=3, n_query=2, size=(16, 32), channels=1)
    model = small(excitation=excitation).eval()
    got = model(task).logits
    images, masks = task.support.images, task.support.masks
    for b, q in np.ndindex(2, 2):
        close(got[b, q, 0], torch.zeros(16, 32))
        for w in range(2):
            shots = [
                slow_logits(model, images[b, w, s], masks[b, w, s, None], task.query_images[b, q])
                for s in range(3)
            ]
            close(got[b, q, w + 1], torch.stack(shots).mean(0))


def test_dice_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    odds = torch.randn(2, 3, 2, 5, 7, generator=generator)
    labels = (torch.rand(2, 2, 3, 5, 7, generator=generator) > 0.6).long()
    labels[:, :, 1, 0] = IGNORE
    labels[0, 0, 2] = 0
    total = []
    for b, w, q in np.ndindex(2, 2, 3):
        scored = labels[b, w, q] != IGNORE
        p = torch.sigmoid(odds[b, q, w][scored])
        y = labels[b, w, q][scored].float()
        for one, truth in ((p, y), (1 - p, 1 - y)):
            share = 2 * (one * truth).sum() / (one.sum() + truth.sum() + 1e-4)
            total.append(1 - share)
    close(dice_loss(odds, labels), torch.stack(total).mean())
    usable = torch.tensor([[True, False], [True, True]])
    kept = torch.stack(total).view(2, 2, -1)[usable].mean()
    close(dice_loss(odds, labels, usable), kept)
    assert dice_loss(odds, labels, torch.zeros(2, 2, dtype=torch.bool)) == 0


# --- laws ----------------------------------------------------------------------------------------


def test_gates_are_made_once_and_fit_every_stage() -> None:
    task = make_episode(n_way=2, n_shot=3, size=(32, 64), channels=1)
    gates = small().encode_support(task.support).gates
    assert [tuple(gate.shape) for gate in gates] == [
        (2, 2, 3, 1, 32 // shrink, 64 // shrink) for shrink in (2, 4, 8, 16, 16, 8, 4, 2, 1)
    ]
    flat = small(excitation="channel").encode_support(task.support).gates
    assert {tuple(gate.shape) for gate in flat} == {(2, 2, 3, 4, 1, 1)}
    assert all(((gate > 0) & (gate < 1)).all() for gate in (*gates, *flat))


def test_the_mask_reaches_the_gates_and_the_gates_the_answer() -> None:
    task = make_episode(channels=1)
    model = small()  # in training mode, as untrained gates hardly differ without batch norm
    moved = Support(task.support.images, task.support.masks.flip(-1))
    with torch.no_grad():
        first = model.segment(model.encode_support(task.support), task.query_images)
        second = model.segment(model.encode_support(moved), task.query_images)
    assert (first - second).abs().max() > 1e-3


def test_channels_are_averaged_or_repeated() -> None:
    grey = make_episode(channels=1)
    three = Episode(
        Support(grey.support.images.repeat(1, 1, 1, 3, 1, 1), grey.support.masks),
        grey.query_images.repeat(1, 1, 3, 1, 1),
    )
    model = small().eval()
    with torch.no_grad():
        close(model(three).logits, model(grey).logits)
        colour = small(in_channels=3).eval()
        close(colour(three).logits, colour(grey).logits)


def test_an_empty_way_gets_no_pixel_and_no_loss() -> None:
    task = make_episode(n_way=2, channels=1)
    masks = task.support.masks.clone()
    masks[:, 1] = 0
    half = Episode(Support(task.support.images, masks), task.query_images, task.query_labels)
    model = small()
    output = model(half)
    assert output.empty_support is not None
    assert output.empty_support.tolist() == [[False, True]] * 2
    assert not (output.logits.argmax(2) == 2).any()
    only = (task.query_labels == 1).long()[:, None]  # the other way's pixels are background
    close(output.loss, dice_loss(output.logits[:, :, 1:2], only))
    nothing = Episode(Support(task.support.images, 0 * masks), task.query_images, task.query_labels)
    loss = model(nothing).loss
    loss.backward()
    assert loss == 0


def test_unscored_pixels_do_not_count() -> None:
    task = make_episode(channels=1)
    assert task.query_labels is not None
    other = task.query_labels.clone()
    other[..., :20] = IGNORE
    blank = torch.where(other == IGNORE, IGNORE, task.query_labels)
    model = small()
    odds = model(task).logits[:, :, 1:]
    cut = dice_loss(odds[..., 20:], task.query_labels[:, None, ..., 20:])
    close(dice_loss(odds, blank[:, None]), cut)


@pytest.mark.parametrize("excitation", ["spatial", "channel"])
def test_the_contract(excitation: str) -> None:
    model = build("senet", conditioner_width=4, segmenter_width=6, excitation=excitation)
    check_method(model)
    check_method(model, channels=1)


def test_the_defaults_travel_with_the_recipe() -> None:
    recipe = recipe_of("senet")
    config = TrainConfig.from_dict(recipe.training)
    assert (config.lr, config.momentum, config.weight_decay) == (1e-3, 0.99, 1e-4)
    assert recipe.episodes["source"] == "supervised"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"excitation": "spacial"}, "did you mean 'spatial'"),
        ({"in_channels": 2}, "in_channels=2"),
        ({"conditioner_width": 0}, "conditioner_width=0"),
        ({"segmenter_width": -1}, "segmenter_width=-1"),
    ],
)
def test_wrong_options(options: dict[str, int | str], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        SENet(**options)  # type: ignore[arg-type]


def test_wrong_images() -> None:
    model = small()
    with pytest.raises(ValueError, match=r"multiples of 16; got 64x40"):
        model(make_episode(size=(64, 40), channels=1))
    state = model.encode_support(make_episode(channels=1).support)
    with pytest.raises(ValueError, match=r"support images are 64x64 but query images 64x96"):
        model.segment(state, torch.zeros(2, 1, 1, 64, 96))
    with pytest.raises(ValueError, match="2 channels but this SE-Net was built for 3"):
        small(in_channels=3)(make_episode(channels=2))


def test_the_conditioner_reads_mask_and_image() -> None:
    arm = Conditioner(in_channels=1, width=3, channel_gates=None)
    images = torch.randn(2, 1, 16, 16, requires_grad=True)
    masks = torch.rand(2, 16, 16, requires_grad=True)
    sum(gate.square().sum() for gate in arm(images, masks)).backward()
    for tensor in (images, masks):
        assert tensor.grad is not None
        assert (tensor.grad != 0).any()


def test_one_episode_is_learnt_by_heart() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SENet(conditioner_width=4, segmenter_width=8)
        task = make_episode(batch=2, size=(32, 32), channels=1)
        assert overfit(model, task, lr=1e-2, steps=150, target=0.95) > 0.9


def test_labels_of_another_way_are_background_to_a_way() -> None:
    """Every way is a task of its own: swapping two ways' labels swaps their losses."""
    labels = labels_of(2, 1, 2, 32, 3)
    task = make_episode(n_way=2, size=(32, 32), channels=1)
    swapped = torch.where(labels == 1, 2, torch.where(labels == 2, 1, labels))
    order = Support(task.support.images[:, [1, 0]], task.support.masks[:, [1, 0]])
    first = small()(Episode(task.support, task.query_images, labels)).loss
    second = small()(Episode(order, task.query_images, swapped)).loss
    close(first, second)
