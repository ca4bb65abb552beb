"""ALPNet as a whole: its recipe, the contract, and that it can learn."""

from typing import Any

import pytest
import torch
from apscl_cases import TinyEncoder, close, episode

from fewshot_seg import Episode, build
from fewshot_seg.building import recipe_of
from fewshot_seg.data.episodes import SupervisedSource
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.prepare import prepare
from fewshot_seg.field import FIELD_TRAINING
from fewshot_seg.recipe import Recipe
from fewshot_seg.testing import check_method, overfit
from fewshot_seg.training import TrainConfig

METHODS = ["alpnet", "srnet"]


def small(name: str, **options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(name, encoder=TinyEncoder(), image_size=64, **options)


def test_recipe_is_the_papers() -> None:
    recipe = recipe_of("alpnet")
    assert recipe.encoder is not None
    assert recipe.decoder is not None
    assert (recipe.encoder.name, recipe.decoder.name) == ("resnet101", "alp")
    assert recipe.encoder.options["freeze_bn"] is False
    assert [(p.name, dict(p.options)) for p in recipe.contrastive] == [
        ("align", {"skip_empty": False})
    ]
    assert recipe.prior is recipe.enrichment is None
    assert recipe.options["ce_weights"] == [0.05, 1.0]
    assert dict(recipe.weights) == {"ce": 1.0, "align": 1.0}
    wanted = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4, "step_factor": 0.95}
    assert {key: recipe.training[key] for key in wanted} == wanted
    assert (recipe.training["schedule"], recipe.training["step_every"]) == ("step", 1000)
    assert (recipe.training["steps"], recipe.training["optimizer"]) == (100_000, "sgd")
    assert recipe.episodes["source"] == "superpixel"


@pytest.mark.parametrize("name", [*METHODS, "lvqm"])
def test_recipes_own_a_copy_of_the_fields_training(name: str) -> None:
    first, second = (recipe_of(name).training for _ in range(2))
    assert first == second == FIELD_TRAINING
    assert first is not second


@pytest.mark.parametrize("name", METHODS)
def test_recipe_is_plain_data(name: str) -> None:
    recipe = recipe_of(name)
    assert Recipe.from_toml(recipe.to_toml()).to_dict() == recipe.to_dict()
    TrainConfig.from_dict(recipe.training)


@pytest.mark.parametrize("name", METHODS)
def test_the_methods_keep_the_contract(name: str) -> None:
    check_method(small(name), channels=1)


@pytest.mark.parametrize("name", METHODS)
def test_autocast_runs_and_stays_close(name: str) -> None:
    task, model = episode(way=2, size=64), small(name).train()
    torch.manual_seed(1)
    exact = model(task)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(task)
    close(half.logits.float(), exact.logits, atol=0.4)  # of a range of 40
    assert set(half.losses) == set(exact.losses)
    assert all(torch.isfinite(value) for value in half.losses.values())


@pytest.fixture(scope="module")
def liver() -> Episode:
    """A slice of one synthetic patient, to be segmented by a slice of another."""
    dataset = abdomen(n_scans=2, size=64, n_slices=8)
    value = next(value for value, name in dataset.classes.items() if name == "liver")
    scans = [
        prepare(dataset.load(scan_id), size=64, intensity=Intensity()) for scan_id in dataset.ids
    ]
    source = SupervisedSource(scans, classes=[value], pairing="matched", min_pixels=300)
    return source.episode(0)


@pytest.mark.parametrize("name", METHODS)
def test_one_episode_is_learnt_by_heart(liver: Episode, name: str) -> None:
    encoder = {"name": "timm", "backbone": "resnet18", "stride": 4, "dim": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(name, encoder=encoder, ce_weights=None).train()
        assert overfit(model, liver, steps=200, target=0.92, every=20) > 0.92
