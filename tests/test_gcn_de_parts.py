"""The blocks and losses of GCN-DE, against the official code's arrays, slow loops and laws."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gcn_de_cases import arrays, awake, block_weights, close
from torch import Tensor, nn

from fewshot_seg.errors import OptionError
from fewshot_seg_gcn_de.attention import NonLocal, attend
from fewshot_seg_gcn_de.correlation import KINDS, CorrelationGate, Residual, interaction
from fewshot_seg_gcn_de.gate import Gate
from fewshot_seg_gcn_de.losses import binary_cross_entropy, dice2d, discriminative_embedding

FILES = {
    "default": "global_correlation",
    "swap": "global_correlation_swap",
    "gate": "global_correlation_gate",
    "joint": "global_correlation_joint",
    "self": "global_correlation_self",
    "self_sum_gate": "global_correlation_self_sum_gate",
    "gcnet": "global_context_pooling",
}


# --- blocks --------------------------------------------------------------------------------------


def check_block(block: nn.Module, data: dict[str, Tensor]) -> None:
    """Both modes and the gradients of both inputs."""
    block.load_state_dict(block_weights(data))
    support = data["support_features"].requires_grad_()
    query = data["query_features"].requires_grad_()
    close(block.eval()(support, query), data["output_eval"])
    trained = block.train()(support, query)
    close(trained, data["output_train"])
    found = torch.autograd.grad((trained * data["cotangent"]).sum(), (support, query))
    for grad, name in zip(found, ("support", "query"), strict=True):
        close(grad, data[f"gradient.{name}_features"], atol=3e-5)


@pytest.mark.parametrize("kind", FILES)
def test_official_correlation(golden: Callable[[str], Path], kind: str) -> None:
    data = arrays(golden("gcn_de"), FILES[kind])
    check_block(interaction(kind, dim=data["query_features"].shape[1]), data)


def test_official_gate(golden: Callable[[str], Path]) -> None:
    data = arrays(golden("gcn_de"), "gate")
    gate = Gate(dim=data["query_features"].shape[1])
    check_block(gate, data)
    close(gate.conv(data["support_features"]).sigmoid(), data["gate"])


@pytest.mark.parametrize("kind", ["default", "swap", "gate", "joint", "self", "self_sum_gate"])
def test_official_affinity(golden: Callable[[str], Path], kind: str) -> None:
    data = arrays(golden("gcn_de"), FILES[kind])
    block = interaction(kind, dim=data["query_features"].shape[1]).eval()
    block.load_state_dict(block_weights(data))
    support, query = data["support_features"], data["query_features"]
    both = torch.cat([support, query], 1)
    places, sources = {
        "default": (query, support),
        "gate": (query, support),
        "swap": (support, query),
        "joint": (both, both),
    }.get(kind, (support, support))
    close(block.correlate.affinity(places, sources), data["affinity"])


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("training", [True, False])
def test_at_first_a_residual_is_the_identity_and_a_gate_halves(training: bool) -> None:
    support, query = maps(2, 6, 4, 4), maps(2, 6, 4, 4, seed=1)
    for kind, factor in (("default", 1), ("swap", 1), ("gate", 0.5), ("joint", 0.5), ("self", 0.5)):
        block = interaction(kind, dim=6).train(training)
        assert torch.equal(block(support, query), factor * query), kind


@pytest.mark.parametrize("kind", [*KINDS, None])
def test_a_pair_serves_the_queries_that_follow_each_other(kind: str | None) -> None:
    block = awake(Gate(dim=6) if kind is None else interaction(kind, dim=6))
    support, query = maps(2, 6, 4, 6), maps(6, 6, 4, 6, seed=1)
    apart = [block(support[n // 3, None], query[n, None]) for n in range(6)]
    close(block(support, query), torch.cat(apart))


def test_nonlocal_is_a_slow_loop() -> None:
    block = awake(NonLocal(dim=3, inner=2))
    places, sources = maps(1, 3, 4, 4), maps(1, 3, 4, 4, seed=1)
    got = block(places, sources)
    phi, g = (F.max_pool2d(layer(sources), 2)[0].flatten(1) for layer in (block.phi, block.g))
    for row, col in itertools.product(range(4), range(4)):
        theta = block.theta(places)[0, :, row, col]
        weights = [math.exp((theta * phi[:, key]).sum().item()) for key in range(4)]
        y = sum(w * g[:, key] for key, w in enumerate(weights)) / sum(weights)
        close(got[0, :, row, col], y)


def test_attend_adds_its_bias_and_takes_no_root() -> None:
    theta, phi, g = maps(2, 5, 3), maps(2, 4, 3, seed=1), maps(2, 4, 3, seed=2)
    bias = maps(2, 4, seed=3)
    wanted = torch.softmax(theta @ phi.mT + bias[:, None], -1) @ g
    close(attend(theta, phi, g, bias), wanted)


def test_correlation_stays_in_single_precision_under_autocast() -> None:
    block = awake(interaction("default", dim=6))
    support, query = maps(2, 6, 4, 4), maps(2, 6, 4, 4, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        half = block(support, query)
    close(half.float(), block(support, query), atol=0.1)


def test_a_single_channel_still_correlates() -> None:
    for kind in KINDS:
        if kind != "gcnet":
            assert interaction(kind, dim=1)(maps(2, 1, 4, 4), maps(2, 1, 4, 4)).shape[1] == 1


# --- losses --------------------------------------------------------------------------------------


def by_class(rows: Tensor, pairs: int) -> Tensor:
    """Rows that stand class by class, as batch way."""
    return rows.reshape(-1, pairs, *rows.shape[1:]).transpose(0, 1)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_official_losses(golden: Callable[[str], Path], classes: int) -> None:
    data = arrays(golden("gcn_de"), f"losses_{classes}class")
    leaves = [
        data[name].requires_grad_()
        for name in ("support_bottleneck", "query_bottleneck", "probabilities")
    ]
    pairs = int(data["pairs_per_class"])
    support = by_class(leaves[0], pairs).unsqueeze(2)
    query = by_class(leaves[1], pairs).unsqueeze(2).unsqueeze(3)
    probabilities, labels = leaves[2].squeeze(1), data["query_labels"].long()
    terms = {
        mean: discriminative_embedding(support, query, mean=mean)
        for mean in ("channel", "spatial", "none")
    }
    for mean, term in terms.items():
        suffix = mean if mean == "none" else f"{mean}_mean"
        close(term, data[f"loss_discriminative_{suffix}"], atol=1e-6)
    dice, bce = dice2d(probabilities, labels), binary_cross_entropy(probabilities, labels)
    close(dice, data["loss_dice2d"], atol=1e-6)
    close(bce, data["loss_bce"], atol=1e-6)
    total = dice + bce + terms["channel"]
    close(total, data["loss_total_lambda1"], atol=1e-6)
    for grad, name in zip(
        torch.autograd.grad(total, leaves),
        ("support_bottleneck", "query_bottleneck", "probabilities"),
        strict=True,
    ):
        wanted = data[f"gradient.{name}"]
        close(grad, wanted, atol=1e-6 * max(1.0, wanted.abs().max().item()))


def test_equal_features_give_log_2() -> None:
    same = maps(1, 1, 1, 4, 3, 3).expand(2, 3, 1, 4, 3, 3)
    for mean in ("channel", "spatial", "none"):
        loss = discriminative_embedding(same, same.unsqueeze(3), mean=mean)
        close(loss, torch.tensor(math.log(2)))


def test_the_order_of_classes_does_not_matter() -> None:
    support, query = maps(2, 3, 2, 4, 3, 3), maps(2, 3, 2, 1, 4, 3, 3, seed=1)
    order = [2, 0, 1]
    close(
        discriminative_embedding(support[:, order], query[:, order]),
        discriminative_embedding(support, query),
    )


def test_discriminative_embedding_is_a_slow_loop() -> None:
    support, query = maps(2, 3, 2, 4, 3, 3), maps(2, 3, 2, 2, 4, 3, 3, seed=1)
    present = torch.tensor([[True, True, True], [True, False, True]])
    terms = []
    for c, k in itertools.permutations(range(3), 2):
        gaps = []
        for b in range(2):
            if present[b, c] and present[b, k]:
                own = [
                    (support[b, c, s].mean(0) - query[b, c, s, q].mean(0)).abs().mean()
                    for s, q in itertools.product(range(2), range(2))
                ]
                other = [
                    (support[b, c, s].mean(0) - query[b, k, s, q].mean(0)).abs().mean()
                    for s, q in itertools.product(range(2), range(2))
                ]
                gaps.append(sum(own) / 4 - sum(other) / 4)
        terms.append(torch.log(1 + torch.exp(sum(gaps) / len(gaps))))
    got = discriminative_embedding(support, query, present=present)
    close(got, torch.stack(terms).mean())


def test_unscored_pixels_change_no_loss() -> None:
    labels = (maps(2, 8, 8) > 0).long()
    labels[:, :3] = 255
    first = maps(2, 8, 8, seed=1).sigmoid()
    second = first.clone()
    second[:, :3] = 0.5
    for loss in (dice2d, binary_cross_entropy):
        close(loss(first, labels), loss(second, labels))
        assert torch.isfinite(loss(first, torch.full_like(labels, 255)))


def test_certain_mistakes_give_finite_gradients() -> None:
    wrong = torch.tensor([[[0.0, 1.0]]]).requires_grad_()
    labels = torch.tensor([[[1, 0]]])
    loss = binary_cross_entropy(wrong, labels) + dice2d(wrong, labels)
    (grad,) = torch.autograd.grad(loss, wrong)
    assert torch.isfinite(grad).all()


WRONG = [
    (lambda: interaction("global", dim=4), "kind='global'"),
    (lambda: Residual(dim=4, frame="suport"), "did you mean 'support'"),
    (lambda: CorrelationGate(dim=4, source="all"), "source='all'"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_options(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()
