"""The spatial contrastive loss against an independent loop over samples and positions."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from apscl_cases import episode, features_of, step_of

from fewshot_seg.episode import Episode, Features
from fewshot_seg_apscl.contrast import SpatialContrast

GRID, SIZE = 2, 16


@dataclass
class Sample:
    """One region, as apscl.md 7(a) defines it."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    mask: np.ndarray
    kind: int
    """0 for a background."""
    episode: int


def cells(mask: np.ndarray) -> np.ndarray:
    """Area average, block by block."""
    side = SIZE // GRID
    blocks = [
        mask[r * side : (r + 1) * side, c * side : (c + 1) * side].mean()
        for r in range(GRID)
        for c in range(GRID)
    ]
    return np.array(blocks, dtype=np.float64)


def project(module: SpatialContrast, maps: np.ndarray) -> list[np.ndarray]:
    flat = maps.reshape(maps.shape[0], -1).T
    found = []
    for conv in (module.project.query, module.project.key, module.project.value):
        weight = conv.weight.detach().double().numpy()[:, :, 0, 0]
        found.append(flat @ weight.T + conv.bias.detach().double().numpy())
    return found


def samples_of(module: SpatialContrast, task: Episode, features: Features, b: int) -> list[Sample]:
    """All samples of one episode of the batch."""
    support, query = features.support[b].double().numpy(), features.query[b].double().numpy()
    labels = task.query_labels[b].numpy()
    masks = task.support.masks[b].double().numpy()
    rest = task.support.backgrounds[b].double().numpy()
    n_way, n_shot = masks.shape[:2]
    ids = list(range(1, n_way + 1)) if task.classes is None else task.classes[b].tolist()
    found = []
    for w in range(n_way):
        for s in range(n_shot):
            qkv = project(module, support[w, s])
            if module.scl_mode == "image":
                found.append(Sample(*qkv, np.ones(GRID**2), ids[w], b))
            else:
                found.append(Sample(*qkv, cells(masks[w, s]), ids[w], b))
                found.append(Sample(*qkv, cells(rest[w, s]), 0, b))
    for n in range(len(query)):
        qkv = project(module, query[n])
        if module.scl_mode == "image":
            found.append(Sample(*qkv, np.ones(GRID**2), ids[0], b))
            continue
        for w in range(n_way):
            found.append(Sample(*qkv, cells(labels[n] == w + 1), ids[w], b))
        found.append(Sample(*qkv, cells(labels[n] == 0), 0, b))
    return found


def carried(a: Sample, b: Sample, align: str) -> np.ndarray:
    """V_{b|a}: row l belongs to position l of a."""
    left, right = (a.q, b.k) if align == "cross" else (b.q, a.k)
    rows = []
    for row in range(len(left)):
        scores = right @ left[row] / math.sqrt(left.shape[1]) + np.log(b.mask + 1e-6)
        weights = np.exp(scores - scores.max())
        rows.append((weights / weights.sum()) @ b.v)
    return np.array(rows)


def half(a: Sample, b: Sample, align: str) -> float:
    there = carried(a, b, align)
    cosines = [
        a.v[i] @ there[i] / (np.linalg.norm(a.v[i]) * np.linalg.norm(there[i]))
        for i in range(len(there))
    ]
    return float(np.dot(a.mask, cosines) / a.mask.sum())


def relevance(a: Sample, b: Sample, align: str) -> float:
    return half(a, b, align) + half(b, a, align)


def slow_group(
    module: SpatialContrast, samples: list[Sample], kept: list[Sample], tau: float
) -> float:
    """apscl.md 7(a), sample by sample."""
    samples = [s for s in samples if s.mask.sum() >= 0.5]
    kept = [s for s in kept if s.mask.sum() >= 0.5]
    if len(samples) + len(kept) < 3:
        return 0.0
    relevances = {
        (id(a), id(b)): relevance(a, b, module.align)
        for i, a in enumerate(samples)
        for b in [*samples[i + 1 :], *kept]
    }

    def similarity(a: Sample, b: Sample) -> float:
        found = relevances.get((id(a), id(b)), relevances.get((id(b), id(a))))
        return math.exp(found / tau)

    total = 0.0
    for a in samples:
        rivals = [
            b
            for b in samples
            if b is not a and (b.episode == a.episode or (a.kind != 0 and b.kind != 0))
        ]
        positives = [b for b in rivals if b.kind == a.kind]
        further = [b for b in kept if a.kind != 0 and b.kind != a.kind]
        if not positives:
            continue
        denominator = sum(similarity(a, k) for k in rivals + further)
        terms = [-math.log(similarity(a, b) / denominator) for b in positives]
        total += sum(terms) if module.pos_reduction == "sum" else sum(terms) / len(terms)
    return total / max(len(samples) - 1, 1)


def slow_loss(
    module: SpatialContrast, task: Episode, features: Features, kept: list[Sample] | None = None
) -> float:
    batch = task.query_images.shape[0]
    size = 1 if module.scl_mode == "region" else (module.meta_episodes or batch)
    losses = []
    for start in range(0, batch, size):
        samples = []
        for b in range(start, start + size):
            samples += samples_of(module, task, features, b)
        losses.append(slow_group(module, samples, kept or [], module.tau))
    return float(np.mean(losses))


def contrast_of(**options: Any) -> SpatialContrast:
    torch.manual_seed(3)
    return SpatialContrast(dim=6, grid=(GRID, GRID), sim_dim=4, **options)


def check(module: SpatialContrast, task: Episode, seed: int = 0) -> float:
    features = features_of(task, dim=6, grid=GRID, seed=seed)
    got = module(step_of(task, features))["scl"]
    expected = slow_loss(module, task, features)
    assert got.item() == pytest.approx(expected, rel=2e-4, abs=1e-6)
    return expected


SHAPES = [
    {},
    {"shot": 2},
    {"shot": 3, "query": 2},
    {"way": 2},
    {"way": 2, "batch": 2},
    {"batch": 3, "query": 2},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_region(shape: dict[str, int]) -> None:
    assert check(contrast_of(), episode(size=SIZE, seed=4, **shape)) > 0.1


@pytest.mark.parametrize("align", ["cross", "literal"])
@pytest.mark.parametrize("pos_reduction", ["mean", "sum"])
def test_region_by_option(align: str, pos_reduction: str) -> None:
    module = contrast_of(align=align, pos_reduction=pos_reduction)
    assert check(module, episode(size=SIZE, seed=4, way=2, shot=2)) > 0.1


@pytest.mark.parametrize("tau", [0.05, 0.07, 0.2, 0.5])
@pytest.mark.parametrize("mode", ["image", "region_meta"])
def test_several_episodes(mode: str, tau: float) -> None:
    module = contrast_of(scl_mode=mode, meta_episodes=2, tau=tau)
    classes = torch.tensor([[1], [4], [2], [1]])
    assert check(module, episode(batch=4, size=SIZE, seed=1, classes=classes)) > 0.1


@pytest.mark.parametrize("pos_reduction", ["mean", "sum"])
@pytest.mark.parametrize("shot", [1, 2, 3])
def test_image_with_shots_and_a_class_twice(shot: int, pos_reduction: str) -> None:
    module = contrast_of(scl_mode="image", pos_reduction=pos_reduction)
    classes = torch.tensor([[1], [4], [1]])
    check(module, episode(batch=3, shot=shot, size=SIZE, seed=1, classes=classes))


@pytest.mark.parametrize("pos_reduction", ["mean", "sum"])
def test_region_meta_with_ways_and_shots(pos_reduction: str) -> None:
    module = contrast_of(scl_mode="region_meta", pos_reduction=pos_reduction)
    classes = torch.tensor([[1, 2], [2, 3]])
    check(module, episode(batch=2, way=2, shot=2, query=2, size=SIZE, seed=1, classes=classes))


def shrink(labels: torch.Tensor, pixels: int) -> torch.Tensor:
    """The first so many foreground pixels of each image."""
    flat = labels.flatten(2).clone()
    for image in flat.flatten(0, 1):
        image[(image > 0).nonzero().flatten()[pixels:]] = 0
    return flat.reshape(labels.shape)


@pytest.mark.parametrize("pixels", [0, 31, 32])
@pytest.mark.parametrize("mode", ["region", "region_meta"])
def test_absent_and_small_regions(pixels: int, mode: str) -> None:
    """A cell has 64 pixels here, so 31 are dropped and 32 count."""
    task = episode(batch=2, size=SIZE, seed=5, classes=torch.tensor([[1], [2]]))
    assert task.query_labels is not None
    small = Episode(
        task.support, task.query_images, shrink(task.query_labels, pixels), task.classes
    )
    check(contrast_of(scl_mode=mode), small)


def test_a_class_shown_by_nobody_else_is_skipped() -> None:
    """Way 2 is in no query, so its support's anchor has no positive but is still a negative."""
    task = episode(way=2, size=SIZE, seed=5)
    assert task.query_labels is not None
    labels = torch.where(task.query_labels == 2, 0, task.query_labels)
    check(contrast_of(), Episode(task.support, task.query_images, labels))


def test_pixels_that_are_not_scored_belong_to_no_region() -> None:
    task = episode(size=SIZE, seed=5)
    assert task.query_labels is not None
    labels = task.query_labels.clone()
    labels[..., :8] = 255
    masked = Episode(task.support, task.query_images, labels)
    assert check(contrast_of(), masked) != check(contrast_of(), task)


@pytest.mark.parametrize("mode", ["region", "image", "region_meta"])
def test_memory_adds_negatives_of_other_classes(mode: str) -> None:
    """Three steps through a ring of 5: the last one meets what its two predecessors left."""
    module = contrast_of(scl_mode=mode, memory=5)
    kept: list[Sample] = []
    losses = []
    for index, (first, second) in enumerate([(1, 2), (3, 1), (2, 4)]):
        classes = torch.tensor([[first], [second]])
        task = episode(batch=2, size=SIZE, seed=index, classes=classes)
        features = features_of(task, dim=6, grid=GRID, seed=index)
        expected = slow_loss(module, task, features, kept)
        got = module(step_of(task, features))["scl"].item()
        assert got == pytest.approx(expected, rel=2e-4)
        losses.append(expected - slow_loss(module, task, features))
        for b in range(2):
            fresh = samples_of(module, task, features, b)
            kept = ring(kept, [s for s in fresh if s.kind], 5)
    assert losses[0] == 0
    assert all(more > 1e-4 for more in losses[1:])


def ring(kept: list[Sample], fresh: list[Sample], size: int) -> list[Sample]:
    """The last `size` samples; their order does not matter to the loss."""
    return (kept + fresh)[-size:]
