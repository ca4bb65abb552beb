"""The reconstructed PoissonSeg decoder against a slow loop, and its rules of labelling."""

import numpy as np
import pytest
import torch
from apscl_cases import close, generator
from torch import Tensor

from fewshot_seg_poissonseg.decoder import Poisson
from fewshot_seg_poissonseg.nodes import Sources, cells, describe_support

# --- an independent loop -------------------------------------------------------------------------


def slow_cells(maps: np.ndarray, window: int) -> list[np.ndarray]:
    """Means of windows, row by row; a ragged rest makes smaller cells."""
    rows, cols = maps.shape[-2:]
    return [
        maps[..., r : r + window, c : c + window].mean((-2, -1))
        for r in range(0, rows, window)
        for c in range(0, cols, window)
    ]


def slow_graph(points: np.ndarray, labels: list[int], k: int) -> np.ndarray:
    """kNN weights and bridges; labels: class or -1."""
    n = len(points)
    apart = ((points[:, None] - points[None]) ** 2).sum(-1)
    weights = np.zeros((n, n))
    for i in range(n):
        order = [j for j in np.argsort(apart[i]) if j != i][:k]
        weights[i, order] = np.exp(-4 * apart[i, order] / apart[i, order[-1]])
    weights = (weights + weights.T) / 2
    anchors = [i for i in range(n) if labels[i] >= 0]
    for i in range(n):
        if labels[i] >= 0:
            weights[i, [j for j in anchors if j != i]] += 1e-3 / len(anchors)
        else:
            nearest = min(anchors, key=lambda j: apart[i, j])
            weights[i, nearest] += 1e-3
            weights[nearest, i] += 1e-3
    return weights


def slow_query(
    support: np.ndarray,
    masks: np.ndarray,
    rest: np.ndarray,
    further: list[np.ndarray],
    query: np.ndarray,
    k: int,
    zero: str,
) -> np.ndarray:
    """One query image; support: way shot dim rows cols, masks on the same grid, windows of 2.

    Every label must have a cell of its own, so that no fallback is needed.
    """
    vectors, labels = [], []
    n_way = len(masks)
    for w in range(n_way):
        for s in range(masks.shape[1]):
            vectors += slow_cells(support[w, s], 2)
            shares = zip(slow_cells(masks[w, s], 2), slow_cells(rest[w, s], 2), strict=True)
            labels += [w + 1 if fg > 0.5 else 0 if 1 - bg < 0.05 else -1 for fg, bg in shares]
    for image in [*further, query]:
        vectors += slow_cells(image, 2)
        labels += [-1] * (len(vectors) - len(labels))
    assert set(range(n_way + 1)) <= set(labels)
    points = np.stack([v / np.linalg.norm(v) for v in vectors])
    weights = slow_graph(points, labels, k)
    degree = weights.sum(1)
    known = [i for i, label in enumerate(labels) if label >= 0]
    b = np.zeros((len(labels), n_way + 1))
    for i in known:
        b[i, labels[i]] = 1
    b[known] -= b[known].mean(0)
    u = np.linalg.pinv(np.diag(degree) - weights) @ b
    u -= degree @ u / degree.sum()
    if zero == "mean":
        u *= 5 / np.sqrt(u[known].var(0).mean())
    else:
        for label in range(n_way + 1):
            high = np.mean([u[i, label] for i in known if labels[i] == label])
            low = np.mean([u[i, label] for i in known if labels[i] != label])
            u[:, label] = 5 * (2 * u[:, label] - high - low) / (high - low)
    return u[-len(slow_cells(query, 2)) :]


@pytest.mark.parametrize("zero", ["middle", "mean"])
@pytest.mark.parametrize(("way", "shot", "images"), [(1, 1, 0), (1, 3, 2), (2, 2, 1)])
def test_against_a_loop(way: int, shot: int, images: int, zero: str) -> None:
    rng = generator(way)
    support = torch.randn(2, way, shot, 4, 7, 8, generator=rng)
    query = torch.randn(2, 2, 4, 7, 8, generator=rng)
    further = torch.randn(2, images, 4, 7, 8, generator=rng)
    masks = torch.zeros(2, way, shot, 7, 8)
    masks[..., 1:5, 2:7] = 1
    masks[..., 6, 0] = 0.3
    decoder = Poisson(k=4, zero=zero)
    state = decoder.describe(support, masks, 1 - masks, unlabelled=further)
    got = decoder(query, state, (4, 4)).detach()  # 7 x 8 positions are 4 x 4 cells
    for b, q in np.ndindex(2, 2):
        numbers = [t[b].double().numpy() for t in (support, masks, 1 - masks)]
        more = list(further[b].double().numpy())
        wanted = slow_query(*numbers, more, query[b, q].double().numpy(), 4, zero)
        close(got[b, q].flatten(1).T, torch.from_numpy(wanted).float(), atol=2e-3)


def test_two_far_classes_by_hand() -> None:
    """Two positions and two features; every cell has only its own kind near it, so u takes two
    values, and the logits of a one-way answer are [-5, 5] and [5, -5]."""
    maps = torch.zeros(1, 1, 1, 2, 4, 8)
    maps[..., 0, :, :4] = 1
    maps[..., 1, :, 4:] = 1
    masks = maps[..., 0, :, :]
    decoder = Poisson(window=1, k=8)
    state = decoder.describe(maps, masks)
    logits = decoder(maps[:, 0], state, (4, 8))
    wanted = 10 * masks[0, 0] - 5
    close(logits[0, 0], torch.cat([-wanted, wanted]), atol=1e-2)


# --- which cell has which label ------------------------------------------------------------------


def described(masks: Tensor, backgrounds: Tensor | None = None) -> Sources:
    """Nodes of random 8 x 8 maps: 4 x 4 cells an image."""
    maps = torch.randn(*masks.shape[:3], 3, 8, 8, generator=generator(0))
    rest = 1 - masks if backgrounds is None else backgrounds
    return describe_support(maps, masks, rest, window=2, spatial=0.0)


def test_shares_decide() -> None:
    masks = torch.zeros(1, 1, 1, 8, 8)
    masks[..., 0:2, 0:2] = torch.tensor([[1, 1], [0.1, 0]])  # 0.525
    masks[..., 0:2, 2:4] = 0.5
    masks[..., 0:2, 4:6] = 0.06
    masks[..., 0:2, 6:8] = 0.04
    state = described(masks)
    assert state.labels[0, :4].tolist() == [[0, 1], [0, 0], [0, 0], [1, 0]]
    assert state.labels[0, 4:16].tolist() == [[1, 0]] * 12
    assert state.present[0].tolist() == [True] * 16 + [False] * 2
    assert torch.equal(state.labels[0, 16:], torch.zeros(2, 2))
    close(state.areas[0], torch.tensor([64 - masks.sum(), masks.sum()]) / 64)


def test_a_way_without_a_full_cell_gets_its_best_one_and_its_mean() -> None:
    masks = torch.zeros(1, 2, 1, 8, 8)
    masks[0, 0, 0, 2:4, 2:4] = torch.tensor([[1, 0], [0, 0]])
    masks[0, 0, 0, 6, 6] = 0.5
    masks[0, 1, 0, :4] = 1
    state = described(masks)
    ways = state.labels[0, :32].unflatten(0, (2, 16))
    assert ways[0, :, 1].nonzero().tolist() == [[5]]
    assert ways[1, :, 2].sum() == 8
    assert ways[0, :, 2].sum() == ways[1, :, 1].sum() == 0
    assert state.present[0, 32:].tolist() == [False, True, False]
    assert state.labels[0, 33].tolist() == [0, 1, 0]
    maps = torch.randn(1, 2, 1, 3, 8, 8, generator=generator(0))
    mean = (maps[0, 0, 0] * masks[0, 0, 0]).sum((1, 2))
    close(state.points[0, 33], mean / mean.norm())


def test_a_background_without_a_full_cell_gets_one_too() -> None:
    masks = torch.full((1, 1, 1, 8, 8), 0.8)
    masks[..., 7, 7] = 0.2
    state = described(masks)
    assert state.present[0, 16:].tolist() == [True, False]
    assert state.labels[0, 16].tolist() == [1, 0]
    assert state.labels[0, :16, 1].sum() == 16  # a cell that a way holds stays with it


def test_given_backgrounds_are_used() -> None:
    """What belongs to another class of the episode is neither this way nor background."""
    masks, rest = torch.zeros(1, 1, 1, 8, 8), torch.zeros(1, 1, 1, 8, 8)
    masks[..., :2] = 1
    rest[..., 4:] = 1
    labels = described(masks, rest).labels[0, :16].unflatten(0, (4, 4))
    assert labels[0].tolist() == [[0, 1], [0, 0], [1, 0], [1, 0]]


def test_masks_come_to_the_grid_by_area() -> None:
    masks = (torch.rand(1, 1, 1, 64, 64, generator=generator(1)) > 0.5).float()
    maps = torch.randn(1, 1, 1, 3, 8, 8, generator=generator(0))
    small = torch.nn.functional.avg_pool2d(masks[0], 8)[None]
    decoder = Poisson()
    for a, b in zip(decoder.describe(maps, masks), decoder.describe(maps, small), strict=True):
        close(a.float(), b.float())


def test_cells_of_odd_and_tiny_maps() -> None:
    maps = torch.arange(15.0).view(1, 3, 5)
    assert cells(maps, 2).shape == (1, 3, 5)  # less than two windows a side
    maps = torch.arange(25.0).view(1, 5, 5)
    pooled = cells(maps, 2)[0]
    assert pooled.shape == (3, 3)
    assert pooled[2, 2] == 24
    assert pooled[0, 2] == (4 + 9) / 2


@pytest.mark.parametrize("grid", [(2, 2), (2, 9), (1, 1), (5, 7), (3, 3)], ids=str)
@pytest.mark.parametrize("refine", [False, True])
def test_any_map_works(grid: tuple[int, int], refine: bool) -> None:
    maps = torch.randn(2, 2, 1, 3, *grid, generator=generator(0)).requires_grad_()
    masks = torch.zeros(2, 2, 1, 20, 30)
    masks[..., 3:9, 4:9] = 1
    decoder = Poisson(refine_pixels=refine, spatial=0.3)
    logits = decoder(maps[:, :, 0], decoder.describe(maps, masks), (20, 30))
    assert logits.shape == (2, 2, 3, 20, 30)
    logits.square().mean().backward()
    assert torch.isfinite(logits).all()
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()
