"""The phantoms: repeatable, anatomically sane, neither trivial nor hopeless."""

from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, label

from fewshot_seg.data.phantom import Phantom, abdomen, heart
from fewshot_seg.data.phantom.fields import RandomField, spline_weights
from fewshot_seg.data.phantom.shapes import (
    Capsule,
    Common,
    Ellipsoid,
    Plane,
    Points,
    Shape,
    Union,
    Without,
    rotation,
)
from fewshot_seg.data.scan import Dataset, Scan
from fewshot_seg.errors import DataError

REGIONS = {"abdomen": abdomen, "heart": heart}
SMALL: dict[str, dict[str, int]] = {
    "abdomen": {"size": 48, "n_slices": 8},
    "heart": {"size": 48, "n_slices": 5},
}
KINDS = [(region, contrast) for region in REGIONS for contrast in ("mr", "ct")]


@pytest.fixture(scope="module")
def scans() -> Callable[[str, str], list[Scan]]:
    """Three scans of moderate size of a region in a contrast, made once."""
    made: dict[tuple[str, str], list[Scan]] = {}

    def get(region: str, contrast: str) -> list[Scan]:
        if (region, contrast) not in made:
            n_slices = {"abdomen": 16, "heart": 10}[region]
            data = REGIONS[region](n_scans=3, size=64, n_slices=n_slices, contrast=contrast, seed=3)
            made[region, contrast] = [data.load(scan_id) for scan_id in data.ids]
        return made[region, contrast]

    return get


def small(region: str, **options: Any) -> Phantom:
    return REGIONS[region](**{**SMALL[region], **options})


def labels_of(scan: Scan) -> np.ndarray:
    assert scan.labels is not None
    return scan.labels


def millilitres(scan: Scan, mask: np.ndarray) -> float:
    assert scan.spacing is not None
    return float(mask.sum() * np.prod(scan.spacing) / 1000)


@pytest.mark.parametrize(("region", "contrast"), KINDS)
def test_is_a_dataset(region: str, contrast: str) -> None:
    data = small(region, n_scans=11, contrast=contrast)
    assert isinstance(data, Dataset)
    assert data.name == f"phantom_{region}"
    assert data.modality == contrast
    assert data.ids == tuple(str(index) for index in range(1, 12))
    scan = data.load("11")
    slices, size = SMALL[region]["n_slices"], SMALL[region]["size"]
    assert scan.id == "11"
    assert scan.image.shape == (slices, 1, size, size)
    assert scan.image.dtype == np.float32
    assert np.isfinite(scan.image).all()
    assert set(np.unique(labels_of(scan))) <= {0, *data.classes}


@pytest.mark.parametrize("region", REGIONS)
def test_same_scan_whatever_was_loaded_before(region: str) -> None:
    first, second = small(region), small(region, n_scans=3)
    second.load("3")
    for scan_id in ("2", "1"):
        one, two = first.load(scan_id), second.load(scan_id)
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(labels_of(one), labels_of(two))
        assert one.spacing == two.spacing


@pytest.mark.parametrize("region", REGIONS)
def test_scans_and_seeds_differ(region: str) -> None:
    data = small(region)
    reference = data.load("1")
    for other in (data.load("2"), small(region, seed=1).load("1")):
        assert (labels_of(reference) != labels_of(other)).mean() > 0.005
        assert np.corrcoef(reference.image.ravel(), other.image.ravel())[0, 1] < 0.97


@pytest.mark.parametrize("region", REGIONS)
def test_both_contrasts_show_the_same_patient(region: str) -> None:
    magnetic, tomography = (small(region, contrast=c).load("2") for c in ("mr", "ct"))
    np.testing.assert_array_equal(labels_of(magnetic), labels_of(tomography))
    assert magnetic.spacing == tomography.spacing
    assert magnetic.image.min() >= 0
    assert tomography.image.min() < -900


@pytest.mark.parametrize("region", REGIONS)
def test_the_patient_is_the_same_at_every_size(region: str) -> None:
    coarse, fine = (small(region, size=size).load("1") for size in (48, 96))
    blocks = labels_of(fine).reshape(len(fine.image), 48, 2, 48, 2)
    for name in small(region).classes:
        inside = (blocks == name).mean((2, 4)) > 0.5
        there = labels_of(coarse) == name
        overlap = 2 * (inside & there).sum() / (inside.sum() + there.sum())
        assert overlap > 0.85, name


VOLUMES = {  # millilitres that a grown-up's organ may have, generously
    "abdomen": {1: (500, 2600), 2: (50, 320), 3: (50, 320), 4: (50, 600)},
    "heart": {1: (50, 240), 2: (30, 240), 3: (30, 320)},
}


@pytest.mark.parametrize("region", REGIONS)
def test_organs_have_plausible_volumes_and_heights(
    region: str, scans: Callable[[str, str], list[Scan]]
) -> None:
    for scan in scans(region, "mr"):
        for name, (least, most) in VOLUMES[region].items():
            assert least < millilitres(scan, labels_of(scan) == name) < most, (scan.id, name)
        shown = scan.class_slices
        for name, slices in shown.items():
            assert slices == tuple(range(slices[0], slices[-1] + 1)), "a hole along the axis"
            assert len(slices) < len(scan.image), (scan.id, name)


@pytest.mark.parametrize("region", REGIONS)
def test_each_organ_is_nearly_one_piece(
    region: str, scans: Callable[[str, str], list[Scan]]
) -> None:
    for scan in scans(region, "mr"):
        for name in VOLUMES[region]:
            pieces, _ = label(labels_of(scan) == name, np.ones((3, 3, 3)))
            sizes = np.bincount(pieces.ravel())[1:]
            assert sizes.max() > 0.95 * sizes.sum(), (scan.id, name)


def test_organs_lie_on_their_sides(scans: Callable[[str, str], list[Scan]]) -> None:
    for scan in scans("abdomen", "mr"):
        labels = labels_of(scan)
        places = {k: np.argwhere(labels == k).mean(0) for k in (1, 2, 3, 4)}
        middle = (labels.shape[2] - 1) / 2
        assert places[1][2] < middle
        assert places[2][2] < middle
        assert places[3][2] > middle
        assert places[4][2] > middle
        assert places[1][0] > places[2][0]
        assert places[4][0] > places[3][0]
        assert places[1][1] > places[2][1]  # the liver is further to the front
        assert np.flatnonzero((labels == 1).any((1, 2)))[-1] >= 2 + len(labels) // 2


def test_myocardium_closes_around_the_pool(scans: Callable[[str, str], list[Scan]]) -> None:
    for scan in scans("heart", "mr"):
        labels = labels_of(scan)
        shown = [z for z in scan.class_slices[2] if z in scan.class_slices[1]]
        middle = shown[len(shown) // 4 : len(shown) - len(shown) // 3]
        assert len(middle) >= 3
        for z in middle:
            rim = binary_dilation(labels[z] == 2) & (labels[z] != 2)
            assert (labels[z][rim] == 1).all(), (scan.id, z)
        right = np.argwhere(labels == 3).mean(0)
        left = np.argwhere(labels == 2).mean(0)
        assert right[2] < left[2]


@pytest.mark.parametrize(("region", "contrast"), KINDS)
def test_organs_stand_out_from_their_surroundings(
    region: str, contrast: str, scans: Callable[[str, str], list[Scan]]
) -> None:
    for scan in scans(region, contrast):
        image, labels = scan.image[:, 0], labels_of(scan)
        for name in VOLUMES[region]:
            mask = labels == name
            shell = binary_dilation(mask, iterations=3) & ~binary_dilation(mask)
            gap = abs(np.median(image[mask]) - np.median(image[shell]))
            assert gap > 0.4 * image[mask].std(), (scan.id, name)


def test_tissues_have_their_usual_brightness(scans: Callable[[str, str], list[Scan]]) -> None:
    for magnetic, tomography in zip(scans("abdomen", "mr"), scans("abdomen", "ct")):
        labels = labels_of(magnetic)
        mr = {k: np.median(magnetic.image[:, 0][labels == k]) for k in (1, 2, 3, 4)}
        assert mr[1] < min(mr[2], mr[3], mr[4])  # on T2 the liver is the dark organ
        ct = tomography.image[:, 0]
        assert all(60 < np.median(ct[labels == k]) < 250 for k in (1, 2, 3, 4))
        assert np.median(ct[:, :4]) < -950  # air around the body
        assert (ct > 300).mean() > 0.002  # bone


@pytest.mark.parametrize("region", REGIONS)
def test_geometry_agrees_with_itself(region: str) -> None:
    scan = small(region).load("1")
    geometry = scan.geometry
    assert geometry is not None
    assert scan.spacing is not None
    slices, size = SMALL[region]["n_slices"], SMALL[region]["size"]
    assert geometry.shape == (size, size, slices)
    assert geometry.slice_axis == 2
    assert scan.spacing == geometry.spacing
    depth, rows, cols = scan.spacing
    assert rows == pytest.approx(cols)
    assert 320 <= rows * size <= 380.001
    assert depth * slices == pytest.approx({"abdomen": 184.8, "heart": 80.0}[region])
    assert "".join(nib.aff2axcodes(geometry.affine)) == "LAS"
    middle = (np.array([size, size, slices]) - 1) / 2
    np.testing.assert_allclose(geometry.affine @ [*middle, 1], [0, 0, 0, 1], atol=1e-9)
    assert geometry.to_slices(np.zeros(geometry.shape)).shape == labels_of(scan).shape


def test_default_spacing_is_that_of_the_benchmarks() -> None:
    for region, thick in (("abdomen", 7.7), ("heart", 8.0)):
        scan = REGIONS[region](size=32).load("1")
        assert scan.spacing is not None
        assert scan.spacing[0] == pytest.approx(thick)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize(("size", "n_slices"), [(32, 4), (33, 7), (200, 4)])
def test_sizes(region: str, size: int, n_slices: int) -> None:
    scan = REGIONS[region](size=size, n_slices=n_slices).load("1")
    assert scan.image.shape == (n_slices, 1, size, size)
    assert set(np.unique(labels_of(scan))) == {0, *VOLUMES[region]}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 31}, "size must be a whole number from 32 to 512, not 31"),
        ({"size": 513}, "from 32 to 512, not 513"),
        ({"n_scans": 0}, "n_scans must be a whole number from 1 to 1000, not 0"),
        ({"n_scans": 1001}, "from 1 to 1000"),
        ({"n_slices": 3}, "n_slices must be a whole number from 4 to 128, not 3"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"contrast": "pet"}, "contrast must be 'mr' or 'ct', not 'pet'"),
    ],
)
def test_wrong_arguments(region: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        REGIONS[region](**wrong)


@pytest.mark.parametrize("scan_id", ["0", "11", "01", ""])
def test_unknown_scan(scan_id: str) -> None:
    with pytest.raises(DataError, match=r"has no scan .*; its scans are '1' to '10'"):
        small("abdomen").load(scan_id)


@pytest.mark.parametrize("region", REGIONS)
def test_copying_the_support_mask_neither_solves_nor_fails(
    region: str, scans: Callable[[str, str], list[Scan]]
) -> None:
    """Dice of one scan's mask laid on another's slice of the same relative height."""
    volumes = [labels_of(scan) for scan in scans(region, "mr")]
    for name in VOLUMES[region]:
        found = [
            _copied(one == name, other == name)
            for one in volumes
            for other in volumes
            if one is not other
        ]
        assert 0.15 < np.mean(found) < 0.85, name


def _copied(support: np.ndarray, query: np.ndarray) -> float:
    from_, to = (np.flatnonzero(mask.any((1, 2))) for mask in (support, query))
    matched = from_[np.round(np.linspace(0, len(from_) - 1, len(to))).astype(int)]
    given_, wanted = support[matched], query[to]
    return float(2 * (given_ & wanted).sum() / (given_.sum() + wanted.sum()))


def places(seed: int, n: int = 200) -> Points:
    x, y, z = np.random.default_rng(seed).uniform(-40, 40, (3, 1, 1, n))
    return Points(x, y, z)


def shapes(seed: int) -> list[Shape]:
    rng = np.random.default_rng(seed)
    a, b = (tuple(float(v) for v in rng.uniform(-20, 20, 3)) for _ in range(2))
    radii = tuple(float(v) for v in rng.uniform(5, 25, 3))
    degrees = tuple(float(v) for v in rng.uniform(-90, 90, 3))
    return [Ellipsoid(a, radii, degrees), Capsule(a, b, (4.0, 9.0)), Plane(a, b)]


seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_law_the_box_holds_the_inside(seed: int) -> None:
    points = places(seed)
    for shape in shapes(seed):
        inside = shape.distance(points) < 0
        for axis, values in enumerate((points.x, points.y, points.z)):
            assert (values[inside] >= shape.box.low[axis] - 1e-6).all()
            assert (values[inside] <= shape.box.high[axis] + 1e-6).all()


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_law_unblended_combinations_are_set_operations(seed: int) -> None:
    points = places(seed)
    one, two, three = shapes(seed)
    first, second, third = (shape.distance(points) < 0 for shape in (one, two, three))
    np.testing.assert_array_equal(Union([one, two]).distance(points) < 0, first | second)
    np.testing.assert_array_equal(
        Common(one, [two, three]).distance(points) < 0, first & second & third
    )
    np.testing.assert_array_equal(Without(one, two).distance(points) < 0, first & ~second)


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_law_an_ellipsoid_is_negative_exactly_inside(seed: int) -> None:
    points = places(seed)
    shape = shapes(seed)[0]
    assert isinstance(shape, Ellipsoid)
    offsets = np.stack([points.x, points.y, points.z], -1) - np.asarray(shape.centre)
    local = offsets @ rotation(shape.degrees) / np.asarray(shape.radii)
    np.testing.assert_array_equal(shape.distance(points) < 0, (local**2).sum(-1) < 1)


def test_capsule_distance_by_hand() -> None:
    rod = Capsule((0.0, 0.0, 0.0), (10.0, 0.0, 0.0), (2.0, 4.0))
    x, y, z = np.array([[5.0, 5.0, 0.0], [-5.0, 0.0, 0.0], [13.0, 0.0, 4.0]]).T[:, None, None]
    np.testing.assert_allclose(rod.distance(Points(x, y, z))[0, 0], [2.0, 3.0, 1.0])


def test_random_fields_have_unit_variance_and_do_not_depend_on_the_grid() -> None:
    field = RandomField.draw(
        np.random.default_rng(0), extent=(80.0, 80.0, 80.0), knot=(4.0, 4.0, 4.0)
    )
    axis = np.linspace(-36, 36, 37)
    values = field.on_grid(axis, axis, axis)
    assert abs(values.mean()) < 0.1
    assert values.std() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(
        field.on_grid(axis[3:4], axis[5:6], axis[7:9])[0, 0], values[3, 5, 7:9], rtol=1e-5
    )


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 6), st.integers(4, 12))
def test_law_spline_weights_are_a_partition_of_one(place: float, n_knots: int) -> None:
    inside = min(place, n_knots - 3.0)
    weights = spline_weights(np.array([inside]), n_knots)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= -1e-12).all()
    knots = np.arange(n_knots) - 1.0
    assert weights[0] @ knots == pytest.approx(inside)  # straight lines stay straight
