"""Sources that add what some methods need, around any other source."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.episodes import EpisodeSource, SupervisedSource
from fewshot_seg.data.extras import WithAuxiliary, WithSecondView, WithUnlabelled
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.prepare import PreparedScan, prepare_all
from fewshot_seg.data.superpixels import superpixels
from fewshot_seg.data.unlabelled import UnlabelledPool
from fewshot_seg.episode import Episode
from fewshot_seg.errors import DataError, OptionError
from fewshot_seg.needs import NEEDS, require


@pytest.fixture(scope="module")
def scans() -> list[PreparedScan]:
    dataset = abdomen(n_scans=4, size=48, n_slices=12)
    return prepare_all(dataset, dataset.ids, size=48, intensity=Intensity(), channels=1).scans


@pytest.fixture(scope="module")
def segments(scans: list[PreparedScan]) -> list[list[np.ndarray]]:
    return [[superpixels(image[0].numpy()) for image in scan.images] for scan in scans]


@pytest.fixture(scope="module")
def inner(scans: list[PreparedScan]) -> SupervisedSource:
    return SupervisedSource(scans, classes=[1, 2, 3], seed=3)


def wrapped(
    need: str,
    inner: EpisodeSource,
    scans: list[PreparedScan],
    segments: list[list[np.ndarray]],
    seed: int = 0,
) -> EpisodeSource:
    if need == "unlabelled":
        return WithUnlabelled(inner, scans, seed=seed, augmentation=Augmentation())
    if need == "auxiliary":
        return WithAuxiliary(inner, scans, segments, seed=seed)
    return WithSecondView(inner, seed=seed)


def tensors(episode: Episode) -> dict[str, torch.Tensor]:
    found = dict(episode.extras)
    if episode.support.unlabelled is not None:
        found["unlabelled"] = episode.support.unlabelled
    return found


@pytest.mark.parametrize("need", NEEDS)
def test_a_wrapper_provides_its_need_and_leaves_the_rest_alone(
    need: str,
    inner: SupervisedSource,
    scans: list[PreparedScan],
    segments: list[list[np.ndarray]],
) -> None:
    source = wrapped(need, inner, scans, segments)
    episode, bare = source.episode(7), inner.episode(7)
    require(episode, need, by="test")
    assert torch.equal(episode.query_images, bare.query_images)
    assert torch.equal(episode.support.masks, bare.support.masks)
    assert set(bare.extras) == {"query_position", "redrawn"} <= set(episode.extras)
    assert isinstance(source, EpisodeSource)
    assert need in source.describe()
    assert source.describe()["source"] == "supervised"


@pytest.mark.parametrize("need", NEEDS)
def test_an_episode_depends_on_seed_and_index_alone(
    need: str,
    inner: SupervisedSource,
    scans: list[PreparedScan],
    segments: list[list[np.ndarray]],
) -> None:
    source = wrapped(need, inner, scans, segments)
    first = tensors(source.episode(5))
    source.episode(1)
    sent = pickle.loads(pickle.dumps(source))
    again = tensors(sent.episode(5))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = tensors(wrapped(need, inner, scans, segments, seed=1).episode(5))
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_wrappers_go_around_each_other(
    inner: SupervisedSource, scans: list[PreparedScan], segments: list[list[np.ndarray]]
) -> None:
    source: EpisodeSource = inner
    for need in NEEDS:
        source = wrapped(need, source, scans, segments)
    for need in NEEDS:
        require(source.episode(0), need, by="test")


def test_unlabelled_slices_lie_where_the_query_lies(
    inner: SupervisedSource, scans: list[PreparedScan]
) -> None:
    source = WithUnlabelled(inner, scans, count=3)
    for index in range(10):
        episode = source.episode(index)
        where = float(episode.extras["query_position"])
        assert episode.support.unlabelled is not None
        found = [_origin(image, scans) for image in episode.support.unlabelled[0]]
        assert len({scan for scan, _ in found}) == 3
        for scan, plane in found:
            assert abs(scans[scan].position(plane) - where) <= 0.1 + 1e-6


def _origin(image: torch.Tensor, scans: list[PreparedScan]) -> tuple[int, int]:
    for position, scan in enumerate(scans):
        for plane, candidate in enumerate(scan.images):
            if torch.equal(candidate, image):
                return position, plane
    raise AssertionError("the image is no slice of the scans")


def test_the_pool_at_test_is_fixed_and_spread_over_scans(scans: list[PreparedScan]) -> None:
    pool = UnlabelledPool(scans, 6)
    images = pool.at(0.5)
    assert torch.equal(images, pool.at(0.5))
    found = [_origin(image, scans) for image in images]
    assert len(set(found)) == 6
    assert {scan for scan, _ in found} == {0, 1, 2, 3}
    assert all(abs(scans[scan].position(plane) - 0.5) < 0.15 for scan, plane in found)


def test_held_out_classes_can_be_kept_from_the_pool(scans: list[PreparedScan]) -> None:
    pool = UnlabelledPool(scans, 8, exclude=[1], setting="setting2_any")
    rng = np.random.default_rng(0)
    for position in (0.0, 0.4, 1.0):
        for image in pool.draw(position, rng):
            scan, plane = _origin(image, scans)
            assert plane not in scans[scan].class_slices[1]


def test_auxiliary_slices_do_not_show_the_class(
    inner: SupervisedSource, scans: list[PreparedScan], segments: list[list[np.ndarray]]
) -> None:
    source = WithAuxiliary(inner, scans, segments, count=4, exclude=[4], setting="setting2_any")
    for index in range(10):
        episode = source.episode(index)
        assert episode.classes is not None
        target = int(episode.classes)
        extras = episode.extras
        for image, masks, drawn in zip(
            extras["auxiliary_images"][0], extras["auxiliary_masks"][0], extras["auxiliary_ids"][0]
        ):
            scan, plane = _origin(image, scans)
            for value in (target, 4):
                assert plane not in scans[scan].class_slices[value]
            assert torch.equal(masks, torch.from_numpy(segments[scan][plane].astype(np.int64)))
            assert (masks == drawn).any()


def test_the_second_view_is_the_first_one_read_at_the_grid(inner: SupervisedSource) -> None:
    plain = Augmentation(gamma=0.0, elastic=20.0)
    source = WithSecondView(inner, augmentation=plain)
    episode = source.episode(2)
    images = torch.cat([episode.support.images.flatten(1, 2), episode.query_images], 1)[0]
    seen = F.grid_sample(
        images, episode.extras["second_view_grid"][0], align_corners=False, padding_mode="zeros"
    )
    torch.testing.assert_close(seen, episode.extras["second_view_images"][0])
    assert (seen - images).abs().max() > 0.1


def test_wrong_numbers_and_hopeless_data_are_refused(
    inner: SupervisedSource, scans: list[PreparedScan], segments: list[list[np.ndarray]]
) -> None:
    with pytest.raises(OptionError, match="at least 1; got 0"):
        WithUnlabelled(inner, scans, count=0)
    with pytest.raises(OptionError, match="at least 1; got 0"):
        WithAuxiliary(inner, scans, segments, count=0)
    with pytest.raises(OptionError, match="first one again"):
        WithSecondView(inner, augmentation=Augmentation.none())
    nothing = [[np.zeros_like(plane) for plane in planes] for planes in segments]
    with pytest.raises(DataError, match="none of the 4 scans has a slice with a superpixel"):
        WithAuxiliary(inner, scans, nothing)
    only = [[plane if z in scan.class_slices[2] else np.zeros_like(plane) for z, plane in
             enumerate(planes)] for scan, planes in zip(scans, segments)]  # fmt: skip
    source = WithAuxiliary(SupervisedSource(scans, classes=[2]), scans, only)
    with pytest.raises(DataError, match="every slice .* shows one of the classes"):
        source.episode(0)


# --- episodes of several organs of the same slices ------------------------------------------------


def test_shared_ways_lie_on_the_same_slices(scans: list[PreparedScan]) -> None:
    source = SupervisedSource(
        scans, classes=[1, 2, 3, 4], n_way=2, shared=True, augmentation=Augmentation()
    )
    seen = set()
    for index in range(20):
        episode = source.episode(index)
        assert episode.classes is not None
        seen.add(tuple(episode.classes[0].tolist()))
        images, masks = episode.support.images[0], episode.support.masks[0]
        assert torch.equal(images[0], images[1])
        assert (masks.flatten(1).sum(1) > 0).all()
        assert (masks[0] * masks[1]).sum() == 0
        assert episode.query_labels is not None
        assert (episode.query_labels > 0).any()
        backgrounds = episode.support.background_masks
        assert backgrounds is not None
        torch.testing.assert_close(backgrounds[0, 0], 1 - masks.sum(0))
    assert len(seen) > 1


def test_shared_ways_that_never_meet_are_refused(scans: list[PreparedScan]) -> None:
    with pytest.raises(OptionError, match="distinct must be 1"):
        SupervisedSource(scans, classes=[1, 2, 3, 4], n_way=2, shared=True, distinct=2)
    apart = [
        PreparedScan(
            scan.id, scan.images, torch.where(scan.labels > 1, 0, scan.labels)
            if z % 2 else torch.where(scan.labels == 1, 0, scan.labels),
            scan.original_labels, scan.original_size, scan.spacing, scan.class_slices,
        )
        for z, scan in enumerate(scans) if scan.labels is not None
    ]  # fmt: skip
    with pytest.raises(DataError, match="ever shown together"):
        SupervisedSource(apart, classes=[1, 2], n_way=2, shared=True)
