"""Episodes of supervoxels."""

import json
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.prepare import PreparedScan, prepare
from fewshot_seg.data.superpixels import pixels_at
from fewshot_seg.data.supervoxel_source import SupervoxelSource
from fewshot_seg.data.supervoxels import pseudo_supervoxels
from fewshot_seg.data.windows import Windows
from fewshot_seg.episode import Episode, collate
from fewshot_seg.errors import DataError, OptionError

OFF = Augmentation.none()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def scans() -> list[PreparedScan]:
    dataset = abdomen(n_scans=2, size=64, n_slices=10)
    return [prepare(dataset.load(one), size=None, intensity=Intensity()) for one in dataset.ids]


def drawing() -> np.ndarray:
    """Six slices of 2x4: supervoxel 1 on all, 2 on slices 1, 2 and 4, 3 on one."""
    voxels = np.zeros((6, 2, 4), np.uint8)
    voxels[:, 0, :2] = 1
    voxels[3, 0, 1] = 0
    voxels[[1, 2, 4], 1] = 2
    voxels[5, 1, 0] = 3
    return voxels


def listed(windows: Windows) -> list[tuple[int, list[int]]]:
    return list(zip(windows.ids.tolist(), windows.slices.tolist(), strict=True))


def test_windows_are_neighbours_in_the_list_of_slices() -> None:
    found = Windows.find(drawing(), range(6), length=2, spread=1, min_pixels=1)
    assert listed(found) == [
        (1, [0, 1]), (1, [1, 2]), (1, [2, 3]), (1, [3, 4]), (1, [4, 5]), (2, [1, 2]), (2, [2, 4]),
    ]  # fmt: skip
    assert (found.present, found.usable, found.total) == (3, 2, 7)
    shares = np.diff(found.edges, prepend=0)
    assert shares == pytest.approx([0.1] * 5 + [0.25] * 2)  # supervoxels count alike


def test_the_lowest_slice_must_show_enough() -> None:
    found = Windows.find(drawing(), range(6), length=2, spread=1, min_pixels=2)
    assert (1, [3, 4]) not in listed(found)
    assert (1, [2, 3]) in listed(found)
    # drawn anew when too small, so supervoxel 1 loses a fifth of its share
    shares = np.diff(found.edges, prepend=0)
    assert shares[:4] == pytest.approx([0.1 / 0.9] * 4)


def test_windows_never_cross_a_dropped_slice() -> None:
    found = Windows.find(drawing(), [0, 1, 3, 4, 5], length=2, spread=1, min_pixels=1)
    assert listed(found) == [(1, [0, 1]), (1, [3, 4]), (1, [4, 5])]


def test_more_shots_and_wider_spread_need_longer_lists() -> None:
    assert listed(Windows.find(drawing(), range(6), length=3, spread=1, min_pixels=1))[-1] == (
        2, [1, 2, 4],
    )  # fmt: skip
    wide = Windows.find(drawing(), range(6), length=2, spread=3, min_pixels=1)
    assert listed(wide) == [(1, [0, 3]), (1, [1, 4]), (1, [2, 5])]
    none = Windows.find(drawing(), range(6), length=9, spread=1, min_pixels=1)
    assert (none.total, none.usable, none.slices.shape) == (0, 0, (0, 9))


def test_windows_are_drawn_by_their_shares_in_both_orders() -> None:
    windows = Windows.find(drawing(), range(6), length=2, spread=1, min_pixels=1)
    generator = np.random.default_rng(0)
    drawn = Counter(windows.draw(generator) for _ in range(8000))
    assert len(drawn) == 14
    for (value, slices), count in drawn.items():
        assert count == pytest.approx(8000 * (0.05 if value == 1 else 0.125), rel=0.2)
        assert slices in ((0, 1), (1, 0)) or value in (1, 2)


def same(one: Episode, two: Episode) -> bool:
    mine, other = [], []
    one.map(lambda tensor: (mine.append(tensor), tensor)[1])
    two.map(lambda tensor: (other.append(tensor), tensor)[1])
    return all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))


def place(scans: list[PreparedScan], image: torch.Tensor) -> tuple[int, int]:
    ((scan, plane),) = [
        (s, z) for s, scan in enumerate(scans) for z in range(scan.n_slices)
        if torch.equal(scan.images[z], image)
    ]  # fmt: skip
    return scan, plane


def test_episodes_are_neighbouring_slices_of_one_supervoxel(
    scans: list[PreparedScan], cache: Path
) -> None:
    source = SupervoxelSource(scans, augmentation=OFF, cache=cache)
    voxels = pseudo_supervoxels(scans, cache=None)
    orders = Counter[bool]()
    for index in range(40):
        episode = source.episode(index)
        assert episode.query_labels is not None
        scan, below = place(scans, episode.support.images[0, 0, 0])
        also, above = place(scans, episode.query_images[0, 0])
        assert scan == also
        mask, label = episode.support.masks[0, 0, 0] > 0, episode.query_labels[0, 0] > 0
        (value,) = np.unique(voxels[scan][below][mask.numpy()])
        assert value > 0
        assert np.array_equal(voxels[scan][below] == value, mask.numpy())
        assert np.array_equal(voxels[scan][above] == value, label.numpy())
        between = range(min(below, above) + 1, max(below, above))
        assert not any((voxels[scan][z] == value).any() for z in between)
        lowest = mask if below < above else label
        assert lowest.sum() >= pixels_at(200, (64, 64))
        orders[below < above] += 1
        assert episode.extras["query_position"].item() == pytest.approx(above / 9)
    assert min(orders.values()) >= 10


def test_episodes_repeat_by_seed_and_index(scans: list[PreparedScan], cache: Path) -> None:
    source = SupervoxelSource(scans, seed=3, cache=cache)
    twin = pickle.loads(pickle.dumps(source))
    for index in (5, 0, 5):
        assert same(source.episode(index), twin.episode(index))
    assert not same(source.episode(0), source.episode(1))
    assert not same(source.episode(0), SupervoxelSource(scans, seed=4, cache=cache).episode(0))
    joined = collate([source.episode(0), source.episode(1)])
    assert joined.extras["query_position"].shape == (2, 1)


def changed_sides(source: SupervoxelSource, plain: SupervoxelSource) -> Counter[tuple[bool, bool]]:
    """How often (support, query) images differ from those of a source that changes nothing."""
    counts = Counter[tuple[bool, bool]]()
    for index in range(60):
        one, two = source.episode(index), plain.episode(index)
        counts[
            not torch.equal(one.support.images, two.support.images),
            not torch.equal(one.query_images, two.query_images),
        ] += 1
    return counts


def test_one_side_is_changed_by_a_toss_for_each_kind(
    scans: list[PreparedScan], cache: Path
) -> None:
    plain = SupervoxelSource(scans, augmentation=OFF, cache=cache)
    for strengths in (replace(OFF, gamma=0.5), replace(OFF, rotation=5.0)):
        source = SupervoxelSource(scans, augmentation=strengths, cache=cache)
        counts = changed_sides(source, plain)
        assert set(counts) == {(True, False), (False, True)}
        assert min(counts.values()) >= 15
    mixed = replace(OFF, gamma=0.5, rotation=5.0)
    counts = changed_sides(SupervoxelSource(scans, augmentation=mixed, cache=cache), plain)
    assert set(counts) == {(True, False), (False, True), (True, True)}  # the tosses differ
    assert counts[True, True] >= 15
    both = SupervoxelSource(scans, augmentation=mixed, augment="both", cache=cache)
    assert set(changed_sides(both, plain)) == {(True, True)}


def test_intensities_alone_leave_the_masks(scans: list[PreparedScan], cache: Path) -> None:
    plain = SupervoxelSource(scans, augmentation=OFF, cache=cache)
    source = SupervoxelSource(scans, augmentation=replace(OFF, gamma=0.5), cache=cache)
    for index in range(10):
        one, two = source.episode(index), plain.episode(index)
        assert torch.equal(one.support.masks, two.support.masks)
        grey = one.query_images
        assert torch.equal(grey[:, :, 0], grey[:, :, 2])


def test_shots_and_queries(scans: list[PreparedScan], cache: Path) -> None:
    source = SupervoxelSource(scans, n_shot=2, n_query=2, augmentation=OFF, cache=cache)
    for index in range(10):
        episode = source.episode(index)
        assert episode.support.images.shape[:3] == (1, 1, 2)
        images = [*episode.support.images[0, 0], *episode.query_images[0]]
        order = [place(scans, image)[1] for image in images]
        assert order in (sorted(order), sorted(order, reverse=True))
        assert len(set(order)) == 4
    wide = SupervoxelSource(scans, spread=3, augmentation=OFF, cache=cache).episode(0)
    ends = [place(scans, one)[1] for one in (wide.support.images[0, 0, 0], wide.query_images[0, 0])]
    assert abs(ends[0] - ends[1]) >= 3


def test_labels_are_never_read_without_a_setting(scans: list[PreparedScan], cache: Path) -> None:
    blind = [replace(one, labels=None, original_labels=None, class_slices={}) for one in scans]
    source = SupervoxelSource(scans, cache=cache)
    assert same(source.episode(4), SupervoxelSource(blind, cache=cache).episode(4))


def test_slices_of_held_out_classes_are_dropped(scans: list[PreparedScan], cache: Path) -> None:
    held = [replace(scan, class_slices={1: (4, 5)}) for scan in scans]
    source = SupervoxelSource(
        held, exclude=[1], setting="setting2_any", augmentation=OFF, cache=cache
    )
    for index in range(30):
        episode = source.episode(index)
        pair = {place(held, episode.support.images[0, 0, 0])[1],
                place(held, episode.query_images[0, 0])[1]}  # fmt: skip
        assert pair <= {0, 1, 2, 3} or pair <= {6, 7, 8, 9}


def test_description_is_plain_and_says_what_is_unknown(
    scans: list[PreparedScan], cache: Path
) -> None:
    mixed = [scans[0], replace(scans[1], spacing=None)]
    said = SupervoxelSource(mixed, cache=cache).describe()
    assert json.loads(json.dumps(said)) == said
    assert said["source"] == "supervoxel"
    assert said["unknown_spacing"] == [scans[1].id]
    assert 0 < said["usable_supervoxels"] <= said["supervoxels"]


def test_vanished_masks_are_drawn_anew_and_counted(scans: list[PreparedScan], cache: Path) -> None:
    wild = replace(OFF, shift=150.0)
    source = SupervoxelSource(scans, augmentation=wild, cache=cache)
    told = 0
    for index in range(30):
        episode = source.episode(index)
        assert episode.query_labels is not None
        assert episode.support.masks.any()
        assert episode.query_labels.any()
        told += int(episode.extras["redrawn"])
    assert told == source.redrawn > 0
    away = replace(OFF, shift=5000.0)
    source = SupervoxelSource(scans, augmentation=away, max_draws=3, cache=cache)
    with pytest.raises(DataError, match="in 3 draws augmentation always moved"):
        source.episode(0)


def test_wrong_inputs_are_refused(scans: list[PreparedScan], cache: Path) -> None:
    with pytest.raises(OptionError, match="n_shot must be at least 1; got 0"):
        SupervoxelSource(scans, n_shot=0)
    with pytest.raises(OptionError, match="augment='none' is not one of one, both"):
        SupervoxelSource(scans, augment="none")
    with pytest.raises(DataError, match="no training scan"):
        SupervoxelSource([])
    flat = [
        replace(scan, images=scan.images[:1], labels=None, original_labels=None) for scan in scans
    ]
    with pytest.raises(DataError, match="Use the source 'superpixel'"):
        SupervoxelSource(flat)
    with pytest.raises(DataError, match="12 usable slices"):
        SupervoxelSource(scans, n_shot=11, cache=cache)
    with pytest.raises(ValueError, match="numbered from 0"):
        SupervoxelSource(scans, cache=cache).episode(-1)
