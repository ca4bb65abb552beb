"""Affine registration against the official code's arrays, its laws, and episodes that carry it."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from apscl_cases import close, episode
from torch import Tensor

from fewshot_seg import registration
from fewshot_seg.data import registered
from fewshot_seg.data.episodes import EpisodeSource
from fewshot_seg.data.registered import Registered
from fewshot_seg.episode import Episode
from fewshot_seg.errors import DataError, OptionError
from fewshot_seg.registration import (
    difference,
    identity,
    register_affine,
    register_slices,
    unit_range,
    warp,
    warp_mask,
    zero_flow,
)


def blobs(pairs: int = 3, size: int = 48, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth bright spots in [0, 1], and the same moved a little, differently for each pair."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.rand(pairs, 1, size // 8, size // 8, generator=rng)
    images = F.interpolate(noise, size=(size, size), mode="bicubic").clamp(0, 1)
    window = torch.hann_window(size, periodic=False)
    images = images * window[:, None] * window
    return images, warp(images, identity(images) + 0.1 * torch.rand(pairs, 2, 3, generator=rng))


@pytest.fixture
def case(golden: Callable[[str], Path]) -> dict[str, Tensor]:
    with np.load(golden("rpnet") / "affine_registration.npz") as data:
        return {key: torch.from_numpy(data[key]).float() for key in data.files}


def test_registration_agrees_with_the_official_code(case: dict[str, Tensor]) -> None:
    moving, fixed = case["support_image"][None], case["query_image"][None]
    for step in (0, 1, 7, 25, 49):
        theta = register_affine(moving, fixed, steps=step, fall_back=False)
        close(theta[0], case["theta_per_step"][step], atol=1e-5)
        close(difference(warp(moving, theta), fixed)[0], case["loss_mse_per_step"][step])
    theta = register_affine(moving, fixed)
    close(theta[0], case["theta"], atol=1e-5)
    close(difference(warp(moving, theta), fixed)[0], case["loss_mse_final"])
    close(warp(moving, theta)[0], case["warped_support_image"], atol=1e-4)


def test_warped_masks_agree_with_the_official_code(case: dict[str, Tensor]) -> None:
    theta, masks = case["theta"][None], case["support_mask"]
    fractions = warp(masks[None], theta)
    close(fractions[0], case["warped_support_mask_fraction"])
    assert torch.equal(warp_mask(masks, theta), case["warped_support_mask"])
    close(zero_flow(fractions)[0], case["mask_fraction_zero_second_stage"])
    shrunk = warp_mask(masks, theta, zero_flow_resample=True)
    assert torch.equal(shrunk, case["initial_query_mask_zero_second_stage"])
    image = zero_flow(warp(case["support_image"][None], theta))
    close(image[0], case["warped_image_zero_second_stage"])


def test_a_batch_gives_what_its_pairs_give() -> None:
    moving, fixed = blobs()
    together = register_affine(moving, fixed)
    alone = [register_affine(one[None], other[None]) for one, other in zip(moving, fixed)]
    close(together, torch.cat(alone), atol=1e-6)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_a_shift_is_found() -> None:
    moving, _ = blobs(1)
    wanted = torch.tensor([[[1.0, 0.0, 0.1], [0.0, 1.0, -0.06]]])
    fixed = warp(moving, wanted)
    close(register_affine(moving, fixed), wanted, atol=0.02)


def test_the_warp_is_a_slow_loop_over_pixels() -> None:
    images, _ = blobs(1, size=16)
    theta = torch.tensor([[[0.9, 0.1, 0.2], [-0.15, 1.1, -0.1]]])
    source, found = images[0, 0].numpy(), np.zeros((16, 16))
    for row, col in np.ndindex(16, 16):
        point = np.array([(2 * col + 1) / 16 - 1, (2 * row + 1) / 16 - 1, 1.0])
        x, y = ((theta[0].numpy() @ point + 1) * 16 - 1) / 2
        for i, j in np.ndindex(2, 2):
            r, c = int(np.floor(y)) + i, int(np.floor(x)) + j
            if 0 <= r < 16 and 0 <= c < 16:
                found[row, col] += (1 - abs(y - r)) * (1 - abs(x - c)) * source[r, c]
    close(warp(images, theta)[0, 0], torch.from_numpy(found).float())


def test_zero_flow_reads_between_pixels() -> None:
    ramp = torch.arange(8.0).repeat(8, 1)[None, None]
    wanted = torch.arange(1, 7) * 8 / 7 - 0.5
    close(zero_flow(ramp)[0, 0, 4, 1:7], wanted)


def test_no_improvement_gives_the_identity_for_that_pair_alone() -> None:
    """One huge step: it helps nobody, except the pair that was far apart and now lies outside."""
    moving, fixed = blobs(2)
    fixed = torch.stack([fixed[0], torch.zeros_like(fixed[1])])
    loose = register_affine(moving, fixed, steps=1, lr=3.0, fall_back=False)
    before, after = difference(moving, fixed), difference(warp(moving, loose), fixed)
    assert (after < before).tolist() == [False, True]
    theta = register_affine(moving, fixed, steps=1, lr=3.0)
    assert torch.equal(theta, torch.stack([identity(moving)[0], loose[1]]))


def test_flat_images_stay_where_they_are() -> None:
    flat = torch.full((1, 1, 16, 16), 3.0)
    assert torch.equal(unit_range(flat), torch.zeros_like(flat))
    assert torch.equal(register_slices(flat, flat), identity(flat))


def test_scale_and_channels_do_not_matter() -> None:
    moving, fixed = blobs()
    stretched = (40 * moving - 7).repeat(1, 3, 1, 1)
    close(unit_range(stretched), unit_range(moving), atol=1e-4)
    other = register_slices(stretched, 0.1 * fixed.repeat(1, 3, 1, 1))
    close(other, register_slices(moving, fixed), atol=1e-3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=str)
def test_gradient_modes_change_nothing(mode: Callable[[], Any]) -> None:
    moving, fixed = blobs()
    wanted = register_affine(moving, fixed)
    assert not wanted.requires_grad
    with mode():
        theta = register_affine(moving + 0, fixed + 0)
        assert torch.equal(theta, wanted)
        assert torch.equal(warp(moving, theta), warp(moving, wanted))


def test_autocast_changes_nothing() -> None:
    moving, fixed = blobs()
    with torch.autocast("cpu", torch.bfloat16):
        theta = register_affine(moving, fixed)
    assert theta.dtype == torch.float32
    assert torch.equal(theta, register_affine(moving, fixed))


def test_wrong_arguments() -> None:
    moving, fixed = blobs()
    with pytest.raises(OptionError, match="steps >= 0 and lr > 0; got -1"):
        register_affine(moving, fixed, steps=-1)
    with pytest.raises(ValueError, match=r"\(3, 1, 48, 48\) and \(2, 1, 48, 48\)"):
        register_affine(moving, fixed[:2])


class Repeating:
    """Two episodes in turn, so that pairs come back."""

    def episode(self, index: int) -> Episode:
        return episode(way=2, shot=2, query=2, size=32, seed=index % 2)

    def describe(self) -> dict[str, Any]:
        return {"source": "repeating"}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each pair that was really registered."""
    calls: list[int] = []

    def register(moving: Tensor, fixed: Tensor, **options: Any) -> Tensor:
        calls.append(len(moving))
        return registration.register_slices(moving, fixed, **options)

    monkeypatch.setattr(registered, "register_slices", register)
    return calls


def test_episodes_carry_the_registration_of_every_pair() -> None:
    source = Registered(Repeating(), steps=10)
    assert isinstance(source, EpisodeSource)
    found, plain = source.episode(0), Repeating().episode(0)
    theta = found.extras["registration"]
    assert theta.shape == (1, 2, 2, 2, 2, 3)
    pair = plain.support.images[:, 1, 0], plain.query_images[:, 1]
    assert torch.equal(theta[:, 1, 0, 1], register_slices(*pair, steps=10))
    assert torch.equal(found.support.images, plain.support.images)
    assert source.describe() == {"source": "repeating", "registration": {"steps": 10, "lr": 0.01}}


def test_a_pair_is_registered_once(counted: list[int], tmp_path: Path) -> None:
    source = Registered(Repeating(), cache=tmp_path / "new", steps=3)
    first = source.episode(0).extras["registration"]
    assert sum(counted) == 8
    assert torch.equal(source.episode(2).extras["registration"], first)
    other = Registered(Repeating(), cache=tmp_path / "new", steps=3)
    assert torch.equal(other.episode(4).extras["registration"], first)
    assert sum(counted) == 8
    Registered(Repeating(), cache=tmp_path / "new", steps=4).episode(0)
    assert sum(counted) == 16
    names = [path.name for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert len(names) == 16
    assert all(name.endswith(".theta") for name in names)


def test_memory_is_bounded_and_order_does_not_matter(counted: list[int]) -> None:
    source = Registered(Repeating(), steps=3, remembered=8)
    one, two = (source.episode(index).extras["registration"] for index in (0, 1))
    assert len(source._memory) == 8
    again = source.episode(0).extras["registration"]
    assert sum(counted) == 24
    assert torch.equal(again, one)
    backwards = Registered(Repeating(), steps=3)
    assert torch.equal(backwards.episode(1).extras["registration"], two)
    assert torch.equal(backwards.episode(0).extras["registration"], one)


def test_a_pickled_source_gives_the_same() -> None:
    source = Registered(Repeating(), steps=3)
    wanted = source.episode(1).extras["registration"]
    copy = pickle.loads(pickle.dumps(source))
    assert not copy._memory
    assert torch.equal(copy.episode(1).extras["registration"], wanted)


@pytest.mark.parametrize("content", [b"", b"x" * 23, np.full(6, np.nan, "<f4").tobytes()], ids=len)
def test_a_damaged_cache_is_made_anew(tmp_path: Path, content: bytes) -> None:
    wanted = Registered(Repeating(), cache=tmp_path, steps=1).episode(0).extras["registration"]
    whole = {path: path.read_bytes() for path in tmp_path.rglob("*.theta")}
    for path in whole:
        path.write_bytes(content)
    found = Registered(Repeating(), cache=tmp_path, steps=1).episode(0).extras["registration"]
    assert torch.equal(found, wanted)
    assert all(path.read_bytes() == first for path, first in whole.items())


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="registration|cannot be written"):
        Registered(Repeating(), cache=tmp_path / "file", steps=1).episode(0)


def test_wrong_options() -> None:
    with pytest.raises(OptionError, match="got -1"):
        Registered(Repeating(), steps=-1)
    with pytest.raises(OptionError, match="remembered"):
        Registered(Repeating(), remembered=-2)
