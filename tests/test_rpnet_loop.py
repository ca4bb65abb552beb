"""RP-Net's refinement loop and its losses, against the official code's arrays and their laws."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from apscl_cases import close, episode, features_of
from rpnet_cases import LAYERS, arrays, check_gradients, renamed
from torch import Tensor

from fewshot_seg.episode import IGNORE, Features, Support
from fewshot_seg.functional import area_average, resize, segmentation_loss
from fewshot_seg.interfaces import Latent, Step
from fewshot_seg.registry import Registry
from fewshot_seg_rpnet.losses import alignment_loss, dice_loss, refine_loss
from fewshot_seg_rpnet.refinement import Described, Refinement, Rounds

CASES = ["eval_hard_steps1", "eval_hard_steps4", "eval_soft_steps4", "train_hard_steps4"]


class Replayed:
    """A refinement case of the official code, run through ours."""

    def __init__(self, folder: Path, name: str) -> None:
        self.data = data = arrays(folder, f"refinement_{name}")
        self.features = [
            data[key].requires_grad_() for key in ("support_features", "query_features")
        ]
        support, query = self.features
        loop = Refinement(
            dim=support.shape[1], radius=int(data["radius"]), soft_mask="soft" in name
        )
        loop.relation.load_state_dict(renamed(data, "weights", LAYERS))
        self.loop = loop.train("train" in name)
        self.masks = data["support_masks"][:, None, None, None]
        self.size = (self.masks.shape[-2], self.masks.shape[-1])
        self.labels = data["query_labels"][:, None]
        self.support = loop.describe(support[:, None, None, None], self.masks, 1 - self.masks)
        start = area_average(data["initial_query_mask"][:, None, None], tuple(query.shape[-2:]))
        self.rounds = loop(
            query[:, None],
            self.support.prototypes,
            start,
            steps=int(data["steps"]),
            size=self.size,
        )
        self.logits = resize(self.rounds.scores, self.size)[:, :, 0]

    def align(self) -> Tensor:
        return alignment_loss(self.support, self.rounds, self.masks, 1 - self.masks, scale=20.0)


@pytest.mark.parametrize("name", CASES)
def test_loop_agrees_with_the_official_code(golden: Callable[[str], Path], name: str) -> None:
    case = Replayed(golden("rpnet"), name)
    data = case.data
    close(case.support.prototypes[:, 0, 0], data["prototype_bg"])
    close(case.support.prototypes[:, 0, 1], data["prototype_fg"])
    close(case.logits[-1], data["logits"], atol=1e-4)
    if "logits_per_step" in data:
        close(case.logits, data["logits_per_step"], atol=1e-4)
        close(case.logits[-1].softmax(1), data["probabilities"], atol=1e-4)
    if "loss_dice" in data:
        last = case.logits[-1].unsqueeze(1)
        close(dice_loss(last, case.labels), data["loss_dice"])
        both = segmentation_loss(last, case.labels) + dice_loss(last, case.labels)
        close(both, data["loss_segmentation"])


def test_training_agrees_with_the_official_code(golden: Callable[[str], Path]) -> None:
    case = Replayed(golden("rpnet"), "train_hard_steps4")
    data, rounds = case.data, case.rounds
    for step, wanted in enumerate(data["loss_segmentation_per_step"]):
        one = Rounds(rounds.scores[step : step + 1], rounds.maps)
        close(refine_loss(one, case.labels, size=case.size), wanted)
    align = case.align()
    close(align, data["loss_alignment"])
    total = refine_loss(rounds, case.labels, size=case.size) + align
    close(total, data["loss_total"])
    total.backward()
    for key, value in zip(("support_features", "query_features"), case.features, strict=True):
        assert value.grad is not None
        wanted = data[f"gradient.{key}"]
        close(value.grad, wanted, atol=1e-4 * wanted.abs().max().item())
    check_gradients(case.loop.relation, renamed(data, "gradient", LAYERS))


def loop_inputs(way: int = 1, shot: int = 1, query: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Support maps with a view axis, support masks, query maps."""
    task = episode(batch=2, way=way, shot=shot, query=query)
    features = features_of(task, grid=8)
    return features.support.unsqueeze(3), task.support.masks.unsqueeze(3), features.query


def run(loop: Refinement, steps: int, start: float = 0.5, **axes: int) -> tuple[Described, Rounds]:
    maps, masks, query = loop_inputs(**axes)
    support = loop.describe(maps, masks, 1 - masks)
    first = torch.full((*query.shape[:2], maps.shape[1], 8, 8), start)
    return support, loop(query, support.prototypes, first, steps=steps, size=(32, 32))


def test_one_step_is_a_prototype_network() -> None:
    torch.manual_seed(0)
    loop = Refinement(dim=8, radius=2, width=6).eval()
    support, rounds = run(loop, 1, shot=3, query=2)
    cosine = Registry("decoder").build("cosine")
    maps, masks, _ = loop_inputs(shot=3, query=2)
    state = cosine.describe(support.maps.squeeze(3), masks.squeeze(3))
    assert maps.shape[3] == 1
    wanted = cosine(rounds.maps.squeeze(2), state, (32, 32))
    close(resize(rounds.scores[-1], (32, 32)), wanted, atol=1e-4)


def test_alignment_is_that_of_panet() -> None:
    torch.manual_seed(0)
    loop = Refinement(dim=8, radius=2, width=6).eval()
    task = episode(batch=2, shot=2)
    support, rounds = run(loop, 2, shot=2)
    masks = task.support.masks
    features = Features(
        support.maps.squeeze(3), area_average(masks, (8, 8)), rounds.maps.squeeze(2)
    )
    cosine = Registry("decoder").build("cosine")
    state = cosine.describe(features.support, masks)
    plain = replace(task, support=Support(task.support.images, masks))
    step = Step(plain, features, features, Latent(), state, cosine)
    wanted = Registry("contrastive").build("align")(step)["align"]
    assert wanted > 0
    views = masks.unsqueeze(3)
    close(alignment_loss(support, rounds, views, 1 - views, scale=20.0), wanted)


def test_a_hard_mask_keeps_gradients_within_its_step() -> None:
    maps, masks, query = loop_inputs()
    for soft in (False, True):
        loop = Refinement(dim=8, radius=1, soft_mask=soft).eval()
        support = loop.describe(maps, masks, 1 - masks)
        first = torch.full((2, 1, 1, 8, 8), 0.5, requires_grad=True)
        rounds = loop(query, support.prototypes, first, steps=2, size=(32, 32))
        (gradient,) = torch.autograd.grad(
            rounds.scores[-1].sum(), [first], allow_unused=True, materialize_grads=True
        )
        assert (gradient.abs().max() > 0) == soft


def test_an_empty_prediction_keeps_the_mask_of_that_query_alone() -> None:
    scores = torch.zeros(1, 2, 2, 4, 4)
    scores[0, 0, 0] = 5.0  # the first query is all background
    scores[0, 1, 1, :2] = 5.0
    before = torch.full((1, 2, 1, 4, 4), 0.3)
    found = Refinement(dim=2).next_masks(scores, before, (4, 4))
    assert torch.equal(found[:, 0], before[:, 0])
    assert found[0, 1, 0].sum() == 8
    emptied = Refinement(dim=2, keep_mask=False).next_masks(scores, before, (4, 4))
    assert emptied[:, 0].sum() == 0
    soft = Refinement(dim=2, soft_mask=True).next_masks(scores, before, (4, 4))
    close(soft, scores.softmax(2)[:, :, 1:])


def test_each_step_sees_the_prediction_before() -> None:
    torch.manual_seed(0)
    loop = Refinement(dim=8, radius=2, keep_mask=False).eval()
    _, long = run(loop, 3, way=2)
    maps, masks, query = loop_inputs(way=2)
    support = loop.describe(maps, masks, 1 - masks)
    for step in (1, 2):
        marks = (resize(long.scores[step - 1], (32, 32)).softmax(2)[:, :, 1:] > 0.5).float()
        assert 0 < marks.mean() < 1
        grid = F.avg_pool2d(marks.flatten(0, 2)[:, None], 4).reshape(2, 1, 2, 8, 8)
        alone = loop(query, support.prototypes, grid, steps=1, size=(32, 32))
        close(alone.scores[0], long.scores[step])


def test_a_way_twice_shares_one_background() -> None:
    torch.manual_seed(0)
    loop = Refinement(dim=8, radius=2).eval()
    maps, masks, query = loop_inputs(shot=2)
    scores = []
    for times in (1, 2):
        some, marks = maps.repeat_interleave(times, 1), masks.repeat_interleave(times, 1)
        support = loop.describe(some, marks, 1 - marks)
        first = torch.full((2, 1, times, 8, 8), 0.5)
        rounds = loop(query, support.prototypes, first, steps=1, size=(32, 32))
        scores.append(rounds.scores[0])
    close(scores[1], scores[0][:, :, [0, 1, 1]])


# ---------------------------------------------------------------- losses


def test_dice_loss_leaves_out_what_is_not_scored() -> None:
    logits = torch.randn(2, 1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 1, 6, 6), generator=torch.Generator().manual_seed(1))
    labels[0, 0, 0] = IGNORE
    scored = labels[:, 0] != IGNORE
    chance = logits.softmax(2)[:, 0].movedim(1, -1)[scored]
    truth = F.one_hot(labels[:, 0][scored], 3).float()
    dice = 2 * (chance * truth).sum(0) / (chance.sum(0) + truth.sum(0))
    close(dice_loss(logits, labels), 1 - dice.mean())


def test_gamma_weighs_late_steps_more() -> None:
    scores = torch.randn(3, 1, 1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(1, 1, 8, 8, dtype=torch.long)
    maps = torch.zeros(1, 1, 1, 2, 4, 4)
    single = [refine_loss(Rounds(one[None], maps), labels, size=(8, 8)) for one in scores]
    found = refine_loss(Rounds(scores, maps), labels, size=(8, 8), gamma=0.5)
    close(found, (0.25 * single[0] + 0.5 * single[1] + single[2]) / 1.75)
    uniform = refine_loss(Rounds(scores, maps), labels, size=(8, 8))
    close(uniform, torch.stack(single).mean())
