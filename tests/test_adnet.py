"""The anomaly decoder: against the official code's arrays, slow loops, and by its laws."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from apscl_cases import TinyEncoder, close, episode, features_of, step_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewshot_seg import build
from fewshot_seg.building import recipe_of
from fewshot_seg.episode import Episode, Features, Support
from fewshot_seg.errors import OptionError
from fewshot_seg.evaluation.matching import Stack, get_matching
from fewshot_seg.functional import segmentation_loss
from fewshot_seg.interfaces import Latent, Learning, Step
from fewshot_seg.testing import check_decoder, check_method, make_episode, overfit
from fewshot_seg_adnet.decoder import Anomaly
from fewshot_seg_panet.align import Align

Golden = Callable[[str], Path]
CASES = [
    "k1_q1_all_foreground",
    "k1_q1_empty_support",
    "k1_q1_no_prediction",
    "k1_q1_small_object_ignore",
    "k1_q1_t-10",
    "k1_q1_t-5",
    "k1_q3_t-10",
    "k2_q1_t-10",
    "k2_q3_t-13.5",
]


def official_step(data: dict[str, Tensor]) -> Step:
    """One way; the arrays' shot and query axes with a batch and a way axis before them."""
    masks = data["support_masks"][None, None].float()
    labels = data["query_labels"][None].long()
    task = Episode(
        Support(torch.zeros_like(masks).unsqueeze(3), masks),
        torch.zeros(labels.shape).unsqueeze(2),
        labels,
    )
    maps = data["support_features"][None, None]
    grid_masks = torch.zeros(*maps.shape[:3], *maps.shape[-2:])
    features = Features(maps, grid_masks, data["query_features"][None])
    decoder = Anomaly(threshold=data["threshold"].item())
    state = decoder.describe(maps, masks)
    return Step(task, features, features, Latent(), state, decoder)


@pytest.mark.parametrize("name", CASES)
def test_official_arrays(golden: Golden, name: str) -> None:
    """Tolerances of the arrays' readme."""
    with np.load(golden("adnet") / f"{name}.npz") as file:
        data = {key: torch.from_numpy(file[key]) for key in file.files}
    leaves = [data[key].requires_grad_() for key in ("support_features", "query_features")]
    step = official_step(data)
    decoder, query = step.decoder, step.features.query
    assert isinstance(decoder, Anomaly)
    close(step.state.vectors[0, 0], data["prototype"])
    close(decoder.scores(query, step.state)[0, :, 0], data["anomaly_scores"], atol=5e-5)
    low = decoder(query, step.state, step.features.grid)[0, :, 1].exp()
    close(low, data["probabilities_low"])
    logits, own = decoder.learn(step.features, step.state, step.episode)
    chances = logits[0].exp()
    close(chances[..., 1::4, 2::4], data["probabilities_sub"])
    if "probabilities" in data:
        close(chances, data["probabilities"])
    assert step.episode.query_labels is not None
    loss = segmentation_loss(logits, step.episode.query_labels, [0.1, 1.0])
    close(loss, data["loss_query"])
    close(own["threshold"], data["loss_threshold"], atol=1e-7)
    if "loss_align" not in data:  # several queries: the official code mixes them up
        return
    aligned = Align()(step)["align"]
    close(aligned, data["loss_align"])
    assert (aligned == 0).item() == data["align_skipped"].item()
    for kind, total in (("align", aligned), ("total", loss + aligned + own["threshold"])):
        if f"grad_{kind}_threshold" not in data:
            continue
        found = torch.autograd.grad(total, [*leaves, decoder.threshold], retain_graph=True)
        for key, grad in zip(("support_features", "query_features", "threshold"), found):
            wanted = data[f"grad_{kind}_{key}"]
            close(grad, wanted.reshape(grad.shape), atol=1e-4 * wanted.abs().max().item())


def test_one_chunk_takes_the_slice_that_the_middle_protocol_takes(golden: Golden) -> None:
    table = np.load(golden("adnet") / "protocol_chunks.npz")
    for count, expected in zip(table["num_slices"].tolist(), table["support_index_n1"].tolist()):
        for name in ("middle", "chunks-1"):
            stack = Stack(count, tuple(range(count)))
            (part,) = get_matching(name).match([stack], stack).parts
            assert list(part.support) == expected


# --- independent loops ---------------------------------------------------------------------------


def upsampled(low: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with the corners aligned, pixel by pixel."""
    rows, cols = low.shape
    high = np.zeros(size)
    for r, c in np.ndindex(size):
        y, x = r * (rows - 1) / (size[0] - 1), c * (cols - 1) / (size[1] - 1)
        top, left = min(int(y), rows - 2), min(int(x), cols - 2)
        dy, dx = y - top, x - left
        high[r, c] = (1 - dy) * ((1 - dx) * low[top, left] + dx * low[top, left + 1]) + dy * (
            (1 - dx) * low[top + 1, left] + dx * low[top + 1, left + 1]
        )
    return high


def slow_chance(
    maps: np.ndarray, prototype: np.ndarray, decoder: Anomaly, size: tuple[int, int]
) -> np.ndarray:
    """Section 3, steps 3 to 5, for one image and one way."""
    low = np.zeros(maps.shape[1:])
    for place in np.ndindex(low.shape):
        pixel = maps[(slice(None), *place)]
        lengths = max(np.linalg.norm(pixel), 1e-8) * max(np.linalg.norm(prototype), 1e-8)
        score = -decoder.scale * pixel @ prototype / lengths
        low[place] = 1 - 1 / (1 + np.exp(-decoder.kappa * (score - decoder.threshold.item())))
    return upsampled(low, size)


def case(**shape: int) -> tuple[Episode, Features]:
    """Masks on the grid of the maps, so that pooling resizes nothing."""
    task = episode(size=6, **shape)
    return task, features_of(task, grid=6, dim=4)


@pytest.mark.parametrize("size", [(6, 6), (13, 17)])
def test_against_a_loop(size: tuple[int, int]) -> None:
    task, features = case(batch=2, way=3, shot=2, query=2)
    decoder = Anomaly(scale=9.0, kappa=0.7, threshold=-2.0)
    state = decoder.describe(features.support, task.support.masks)
    got = decoder(features.query, state, size).exp()
    support = features.support.double().numpy()
    masks = task.support.masks.double().numpy()
    for b, q in np.ndindex(2, 2):
        ways = []
        for w in range(3):
            pooled = [
                (support[b, w, s] * masks[b, w, s]).sum((1, 2)) / (masks[b, w, s].sum() + 1e-5)
                for s in range(2)
            ]
            query = features.query[b, q].double().numpy()
            ways.append(slow_chance(query, np.mean(pooled, 0), decoder, size))
        expected = np.stack([1 - np.max(ways, 0), *ways])
        close(got[b, q], torch.from_numpy(expected).float())


@pytest.mark.parametrize("threshold", [-1.0, 2.0, -30.0])
def test_alignment_is_the_likelihood_of_the_official_code(threshold: float) -> None:
    """PAR by a loop: log of clamped probabilities, no class weights, over ways times shots."""
    task, features = case(way=2, shot=2)
    support = Support(task.support.images, task.support.masks)
    decoder = Anomaly(threshold=threshold, scale=5.0)
    step = step_of(replace(task, support=support), features, decoder)
    got = Align()(step)["align"].item()
    predicted = decoder(features.query, step.state, (6, 6)).argmax(2)[0, 0].numpy()
    query = features.query[0, 0].double().numpy()
    total, tiny = 0.0, np.finfo(np.float32).eps
    for w in range(2):
        chosen = predicted == w + 1
        if not chosen.any():
            continue
        prototype = (query * chosen).sum((1, 2)) / (chosen.sum() + 1e-5)
        for s in range(2):
            maps = features.support[0, w, s].double().numpy()
            chance = slow_chance(maps, prototype, decoder, (6, 6))
            right = np.where(support.masks[0, w, s].numpy() > 0.5, chance, 1 - chance)
            total -= np.log(right.clip(tiny, 1 - tiny)).mean() / 4
    assert got == pytest.approx(total, rel=1e-4)
    assert (total == 0) == (threshold == -30.0)


# --- by hand, and laws ---------------------------------------------------------------------------


def line(*cosines: float) -> Tensor:
    """A row of unit vectors with these cosines to (1, 0): batch query dim rows cols."""
    x = torch.tensor(cosines)
    return torch.stack([x, (1 - x * x).sqrt()])[None, None, :, None, :]


def test_foreground_begins_at_half_the_cosine() -> None:
    """T = -10 and scale 20: y = 1 - sigmoid(0.5 (-20 cos + 10))."""
    decoder = Anomaly()
    state = decoder.describe(
        torch.tensor([1.0, 0.0]).view(1, 1, 1, 2, 1, 1), torch.ones(1, 1, 1, 1, 1)
    )
    chance = decoder(line(0.4, 0.5, 0.6, 1.0), state, (1, 4)).exp()[0, 0, 1, 0]
    expected = 1 / (1 + torch.exp(torch.tensor([1.0, 0.0, -1.0, -5.0])))
    close(chance, expected)


def test_an_empty_support_is_background() -> None:
    decoder = Anomaly()
    state = decoder.describe(torch.randn(1, 1, 1, 2, 2, 2), torch.zeros(1, 1, 1, 8, 8))
    logits = decoder(torch.randn(1, 1, 2, 2, 2), state, (8, 8))
    close(logits[:, :, 1].exp(), torch.full((1, 1, 8, 8), 0.0066929), atol=1e-6)


def test_of_several_ways_the_largest_wins_if_it_exceeds_one_half() -> None:
    """Prototypes along 0 and 60 degrees, pixels in between and beyond; T asks for cos > 0.8."""
    decoder = Anomaly(threshold=-16.0)
    angles = torch.deg2rad(torch.tensor([0.0, 60.0]))
    support = torch.stack([angles.cos(), angles.sin()], 1).view(1, 2, 1, 2, 1, 1)
    state = decoder.describe(support, torch.ones(1, 2, 1, 1, 1))
    pixels = torch.deg2rad(torch.tensor([-40.0, 0.0, 29.0, 31.0, 70.0, 100.0]))
    maps = torch.stack([pixels.cos(), pixels.sin()])[None, None, :, None, :]
    logits = decoder(maps, state, (1, 6))
    assert logits.argmax(2).flatten().tolist() == [0, 1, 1, 2, 2, 0]
    close(logits[:, :, 0].exp(), 1 - logits[:, :, 1:].exp().amax(2), atol=1e-6)


def test_one_way_gives_log_probabilities_and_nothing_infinite() -> None:
    decoder = Anomaly(scale=500.0)
    state = decoder.describe(
        torch.tensor([1.0, 0.0]).view(1, 1, 1, 2, 1, 1), torch.ones(1, 1, 1, 1, 1)
    )
    logits = decoder(line(-1.0, 1.0, 0.5), state, (1, 3))
    assert torch.isfinite(logits).all()
    close(logits.exp().sum(2), torch.ones(1, 1, 1, 3))
    close(logits.log_softmax(2), logits, atol=1e-6)


def test_pooling_happens_at_the_mask_or_on_the_grid() -> None:
    maps = torch.tensor([[0.0, 1.0]]).view(1, 1, 1, 1, 1, 2)
    masks = torch.tensor([[0.0, 1.0, 0.0, 0.0]]).view(1, 1, 1, 1, 4)
    at_mask = Anomaly().describe(maps, masks).vectors.item()
    on_grid = Anomaly(pool_at="feature").describe(maps, masks).vectors.item()
    assert at_mask == pytest.approx(0.25, abs=1e-4)  # bilinear, a quarter of the way over
    assert on_grid == pytest.approx(0.0, abs=1e-4)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_order_and_copies_of_shots_and_order_of_ways(seed: int) -> None:
    task = episode(way=2, shot=3, query=2, size=8, seed=seed)
    features = features_of(task, grid=4, dim=5, seed=seed)
    decoder = Anomaly(threshold=-1.0)

    def chances(maps: Tensor, masks: Tensor) -> Tensor:
        return decoder(features.query, decoder.describe(maps, masks), (8, 8)).exp()

    maps, masks = features.support, task.support.masks
    plain = chances(maps, masks)
    close(chances(maps[:, :, [2, 0, 1]], masks[:, :, [2, 0, 1]]), plain)
    close(chances(maps.repeat(1, 1, 2, 1, 1, 1), masks.repeat(1, 1, 2, 1, 1)), plain)
    close(chances(maps[:, [1, 0]], masks[:, [1, 0]]), plain[:, :, [0, 2, 1]])
    close(chances(3 * maps, masks), plain)


def test_its_own_loss_pulls_the_threshold_down() -> None:
    task, features = case()
    decoder = Anomaly(scale=10.0, threshold=-4.0)
    assert isinstance(decoder, Learning)
    state = decoder.describe(features.support, task.support.masks)
    logits, losses = decoder.learn(features, state, task)
    assert torch.equal(logits, decoder(features.query, state, task.size))
    assert losses["threshold"].item() == pytest.approx(-0.4)
    (pull,) = torch.autograd.grad(losses["threshold"], decoder.threshold)
    assert pull.item() == pytest.approx(0.1)
    assert Anomaly(threshold_loss=False).learn(features, state, task)[1] == {}


def test_mixed_precision_changes_nothing_after_the_features() -> None:
    task, features = case()
    decoder = Anomaly(threshold=-1.0)
    half = features.with_maps(features.maps().bfloat16())

    def logits(given: Features) -> Tensor:
        state = decoder.describe(given.support, task.support.masks)
        return decoder(given.query, state, (12, 12))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = logits(half)
    assert got.dtype == torch.float32
    assert torch.equal(got, logits(half.with_maps(half.maps().float())))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pool_at": "masks"}, "did you mean 'mask'"),
        ({"scale": 0.0}, "scale=0.0"),
        ({"kappa": -0.5}, "kappa=-0.5"),
        ({"eps": 0.0}, "eps=0.0"),
    ],
)
def test_wrong_options(options: dict[str, float], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        Anomaly(**options)  # type: ignore[arg-type]


# --- the method ----------------------------------------------------------------------------------


def test_the_recipe() -> None:
    recipe = recipe_of("adnet")
    assert [part.name for _, part in recipe.parts()] == ["resnet101", "align", "anomaly"]
    assert recipe.options["ce_weights"] == [0.1, 1.0]
    assert recipe.episodes["source"] == "supervoxel"
    assert (recipe.training["step_factor"], recipe.training["steps"]) == (0.98, 50_000)


def test_the_contracts() -> None:
    check_decoder(Anomaly(), dim=8)
    check_method(build("adnet", encoder=TinyEncoder(in_channels=3)))


def test_a_training_step_has_the_three_losses() -> None:
    model = build("adnet", encoder=TinyEncoder())
    output = model(make_episode(channels=1, n_way=2, n_shot=2, n_query=2))
    assert set(output.losses) == {"ce", "align", "threshold"}
    assert output.losses["threshold"].item() == -0.5
    output.loss.backward()
    assert model.get_parameter("decoder.threshold").grad != 0
    assert not model.eval()(make_episode(channels=1)).losses


def test_the_decoder_can_be_borrowed() -> None:
    model = build("panet", encoder=TinyEncoder(), decoder={"name": "anomaly", "threshold": -5.0})
    assert set(model(make_episode(channels=1)).losses) == {"ce", "align", "threshold"}


def test_one_episode_is_learnt_by_heart() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = {"name": "timm", "backbone": "test_resnet.r160_in1k", "dim": 32, "stride": 2}
        model = build("adnet", encoder=encoder)
        task = make_episode(batch=1)
        assert overfit(model, task, lr=2e-3, steps=90, target=0.93, every=15) > 0.9
