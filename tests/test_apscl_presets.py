"""The presets hold the values of docs/methods/apscl.md, and every option it names exists."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from apscl_cases import small_apscl

from fewshot_seg import build
from fewshot_seg.building import recipe_of
from fewshot_seg.errors import OptionError, RecipeError
from fewshot_seg.recipe import Recipe
from fewshot_seg.registry import Registry
from fewshot_seg.training import TrainConfig
from fewshot_seg_apscl import apscl_fast

SHARED: Mapping[str, Any] = {
    "prior.latent": 32,
    "prior.hidden": 512,
    "prior.label_input": "mask",
    "prior.latent_source": "prior",
    "prior.prior_condition": "image",
    "prior.kl_dir": "image_label",
    "prior.kl_reduction": "sum",
    "prior.kl_balance": 0.0,
    "prior.free_bits": 0.0,
    "prior.eval_samples": 1,
    "prior.num_samples": 1,
    "enrichment.hidden": 256,
    "contrastive.meta_episodes": 0,
    "contrastive.tau": 0.1,
    "contrastive.sim_dim": 64,
    "contrastive.qkv": "conv",
    "contrastive.pos_reduction": "mean",
    "contrastive.memory": 0,
    "decoder.chan_attn": True,
    "decoder.alpha_combine": "sum",
    "decoder.alpha_side": "left",
    "decoder.alpha_gain": False,
    "decoder.alpha_per_way": False,
    "decoder.cross_source": "raw",
    "decoder.bg": "prototype",
    "decoder.map": "mask_down",
}
"""Section 7: what the recommended and the literal reading agree on."""
APSCL = SHARED | {
    "prior.prior_pool": 4,
    "prior.label_encoder": "light",
    "prior.label_recon": 0.1,
    "prior.eval_latent": "mean",
    "enrichment.film": "residual",
    "contrastive.scl_mode": "region",
    "contrastive.align": "cross",
    "decoder.alpha_norm": "corr",
    "decoder.h_init": "tied",
    "decoder.scale": 20.0,
}
LITERAL = SHARED | {
    "prior.prior_pool": "none",
    "prior.label_encoder": "resnet101",
    "prior.label_recon": 0.0,
    "prior.eval_latent": "sample",
    "enrichment.film": "literal",
    "contrastive.scl_mode": "image",
    "contrastive.align": "literal",
    "decoder.alpha_norm": "none",
    "decoder.h_init": "independent",
    "decoder.scale": 1.0,
}


def options_of(recipe: Recipe) -> dict[str, Any]:
    """Every option of the parts, those at their defaults included."""
    found = {}
    for slot, part in recipe.parts():
        for name, parameter in Registry(slot).options(part.name).items():
            if parameter.default is not parameter.empty:
                found[f"{slot}.{name}"] = part.options.get(name, parameter.default)
    return found


@pytest.mark.parametrize(
    ("method", "table"), [("apscl", APSCL), ("apscl_literal", LITERAL)], ids=["apscl", "literal"]
)
def test_option_tables(method: str, table: Mapping[str, Any]) -> None:
    found = options_of(recipe_of(method))
    assert {key: found[key] for key in table} == dict(table)
    own = {key for key in found if not key.startswith("encoder.")}
    # what is left has no counterpart in the paper: shapes, a seed, the window of bg "grid"
    extra = {
        "prior.grid",
        "prior.eval_seed",
        "contrastive.grid",
        "decoder.sim_dim",
        "decoder.bg_window",
    }
    assert own - set(table) == extra


@pytest.mark.parametrize("method", ["apscl", "apscl_literal"])
def test_parts_weights_and_training(method: str) -> None:
    recipe = recipe_of(method)
    names = {slot: part.name for slot, part in recipe.parts()}
    assert names == {
        "encoder": "resnet101",
        "prior": "anatomical",
        "enrichment": "film",
        "contrastive": "spatial",
        "decoder": "mutual_guidance",
    }
    assert dict(recipe.weights) == {"ce": 1.0, "kl": 0.1, "scl": 0.07}
    assert "ce_weights" not in recipe.options
    wanted = {
        "optimizer": "sgd",
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "constant",
        "episodes_per_step": 1,
        "steps": 100_000,
    }
    assert dict(recipe.training) == wanted
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_the_fast_preset_is_the_same_method_and_as_many_episodes() -> None:
    own, fast = recipe_of("apscl"), apscl_fast()
    assert replace(fast, method="apscl", training=own.training) == own
    slow, quick = (TrainConfig.from_dict(one.training) for one in (own, fast))
    changed = {one for one, value in slow.to_dict().items() if quick.to_dict()[one] != value}
    assert changed == {
        "steps", "episodes_per_step", "lr", "precision", "channels_last", "workers",
    }  # fmt: skip
    assert quick.episodes_per_step == 8
    assert slow.steps * slow.episodes_per_step == quick.steps * quick.episodes_per_step
    assert slow.lr * slow.steps == pytest.approx(quick.lr * quick.steps)
    assert (quick.precision, quick.channels_last) == ("auto", True)
    assert Recipe.from_toml(fast.to_toml()) == fast


NAMED = {
    "prior_pool": [4, "gap", 8, "none"],
    "label_encoder": ["light", "resnet18"],
    "label_input": ["mask", "mask+image"],
    "label_recon": [0.0, 0.1],
    "latent_source": ["prior", "posterior"],
    "prior_condition": ["image", "support_mask"],
    "kl_dir": ["image_label", "label_image"],
    "kl_reduction": ["sum", "mean"],
    "kl_balance": [0.0, 0.8],
    "free_bits": [0.0, 0.05],
    "num_samples": [1, 2],
    "film": ["residual", "literal"],
    "scl_mode": ["region", "image", "region_meta"],
    "tau": [0.05, 0.07, 0.1, 0.2, 0.5],
    "contrastive.sim_dim": [32, 64, 128, 256],
    "qkv": ["conv", "mlp"],
    "align": ["cross", "literal"],
    "pos_reduction": ["mean", "sum"],
    "memory": [0, 16],
    "alpha_norm": ["corr", "softmax", "mean", "none"],
    "alpha_combine": ["sum", "product"],
    "alpha_side": ["left", "right"],
    "alpha_gain": [False, True],
    "alpha_per_way": [False, True],
    "cross_source": ["raw", "aligned"],
    "h_init": ["tied", "shared", "independent"],
    "scale": [1.0, 20.0],
    "bg": ["prototype", "grid", "threshold"],
    "map": ["mask_down", "feat_up"],
    "ce_weights": [None, [0.05, 1.0]],
}


@pytest.mark.parametrize("option", NAMED)
def test_every_value_that_the_page_names_can_be_built(option: str) -> None:
    for value in NAMED[option]:
        small_apscl(**{option: value})


def test_evaluation_by_samples_and_by_the_mean() -> None:
    small_apscl(eval_latent="sample", eval_samples=3)
    with pytest.raises(OptionError, match="eval_samples > 1 needs"):
        small_apscl(eval_samples=3)


ABLATION = [
    {"prior": None, "enrichment": None, "contrastive": None, "decoder": "cosine"},
    {"contrastive": None, "decoder": "cosine"},
    {"prior": None, "enrichment": None, "decoder": "cosine"},
    {"prior": None, "enrichment": None, "contrastive": None},
    {"decoder": "cosine"},
    {"prior": None, "enrichment": None},
    {"contrastive": None},
    {},
]


@pytest.mark.parametrize("changes", ABLATION, ids=str)
def test_the_rows_of_table_2(changes: dict[str, Any]) -> None:
    model = small_apscl_without(changes)
    assert (model.prior is None) == ("prior" in changes)
    assert len(model.contrastives) == ("contrastive" not in changes)


def small_apscl_without(changes: dict[str, Any]) -> Any:
    """Options of a part that is left out cannot be set."""
    if "prior" not in changes:
        return small_apscl(**changes)
    from apscl_cases import TinyEncoder

    return build("apscl", encoder=TinyEncoder(), image_size=32, **changes)


def test_film_without_a_prior_is_refused() -> None:
    from apscl_cases import TinyEncoder

    with pytest.raises(RecipeError, match="enrichment 'film' needs `latent`"):
        build("apscl", encoder=TinyEncoder(), image_size=32, prior=None)
