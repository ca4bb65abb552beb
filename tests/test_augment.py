"""Random changes of images: constants by statistics, and masks that move with their image."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fewshot_seg.data import recolour
from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.smoothing import gaussian_blur
from fewshot_seg.data.warp import Affine, elastic_field, resample, sampling_grid
from fewshot_seg.errors import OptionError


def rng(seed=0):
    return np.random.default_rng(seed)


def image(channels=1, size=(48, 40), seed=0):
    plane = ndimage.gaussian_filter(rng(seed).normal(size=(channels, *size)), (0, 3, 3))
    return torch.from_numpy((plane / plane.std()).astype(np.float32))


def only(**strengths):
    return replace(Augmentation.none(), **strengths)


def test_defaults_are_the_fields():
    default = Augmentation()
    assert (default.rotation, default.shift, default.shear) == (5, 5, 5)
    assert (default.zoom, default.elastic, default.elastic_sigma) == ((0.9, 1.2), 10, 5)
    assert (default.gamma, default.flip, default.remap, default.noise) == (0.5, 0, 0, 0)


def test_no_strength_is_no_change():
    picture, mask = image(3), (image(2, seed=1) > 0).float()
    changed, masks = Augmentation.none()(picture, mask, rng())
    assert torch.equal(changed, picture)
    assert torch.equal(masks, mask)
    assert not Augmentation.none().warps


def test_the_grid_without_change_reads_each_pixel_where_it_is():
    picture = image()[None]
    grid = sampling_grid((48, 40), Affine())[None]
    torch.testing.assert_close(resample(picture, grid), picture, atol=1e-4, rtol=0)


@settings(deadline=None, max_examples=25)
@given(
    rotation=st.floats(-30, 30),
    shift=st.tuples(st.floats(-6, 6), st.floats(-6, 6)),
    shear=st.floats(-10, 10),
    zoom=st.floats(0.7, 1.4),
    mirror=st.booleans(),
)
def test_resampling_agrees_with_scipy(rotation, shift, shear, zoom, mirror):
    picture, affine = image(), Affine(rotation, shift, shear, zoom, mirror)
    ours = resample(picture[None], sampling_grid((48, 40), affine)[None])[0, 0]
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])  # scipy counts (row, column)
    inverse = swap @ np.linalg.inv(affine.matrix((48, 40))) @ swap
    theirs = ndimage.affine_transform(
        picture[0].numpy().astype(np.float64), inverse, order=1, mode="grid-constant"
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def follow(affine, x, y, size=(101, 101)):
    return tuple((affine.matrix(size) @ [x, y, 1])[:2])


def test_each_affine_step_does_what_its_name_says():
    assert follow(Affine(shift=(3.0, 1.0)), 10, 20) == pytest.approx((11, 23))
    assert follow(Affine(zoom=2.0), 60, 50) == pytest.approx((70, 50))
    assert follow(Affine(rotation=90.0), 60, 50) == pytest.approx((50, 40))  # counter-clockwise
    assert follow(Affine(mirror=True), 0, 30) == pytest.approx((100, 30))
    lean = np.deg2rad(5)
    assert follow(Affine(shear=5.0), 0, 0) == pytest.approx((0, 0))
    assert follow(Affine(shear=5.0), 0, 100) == pytest.approx(
        (-100 * np.sin(lean), 100 * np.cos(lean))
    )


def test_affine_steps_come_in_the_official_order():
    """Rotate, shift, shear, zoom: built here one after the other from single steps."""
    whole = Affine(20.0, (4.0, -3.0), 7.0, 1.3).matrix((64, 50))
    steps = [Affine(rotation=20.0), Affine(shift=(4.0, -3.0)), Affine(shear=7.0), Affine(zoom=1.3)]
    product = np.eye(3)
    for step in steps:
        product = step.matrix((64, 50)) @ product
    np.testing.assert_allclose(whole, product, atol=1e-9)


def test_mask_and_image_move_together():
    """An image that is its own mask: wherever it comes out above 0.5 the mask must be 1."""
    disc = torch.zeros(1, 96, 96)
    rows, cols = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    disc[0] = ((rows - 40) ** 2 + (cols - 55) ** 2 < 18**2).float()
    strong = only(rotation=30.0, shift=30.0, shear=20.0, zoom=(0.6, 1.5), elastic=400.0, flip=0.5)
    for seed in range(10):
        changed, mask = strong(disc, disc, rng(seed))
        assert torch.equal(mask, (changed > 0.5).float())
        assert mask.sum() > 100
        assert not torch.equal(mask, disc)


def test_disjoint_masks_stay_disjoint_and_binary():
    classes = torch.randint(0, 4, (64, 64), generator=torch.Generator().manual_seed(0))
    masks = torch.stack([(classes == value).float() for value in range(4)])
    _, changed = Augmentation.strong()(image(size=(64, 64)), masks, rng())
    assert set(changed.unique().tolist()) == {0.0, 1.0}
    assert changed.sum(0).max() == 1


def test_a_mask_that_leaves_the_image_comes_back_empty():
    mask = torch.zeros(1, 64, 64)
    mask[0, 0, 0] = 1
    empty = sum(
        not only(shift=40.0)(image(size=(64, 64)), mask, rng(seed))[1].any() for seed in range(20)
    )
    assert empty > 0


def test_outside_the_image_is_zero():
    changed, _ = only(zoom=(0.5, 0.5))(image() + 5, torch.ones(1, 48, 40), rng())
    assert not changed[:, :10].any()
    assert changed[:, 20:28, 18:22].min() > 0


def test_strengths_in_pixels_scale_with_the_image():
    def mean_shift(size):
        base = sampling_grid((size, size), Affine())
        found = [
            float((only(shift=5.0).grid((size, size), rng(seed)) - base)[..., 0].mean()) * size / 2
            for seed in range(150)
        ]
        return np.abs(found).max(), np.std(found)

    for size in (32, 64):
        largest, spread = mean_shift(size)
        reach = 5 * size / 256
        assert 0.9 * reach < largest <= reach * 1.001
        assert spread == pytest.approx(reach / 3**0.5, rel=0.15)  # of a uniform draw


@pytest.mark.parametrize(("size", "rms"), [(256, 0.35), (128, 0.175)])
def test_elastic_displacement_is_as_small_as_measured(size, rms):
    fields = [elastic_field((size, size), 10.0, 5.0, rng(seed)) for seed in range(2)]
    assert float(torch.stack(fields).square().mean().sqrt()) == pytest.approx(rms, rel=0.1)


def test_drawn_affine_stays_within_its_ranges():
    """Read back from the grids, which are linear: column vectors of the inverse matrix."""
    zooms, turns = [], []
    for seed in range(300):
        grid = only(rotation=5.0, zoom=(0.9, 1.2)).grid((64, 64), rng(seed))
        step = (grid[0, -1] - grid[0, 0]).double() * 32 / 63
        zooms.append(1 / float(step.norm()))
        turns.append(np.rad2deg(np.arctan2(float(step[1]), float(step[0]))))
    assert 0.899 < min(zooms) < 0.91
    assert 1.19 < max(zooms) < 1.201
    assert -5.001 < min(turns) < -4.8
    assert 4.8 < max(turns) < 5.001


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_gamma_is_the_formula(exponent):
    picture = image().numpy().astype(np.float64)
    low = picture.min()
    span = picture.max() - low + 1e-5
    expected = span * ((picture - low + 1e-5) / span) ** exponent + low
    ours = recolour.gamma(image()[None], exponent)[0]
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_gamma_is_drawn_around_one():
    ramp = torch.linspace(0, 1, 101).reshape(1, 1, 101)
    halves = [float(only(gamma=0.5).recolour(ramp, rng(seed))[0, 0, 50]) for seed in range(200)]
    exponents = np.log(halves) / np.log(0.5)
    assert 0.49 < exponents.min() < 0.53
    assert 1.47 < exponents.max() < 1.51
    assert exponents.mean() == pytest.approx(1, abs=0.07)


@pytest.mark.parametrize(("invert", "sign"), [(0.0, 1), (1.0, -1)])
def test_remap_keeps_range_and_order_or_reverses_it(invert, sign):
    picture = image()
    for seed in range(5):
        changed = only(remap=1.0, invert=invert).recolour(picture, rng(seed))
        torch.testing.assert_close(changed.min(), picture.min())
        torch.testing.assert_close(changed.max(), picture.max())
        order = picture.flatten().argsort()
        assert (changed.flatten()[order].diff() * sign > -1e-5).all()
        assert not torch.allclose(changed, picture, atol=0.05)


def test_contrast_brightness_noise_and_blur():
    picture = image(size=(128, 128))
    for seed in range(20):
        changed = only(contrast=0.25, brightness=0.5).recolour(picture, rng(seed))
        slope, offset = np.polyfit(picture.flatten(), changed.flatten(), 1)
        assert 0.75 <= slope <= 1.25
        assert abs(offset) <= 0.5
        noise = only(noise=0.2).recolour(picture, rng(seed)) - picture
        assert 0 < noise.std() < 0.21
        assert only(blur=8.0).recolour(picture, rng(seed)).std() <= picture.std()


def test_blur_agrees_with_scipy():
    picture = image(2)
    theirs = ndimage.gaussian_filter(picture.numpy(), (0, 2, 2), mode="mirror", radius=(0, 4, 4))
    np.testing.assert_allclose(gaussian_blur(picture, 2.0), theirs, atol=1e-5)


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation.strong()])
def test_same_generator_same_result(augmentation):
    picture, mask = image(), (image(seed=1) > 0).float()
    first, second, other = (augmentation(picture, mask, rng(seed)) for seed in (7, 7, 8))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation.strong()])
def test_grey_stays_grey_and_memory_layout_does_not_matter(augmentation):
    shared, mask = image().expand(3, -1, -1), torch.ones(48, 40)
    ours, _ = augmentation(shared, mask, rng())
    theirs, _ = augmentation(shared.contiguous(), mask, rng())
    assert ours.shape == (3, 48, 40)
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours[0], ours[1])


def test_many_changes_each_image_on_its_own():
    pictures = image()[None].expand(4, -1, -1, -1)
    masks = torch.ones(4, 2, 48, 40)
    changed, moved = Augmentation()(pictures[0], masks[0], rng())
    together, all_moved = Augmentation().many(pictures, masks, rng())
    assert together.shape == (4, 1, 48, 40)
    assert all_moved.shape == (4, 2, 48, 40)
    assert changed.shape == (1, 48, 40)
    assert moved.shape == (2, 48, 40)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@pytest.mark.parametrize(
    ("strengths", "message"),
    [
        ({"rotation": -1.0}, "'rotation' must be 0 or more; got -1"),
        ({"flip": 1.5}, "'flip' must be from 0 to 1; got 1.5"),
        ({"gamma": 1.0}, "'gamma' must be from 0 to 0.99"),
        ({"noise": float("nan")}, "'noise' must be 0 or more; got nan"),
        ({"zoom": (1.2, 0.9)}, "low <= high"),
        ({"zoom": (0.0, 1.0)}, "0 < low"),
        ({"elastic_sigma": 0.0}, "elastic_sigma must be positive"),
    ],
)
def test_wrong_strengths_are_refused(strengths, message):
    with pytest.raises(OptionError, match=message):
        Augmentation(**strengths)
