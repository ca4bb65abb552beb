"""`build`: swapping parts, setting options, refusing what cannot work, recipes in and out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fewshot_seg import Part, Recipe, build
from fewshot_seg.errors import OptionError, PluginError, RecipeError, UnknownNameError
from fewshot_seg.registry import Registry
from fewshot_seg.testing import make_episode

TINY = {"name": "timm", "backbone": "test_resnet.r160_in1k", "dim": 16}


def small(method: str | Recipe = "apscl", **changes: Any) -> Any:
    return build(method, **{"encoder": TINY, "image_size": 64, **changes})


def test_the_default_apscl_is_the_papers_size() -> None:
    recipe = build("apscl", encoder="resnet18").recipe
    assert [part.name for _, part in recipe.parts()] == [
        "resnet18", "anatomical", "film", "spatial", "mutual_guidance",
    ]  # fmt: skip
    assert recipe.weights == {"ce": 1.0, "kl": 0.1, "scl": 0.07}
    assert recipe.training["lr"] == 1e-3


@pytest.mark.parametrize(
    ("changes", "where", "value"),
    [
        ({"decoder": {"name": "mutual_guidance", "scale": 10.0}}, "decoder.scale", 10.0),
        ({"decoder": {"scale": 5.0}}, "decoder.scale", 5.0),
        ({"decoder.scale": 4.0}, "decoder.scale", 4.0),
        ({"scale": 3.0}, "decoder.scale", 3.0),
        ({"latent": 8}, "prior.latent", 8),
        ({"contrastive.tau": 0.2}, "contrastives.spatial.tau", 0.2),
        ({"contrastive": ["align", "spatial"], "contrastive.spatial.tau": 0.5},
         "contrastives.spatial.tau", 0.5),
        ({"decoder": "cosine", "decoder.scale": 2.0}, "decoder.scale", 2.0),
        ({"ce_weights": [0.05, 1.0]}, "ce_weights", (0.05, 1.0)),
        ({"weights.kl": 0.5}, "weights.kl", 0.5),
        ({"prior": None, "enrichment": None}, "prior", None),
        ({"in_channels": 1}, "encoder.in_channels", 1),
    ],
)  # fmt: skip
def test_overrides_reach_the_part(changes: dict[str, Any], where: str, value: object) -> None:
    found: Any = small(**changes)
    for step in where.split("."):
        found = found[step] if isinstance(found, dict | nn.ModuleDict) else getattr(found, step)
    assert found == value


def test_a_module_can_be_handed_in_and_its_recipe_says_so(tmp_path: Path) -> None:
    decoder = Registry("decoder").build("mutual_guidance", dim=16, scale=7.0)
    method = small(decoder=decoder)
    assert method.decoder is decoder
    again = Recipe.from_toml(method.recipe.to_toml())
    with pytest.raises(RecipeError, match="handed in as a module .*MutualGuidance.* pass it again"):
        build(again)
    assert build(again, decoder=decoder).decoder is decoder


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"prior": None}, RecipeError, "enrichment 'film' needs `latent`, which a prior provides"),
    ({"decoder": None}, OptionError, "cannot do without its decoder"),
    ({"decoder": 3}, OptionError, "decoder=3 is a int; give a registered name"),
    ({"decoder": "cosin"}, UnknownNameError, "did you mean 'cosine'"),
    ({"decoder": nn.ReLU()}, PluginError, "is a ReLU, which lacks describe"),
    ({"decoder": {"scal": 3}}, OptionError, "no option 'scal'; did you mean 'scale'"),
    ({"scal": 3}, OptionError, "no hyper-parameter 'scal'; did you mean 'scale'"),
    ({"hidden": 3}, OptionError, "several parts .* 'prior.hidden' or 'enrichment.hidden'"),
    ({"decoderr.scale": 3}, OptionError, "did you mean 'decoder'"),
    ({"options.scale": 3}, OptionError, "a pipeline has no option 'scale'"),
    ({"decoder": {"name": "mutual_guidance", "dim": 8}}, RecipeError, "given dim=8.* dim=16"),
    ({"contrastive": ["align", "align"]}, RecipeError, "'align' stands twice"),
    ({"contrastive": ["align", "spatial"], "contrastive.tau": 1.0}, OptionError, "exactly one"),
    (
        {"contrastive": ["align", "self_reference", "class_contrast"], "mask_resize": "area"},
        OptionError,
        "'contrastive.self_reference.mask_resize' or 'contrastive.class_contrast.mask_resize'",
    ),
    ({"in_channels": 1, "encoder.in_channels": 3}, RecipeError, "in_channels"),
    ({"film": "resid"}, OptionError, "did you mean 'residual'"),
    ({"prior_pool": 0}, OptionError, "prior_pool=0 must be"),
    ({"eval_samples": 4}, OptionError, "needs eval_latent='sample'"),
]


@pytest.mark.parametrize(("changes", "error", "message"), REFUSED)
def test_what_cannot_work_is_refused(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        small(**changes)


def test_loss_weights_of_a_whole_network_are_its_options() -> None:
    with pytest.raises(OptionError, match=r"'weights\.dice' would do nothing. It"):
        build("senet", **{"weights.dice": 2.0})


def test_a_module_of_another_size_is_refused() -> None:
    film = Registry("enrichment").build("film", dim=16, latent=8)
    film.latent = 8
    with pytest.raises(RecipeError, match="works on latent=8, but the prior provides latent=32"):
        small(enrichment=film)


def test_recipes_survive_toml_and_build_the_same_method(tmp_path: Path) -> None:
    method = small(**{"contrastive": ["spatial", "align"], "contrastive.spatial.tau": 0.2})
    path = tmp_path / "recipe.toml"
    method.recipe.save(path)
    assert Recipe.load(path) == method.recipe
    again: Any = build(path)
    again.load_state_dict(method.state_dict())
    episode = make_episode()
    method.eval()
    again.eval()
    with torch.no_grad():
        assert torch.equal(method(episode).logits, again(episode).logits)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method = ", "not valid TOML"),
        ("", "needs `method"),
        ('method = "apscl"\ndecodr = {name = "x"}', "no entry 'decodr'; did you mean 'decoder'"),
        ('method = "apscl"\ndecoder = "cosine"', r"\[decoder\] of the recipe needs"),
        ('method = "apscl"\ntraining = 3', r"\[training\] of the recipe must be a table"),
        ('method = "x"\nencoder = {name = "resnet18"}', "has no decoder"),
    ],
)
def test_bad_recipes_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        build(path)
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        Recipe.load(tmp_path / "absent.toml")


def test_values_that_toml_cannot_hold_are_refused() -> None:
    with pytest.raises(RecipeError, match="part 'cosine'.*numbers, words"):
        Recipe("x", decoder=Part("cosine", {"scale": object()})).to_toml()


def test_a_whole_network_takes_its_own_options() -> None:
    assert build("copy").recipe.method == "copy"
    with pytest.raises(OptionError, match="method 'copy' has no option 'scale'"):
        build("copy", scale=3)


@pytest.mark.parametrize(
    "weights", [0, 1.0, "even", [1.0], [1, 2, 3], [0, 0], [-1, 1], [True, 1], [float("nan"), 1], {}]
)
def test_wrong_cross_entropy_weights_are_refused(weights: object) -> None:
    with pytest.raises(OptionError, match=r"not \[background, foreground\], two numbers"):
        small("panet", ce_weights=weights)


@pytest.mark.parametrize(
    "size", [0, -1, 10**9, "large", [64], [64, 64, 64], [64, 64.0], [True, 64], {}]
)
def test_wrong_image_sizes_are_refused(size: object) -> None:
    with pytest.raises(OptionError, match="neither a number of pixels nor"):
        build("panet", encoder=TINY, image_size=size)
