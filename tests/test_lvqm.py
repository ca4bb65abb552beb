"""The VQ decoder against the official pipeline's arrays, ALPNet's decoder and a slow loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lvqm_cases import block_masks, close, files, of_one, parted_maps, support
from torch import Tensor

from fewshot_seg.episode import Episode, Features, Support
from fewshot_seg.errors import PluginError
from fewshot_seg.functional import segmentation_loss
from fewshot_seg.interfaces import Latent, Step
from fewshot_seg.prototype_sets import PrototypeSets
from fewshot_seg.registry import Registry
from fewshot_seg_lvqm.decoder import VQ
from fewshot_seg_lvqm.draws import Draws
from fewshot_seg_lvqm.grid import Grid, fit
from fewshot_seg_lvqm.grid_align import GridAlign
from fewshot_seg_lvqm.mapping import local_mapping

TOLERANCE = 1e-4


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


# --- ALPNet inside ------------------------------------------------------------------------------


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


# --- local mapping ------------------------------------------------------------------------------


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
