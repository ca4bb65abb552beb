"""LVQM as a whole: its alignment term, the contracts, the recipe, and that it can learn."""

import pytest
import torch
from apscl_cases import TinyEncoder
from lvqm_cases import block_masks, parted_maps
from torch import Tensor, nn

from fewshot_seg import build
from fewshot_seg.building import recipe_of
from fewshot_seg.episode import Episode, Features, Support
from fewshot_seg.interfaces import Latent, Step
from fewshot_seg.recipe import Recipe
from fewshot_seg.registry import Registry
from fewshot_seg.testing import (
    check_contrastive,
    check_decoder,
    check_method,
    foreground_dice,
    make_episode,
    overfit,
)
from fewshot_seg_lvqm.decoder import VQ
from fewshot_seg_lvqm.grid_align import GridAlign


def step_of(decoder: nn.Module) -> Step:
    masks = block_masks(shot=2, size=32, side=16)
    small = masks[..., ::2, ::2]
    maps = parted_maps(small, gap=0.7)
    query = parted_maps(small, gap=0.7, seed=1)[:, 0]
    task = Episode(Support(masks.unsqueeze(3), masks), torch.zeros(1, 2, 1, 32, 32))
    features = Features(maps, small, query)
    return Step(task, features, features, Latent(), decoder.describe(maps, masks), decoder)


def test_grid_align_is_alpnets_alignment_of_a_grid_decoder() -> None:
    align = Registry("contrastive").build("align", skip_empty=False)
    step = step_of(VQ(sovq=False, rovq="none", fg_threshold=0.8))
    assert torch.equal(GridAlign()(step)["grid_align"], align(step)["align"])


def test_grid_align_predicts_with_everything_and_describes_with_the_grid() -> None:
    align = Registry("contrastive").build("align", skip_empty=False)
    full = step_of(VQ().eval())
    loss = GridAlign()(full)["grid_align"]
    assert not torch.isclose(loss, align(full)["align"], atol=1e-5)
    grid = step_of(VQ(sovq=False, rovq="none").eval())
    assert not torch.isclose(loss, align(grid)["align"], atol=1e-6)


@pytest.mark.parametrize("decoder", ["vq", "cosine"])
def test_parts_keep_the_contract(decoder: str) -> None:
    part = Registry("decoder").build(decoder)
    if decoder == "vq":
        check_decoder(part, dim=8)
    check_contrastive(GridAlign(), part, dim=8)


def test_the_method_keeps_the_contract_with_the_papers_residual_step() -> None:
    check_method(build("lvqm", encoder=TinyEncoder(in_channels=3), rovq="lvq_residual"))


def test_recipe_is_the_papers() -> None:
    recipe = recipe_of("lvqm")
    assert (recipe.encoder.name, recipe.decoder.name) == ("resnet101", "vq")
    assert [part.name for part in recipe.contrastive] == ["grid_align"]
    assert recipe.prior is recipe.enrichment is None
    assert dict(recipe.weights) == {"ce": 1.0, "grid_align": 1.0}
    assert list(recipe.options["ce_weights"]) == [0.05, 1.0]
    wanted = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4, "step_factor": 0.95}
    assert {key: recipe.training[key] for key in wanted} == wanted
    assert (recipe.training["step_every"], recipe.training["steps"]) == (1000, 100_000)
    assert recipe.episodes == {"source": "superpixel"}
    model = build("lvqm", encoder=TinyEncoder(), som_size=[5, 5], lm="gaussian")
    assert Recipe.from_toml(model.recipe.to_toml()) == model.recipe


class SmallEncoder(nn.Module):
    """Stride 4 by three convolutions; learns in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.stride, self.in_channels = 32, 4, 3
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def faint(task: Episode) -> Episode:
    """The discs of `make_episode` hardly brighter than the noise around them."""
    support, labels = task.support, task.query_labels
    images = support.images - 1.8 * support.masks.unsqueeze(3)
    query = task.query_images - 1.8 * (labels == 1).float().unsqueeze(2)
    return Episode(Support(images, support.masks), query, labels)


def test_one_episode_is_learnt_by_heart() -> None:
    task = faint(make_episode(batch=1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("lvqm", encoder=SmallEncoder()).train()
        before = foreground_dice(model, task)
        after = overfit(model, task, lr=3e-3, steps=80, target=1.0, every=80)
    assert before < 0.8
    assert after > 0.9
