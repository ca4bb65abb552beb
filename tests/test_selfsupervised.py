"""Superpixels, and the episodes made of them."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.episodes import SupervisedSource
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.prepare import PreparedScan, prepare
from fewshot_seg.data.selfsupervised import MixedSource, SuperpixelSource
from fewshot_seg.data.superpixels import OFFICIAL, body_mask, superpixels
from fewshot_seg.data.supervoxel_source import SupervoxelSource
from fewshot_seg.episode import Episode, collate
from fewshot_seg.errors import DataError, OptionError


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_SEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def scans() -> list[PreparedScan]:
    dataset = abdomen(n_scans=2, size=64, n_slices=6)
    return [prepare(dataset.load(one), size=None, intensity=Intensity()) for one in dataset.ids]


def test_superpixels_are_connected_consecutive_and_inside_the_body(
    scans: list[PreparedScan],
) -> None:
    plane = scans[0].images[3, 0].numpy()
    found = superpixels(plane)
    ids = np.unique(found)
    assert ids.tolist() == list(range(found.max() + 1))
    assert found.max() >= 5
    threshold = 0.5 * (float(np.percentile(plane, 1)) + float(plane.mean()))
    assert not found[~body_mask(plane, threshold)].any()
    inner = [value for value in ids[1:] if (found == value).sum() >= 25]
    assert len(inner) >= 5
    assert all(ndimage.label(found == value, np.ones((3, 3)))[1] == 1 for value in inner)


def test_min_size_is_in_pixels_of_a_full_slice(scans: list[PreparedScan]) -> None:
    plane = scans[0].images[3, 0].numpy()
    assert superpixels(plane, min_size=100).max() > superpixels(plane, min_size=1600).max()


def test_a_size_without_reference_is_taken_as_given(scans: list[PreparedScan]) -> None:
    plane = scans[0].images[3, 0].numpy()
    scaled = superpixels(plane, min_size=400, sigma=1.0)
    given = superpixels(plane, min_size=25, sigma=0.25, reference=None)
    assert np.array_equal(scaled, given)


@pytest.mark.parametrize("modality", ["mr", "ct"])
def test_regions_equal_the_official_code(golden: Callable[[str], Path], modality: str) -> None:
    want = np.load(golden("alpnet") / f"superpixels_{modality}.npz")
    found = superpixels(want["image"], **OFFICIAL, threshold=float(want["body_threshold"]))
    inside = want["body_mask"] > 0
    assert np.array_equal(found > 0, inside)  # the segment that the official code loses is kept
    ours, theirs = found[inside].tolist(), want["felzenszwalb_segments"][inside].tolist()
    pairs = set(zip(ours, theirs, strict=True))
    assert len(pairs) == len(set(ours)) == len(set(theirs))


def test_an_empty_slice_has_no_superpixel() -> None:
    assert not superpixels(np.zeros((32, 32), np.float32)).any()
    assert not body_mask(np.zeros((4, 4), np.float32), 0.5).any()


def test_holes_in_the_body_are_filled_and_small_islands_dropped() -> None:
    plane = np.zeros((12, 12), np.float32)
    plane[2:9, 2:9] = 1
    plane[5, 5] = 0
    plane[11, 11] = 1
    want = np.zeros((12, 12), bool)
    want[2:9, 2:9] = True
    assert np.array_equal(body_mask(plane, 0.5), want)


def same(one: Episode, two: Episode) -> bool:
    assert one.query_labels is not None
    assert two.query_labels is not None
    return (
        torch.equal(one.support.images, two.support.images)
        and torch.equal(one.support.masks, two.support.masks)
        and torch.equal(one.query_images, two.query_images)
        and torch.equal(one.query_labels, two.query_labels)
    )


def test_episodes_repeat_by_seed_and_index(scans: list[PreparedScan]) -> None:
    source, twin = SuperpixelSource(scans, seed=3), SuperpixelSource(scans, seed=3)
    for index in (5, 0, 5):
        assert same(source.episode(index), twin.episode(index))
    assert not same(source.episode(0), source.episode(1))
    assert not same(source.episode(0), SuperpixelSource(scans, seed=4).episode(0))


def test_without_augmentation_both_views_are_the_slice_and_its_superpixel(
    scans: list[PreparedScan],
) -> None:
    source = SuperpixelSource(scans, augmentation=Augmentation.none())
    episode = source.episode(2)
    assert torch.equal(episode.support.images[0, 0, 0], episode.query_images[0, 0])
    assert episode.query_labels is not None
    assert torch.equal(episode.support.masks[0, 0, 0].long(), episode.query_labels[0, 0])
    image = episode.query_images[0, 0]
    where = [(s, z) for s, scan in enumerate(scans) for z in range(6)
             if torch.equal(scan.images[z], image)]  # fmt: skip
    ((scan, plane),) = where
    segments = superpixels(scans[scan].images[plane, 0].numpy())
    chosen = np.unique(segments[episode.query_labels[0, 0].numpy() == 1])
    assert len(chosen) == 1
    assert ((segments == chosen[0]) == (episode.query_labels[0, 0].numpy() == 1)).all()


def test_every_superpixel_can_be_drawn_and_none_is_empty(scans: list[PreparedScan]) -> None:
    source = SuperpixelSource(scans[:1], augmentation=Augmentation.none())
    masks = {source.episode(i).support.masks.numpy().tobytes() for i in range(1500)}
    total = sum(int(superpixels(image[0].numpy()).max()) for image in scans[0].images)
    assert total - 5 <= len(masks) <= total  # 1500 draws of about 200 miss one now and then


def test_labels_are_never_read(scans: list[PreparedScan]) -> None:
    blind = [
        PreparedScan(one.id, one.images, None, None, one.original_size, one.spacing, {})
        for one in scans
    ]
    assert same(SuperpixelSource(scans).episode(4), SuperpixelSource(blind).episode(4))


def test_shots_and_queries_are_further_views(scans: list[PreparedScan]) -> None:
    episode = SuperpixelSource(scans, n_shot=2, n_query=3).episode(0)
    assert episode.support.images.shape[:3] == (1, 1, 2)
    assert episode.query_images.shape[1] == 3


def test_the_query_position_is_that_of_the_slice(scans: list[PreparedScan]) -> None:
    source = SuperpixelSource(scans, augmentation=Augmentation.none(), n_query=2)
    found = set()
    for index in range(40):
        episode = source.episode(index)
        ((plane,),) = [
            [z for z in range(6) if torch.equal(scan.images[z], episode.query_images[0, 0])]
            for scan in scans
            if any(torch.equal(image, episode.query_images[0, 0]) for image in scan.images)
        ]
        assert episode.extras["query_position"].tolist() == [[pytest.approx(plane / 5)] * 2]
        found.add(plane)
    assert len(found) >= 4
    picture = PreparedScan("x", scans[0].images[3:4], None, None, (64, 64), None, {})
    assert SuperpixelSource([picture]).episode(0).extras["query_position"].item() == 0.5


def test_a_source_is_the_same_after_pickling_and_without_a_cache(
    scans: list[PreparedScan],
) -> None:
    source = SuperpixelSource(scans, seed=3)
    twin = pickle.loads(pickle.dumps(source))
    for index in range(3):
        assert same(source.episode(index), twin.episode(index))
        assert same(
            source.episode(index), SuperpixelSource(scans, seed=3, cache=None).episode(index)
        )


def test_all_sources_mix_within_a_step(scans: list[PreparedScan]) -> None:
    source = MixedSource(
        [
            (SupervisedSource(scans, classes=[1, 3]), 1.0),
            (SuperpixelSource(scans), 1.0),
            (SupervoxelSource(scans), 1.0),
        ]
    )
    joined = collate([source.episode(index) for index in range(12)])
    assert joined.classes is not None
    assert (joined.classes > 0).any()
    assert (joined.classes < 0).any()
    assert joined.extras["query_position"].shape == (12, 1)
    twin = pickle.loads(pickle.dumps(source))
    assert same(source.episode(5), twin.episode(5))
    kinds = [one["source"] for one in source.describe()["sources"]]
    assert kinds == ["supervised", "superpixel", "supervoxel"]


class Constant:
    """A source that says which of several it is."""

    def __init__(self, value: float, scans: list[PreparedScan]) -> None:
        self.value = value
        self.inner = SuperpixelSource(scans[:1], augmentation=Augmentation.none())

    def episode(self, index: int) -> Episode:
        return self.inner.episode(0).map(lambda t: torch.full_like(t, self.value))

    def describe(self) -> dict[str, Any]:
        return {"value": self.value}


def test_a_mixture_keeps_its_shares_and_repeats(scans: list[PreparedScan]) -> None:
    parts = [(Constant(1.0, scans), 1.0), (Constant(2.0, scans), 3.0)]
    source, twin = MixedSource(parts, seed=1), MixedSource(parts, seed=1)
    drawn = [source.episode(i).query_images[0, 0, 0, 0, 0].item() for i in range(400)]
    assert drawn == [twin.episode(i).query_images[0, 0, 0, 0, 0].item() for i in range(400)]
    assert 270 < drawn.count(2.0) < 330
    assert source.describe()["sources"] == [{"value": 1.0}, {"value": 2.0}]


def test_wrong_inputs_are_refused(scans: list[PreparedScan]) -> None:
    with pytest.raises(OptionError, match="n_shot must be at least 1; got 0"):
        SuperpixelSource(scans, n_shot=0)
    with pytest.raises(OptionError, match="positive shares"):
        MixedSource([(SuperpixelSource(scans), 0.0)])
    with pytest.raises(ValueError, match="numbered from 0"):
        SuperpixelSource(scans).episode(-1)
    flat = PreparedScan("x", torch.zeros(2, 3, 16, 16), None, None, (16, 16), None, {})
    with pytest.raises(DataError, match="none of the 1 scans has a superpixel"):
        SuperpixelSource([flat])
    away = Augmentation(shift=2000.0)
    with pytest.raises(DataError, match="in 3 draws augmentation always moved"):
        SuperpixelSource(scans, augmentation=away, max_draws=3).episode(0)
