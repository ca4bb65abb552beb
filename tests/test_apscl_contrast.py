"""Laws of the spatial contrastive loss, its degenerate cases and its options."""

import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from apscl_cases import episode, features_of, step_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_seg.episode import Episode, Features, Support
from fewshot_seg.errors import OptionError
from fewshot_seg.testing import make_episode
from fewshot_seg_apscl.contrast import SpatialContrast, contrast


def contrast_of(**options: Any) -> SpatialContrast:
    torch.manual_seed(3)
    return SpatialContrast(**{"dim": 8, "grid": (4, 4), "sim_dim": 4, **options})


def leaf(features: Features) -> Features:
    """The same features, whose gradients can be read."""
    return Features(
        features.support.requires_grad_(), features.support_masks, features.query.requires_grad_()
    )


def test_image_mode_with_one_episode_is_zero_and_says_so() -> None:
    """Section 7(a): the literal loss of one pair is constantly 0 and teaches nothing."""
    task = episode()
    features = leaf(features_of(task))
    module = contrast_of(scl_mode="image")
    with pytest.warns(UserWarning, match="one episode compares one class only"):
        loss = module(step_of(task, features))["scl"]
    assert loss.item() == 0
    loss.backward()
    assert features.query.grad is not None
    assert features.query.grad.abs().max() == 0
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in module.parameters())


def test_other_modes_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in ({}, {"scl_mode": "region_meta"}, {"scl_mode": "image", "memory": 2}):
            task = episode(classes=torch.tensor([[1]]))
            contrast_of(**options)(step_of(task, features_of(task)))


def test_uniform_similarity_gives_four_thirds_of_log_three() -> None:
    """One episode in region mode: 4 anchors, 1 positive and 2 negatives each."""
    task = episode()
    features = features_of(task)
    same = Features(
        torch.ones_like(features.support), features.support_masks, torch.ones_like(features.query)
    )
    loss = contrast_of()(step_of(task, same))["scl"]
    assert loss.item() == pytest.approx(4 / 3 * math.log(3), abs=1e-5)


def test_meta_of_three_episodes_equals_equation_7_and_8() -> None:
    """N = 3 pairs at equal relevance: 6 anchors of log 5 over 2N - 1."""
    task = episode(batch=3, classes=torch.tensor([[1], [2], [3]]))
    features = features_of(task)
    same = features.with_maps(torch.ones_like(features.maps()))
    loss = contrast_of(scl_mode="image")(step_of(task, same))["scl"]
    assert loss.item() == pytest.approx(6 / 5 * math.log(5), abs=1e-5)


def pairs_of(labels: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Positive and comparable pairs of samples of one episode."""
    kinds = torch.tensor(labels)
    others = ~torch.eye(len(labels), dtype=torch.bool)
    return ((kinds[:, None] == kinds) & others)[None], others[None]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), own=st.floats(-50, 50))
def test_the_pair_with_itself_has_no_part(seed: int, own: float) -> None:
    positive, comparable = pairs_of([1, 0, 1, 0])
    valid = torch.ones(1, 4, dtype=torch.bool)
    scores = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(seed))
    changed = scores.clone()
    changed[:, range(4), range(4)] = own
    before = contrast(scores, positive, comparable, valid)
    assert torch.equal(contrast(changed, positive, comparable, valid), before)


def test_the_loss_falls_when_positives_agree_and_negatives_do_not() -> None:
    positive, comparable = pairs_of([1, 0, 1, 0])
    valid = torch.ones(1, 4, dtype=torch.bool)
    scores = torch.zeros(1, 4, 4, requires_grad=True)
    contrast(scores, positive, comparable, valid).backward()
    assert scores.grad is not None
    assert (scores.grad[positive] < 0).all()
    assert (scores.grad[comparable & ~positive] > 0).all()


def test_dropped_samples_leave_finite_gradients() -> None:
    positive, comparable = pairs_of([1, 0, 1, 0])
    for flags in ([1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]):
        scores = torch.randn(1, 4, 4, requires_grad=True)
        loss = contrast(scores, positive, comparable, torch.tensor([flags], dtype=torch.bool))
        loss.backward()
        assert scores.grad is not None
        assert torch.isfinite(scores.grad).all()
        assert (loss > 0) == (sum(flags) >= 3)


@pytest.mark.parametrize("mode", ["region", "image", "region_meta"])
def test_no_gradient_goes_to_the_masks(mode: str) -> None:
    task = episode(batch=2, classes=torch.tensor([[1], [2]]))
    masks = task.support.masks.clone().requires_grad_()
    asked = Episode(
        Support(task.support.images, masks), task.query_images, task.query_labels, task.classes
    )
    features = leaf(features_of(asked))
    module = contrast_of(scl_mode=mode)
    module(step_of(asked, features))["scl"].backward()
    assert masks.grad is None
    assert features.query.grad is not None
    assert features.query.grad.abs().sum() > 0
    assert features.support.grad is not None
    assert features.support.grad.abs().sum() > 0
    # the key's bias shifts a whole row of the softmax, so nothing can depend on it
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0
        for name, p in module.named_parameters()
        if name != "project.key.bias"
    )


OPTIONS = [
    {"scl_mode": "image"},
    {"scl_mode": "region_meta"},
    {"scl_mode": "region_meta", "meta_episodes": 1, "tau": 0.2},
    {"tau": 0.07},
    {"sim_dim": 32},
    {"qkv": "mlp"},
    {"align": "literal"},
    {"pos_reduction": "sum"},
    {"scl_mode": "region_meta", "memory": 4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_option_changes_the_loss(options: dict[str, Any]) -> None:
    classes = torch.tensor([[1], [2]])
    tasks = [episode(batch=2, shot=2, seed=seed, classes=classes) for seed in (1, 2)]
    plain = {key: value for key, value in options.items() if key not in ("memory",)}
    if plain == options:
        plain = {}
    losses = []
    for module in (contrast_of(**options), contrast_of(**plain)):
        for seed, ids in enumerate((classes, torch.tensor([[3], [4]]))):
            task = tasks[seed]
            seen = Episode(task.support, task.query_images, task.query_labels, ids)
            loss = module(step_of(seen, features_of(seen, seed=seed)))["scl"]
        losses.append(loss.item())
    assert abs(losses[0] - losses[1]) > 1e-4


def test_meta_episodes_splits_the_step() -> None:
    """Two groups of two give the mean of two steps of two."""
    classes = torch.tensor([[1], [2], [3], [4]])
    task = episode(batch=4, classes=classes)
    features = features_of(task)
    module = contrast_of(scl_mode="image", meta_episodes=2)
    whole = module(step_of(task, features))["scl"]
    halves = []
    for rows in (slice(0, 2), slice(2, 4)):
        part = task.map(lambda tensor, rows=rows: tensor[rows])
        some = Features(features.support[rows], features.support_masks[rows], features.query[rows])
        halves.append(module(step_of(part, some))["scl"])
    torch.testing.assert_close(whole, torch.stack(halves).mean())


def test_the_memory_holds_no_graph_and_is_saved() -> None:
    module = contrast_of(memory=3)
    task = episode(classes=torch.tensor([[2]]))
    module(step_of(task, leaf(features_of(task))))["scl"].backward()
    assert module.memory is not None
    assert not any(buffer.requires_grad for buffer in module.memory.buffers())
    assert module.memory.classes.tolist() == [2, 2, -1]
    copy = contrast_of(memory=3)
    copy.load_state_dict(module.state_dict())
    other = episode(seed=5, classes=torch.tensor([[1]]))
    step = step_of(other, features_of(other, seed=5))
    torch.testing.assert_close(copy(step)["scl"], module(step)["scl"], rtol=0, atol=0)


def test_the_loss_does_not_depend_on_the_memory_written_after_it() -> None:
    """Two steps before one backward pass, as gradient accumulation does."""
    module = contrast_of(memory=3)
    losses = []
    for seed in range(3):
        task = episode(seed=seed, classes=torch.tensor([[seed + 1]]))
        losses.append(module(step_of(task, leaf(features_of(task, seed=seed))))["scl"])
    torch.stack(losses).sum().backward()


WRONG = [
    ({"scl_mode": "regions"}, "scl_mode='regions' .*did you mean 'region'"),
    ({"align": "crossed"}, "align='crossed'"),
    ({"pos_reduction": "max"}, "pos_reduction='max'"),
    ({"qkv": "linear"}, "qkv='linear'"),
    ({"tau": 0.0}, "tau=0.0"),
    ({"sim_dim": 0}, "sim_dim=0"),
    ({"memory": -1}, "memory=-1"),
    ({"meta_episodes": 2}, "meta_episodes needs scl_mode"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        contrast_of(**options)


UNFIT = [
    ({"scl_mode": "image"}, {"way": 2}, "needs episodes of one way; these have 2"),
    ({"scl_mode": "image"}, {"batch": 2}, "fill in Episode.classes"),
    ({"memory": 2}, {}, "the memory compares episodes by class"),
    (
        {"scl_mode": "image", "meta_episodes": 2},
        {"batch": 3, "classes": torch.tensor([[1], [2], [3]])},
        "3 episodes, which is no multiple of meta_episodes=2",
    ),
    (
        {"memory": 2, "grid": (5, 5)},
        {"classes": torch.tensor([[1]])},
        "built for 25 feature cells but the images give 16",
    ),
]


@pytest.mark.filterwarnings("ignore:scl_mode 'image'")
@pytest.mark.parametrize(("options", "shape", "message"), UNFIT, ids=[m for *_, m in UNFIT])
def test_unfit_steps(options: dict[str, Any], shape: dict[str, Any], message: str) -> None:
    task = episode(**shape)
    with pytest.raises(ValueError, match=message):
        contrast_of(**options)(step_of(task, features_of(task)))


def test_copies_for_latent_samples_are_not_other_episodes() -> None:
    """Two samples of a step of two episodes give what the one gives, in the comparing modes."""
    term = contrast_of(scl_mode="region_meta")
    task = make_episode(batch=2, size=(32, 32))
    features = features_of(task)
    once = step_of(task, features)
    copies = task.map(lambda t: t.repeat(2, *[1] * (t.ndim - 1)))
    twice = replace(step_of(copies, features.repeat(2)), samples=2)
    torch.testing.assert_close(term(twice)["scl"], term(once)["scl"])
