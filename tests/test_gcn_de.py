"""GCN-DE as a whole: the official networks, the contract, and what the page promises."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gcn_de_cases import arrays, close, network_weights, tiny
from torch import Tensor, nn

from fewshot_seg import build
from fewshot_seg.building import recipe_of
from fewshot_seg.episode import Episode, Support
from fewshot_seg.testing import check_method, make_episode
from fewshot_seg.training.config import TrainConfig
from fewshot_seg_gcn_de import GCNDE
from fewshot_seg_gcn_de.losses import discriminative_embedding
from fewshot_seg_gcn_de.network import SITES

NETWORKS = {"gc567": "default", "gate_only": "default", "joint456": "joint"}


def official(data: dict[str, Tensor], kind: str) -> tuple[GCNDE, Episode]:
    """The official weights in our network, and their pairs as episodes of one way."""
    network = GCNDE(
        correlation_sites=[int(site) for site in data["correlation_sites"]],
        kind=kind,
        width_divisor=int(data["width_divisor"]),
    )
    network.load_state_dict(network_weights(data))
    support = Support(data["support_image"][:, None, None], data["support_masks"][:, None, None])
    return network, Episode(
        support, data["query_image"][:, None], data["query_labels"][:, None].long()
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_official_network(golden: Callable[[str], Path], name: str) -> None:
    data = arrays(golden("gcn_de"), f"network_{name}")
    network, episode = official(data, NETWORKS[name])
    output = network.eval()(episode)
    close(output.logits[:, 0, 1].sigmoid(), data["probabilities"].squeeze(1), atol=5e-4)
    state = network.encode_support(episode.support)
    found = {f"support_site{site}": state.maps[site - 1].flatten(0, 2) for site in SITES}

    def listen(site: int) -> Callable[..., None]:
        def note(_: nn.Module, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
            found[f"query_site{site}_before"], found[f"query_site{site}_after"] = inputs[1], output

        return note

    for site in SITES:
        network.segmentor.sites[site - 1].register_forward_hook(listen(site))
    network.segment(state, episode.query_images)
    official_maps = [key for key in data if key.startswith(("support_site", "query_site"))]
    assert len(official_maps) == (27 if name == "gc567" else 4)
    for key in official_maps:
        wanted = data[key]
        close(found[key], wanted, atol=2e-4 * max(1.0, wanted.abs().max().item()))


@pytest.mark.parametrize("name", NETWORKS)
def test_official_training_step(golden: Callable[[str], Path], name: str) -> None:
    data = arrays(golden("gcn_de"), f"network_{name}")
    network, episode = official(data, NETWORKS[name])
    output = network.train()(episode)
    close(output.logits[:, 0, 1].sigmoid(), data["probabilities_train"].squeeze(1), atol=5e-4)
    close(output.loss, data["loss_segmentation_train"], atol=1e-4)
    network, _ = official(data, NETWORKS[name])
    state = network.encode_support(episode.support)
    pairs = [maps.flatten(0, 2) for maps in state.maps]
    close(pairs[4], data["support_bottleneck_train"], atol=1e-4)
    bottleneck = network.segmentor(data["query_image"], pairs).bottleneck
    close(bottleneck, data["query_bottleneck_before_train"], atol=1e-4)


# --- contract and laws ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"kind": "self_sum_gate", "correlation_sites": [4, 5, 6]}, {"in_channels": 3}],
    ids=str,
)
def test_contract(options: dict[str, Any]) -> None:
    check_method(tiny(**options))


@pytest.mark.parametrize("kind", ["default", "swap", "gate", "joint", "self", "gcnet"])
def test_every_kind_learns_at_every_site(kind: str) -> None:
    network = tiny(kind=kind, correlation_sites=range(1, 10), width_divisor=32)
    output = network(make_episode(batch=1, n_way=2, channels=1, size=(32, 32)))
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_registered_with_the_papers_schedule() -> None:
    recipe = recipe_of("gcn_de")
    assert TrainConfig.from_dict(recipe.training).momentum == 0.99
    assert recipe.episodes == {"source": "supervised", "n_way": 2, "shared": True}
    model = build("gcn_de", width_divisor=16, correlation_sites=[4, 5, 6], kind="joint")
    assert isinstance(model, GCNDE)
    assert model.in_channels == 1


def woken(network: GCNDE) -> GCNDE:
    """In eval mode, its zero-started correlations taking part and its statistics those of data."""
    with torch.no_grad():
        for name, parameter in network.segmentor.sites.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(0.7)
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        network.train()(make_episode(batch=4, channels=network.in_channels, seed=9))
    return network.eval()


def shared_episode(*, shot: int = 1, seed: int = 0) -> Episode:
    """Two classes of the same images: way 1 and way 2 differ in their masks alone."""
    task = make_episode(n_way=2, n_shot=shot, channels=1, seed=seed)
    images = task.support.images[:, :1].expand_as(task.support.images).contiguous()
    return Episode(Support(images, task.support.masks), task.query_images, task.query_labels)


def test_the_answer_depends_on_the_support_mask() -> None:
    network, task = woken(tiny()), make_episode(channels=1)
    other = Support(task.support.images, task.support.masks.flip(-1))
    changed = network(Episode(other, task.query_images)).logits
    assert not torch.allclose(changed, network(task).logits, atol=1e-3)


def test_several_ways_are_the_official_replication_of_images() -> None:
    """Each way as an episode of its own, in one batch: the same statistics, the same answer."""
    task, network = shared_episode(), tiny()
    support = task.support
    apart = Episode(
        Support(support.images.flatten(0, 1)[:, None], support.masks.flatten(0, 1)[:, None]),
        task.query_images.repeat_interleave(2, 0),
    )
    joined = network(task).logits[:, 0, 1:]
    replicated = network(apart).logits[:, 0, 1].reshape_as(joined)
    close(joined, replicated, atol=1e-4)


def test_discriminative_term_compares_the_bottlenecks_of_the_ways() -> None:
    task, network = shared_episode(shot=2), tiny(lambda_de=2.0)
    output = network(task)
    state = network.encode_support(task.support)
    queries = task.query_images.repeat_interleave(4, 0)[:, 0]
    found = network.segmentor(queries, [maps.flatten(0, 2) for maps in state.maps])
    query = found.bottleneck.reshape(*state.maps[4].shape).unsqueeze(3)
    wanted = discriminative_embedding(state.maps[4], query)
    close(output.losses["discriminative"], wanted)
    total = output.losses["dice"] + output.losses["bce"] + 2 * wanted
    close(output.loss, total)
    assert set(network(make_episode(channels=1)).losses) == {"dice", "bce"}
    assert "discriminative" not in tiny(lambda_de=0.0)(task).losses


def test_discriminative_term_reaches_both_branches() -> None:
    network = tiny()
    network(shared_episode()).losses["discriminative"].backward()
    for branch in (network.conditioner, network.segmentor):
        grad = branch.trunk.conv1.weight.grad
        assert grad is not None
        assert grad.abs().sum() > 0


def test_shots_are_averaged_as_probabilities() -> None:
    network, task = woken(tiny()), make_episode(n_shot=3, channels=1)
    support = task.support
    single = [
        network(
            Episode(Support(support.images[:, :, [k]], support.masks[:, :, [k]]), task.query_images)
        )
        .logits[:, :, 1]
        .sigmoid()
        for k in range(3)
    ]
    close(network(task).logits[:, :, 1].sigmoid(), torch.stack(single).mean(0))


def test_far_logits_stay_finite() -> None:
    network, task = woken(tiny()), make_episode(n_shot=2, channels=1)
    with torch.no_grad():
        network.segmentor.norm.weight.fill_(1e4)
    assert torch.isfinite(network(task).logits).all()


def test_mixed_precision_runs_and_stays_close() -> None:
    network, task = tiny(), shared_episode()
    exact = network(task)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(task)
    half.loss.backward()
    for name, value in exact.losses.items():
        close(half.losses[name].float(), value, atol=0.05)


def test_repeated_slices_are_one_channel() -> None:
    network, task = woken(tiny()), make_episode(channels=1)
    thrice = Episode(
        Support(task.support.images.repeat(1, 1, 1, 3, 1, 1), task.support.masks),
        task.query_images.repeat(1, 1, 3, 1, 1),
    )
    close(network(thrice).logits, network(task).logits, atol=1e-4)


def test_unscored_labels_are_left_out_of_every_loss() -> None:
    network, task = tiny(), shared_episode()
    assert task.query_labels is not None
    labels = task.query_labels.clone()
    labels[..., :20, :] = 255
    losses = network(Episode(task.support, task.query_images, labels)).losses
    logits = network(task).logits[:, 0, 1:].sigmoid()
    scored = labels[:, 0, None] != 255
    truth = torch.stack([labels[:, 0] == way for way in (1, 2)], 1).float()
    pixels = torch.nn.functional.binary_cross_entropy(logits, truth, reduction="none")
    close(losses["bce"], pixels[scored.expand_as(pixels)].mean())


def test_it_overfits_one_episode() -> None:
    network, task = tiny(width_divisor=8), shared_episode()
    optimizer = torch.optim.SGD(network.parameters(), lr=2e-2, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        output = network(task)
        output.loss.backward()
        optimizer.step()
    assert task.query_labels is not None
    found = output.logits.argmax(2)
    for way in (1, 2):
        ours, truth = found == way, task.query_labels == way
        dice = 2 * (ours & truth).sum() / (ours.sum() + truth.sum())
        assert dice > 0.9, f"way {way}: Dice {dice:.3f}"
