"""The self-organising map: the official steps, a slow loop, and the laws of clusters."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lvqm_cases import files
from torch import Tensor

from fewshot_seg.errors import OptionError
from fewshot_seg_lvqm import som
from fewshot_seg_lvqm.draws import draw
from fewshot_seg_lvqm.neurons import SOVQ, Neurons, label_neurons, with_fallback
from fewshot_seg_lvqm.scene import Scene


def close(got: Tensor, wanted: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(got.float(), wanted.float(), atol=atol, rtol=1e-5)


def scene(pixels: Tensor, masks: Tensor, backgrounds: Tensor | None = None) -> Scene:
    """One way of one episode from rows of pixels."""
    others = 1 - masks if backgrounds is None else backgrounds
    return Scene(pixels[None, None], masks[None, None], others[None, None])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def variants(data: dict) -> list[tuple[str, float, Tensor]]:
    """(neighbourhood, sigma, final codebook); `gaussian_sigma15` means 1.5."""
    found = [("bubble", float(data["sigma"]), data["codebook_final"])]
    for key, value in data.items():
        match = re.fullmatch(r"codebook_final_(bubble|gaussian)_sigma(\d)(\d*)", key)
        if match:
            found.append((match[1], float(f"{match[2]}.{match[3] or 0}"), value))
    return found


def test_official_map(golden: Callable[[str], Path]) -> None:
    for _, data in files(golden("lvqm"), "som*"):
        rows, cols, dim = data["codebook_initial"].shape
        pixels, order = data["data"][None, None], data["sample_order"]
        initial = data["codebook_initial"].reshape(1, 1, -1, dim)
        for kind, sigma, final in variants(data):
            got, winners = som.train_online(
                pixels,
                initial,
                order,
                shape=(rows, cols),
                neighbourhood=kind,
                sigma=sigma,
                rate=data["learning_rate"],
            )
            close(got[0, 0].view(rows, cols, dim), final, atol=1e-6)
            if final is data["codebook_final"]:
                places = torch.stack([winners[0, 0] // cols, winners[0, 0] % cols], 1)
                assert torch.equal(places, data["winners"])
                check_labels(data, got)


def check_labels(data: dict, codebook: Tensor) -> None:
    task = scene(data["data"], data["mask_values"])
    assigned = som.assign(task.pixels, codebook)[0, 0]
    assert torch.equal(assigned, data["assignment"])
    counts = torch.bincount(assigned, minlength=codebook.shape[2])
    assert torch.equal(counts, data["pixels_per_neuron"])
    found = label_neurons(task, codebook, detach=True, keep_empty=True)
    assert torch.equal(found.in_foreground[0, 0].long(), data["neuron_is_fg"])
    close(found.vectors[found.in_foreground], data["neurons_fg"], atol=1e-6)
    close(found.vectors[found.in_background], data["neurons_bg"], atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_official_neighbourhood_is_the_winner_alone(seed: int) -> None:
    """sigma starts at 1 and |row - row_c| < sigma is strict: no neighbour ever moves."""
    pixels, order = noise(1, 2, 60, 4, seed=seed), torch.randperm(60)
    initial = pixels[:, :, :12]
    bubble, _ = som.train_online(
        pixels, initial, order, shape=(3, 4), neighbourhood="bubble", sigma=1.0
    )
    winner, _ = som.train_online(pixels, initial, order, shape=(3, 4), neighbourhood="winner")
    close(bubble, winner, atol=1e-6)
    wide, _ = som.train_online(
        pixels, initial, order, shape=(3, 4), neighbourhood="bubble", sigma=2.0
    )
    assert not torch.allclose(wide, winner, atol=1e-2)


# --- clusters ------------------------------------------------------------------------------------


def clusters(n_pixels: int = 980, dim: int = 12, spread: float = 0.05) -> tuple[Tensor, Tensor]:
    """49 well separated blobs of equal size, shuffled: pixels and their centres."""
    centres = 10 * noise(49, dim, seed=1)
    pixels = centres.repeat(n_pixels // 49, 1) + spread * noise(n_pixels, dim, seed=2)
    return pixels, centres


@pytest.mark.parametrize("kind", ["batch", "online"])
def test_49_separated_clusters_are_recovered(kind: str) -> None:
    pixels, centres = clusters()
    initial = pixels[:49].clone()[None, None]
    if kind == "batch":
        codebook = som.train_batch(pixels[None, None], initial, shape=(7, 7))
    else:
        order = torch.randperm(10_000, generator=torch.Generator().manual_seed(0)) % len(pixels)
        codebook, _ = som.train_online(pixels[None, None], initial, order, shape=(7, 7))
    assert (codebook[0, 0] - centres).norm(dim=-1).max() < 0.1
    assert len(som.assign(pixels[None, None], codebook)[0, 0].unique()) == 49


def smooth_pixels(seed: int, dim: int = 24, side: int = 32) -> Tensor:
    """Pixels of a smooth map with noise, as an encoder gives them."""
    coarse = noise(1, dim, 6, 6, seed=seed)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    pixels = smooth + 0.3 * noise(1, dim, side, side, seed=seed + 50)
    return pixels.flatten(2).mT[None]


@pytest.mark.parametrize("neighbourhood", ["winner", "bubble", "gaussian"])
def test_batch_is_as_good_as_the_10000_steps(neighbourhood: str) -> None:
    """Section 7 of the note: quantisation error within 2 % of the sequential map."""
    pixels = smooth_pixels(seed=3)
    blank = torch.zeros(1, 1, pixels.shape[2])
    task = Scene(pixels, blank, blank)
    start = draw(task, neurons=49, vectors=1, steps=10_000, seed=0)
    sigma = 2.0 if neighbourhood == "bubble" else 1.5
    options = {"shape": (7, 7), "neighbourhood": neighbourhood, "sigma": sigma}
    slow, _ = som.train_online(pixels, start.neurons, start.order, **options)
    fast = som.train_batch(pixels, start.neurons, **options)
    wanted, got = (som.quantisation_error(pixels, c).item() for c in (slow, fast))
    assert got < 1.02 * wanted
    assert got < 0.9 * som.quantisation_error(pixels, start.neurons).item()


def test_a_neighbourhood_orders_the_map() -> None:
    """Neurons beside each other are alike, which is what the paper wants of the map."""
    pixels = smooth_pixels(seed=4)

    def roughness(neighbourhood: str) -> float:
        codebook = som.train_batch(
            pixels, pixels[:, :, :49], shape=(7, 7), neighbourhood=neighbourhood, sigma=2.0
        )[0, 0]
        grid = codebook.view(7, 7, -1)
        beside = (grid[:, 1:] - grid[:, :-1]).norm(dim=-1).mean()
        return (beside / torch.pdist(codebook).mean()).item()

    assert roughness("gaussian") < 0.6 < roughness("winner")


def slow_batch(
    pixels: np.ndarray, start: np.ndarray, sweeps: int, sigma: float | None
) -> np.ndarray:
    """Of a 2x3 map; sigma None is the winner alone."""
    codebook = start.copy()
    places = [(row, col) for row in range(2) for col in range(3)]
    for sweep in range(sweeps):
        winners = [int(((codebook - x) ** 2).sum(1).argmin()) for x in pixels]
        total, weight = np.zeros_like(codebook), np.zeros(len(codebook))
        for x, c in zip(pixels, winners, strict=True):
            for j, place in enumerate(places):
                square = sum((a - b) ** 2 for a, b in zip(place, places[c], strict=True))
                age = 1 + (sweep + 1) / (sweeps / 2)
                h = float(j == c) if sigma is None else np.exp(-square * age**2 / (2 * sigma**2))
                total[j] += h * x
                weight[j] += h
        codebook = np.where(
            weight[:, None] > 0, total / np.maximum(weight, 1e-30)[:, None], codebook
        )
    return codebook


@pytest.mark.parametrize("sigma", [None, 1.5])
def test_batch_against_a_loop(sigma: float | None) -> None:
    pixels = noise(2, 2, 30, 4, seed=5) + 3
    initial = pixels[:, :, [0, 1, 2, 3, 4, 4]]
    got = som.train_batch(
        pixels,
        initial,
        shape=(2, 3),
        neighbourhood="winner" if sigma is None else "gaussian",
        sigma=sigma or 1.0,
        sweeps=4,
    )
    for b, w in np.ndindex(2, 2):
        wanted = slow_batch(pixels[b, w].double().numpy(), initial[b, w].double().numpy(), 4, sigma)
        close(got[b, w], torch.from_numpy(wanted), atol=1e-4)


def test_episodes_and_ways_do_not_meet() -> None:
    pixels = noise(2, 3, 50, 4, seed=6)
    order = torch.randperm(50)
    together = som.train_batch(pixels, pixels[:, :, :6], shape=(2, 3))
    steps, _ = som.train_online(pixels, pixels[:, :, :6], order, shape=(2, 3))
    one = pixels[1:, 2:]
    close(som.train_batch(one, one[:, :, :6], shape=(2, 3))[0, 0], together[1, 2])
    close(som.train_online(one, one[:, :, :6], order, shape=(2, 3))[0][0, 0], steps[1, 2])


# --- labels --------------------------------------------------------------------------------------


def two_blobs(inside: int, size: int = 20) -> Scene:
    """Two clusters of `size` pixels; of the first `inside` lie within the mask, of the second 0."""
    pixels = torch.cat([torch.full((size, 2), 5.0), torch.full((size, 2), -5.0)])
    masks = (torch.arange(2 * size) < inside).float()
    return scene(pixels + 0.01 * noise(2 * size, 2), masks)


CODEBOOK = torch.tensor([[5.0, 5.0], [-5.0, -5.0], [90.0, 90.0]])[None, None]


@pytest.mark.parametrize(("inside", "foreground"), [(20, True), (19, True), (18, False)])
def test_a_neuron_is_foreground_from_95_percent_on(inside: int, foreground: bool) -> None:
    found = label_neurons(two_blobs(inside), CODEBOOK)
    assert found.in_foreground[0, 0].tolist() == [foreground, False, False]
    assert found.in_background[0, 0].tolist() == [not foreground, True, False]


def test_a_neuron_without_pixels_is_dropped_unless_asked_for() -> None:
    kept = label_neurons(two_blobs(20), CODEBOOK, keep_empty=True)
    assert kept.in_background[0, 0].tolist() == [False, True, True]
    close(kept.vectors[0, 0, 2], CODEBOOK[0, 0, 2])


def test_a_neuron_on_another_way_belongs_to_nobody() -> None:
    task = two_blobs(20)
    neither = task._replace(backgrounds=torch.zeros_like(task.masks))
    found = label_neurons(neither, CODEBOOK)
    assert found.in_foreground[0, 0].tolist() == [True, False, False]
    assert not found.in_background.any()


def test_a_neuron_stands_for_the_mean_of_its_pixels_with_gradient() -> None:
    task = two_blobs(20)
    pixels = task.pixels.clone().requires_grad_()
    found = label_neurons(task._replace(pixels=pixels), CODEBOOK)
    close(found.vectors[0, 0, 0], pixels[0, 0, :20].mean(0))
    found.vectors[0, 0, 0].sum().backward()
    wanted = torch.zeros_like(pixels)
    wanted[0, 0, :20] = 1 / 20
    close(pixels.grad, wanted)
    trained = label_neurons(task._replace(pixels=pixels), CODEBOOK, detach=True)
    assert torch.equal(trained.vectors, CODEBOOK)


def test_without_a_foreground_neuron_the_mean_stands_in() -> None:
    average = torch.tensor([[[1.0, 2.0]]])
    without = with_fallback(label_neurons(two_blobs(10), CODEBOOK), average)
    assert without.in_foreground[0, 0].tolist() == [False, False, False, True]
    close(without.vectors[0, 0, 3], average[0, 0])
    given = with_fallback(label_neurons(two_blobs(20), CODEBOOK), average)
    assert given.in_foreground[0, 0].tolist() == [True, False, False, False]
    assert isinstance(given, Neurons)
    assert not given.in_background[0, 0, 3]


WRONG = [
    ({"som": "kmeans"}, "som='kmeans'"),
    ({"neighbourhood": "winer"}, "neighbourhood='winer' .*did you mean 'winner'"),
    ({"lm": "idw"}, "lm='idw'"),
    ({"som_size": (7,)}, r"som_size=\(7,\) needs two"),
    ({"som_size": (0, 7)}, r"som_size=\(0, 7\)"),
    ({"sweeps": 0}, "sweeps=0"),
    ({"som_steps": -1}, "som_steps=-1"),
    ({"neighbours": 0}, "neighbours=0"),
    ({"sigma": 0.0}, "sigma=0.0"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SOVQ(**options)


# --- draws ---------------------------------------------------------------------------------------


def test_draws_are_pixels_of_the_support() -> None:
    pixels = noise(40, 3, seed=8)
    masks = torch.cat([torch.ones(10), torch.full((20,), 0.7), torch.zeros(10)])
    task = scene(pixels, masks)
    start = draw(task, neurons=30, vectors=4, steps=100, seed=3)
    apart = torch.cdist(start.neurons[0, 0], pixels)
    assert (apart.amin(1) == 0).all()
    assert len(apart.argmin(1).unique()) == 30
    # LVQ starts from pixels wholly outside, then from pixels wholly inside
    place = torch.cdist(start.vectors[0, 0], pixels).argmin(1)
    assert (place[:4] >= 30).all()
    assert (place[4:] < 10).all()
    assert len(place.unique()) == 8
    # the official order: every pixel as often as the others, give or take one
    counts = torch.bincount(start.order, minlength=40)
    assert counts.min() >= 2
    assert counts.max() <= 3


def test_draws_without_wholly_covered_pixels_take_the_most_covered() -> None:
    pixels = noise(12, 3, seed=9)
    masks = torch.linspace(0.1, 0.8, 12)
    start = draw(scene(pixels, masks), neurons=4, vectors=2, steps=0, seed=0)
    place = torch.cdist(start.vectors[0, 0], pixels).argmin(1)
    assert sorted(place.tolist()) == [0, 1, 10, 11]
    assert len(start.order) == 0


def test_draws_look_at_places_not_contents() -> None:
    first, other = (scene(noise(20, 3, seed=s), torch.zeros(20)) for s in (0, 1))
    a, b = (draw(task, neurons=5, vectors=1, steps=9, seed=2) for task in (first, other))
    places = [
        torch.cdist(d.neurons[0, 0], task.pixels[0, 0]).argmin(1)
        for d, task in ((a, first), (b, other))
    ]
    assert torch.equal(*places)
    assert torch.equal(a.order, b.order)
