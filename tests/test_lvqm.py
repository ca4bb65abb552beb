"""The VQ decoder: the official pipeline's arrays, its laws, and what its options mean."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apscl_cases import TinyEncoder
from lvqm_cases import block_masks, files, of_one, parted_maps, support
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fewshot_seg import build
from fewshot_seg.building import recipe_of
from fewshot_seg.episode import Episode, Features, Support
from fewshot_seg.errors import OptionError, PluginError
from fewshot_seg.functional import segmentation_loss
from fewshot_seg.interfaces import Latent, Step
from fewshot_seg.prototype_sets import PrototypeSets
from fewshot_seg.recipe import Recipe
from fewshot_seg.registry import Registry
from fewshot_seg.testing import check_contrastive, check_decoder, check_method, make_episode
from fewshot_seg_lvqm.decoder import VQ
from fewshot_seg_lvqm.draws import Draws
from fewshot_seg_lvqm.grid import Grid, fit
from fewshot_seg_lvqm.grid_align import GridAlign
from fewshot_seg_lvqm.mapping import local_mapping

TOLERANCE = 1e-4


def close(got: Tensor, wanted: Tensor, atol: float = TOLERANCE) -> None:
    torch.testing.assert_close(got.float(), wanted.float(), atol=atol, rtol=1e-5)


# --- the official code --------------------------------------------------------------------------


def test_official_grid(golden: Callable[[str], Path]) -> None:
    for _, data in files(golden("lvqm"), "grid_prototypes_*"):
        maps, masks = support(data)
        window, grid = data["window"], maps.shape[-2:]
        small = [fit(mask, (grid[0], grid[1]), True) for mask in (masks, 1 - masks)]
        close(small[0][0, 0], data["mask_fg_resized"])
        close(small[1][0, 0], data["mask_bg_resized"])
        for name, threshold in (("", 0.55), ("_threshold095", 0.95)):
            rule = Grid(fg_threshold=threshold, window=window, eval_window=window // 2)
            found = rule.eval()(maps, *small)
            close(of_one(found.foreground), data[f"prototypes_fg{name}"])
            close(of_one(found.background), data["prototypes_bg_test"])
            close(of_one(rule.train()(maps, *small).background), data["prototypes_bg_train"])
        close(found.average[0], data["prototype_fg_global"])
        decoder = VQ(sovq=False, rovq="none", window=window, eval_window=window // 2).eval()
        scores = decoder(data["query_features"][None], decoder.describe(maps, masks), grid)
        close(scores[0], data["scores"])


def test_official_local_mapping(golden: Callable[[str], Path]) -> None:
    for _, data in files(golden("lvqm"), "local_mapping*"):
        vectors = data["references"][None, None]
        references = PrototypeSets(vectors, torch.ones(vectors.shape[:3], dtype=torch.bool))
        for lm in ("inverse", "gaussian", "subtra"):
            got = local_mapping(data["neurons"][None, None], references, lm=lm, k=data["k"])
            close(got[0, 0], data[f"mapped_{lm}"])


def official(name: str, data: dict[str, Any], window: int) -> tuple[VQ, Draws | None]:
    """The decoder as the file's name says, and the official draws."""
    options: dict[str, Any] = {"window": window, "eval_window": window // 2}
    if "no_mapping" in name:
        options["lm"] = "none"
    if "origin_bg" in name:
        options["bgmode"] = "origin"
    if "grid_only" in name:
        options |= {"sovq": False, "rovq": "none"}
    draws = None
    if "som_codebook_initial" in data:
        rows, cols = data["som_codebook_initial"].shape[:2]
        options["som_size"] = (rows, cols)
        options["lvq_vectors"] = len(data["glvq_codebook_initial"]) // 2
        draws = Draws(
            data["som_codebook_initial"].flatten(0, 1)[None, None],
            data["som_sample_order"],
            data["glvq_codebook_initial"][None, None],
        )
    exact = {"som": "online", "detach": True, "keep_empty": True, "rovq_solver": "lbfgs"}
    return VQ(**exact, **options).train("train" in name), draws


def test_official_pipeline(golden: Callable[[str], Path]) -> None:
    for name, data in files(golden("lvqm"), "pipeline_*"):
        maps, masks = support(data)
        decoder, draws = official(name, data, data["window"])
        query = data["query_features"][None].requires_grad_()
        state = decoder.describe(maps, masks, draws=draws)
        close(of_one(state.foreground), data["prototypes_fg"])
        background = data["prototypes_grid_bg" if "origin_bg" in name else "prototypes_bg"]
        close(of_one(state.background), background)
        close(decoder(query, state, query.shape[-2:])[0], data["scores"])
        size = (masks.shape[-2], masks.shape[-1])
        logits = decoder(query, state, size)
        close(logits[0], data["logits"])
        close(logits.softmax(2)[0], data["probabilities"])
        if "loss_total" in data:
            check_losses(data, decoder, maps, masks, query, logits, state)


def check_losses(
    data: dict[str, Any],
    decoder: VQ,
    maps: Tensor,
    masks: Tensor,
    query: Tensor,
    logits: Tensor,
    state: Any,
) -> None:
    labels = data["query_labels"].long()[None]
    task = Episode(Support(masks.unsqueeze(3), masks), labels.unsqueeze(2).float(), labels)
    features = Features(maps, fit(masks, (maps.shape[-2], maps.shape[-1]), True), query)
    step = Step(task, features, features, Latent(), state, decoder)
    loss = segmentation_loss(logits, labels, [0.05, 1.0])
    aligned = GridAlign()(step)["grid_align"]
    assert loss.item() == pytest.approx(data["loss_segmentation"], abs=TOLERANCE)
    assert aligned.item() == pytest.approx(data["loss_alignment"], abs=TOLERANCE)
    (gradient,) = torch.autograd.grad(loss + aligned, query)
    wanted = data["gradient.query_features"]
    close(gradient[0], wanted, atol=TOLERANCE * wanted.abs().max().item())


# --- ALPNet inside -------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 2)], ids=str)
def test_without_map_and_lvq_it_is_alpnets_decoder(shape: tuple[int, int], training: bool) -> None:
    """Bit for bit, with ALPNet's thresholds and resizing, and cells of one size at test."""
    try:
        alp = Registry("decoder").build("alp", test_window=4)
    except PluginError as error:
        pytest.skip(f"no ALPNet: {error}")
    ours = VQ(sovq=False, rovq="none", fg_threshold=0.95, align_corners=False, eval_window=4)
    alp.train(training), ours.train(training)
    for side in (20, 9, 0, 64):
        masks = block_masks(way=shape[0], shot=shape[1], size=64, side=side)
        small = masks[..., ::4, ::4]
        maps = parted_maps(small, dim=8)
        query = parted_maps(small, dim=8, seed=1)[:, 0]
        got, wanted = (
            decoder(query, decoder.describe(maps, masks), (64, 64)) for decoder in (ours, alp)
        )
        assert torch.equal(got, wanted)
    resized = VQ(sovq=False, rovq="none", fg_threshold=0.95, eval_window=4).train(training)
    assert not torch.equal(resized(query, resized.describe(maps, masks), (64, 64)), wanted)


# --- laws ----------------------------------------------------------------------------------------


def case(**shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Maps with their masks on the same grid, and a query."""
    masks = block_masks(**shape)
    return parted_maps(masks), masks, parted_maps(masks, seed=1)[:, 0]


def answer(decoder: VQ, maps: Tensor, masks: Tensor, query: Tensor) -> Tensor:
    return decoder(query, decoder.describe(maps, masks), (32, 32))


def test_the_three_quantisers_are_joined_in_order() -> None:
    maps, masks, _ = case()
    state = VQ(lm="none").eval().describe(maps, masks)
    grid = VQ(sovq=False, rovq="none").eval().describe(maps, masks)
    fore, back = of_one(state.foreground), of_one(state.background)
    few, many = of_one(grid.foreground), of_one(grid.background)
    assert torch.equal(fore[: len(few)], few)
    assert torch.equal(back[: len(many)], many)
    assert len(few) == 4 + 1
    n_neurons = len(fore) + len(back) - len(few) - len(many) - 4
    assert 40 < n_neurons <= 49
    only_lvq = VQ(sovq=False).eval().describe(maps, masks)
    assert len(of_one(only_lvq.foreground)) == len(few) + 2
    assert len(of_one(only_lvq.background)) == len(many) + 2


def test_a_small_way_keeps_its_mean_alone() -> None:
    maps, masks, _ = case(shot=3, side=2)
    state = VQ().eval().describe(maps, masks)
    wanted = (maps * masks.unsqueeze(3)).sum((-2, -1)) / (masks.sum((-2, -1)) + 1e-5).unsqueeze(-1)
    close(of_one(state.foreground), wanted.mean(2)[0])
    grid = VQ(sovq=False, rovq="none").eval().describe(maps, masks)
    assert torch.equal(of_one(state.background), of_one(grid.background))


def test_one_way_may_be_small_and_another_not() -> None:
    maps, masks, _ = case(way=2)
    masks[:, 1] = block_masks(side=2)[:, 0]
    state = VQ().eval().describe(maps, masks)
    assert len(of_one(state.foreground, 0)) > 7
    assert len(of_one(state.foreground, 1)) == 1


def test_shapes_do_not_depend_on_the_masks() -> None:
    maps, masks, _ = case()
    sizes = {
        tuple(sets.vectors.shape for sets in VQ().describe(maps, mask))
        for mask in (masks, masks * 0, masks * 0 + 1, block_masks(side=2))
    }
    assert len(sizes) == 1


def test_the_background_comes_from_all_supports() -> None:
    maps, masks, _ = case(way=2)
    both = VQ().eval().describe(maps, masks)
    alone = [VQ().eval().describe(maps[:, [w]], masks[:, [w]]) for w in range(2)]
    close(of_one(both.background), torch.cat([of_one(state.background) for state in alone]))
    for way, state in enumerate(alone):
        close(of_one(both.foreground, way), of_one(state.foreground))


def test_swapping_ways_swaps_labels() -> None:
    maps, masks, query = case(way=2, shot=2)
    decoder = VQ().eval()
    got = answer(decoder, maps.flip(1), masks.flip(1), query)
    close(got, answer(decoder, maps, masks, query)[:, :, [0, 2, 1]])


def test_episodes_of_a_batch_do_not_meet() -> None:
    maps, masks, query = case(batch=2)
    decoder = VQ().eval()
    together = answer(decoder, maps, masks, query)
    close(answer(decoder, maps[1:], masks[1:], query[1:]), together[1:])


def test_eval_is_deterministic_and_draws_nothing() -> None:
    maps, masks, query = case()
    decoder = VQ().eval()
    first = answer(decoder, maps, masks, query)
    before = torch.get_rng_state()
    answer(decoder, parted_maps(masks, seed=9), masks, query)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(answer(decoder, maps, masks, query), first)
    assert not torch.equal(answer(VQ(seed=1).eval(), maps, masks, query), first)


def test_training_draws_from_torchs_generator() -> None:
    maps, masks, query = case()
    decoder = VQ().train()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, other = (answer(decoder, maps, masks, query) for _ in range(2))
        torch.manual_seed(3)
        again = answer(decoder, maps, masks, query)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_gradient_reaches_the_support_through_the_neurons() -> None:
    maps, masks, _ = case()
    for detach, expected in ((False, True), (True, False)):
        leaf = maps.clone().requires_grad_()
        decoder = VQ(lm="none", rovq="none", detach=detach).eval()
        grid = VQ(sovq=False, rovq="none").eval().describe(leaf, masks)
        fore = of_one(decoder.describe(leaf, masks).foreground)[len(of_one(grid.foreground)) :]
        (gradient,) = torch.autograd.grad(fore.sum() + 0 * leaf.sum(), leaf)
        assert bool(gradient.abs().sum() > 0) == expected


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("rovq", ["glvq", "lvq_residual", "none"])
def test_odd_masks_give_finite_answers_and_gradients(value: float, rovq: str) -> None:
    maps, masks, query = case()
    leaf = maps.requires_grad_()
    logits = answer(VQ(rovq=rovq), leaf, torch.full_like(masks, value), query)
    assert torch.isfinite(logits).all()
    (gradient,) = torch.autograd.grad(logits.square().mean(), leaf)
    assert torch.isfinite(gradient).all()


def test_constant_maps_give_finite_gradients() -> None:
    """Every pixel, neuron and cell is the same vector: distances of 0 everywhere."""
    _, masks, query = case()
    leaf = torch.ones(1, 1, 1, 6, 16, 16, requires_grad=True)
    logits = answer(VQ(), leaf, masks, query)
    (gradient,) = torch.autograd.grad(logits.square().mean(), leaf)
    assert torch.isfinite(logits).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("rovq", ["glvq", "lvq_residual"])
def test_no_number_is_read_on_the_host(rovq: str) -> None:
    """Tensors without values refuse `.item()`, `bool()` and shapes that depend on values."""
    tensors = case(batch=2, way=2, shot=2)
    with FakeTensorMode() as mode:
        maps, masks, query = (mode.from_tensor(tensor) for tensor in tensors)
        for training in (True, False):
            decoder = VQ(rovq=rovq, sweeps=2, lvq_iterations=2).train(training)
            logits = answer(decoder, maps, masks, query)
            assert logits.shape == (2, 2, 3, 32, 32)


def test_autocast_stays_in_full_precision() -> None:
    maps, masks, query = (t.bfloat16().float() for t in case())
    decoder = VQ().eval()
    wanted = answer(decoder, maps, masks, query)
    with torch.autocast("cpu", torch.bfloat16):
        got = answer(decoder, maps.bfloat16(), masks, query.bfloat16())
    assert torch.equal(got, wanted)


OPTIONS = [
    {"scale": 10.0},
    {"fg_threshold": 0.95},
    {"bg_threshold": 0.0},
    {"window": 2},
    {"eval_window": 4},
    {"align_corners": False},
    {"sovq": False},
    {"som": "online", "som_steps": 60},
    {"som_size": (2, 3)},
    {"neighbourhood": "gaussian"},
    {"neighbourhood": "gaussian", "sigma": 3.0},
    {"sweeps": 1},
    {"lm": "none"},
    {"lm": "gaussian"},
    {"lm": "subtra"},
    {"neighbours": 1},
    {"rovq": "none"},
    {"rovq": "lvq_residual"},
    {"rovq_solver": "lbfgs"},
    {"lvq_vectors": 3},
    {"lvq_iterations": 1},
    {"beta": 8.0},
    {"normalize_before_vq": True},
    {"bgmode": "origin"},
    {"seed": 5},
    {"som": "online", "som_steps": 60, "detach": True},
]


def test_each_option_changes_the_answer() -> None:
    masks = block_masks(size=64, side=30)
    maps = parted_maps(block_masks(side=9), gap=1.0)
    query = parted_maps(block_masks(side=9), gap=1.0, seed=1)[:, 0]
    answers = {"default": answer(VQ().eval(), maps, masks, query)}
    for options in OPTIONS:
        got = answer(VQ(**options).eval(), maps, masks, query)
        for name, other in answers.items():
            assert not torch.allclose(got, other, atol=1e-4), f"{options} is {name}"
        answers[str(options)] = got


def test_empty_neurons_can_be_kept() -> None:
    """With more neurons than pixels some start equal, and only the first of them gets pixels."""
    maps, masks, _ = case(size=8, side=4)
    kept, dropped = (
        VQ(keep_empty=keep, som_size=(9, 9)).eval().describe(maps, masks) for keep in (True, False)
    )
    assert len(of_one(kept.background)) == len(of_one(dropped.background)) + 81 - 64


WRONG = [
    ({"rovq": "lvq"}, "rovq='lvq'"),
    ({"bgmode": "original"}, "bgmode='original' .*did you mean 'origin'"),
    ({"scale": 0.0}, "scale=0.0"),
    ({"fg_threshold": 1.0}, "fg_threshold=1.0"),
    ({"bg_threshold": -0.1}, "bg_threshold=-0.1"),
    ({"window": 0}, "window=0"),
    ({"eval_window": 0}, "eval_window=0"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        VQ(**options)


# --- local mapping -------------------------------------------------------------------------------


@pytest.mark.parametrize("lm", ["inverse", "gaussian", "subtra"])
def test_local_mapping_against_a_loop(lm: str) -> None:
    rng = torch.Generator().manual_seed(0)
    neurons, vectors = (torch.randn(2, 2, n, 3, generator=rng) for n in (5, 9))
    present = torch.rand(2, 2, 9, generator=rng) < 0.5
    present[..., 0] = True
    present[0, 0, 1:] = False  # fewer references than neighbours
    got = local_mapping(neurons, PrototypeSets(vectors, present), lm=lm, k=3)
    weigh = {
        "inverse": lambda d: 1 / (d + 0.1),
        "gaussian": lambda d: np.exp(-(d**2) / 200),
        "subtra": lambda d: 2 - d if d <= 2 else 0.001,
    }[lm]
    for b, w, n in np.ndindex(2, 2, 5):
        known = vectors[b, w][present[b, w]].double()
        distance = (known - neurons[b, w, n].double()).norm(dim=-1)
        nearest = distance.argsort()[:3]
        weights = torch.tensor([weigh(d.item()) for d in distance[nearest]])
        wanted = (weights[:, None] * known[nearest]).sum(0) / weights.sum()
        close(got[b, w, n], wanted)


def test_a_far_neuron_is_still_mapped() -> None:
    """exp(-d^2 / 200) underflows from d = 150 on; the mean of its neighbours must not."""
    vectors = torch.eye(3)[None, None]
    sets = PrototypeSets(vectors, torch.ones(1, 1, 3, dtype=torch.bool))
    got = local_mapping(torch.full((1, 1, 1, 3), 500.0), sets, lm="gaussian")
    close(got, torch.full((1, 1, 1, 3), 1 / 3))


# --- alignment, method and recipe ----------------------------------------------------------------


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


def dice(model: nn.Module, episode: Episode) -> float:
    model.eval()
    with torch.no_grad():
        predicted = model(episode.without_labels()).logits.argmax(2) == 1
    model.train()
    truth = episode.query_labels == 1
    return (2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())).item()


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
        optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
        before = dice(model, task)
        for _ in range(80):
            optimiser.zero_grad()
            model(task).loss.backward()
            optimiser.step()
        after = dice(model, task)
    assert before < 0.8
    assert after > 0.9
