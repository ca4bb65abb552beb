"""SIM: cross-attention and the relevance of two images (apscl.md sections 3.4, 7a, 7b)."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from apscl_cases import close, generator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewshot_seg.errors import OptionError
from fewshot_seg_apscl.attention import Projected, Projections, attend
from fewshot_seg_apscl.contrast import contrast
from fewshot_seg_apscl.relevance import relevance, relevance_to_others


def images_of(n: int, positions: int = 9, dim: int = 6, seed: int = 0) -> Projected:
    """Q, K, V of n images in one group."""
    rng = generator(seed)
    return Projected(*(torch.randn(1, n, positions, dim, generator=rng) for _ in range(3)))


def whole(images: Projected, align: str = "cross") -> Tensor:
    """Relevance of whole images."""
    n, positions = images.query.shape[1:3]
    return relevance(images, torch.arange(n), torch.ones(1, n, positions), align)[0]


def permute(images: Projected, image: int, order: Tensor) -> Projected:
    """The positions of one image in another order."""
    moved = [item.clone() for item in images]
    for item in moved:
        item[:, image] = item[:, image, order]
    return Projected(*moved)


def slow_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-8))


def slow_attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Position by position, in 64 bits."""
    out = np.zeros_like(v)
    for row in range(len(q)):
        scores = np.array([q[row] @ key / math.sqrt(len(key)) for key in k]) + np.log(m + 1e-6)
        weights = np.exp(scores - scores.max())
        out[row] = (weights / weights.sum()) @ v
    return out


def test_attention_is_a_masked_softmax_mean() -> None:
    q, k, v = (torch.randn(7, 5, generator=generator(i)) for i in range(3))
    mask = torch.tensor([1.0, 0, 0.3, 0, 1, 0.5, 0])
    expected = slow_attend(*(t.double().numpy() for t in (q, k, v)), mask.double().numpy())
    close(attend(q, k, v, mask), torch.from_numpy(expected).float())


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), image=st.integers(0, 1))
def test_cross_does_not_care_for_the_order_of_positions(seed: int, image: int) -> None:
    images = images_of(2, seed=seed)
    order = torch.randperm(9, generator=generator(seed))
    close(whole(permute(images, image, order)), whole(images))


def test_literal_cares_for_the_order_of_positions() -> None:
    """Section 7(b): Eq. 4 as printed pairs positions of two images at random."""
    images = images_of(2)
    order = torch.roll(torch.arange(9), 4)
    before, after = whole(images, "literal"), whole(permute(images, 1, order), "literal")
    assert (before - after)[0, 1].abs() > 0.01
    assert not torch.allclose(before, whole(images, "cross"), atol=0.01)


def permuted_copy() -> Projected:
    """Two images, the second a permuted copy; orthogonal codes make the attention sharp."""
    positions = 16
    codes = torch.eye(positions) * 30
    values = torch.randn(positions, positions, generator=generator(5))
    order = torch.randperm(positions, generator=generator(6))
    pair = [torch.stack([item, item[order]])[None] for item in (codes, codes, values)]
    return Projected(*pair)


def test_a_permuted_copy_is_fully_relevant_only_by_cross() -> None:
    assert whole(permuted_copy())[0, 1].item() == pytest.approx(2, abs=1e-5)
    assert abs(whole(permuted_copy(), "literal")[0, 1].item()) < 0.7


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), align=st.sampled_from(["cross", "literal"]))
def test_relevance_is_symmetric_and_bounded(seed: int, align: str) -> None:
    images = images_of(3, seed=seed)
    masks = torch.rand(1, 3, 9, generator=generator(seed))
    scores = relevance(images, torch.arange(3), masks, align)[0]
    close(scores, scores.T)
    assert scores.abs().max() <= 2 + 1e-5


@pytest.mark.parametrize("align", ["cross", "literal"])
def test_relevance_to_others_is_the_same_number(align: str) -> None:
    """What is compared with the memory is compared as within a step."""
    images = images_of(4)
    masks = torch.rand(1, 4, 9, generator=generator(1))
    everything = relevance(images, torch.arange(4), masks, align)
    others = images.pick(torch.tensor([2, 3]))
    image_of = torch.tensor([0, 1])
    got = relevance_to_others(
        images.pick(image_of), image_of, masks[:, :2], others, masks[:, 2:], align
    )
    close(got, everything[:, :2, 2:])


def test_positions_outside_a_region_do_not_matter() -> None:
    images = images_of(2)
    masks = torch.tensor([[[1.0] * 4 + [0] * 5, [0.0] * 3 + [1] * 6]])
    changed = Projected(*(item.clone() for item in images))
    for item in changed:
        item[:, 0, 4:] = torch.randn(5, 6, generator=generator(9))
    before = relevance(images, torch.arange(2), masks, "cross")
    close(relevance(changed, torch.arange(2), masks, "cross"), before, atol=1e-4)


def test_projections_by_kind() -> None:
    maps = torch.randn(2, 8, 3, 4, generator=generator(0))
    conv = Projections(dim=8, sim_dim=5, qkv="conv")
    got = conv(maps).key
    assert got.shape == (2, 12, 5)
    weight, bias = conv.key.weight[:, :, 0, 0], conv.key.bias
    close(got[1, 6], weight @ maps[1, :, 1, 2] + bias)  # position 6 is row 1, column 2
    mlp = Projections(dim=8, sim_dim=5, qkv="mlp")
    first, second = mlp.value[0].weight[:, :, 0, 0], mlp.value[2].weight[:, :, 0, 0]
    close(mlp(maps).value[0, 3], second @ torch.relu(first @ maps[0, :, 0, 3]))
    assert all("bias" not in name for name, _ in mlp.named_parameters())
    with pytest.raises(OptionError, match="qkv='linear'"):
        Projections(dim=8, sim_dim=5, qkv="linear")


# --- the official code that the loss comes from ------------------------------------------------


def arrays(folder: Path, name: str) -> dict[str, Tensor]:
    with np.load(folder / name) as data:
        return {key: torch.from_numpy(data[key]) for key in data.files}


def official_projections(data: dict[str, Tensor]) -> Projections:
    """Our `mlp` projections with the official weights."""
    sim_dim, dim = data["weight_query_second"].shape
    module = Projections(dim=dim, sim_dim=sim_dim, qkv="mlp")
    for name in ("query", "key", "value"):
        net = getattr(module, name)
        net[0].weight.data.copy_(data[f"weight_{name}_first"][:, :, None, None])
        net[2].weight.data.copy_(data[f"weight_{name}_second"][:, :, None, None])
    return module


@pytest.mark.parametrize(
    "name", ["relevance_from_projections.npz", "relevance_from_projections_32x32.npz"]
)
def test_official_relevance_of_projections(golden: Callable[[str], Path], name: str) -> None:
    data = arrays(golden("scl"), name)
    sides = {
        side: Projected(*(data[f"{k}_{side}"][None].clone().requires_grad_() for k in "qkv"))
        for side in "ab"
    }
    a, b = sides["a"], sides["b"]
    n_a, n_b, positions = a.query.shape[1], b.query.shape[1], a.query.shape[2]
    ones = torch.ones(1, n_a + n_b, positions)
    scores = relevance_to_others(b, torch.arange(n_b), ones[:, :n_b], a, ones[:, n_b:], "cross")
    close(scores[0], data["relevance"])
    scores.sum().backward()
    for side, images in sides.items():
        for key, item in zip("qkv", images, strict=True):
            assert item.grad is not None
            close(item.grad[0], data[f"grad_{key}_{side}"])


@pytest.mark.parametrize("name", ["relevance_from_features.npz", "relevance_self.npz"])
def test_official_relevance_of_features(golden: Callable[[str], Path], name: str) -> None:
    data = arrays(golden("scl"), name)
    a = data["features_a"].requires_grad_()
    b = data["features_b"].requires_grad_()
    project = official_projections(data)
    q_a, q_b = project(a).map_images(1, len(a)), project(b).map_images(1, len(b))
    positions = a.shape[-1] * a.shape[-2]
    scores = relevance_to_others(
        q_b,
        torch.arange(len(b)),
        torch.ones(1, len(b), positions),
        q_a,
        torch.ones(1, len(a), positions),
        "cross",
    )
    close(scores[0], data["relevance"])
    scores.sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    close(a.grad, data["grad_features_a"])
    close(b.grad, data["grad_features_b"])


LOSSES = ["loss_labels", "loss_two_views", "loss_temperature_0.5", "loss_one_pair"]


@pytest.mark.parametrize("name", [*LOSSES, "loss_no_positive_for_one"])
def test_official_loss(golden: Callable[[str], Path], name: str) -> None:
    """The official mean divides by S where APSCL divides by S - 1."""
    data = arrays(golden("scl"), f"{name}.npz")
    features = data["features"].requires_grad_()
    project = official_projections(data)
    n = len(features)
    scores = whole(project(features).map_images(1, n))[None]
    same = data["labels_of_samples"][:, None] == data["labels_of_samples"]
    others = ~torch.eye(n, dtype=torch.bool)[None]
    loss = contrast(
        scores / data["temperature"].item(),
        same[None] & others,
        others,
        torch.ones(1, n, dtype=torch.bool),
    )
    close(loss * (n - 1) / n, data["loss"])
    (loss * (n - 1) / n).backward()
    assert features.grad is not None
    close(features.grad, data["grad_features"])
    for key in ("query", "key", "value"):
        net = getattr(project, key)
        close(net[0].weight.grad[:, :, 0, 0], data[f"grad_weight_{key}_first"])
        close(net[2].weight.grad[:, :, 0, 0], data[f"grad_weight_{key}_second"])
