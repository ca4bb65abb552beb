"""SRNet (RECONSTRUCTED): self-reference against a closed form and a loop, and the whole method.

The contrastive term has tests/test_srnet_contrast.py; the contract, the recipe as data and learning
an episode by heart are in tests/test_alpnet_method.py, for both methods.
"""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from apscl_cases import TinyEncoder, close, episode, features_of, step_of
from torch import Tensor, nn

from fewshot_seg import build
from fewshot_seg.building import recipe_of
from fewshot_seg.episode import Episode, Features, Support
from fewshot_seg.errors import OptionError
from fewshot_seg.functional import area_average
from fewshot_seg.interfaces import Step
from fewshot_seg.registry import Registry
from fewshot_seg.testing import check_contrastive
from fewshot_seg_srnet.class_contrast import ClassContrast
from fewshot_seg_srnet.holdout import described_half
from fewshot_seg_srnet.self_reference import SelfReference

MODES = ("global", "full", "holdout")


def alp() -> nn.Module:
    return Registry("decoder").build("alp")


def random_step(size: int = 16, **shape: int) -> Step:
    task = episode(size=size, **shape)
    return step_of(task, features_of(task, grid=size, dim=5), alp())


# --- self-reference ------------------------------------------------------------------------------


@pytest.mark.parametrize("n_shot", [1, 3])
@pytest.mark.parametrize("self_ref", MODES)
def test_closed_form_on_piecewise_constant_features(self_ref: str, n_shot: int) -> None:
    """Section 8 of the reconstruction: log(1 + exp(-scale * (1 - cos)))."""
    mask = torch.zeros(1, 1, n_shot, 16, 16)
    mask[..., 4:12, 4:12] = 1
    inside, outside = torch.tensor([1.0, 0.0]), torch.tensor([0.95, 0.3])
    maps = mask.unsqueeze(3) * inside.view(2, 1, 1) + (1 - mask).unsqueeze(3) * outside.view(
        2, 1, 1
    )
    labels = mask[:, 0, :1].long()
    task = Episode(Support(mask.unsqueeze(3), mask), mask[:, 0, :1].unsqueeze(2), labels)
    step = step_of(task, Features(maps, mask, maps[:, 0, :1]), alp())
    loss = SelfReference(self_ref=self_ref)(step)["self_reference"]
    cosine = (inside @ outside / outside.norm()).item()
    assert loss.item() == pytest.approx(np.log1p(np.exp(-20 * (1 - cosine))), rel=1e-4)


def slow_self_reference(step: Step, scale: float, weights: tuple[float, float]) -> float:
    """self_ref "global" with masks on the grid."""
    support = step.episode.support
    maps, masks = step.features.support.double().numpy(), support.masks.numpy()
    rest = support.backgrounds.numpy()
    losses = []
    for b in range(len(maps)):
        images = list(np.ndindex(*masks.shape[1:3]))

        def mean(mask: np.ndarray, one: tuple[int, int], b: int = b) -> np.ndarray:
            return (maps[b][one] * mask).sum((1, 2)) / (mask.sum() + 1e-5)

        prototypes = [np.mean([mean(rest[b][one], one) for one in images], 0)]
        for w in range(masks.shape[1]):
            own = [one for one in images if one[0] == w]
            prototypes.append(np.mean([mean(masks[b][one], one) for one in own], 0))
        for one in images:
            total = mass = 0.0
            for r, c in np.ndindex(*masks.shape[-2:]):
                label = one[0] + 1 if masks[b][one][r, c] else 0
                if label == 0 and not rest[b][one][r, c]:
                    continue
                x = maps[b][one][:, r, c]
                d = [scale * x @ p / np.linalg.norm(x) / np.linalg.norm(p) for p in prototypes]
                weight = weights[label > 0]
                total += weight * (np.log(np.exp(d).sum()) - d[label])
                mass += weight
            losses.append(total / mass)
    return float(np.mean(losses))


@pytest.mark.parametrize("weights", [(0.05, 1.0), None])
def test_self_reference_against_a_loop(weights: tuple[float, float] | None) -> None:
    step = random_step(size=8, batch=2, way=2, shot=2)
    got = SelfReference(scale=3.0, class_weights=weights)(step)["self_reference"]
    assert got.item() == pytest.approx(slow_self_reference(step, 3.0, weights or (1, 1)), rel=1e-4)


def test_full_is_the_decoders_answer_on_the_support() -> None:
    step = random_step()
    logits = step.decoder(step.features.support[:, 0], step.state, (16, 16))
    labels = step.episode.support.masks[:, 0, 0].long()
    wanted = torch.nn.functional.cross_entropy(logits[:, 0], labels, torch.tensor([0.05, 1.0]))
    close(SelfReference(self_ref="full")(step)["self_reference"], wanted)
    assert not torch.isclose(SelfReference()(step)["self_reference"], wanted, rtol=0.01)


def test_a_half_is_a_half_of_each_kind_in_whole_blocks() -> None:
    masks = torch.zeros(2, 1, 3, 64, 64)
    masks[..., 8:40, 8:40] = 1  # touches 9 of the 16 blocks of 16 pixels
    masks[0, 0, 0] = 0
    masks[0, 0, 0, 3, 3] = 1  # touches one
    torch.manual_seed(0)
    kept = described_half(masks, (16, 16), 4)
    blocks = area_average(kept, (4, 4))
    assert set(blocks.unique().tolist()) == {0.0, 1.0}
    touched = area_average(masks, (4, 4)) > 0
    assert (blocks * touched).sum((3, 4))[0, 0].tolist() == [1, 5, 5]
    assert (blocks * ~touched).sum((3, 4))[0, 0].tolist() == [8, 4, 4]
    assert not torch.equal(kept, described_half(masks, (16, 16), 4))
    torch.manual_seed(0)
    assert torch.equal(kept, described_half(masks, (16, 16), 4))


def test_holdout_scores_only_what_was_not_described() -> None:
    """A decoder that knows all positions by heart is right where it was told, and only there."""

    class ByHeart(nn.Module):
        def describe(self, maps: Tensor, masks: Tensor, backgrounds: Tensor | None = None) -> Any:
            return masks, backgrounds

        def forward(self, maps: Tensor, state: Any, size: tuple[int, int]) -> Tensor:
            masks, backgrounds = state
            return 50 * torch.stack([backgrounds, masks], 3)[:, 0]

    task = episode(size=16)
    step = step_of(task, features_of(task, grid=16), ByHeart())
    assert SelfReference(self_ref="full")(step)["self_reference"].item() < 1e-6
    held_out = SelfReference(self_ref="holdout")(step)["self_reference"]
    assert held_out.item() == pytest.approx(np.log(2), rel=1e-5)


# --- the method ----------------------------------------------------------------------------------


def small(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build(name, encoder=TinyEncoder(), **options).train()


def test_weights_of_zero_are_alpnet() -> None:
    task = episode(batch=2, size=64)
    plain = small("alpnet")
    off = small("srnet", **{"weights.self_reference": 0.0, "weights.class_contrast": 0.0})
    outputs = [model(task) for model in (plain, off)]
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    close(outputs[0].loss, outputs[1].loss)
    for output in outputs:
        output.loss.backward()
    for a, b in zip(plain.parameters(), off.parameters(), strict=True):
        close(a.grad, b.grad, atol=1e-6)


TERMS = ("align", "self_reference", "class_contrast")
ABLATIONS = [list(some) for n in range(4) for some in combinations(TERMS, n)]


@pytest.mark.parametrize("terms", ABLATIONS, ids=str)
def test_every_combination_of_losses_builds(terms: list[str]) -> None:
    model = small("srnet", contrastive=terms)
    output = model(episode(size=64))
    assert set(output.losses) == {"ce", *terms}
    if "align" in terms:
        assert model.contrastives["align"].skip_empty is False


@pytest.mark.parametrize("decoder", ["cosine", "mutual_guidance", "alp"])
@pytest.mark.parametrize("self_ref", MODES)
def test_parts_work_with_other_decoders(decoder: str, self_ref: str) -> None:
    takes = Registry("decoder").options(decoder)
    made = Registry("decoder").build(decoder, **({"dim": 16} if "dim" in takes else {}))
    check_contrastive(SelfReference(self_ref=self_ref), made, dim=16)
    check_contrastive(ClassContrast(), made, dim=16)


def test_recipe() -> None:
    recipe = recipe_of("srnet")
    assert recipe.encoder is not None
    assert recipe.decoder is not None
    assert (recipe.encoder.name, recipe.decoder.name) == ("resnet101", "alp")
    assert [part.name for part in recipe.contrastive] == list(TERMS)
    assert dict(recipe.weights) == {
        "ce": 1.0,
        "align": 1.0,
        "self_reference": 1.0,
        "class_contrast": 0.1,
    }
    base = recipe_of("alpnet")
    assert (recipe.training, recipe.episodes) == (base.training, base.episodes)
    assert (recipe.options, recipe.contrastive[0]) == (base.options, base.contrastive[0])


WRONG = [
    ({"self_ref": "ful"}, "self_ref='ful' .*did you mean 'full'"),
    ({"class_weights": [1.0]}, "class_weights=.* two numbers"),
    ({"class_weights": [0.0, 0.0]}, "class_weights="),
    ({"block": 0}, "block=0"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SelfReference(**options)
