"""The PANet decoder, against the official code's arrays, a slow loop and its laws."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from apscl_cases import TinyEncoder, close, episode, features_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewshot_seg import build
from fewshot_seg.building import recipe_of
from fewshot_seg.episode import Episode, Support
from fewshot_seg.errors import OptionError
from fewshot_seg.functional import segmentation_loss
from fewshot_seg.interfaces import Features, Latent, Step
from fewshot_seg_panet.align import Align
from fewshot_seg_panet.cosine import Cosine

CASES = [
    "way1_shot1_query1",
    "way1_shot1_query2",
    "way1_shot5_query1",
    "way1_empty_support",
    "way1_no_prediction",
    "way2_shot1_query1",
    "way2_shot5_query2",
    "way2_one_class_not_predicted",
    "way2_shot2_query1_batch2",
]
MEDICAL = [
    "mask_downsampled_shot1",
    "mask_downsampled_shot2",
    "mask_downsampled_query_all_background",
]


def arrays(folder: Path, name: str) -> dict[str, Tensor]:
    with np.load(folder / f"{name}.npz") as data:
        return {key: torch.from_numpy(data[key]) for key in data.files}


def with_batch(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our axis order: the batch axis first, where the official lists have it last or not at all."""
    batched = data["support_features"].ndim == 6
    moved = {}
    for key, value in data.items():
        if "support" in key:
            moved[key] = value.movedim(2, 0) if batched else value[None]
        elif key.startswith(("query", "scores", "logits", "grad")):
            moved[key] = value.movedim(1, 0) if batched else value[None]
        elif key == "prototypes":
            moved[key] = value if batched else value[None]
        else:
            moved[key] = value
    return moved


def medical(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """One way, no background masks: the background is what the mask leaves."""
    moved = {}
    for key, value in data.items():
        if "support" in key:
            moved[key] = value[None, None]
        elif value.ndim and not key.startswith("align"):
            moved[key] = value[None]
        else:
            moved[key] = value
    return moved | {"support_background_masks": 1 - moved["support_masks"].float()}


def step_of(data: dict[str, Tensor], decoder: Cosine) -> Step:
    masks = data["support_masks"].float()
    backgrounds = data["support_background_masks"].float()
    support = Support(torch.zeros_like(masks).unsqueeze(3), masks, backgrounds)
    labels = data["query_labels"].long()
    task = Episode(support, torch.zeros(labels.shape).unsqueeze(2), labels)
    maps, query = data["support_features"], data["query_features"]
    features = Features(maps, torch.zeros(*maps.shape[:3], *maps.shape[-2:]), query)
    return Step(
        task, features, features, Latent(), decoder.describe(maps, masks, backgrounds), decoder
    )


def check_case(
    data: dict[str, Tensor], decoder: Cosine, align: Align, weights: list[float] | None
) -> None:
    """Scores, logits, both losses and all gradients, with the tolerances of the arrays' readme."""
    for key in ("support_features", "query_features"):
        data[key].requires_grad_()
    step = step_of(data, decoder)
    query = data["query_features"]
    height, width = data["query_labels"].shape[-2:]
    if "prototypes" in data:
        close(step.state.vectors, data["prototypes"])
    close(decoder(query, step.state, query.shape[-2:]), data["scores"], atol=5e-5)
    logits = decoder(query, step.state, (height, width))
    close(logits[..., 1::4, 2::4], data["logits_sub"], atol=5e-5)
    if "logits" in data:
        close(logits, data["logits"], atol=5e-5)
    loss = segmentation_loss(logits, step.episode.query_labels, weights)
    aligned = align(step)["align"]
    close(loss, data["loss_query"])
    close(aligned, data["loss_align"])
    leaves = [data["support_features"], data["query_features"]]
    for kind, total in (("align", aligned), ("total", loss + aligned)):
        if f"grad_{kind}_query_features" not in data:
            continue
        found = torch.autograd.grad(total, leaves, retain_graph=True)
        for key, grad in zip(("support_features", "query_features"), found, strict=True):
            wanted = data[f"grad_{kind}_{key}"]
            close(grad, wanted, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.parametrize("name", CASES)
def test_official_panet(golden: Callable[[str], Path], name: str) -> None:
    check_case(with_batch(arrays(golden("panet"), name)), Cosine(), Align(), None)


@pytest.mark.parametrize("name", MEDICAL)
def test_official_medical_variant(golden: Callable[[str], Path], name: str) -> None:
    decoder = Cosine(pool_at="feature", mask_resize="bilinear", eps=1e-4)
    data = medical(arrays(golden("panet"), name))
    check_case(data, decoder, Align(skip_empty=False), [0.05, 1.0])


# --- an independent loop, and laws ---------------------------------------------------------------


def slow_scores(
    maps: np.ndarray, masks: np.ndarray, rest: np.ndarray, query: np.ndarray, scale: float
) -> np.ndarray:
    """One episode; all masks on the grid of the maps. maps: way shot dim rows cols."""
    n_way, n_shot = masks.shape[:2]

    def pooled(w: int, s: int, mask: np.ndarray) -> np.ndarray:
        return (maps[w, s] * mask).sum((1, 2)) / (mask.sum() + 1e-5)

    rows = [np.mean([pooled(w, s, masks[w, s]) for s in range(n_shot)], 0) for w in range(n_way)]
    every = [pooled(w, s, rest[w, s]) for w in range(n_way) for s in range(n_shot)]
    prototypes = [np.mean(every, 0), *rows]
    out = np.zeros((len(query), len(prototypes), *query.shape[-2:]))
    for index in np.ndindex(out.shape):
        n, label, r, c = index
        a, b = query[n, :, r, c], prototypes[label]
        out[index] = scale * a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return out


@pytest.mark.parametrize("pool_at", ["mask", "feature"])
def test_against_a_loop(pool_at: str) -> None:
    task = episode(batch=2, way=2, shot=3, query=2, size=16)
    features = features_of(task, grid=4, dim=5)
    decoder = Cosine(pool_at=pool_at, scale=7.0)
    masks, rest = task.support.masks, task.support.backgrounds
    state = decoder.describe(features.support, masks, rest)
    got = decoder(features.query, state, (4, 4))
    maps = features.support
    if pool_at == "mask":
        flat = maps.flatten(0, 2)
        up = F.interpolate(flat, (16, 16), mode="bilinear", align_corners=False)
        maps = up.view(*maps.shape[:4], 16, 16)
    else:
        masks, rest = (
            t.unflatten(-2, (4, 4)).unflatten(-1, (4, 4)).mean((-3, -1)) for t in (masks, rest)
        )
    for b in range(2):
        numbers = [t[b].double().numpy() for t in (maps, masks, rest, features.query)]
        close(got[b], torch.from_numpy(slow_scores(*numbers, 7.0)).float(), atol=1e-4)


def pipeline(**options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return build("panet", encoder=TinyEncoder(), **options).eval()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), pool_at=st.sampled_from(["mask", "feature"]))
def test_the_order_of_shots_does_not_matter(seed: int, pool_at: str) -> None:
    task = episode(way=2, shot=3, seed=seed)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(seed))
    support = task.support
    other = Episode(
        Support(
            support.images[:, :, order],
            support.masks[:, :, order],
            support.backgrounds[:, :, order],
        ),
        task.query_images,
    )
    model = pipeline(pool_at=pool_at)
    close(model(other).logits, model(task).logits, atol=1e-4)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000))
def test_swapping_ways_swaps_labels(seed: int) -> None:
    task = episode(way=2, shot=2, seed=seed)
    support = task.support
    other = Episode(
        Support(*(t.flip(1) for t in (support.images, support.masks, support.backgrounds))),
        task.query_images,
    )
    model = pipeline()
    close(model(other).logits, model(task).logits[:, :, [0, 2, 1]], atol=1e-4)


def test_copying_a_shot_leaves_the_prototypes() -> None:
    """The cosine would forgive a sum over shots where the mean is meant."""
    task = episode(way=2, size=16)
    maps, masks = features_of(task).support, task.support.masks
    once = Cosine().describe(maps, masks).vectors
    twice = Cosine().describe(maps.repeat_interleave(2, 2), masks.repeat_interleave(2, 2)).vectors
    close(twice, once)


def test_copying_a_shot_leaves_the_answer() -> None:
    task = episode(way=2)
    support = task.support
    twice = Support(
        *(t.repeat_interleave(2, 2) for t in (support.images, support.masks, support.backgrounds))
    )
    model = pipeline()
    close(model(Episode(twice, task.query_images)).logits, model(task).logits)


@pytest.mark.parametrize(
    "options",
    [{"scale": 10.0}, {"pool_at": "feature"}, {"eps": 10.0}],
    ids=str,
)
def test_each_option_changes_the_answer(options: dict[str, Any]) -> None:
    task = episode(size=64)
    assert not torch.allclose(pipeline(**options)(task).logits, pipeline()(task).logits, atol=1e-4)


def test_bilinear_masks_lose_what_area_keeps() -> None:
    masks = torch.zeros(1, 1, 1, 32, 32)
    masks[..., 8:10, 8:10] = 1
    maps = torch.randn(1, 1, 1, 4, 4, 4)
    kept, lost = (
        Cosine(pool_at="feature", mask_resize=kind).describe(maps, masks).vectors[0, 1]
        for kind in ("area", "bilinear")
    )
    assert kept.abs().max() > 0
    assert lost.abs().max() == 0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_give_finite_answers(value: float) -> None:
    task = episode()
    support = Support(task.support.images, torch.full_like(task.support.masks, value))
    output = pipeline()(Episode(support, task.query_images))
    assert torch.isfinite(output.logits).all()
    assert output.empty_support is not None
    assert output.empty_support.item() == (value == 0)
    if value == 0:
        assert (output.logits.argmax(2) == 0).all()


def test_labels_are_not_read_at_test() -> None:
    task, model = episode(), pipeline()
    assert torch.equal(model(task).logits, model(task.without_labels()).logits)
    assert not model(task).losses
    state = model.encode_support(task.support)
    close(model.segment(state, task.query_images), model(task).logits)


def test_autocast_runs_and_stays_close() -> None:
    task, model = episode(way=2), pipeline(scale=1.0).train()
    exact = model(task)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(task)
    close(half.logits.float(), exact.logits, atol=0.02)
    for name, value in exact.losses.items():
        close(half.losses[name].float(), value, atol=0.02)


def test_recipe_is_the_papers() -> None:
    recipe = recipe_of("panet")
    assert (recipe.encoder.name, recipe.decoder.name) == ("vgg16", "cosine")
    assert [part.name for part in recipe.contrastive] == ["align"]
    assert recipe.prior is recipe.enrichment is None
    assert dict(recipe.weights) == {"ce": 1.0, "align": 1.0}
    wanted = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4, "step_factor": 0.1}
    assert {key: recipe.training[key] for key in wanted} == wanted
    assert (recipe.training["step_every"], recipe.training["steps"]) == (10_000, 30_000)
    decoder = Cosine()
    assert (decoder.scale, decoder.pool_at, decoder.eps) == (20.0, "mask", 1e-8)


WRONG = [
    ({"pool_at": "masks"}, "pool_at='masks' .*did you mean 'mask'"),
    ({"mask_resize": "nearest"}, "mask_resize='nearest'"),
    ({"scale": 0.0}, "scale=0.0"),
    ({"eps": -1.0}, "eps=-1.0"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Cosine(**options)
