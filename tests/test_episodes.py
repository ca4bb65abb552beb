"""Training episodes: who stands in them, and that they can be drawn again."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from fewshot_seg.data.assemble import Slice, episode_from_slices
from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.candidates import third_of
from fewshot_seg.data.episodes import EpisodeSource, SupervisedSource
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.prepare import prepare
from fewshot_seg.data.scan import Scan
from fewshot_seg.errors import DataError, OptionError, UnknownNameError

DEPTH, SIZE = 10, 24
RANGES = {1: (1, 9), 2: (2, 8), 3: (0, 5), 4: (6, 10)}  # slices that show each class
CORNERS = {1: (2, 2), 2: (2, 12), 3: (12, 2), 4: (12, 12)}


def scan(number, classes=(1, 2, 3, 4), labelled=True, size=SIZE):
    """Each pixel's intensity tells scan and slice, so that an image says where it is from."""
    labels = np.zeros((DEPTH, size, size), np.uint8)
    for value in classes:
        first, stop = RANGES[value]
        row, col = CORNERS[value]
        labels[first:stop, row : row + 8, col : col + 8] = value
    image = np.arange(DEPTH, dtype=np.float32)[:, None, None, None] + 100.0 * (number + 1)
    image = image + np.zeros((1, 1, size, size), np.float32)
    return prepare(
        Scan(f"p{number}", image, labels if labelled else None),
        size=None,
        intensity=Intensity(0.0, 1.0),
    )


SCANS = [scan(number) for number in range(4)]


def source(scans=SCANS, **options):
    return SupervisedSource(scans, **{"classes": (1, 2, 3), **options})


def origin(images):
    """(scan, slice) of each image of an episode drawn without augmentation."""
    values = images[..., 0, 0, 0].flatten().round().int().tolist()
    return [(value // 100 - 1, value % 100) for value in values]


def same(first, second):
    pairs = [
        (first.support.images, second.support.images),
        (first.support.masks, second.support.masks),
        (first.query_images, second.query_images),
        (first.query_labels, second.query_labels),
        (first.classes, second.classes),
    ]
    if first.support.background_masks is not None:
        pairs.append((first.support.background_masks, second.support.background_masks))
    return all(torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize("n_way", [1, 2])
@pytest.mark.parametrize("n_shot", [1, 3])
@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_episodes_are_well_formed(n_way, n_shot, augmentation):
    drawn = source(n_way=n_way, n_shot=n_shot, n_query=2, augmentation=augmentation)
    assert isinstance(drawn, EpisodeSource)
    for index in range(6):
        episode = drawn.episode(index)
        assert episode.support.images.shape == (1, n_way, n_shot, 3, SIZE, SIZE)
        assert episode.query_images.shape == (1, 2, 3, SIZE, SIZE)
        assert episode.classes.shape == (1, n_way)
        assert set(episode.classes.flatten().tolist()) <= {1, 2, 3}
        assert len(set(episode.classes.flatten().tolist())) == n_way
        assert (episode.support.masks.flatten(3).sum(-1) > 0).all()
        assert ((episode.query_labels > 0).flatten(2).sum(-1) > 0).all()
        assert int(episode.query_labels.max()) <= n_way
        assert (episode.support.background_masks is None) == (n_way == 1)


@pytest.mark.parametrize("pairing", ["random", "matched"])
def test_labels_and_masks_are_those_of_the_slices(pairing):
    drawn = source(n_way=2, n_shot=2, n_query=2, pairing=pairing)
    for index in range(15):
        episode = drawn.episode(index)
        ways = episode.classes[0].tolist()
        support = origin(episode.support.images)
        for place, (number, position) in enumerate(support):
            way, shot = divmod(place, 2)
            labels = SCANS[number].labels[position]
            assert torch.equal(episode.support.masks[0, way, shot], (labels == ways[way]).float())
            others = ~torch.isin(labels, torch.tensor(ways, dtype=torch.uint8))
            assert torch.equal(episode.support.background_masks[0, way, shot], others.float())
        for place, (number, position) in enumerate(origin(episode.query_images)):
            labels = SCANS[number].labels[position]
            expected = sum((labels == value).long() * k for k, value in enumerate(ways, start=1))
            assert torch.equal(episode.query_labels[0, place], expected)


def test_support_and_query_are_different_patients_unless_allowed():
    for options, meet in (({}, False), ({"same_scan": "allow"}, True)):
        drawn = source(n_way=2, n_shot=2, n_query=2, **options)
        met = False
        for index in range(40):
            episode = drawn.episode(index)
            support, query = origin(episode.support.images), origin(episode.query_images)
            assert not set(support) & set(query)
            assert len(set(query)) == 2
            assert len(set(support[:2])) == len(set(support[2:])) == 2
            met |= bool({one for one, _ in support} & {one for one, _ in query})
        assert met == meet


def test_episodes_do_not_depend_on_order():
    options = {"n_way": 2, "augmentation": Augmentation.strong(), "seed": 3}
    forwards = [source(**options).episode(index) for index in range(6)]
    backwards = source(**options)
    again = [backwards.episode(index) for index in reversed(range(6))][::-1]
    assert all(same(one, two) for one, two in zip(forwards, again))
    assert not any(same(one, two) for one, two in pairwise(forwards))
    assert not same(forwards[0], source(**{**options, "seed": 4}).episode(0))


def test_all_classes_slices_and_scans_are_drawn():
    drawn = source()
    episodes = [drawn.episode(index) for index in range(400)]
    classes = [int(episode.classes) for episode in episodes]
    for value in (1, 2, 3):
        assert 100 < classes.count(value) < 170
        own = [one for one in episodes if int(one.classes) == value]
        places = {place for one in own for place in origin(one.query_images)}
        assert {number for number, _ in places} == {0, 1, 2, 3}
        assert {position for _, position in places} == set(range(*RANGES[value]))


@pytest.mark.parametrize("n_way", [1, 2])
def test_classes_differ_within_a_group(n_way):
    drawn = source(classes=(1, 2, 3, 4), n_way=n_way, distinct=2)
    orders = set()
    for group in range(20):
        pair = [drawn.episode(2 * group + one).classes.flatten().tolist() for one in range(2)]
        assert len({*pair[0], *pair[1]}) == 2 * n_way
        orders.add(str(pair))
    assert len(orders) > 5


def test_matched_slices_come_from_the_same_third():
    unmatched = 0
    for pairing in ("matched", "random"):
        drawn = source(n_shot=2, n_query=2, pairing=pairing)
        for index in range(40):
            episode = drawn.episode(index)
            first, stop = RANGES[int(episode.classes)]
            places = origin(episode.support.images) + origin(episode.query_images)
            thirds = {third_of(position, (first, stop - 1)) for _, position in places}
            assert pairing == "random" or len(thirds) == 1
            unmatched += len(thirds) > 1
    assert unmatched > 10


@pytest.mark.parametrize(
    ("extent", "thirds"),
    [((0, 6), "0011222"), ((0, 0), "0000000"), ((2, 5), "0001222"), ((0, 1), "0222222")],
)
def test_thirds_follow_the_formula_of_parts_3(extent, thirds):
    assert "".join(str(third_of(index, extent)) for index in range(7)) == thirds
    first, last = extent
    if last > first:
        slow = [np.clip(np.floor((z - first) / ((last - first) / 3)), 0, 2) for z in range(7)]
        assert [int(one) for one in slow] == [int(one) for one in thirds]


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("setting2_any", {6, 7, 8}),  # class 1 is in 1..8, class 3 in 0..4, class 4 in 6..9
        ("setting1", {1, 2, 3, 4, 5, 6, 7, 8}),
        ("leave_one_organ", {1, 2, 3, 4, 5, 6, 7, 8}),
    ],
)
def test_slices_that_show_held_out_classes(setting, shown):
    drawn = source(classes=(1,), exclude=(3,), setting=setting)
    shown = shown | {5} if setting == "setting2_any" else shown
    seen = set()
    for index in range(120):
        episode = drawn.episode(index)
        places = origin(episode.support.images) + origin(episode.query_images)
        seen |= {position for _, position in places}
    assert seen == shown


def test_min_pixels_counts_on_the_networks_size():
    labels = np.zeros((2, SIZE, SIZE), np.uint8)
    labels[0, :2, :2] = 1
    labels[1, :4, :4] = 1
    image = np.arange(2, dtype=np.float32)[:, None, None, None] + np.zeros((1, 1, SIZE, SIZE))
    scans = [
        prepare(Scan(name, image, labels), size=SIZE // 2, intensity=Intensity(0.0, 1.0))
        for name in "ab"
    ]
    drawn = source(scans, classes=(1,), min_pixels=4)
    assert drawn.describe()["slices"] == {"1": 2}
    for index in range(10):
        assert drawn.episode(index).query_images.max() == 1
    with pytest.raises(DataError, match="fewer than 5 pixel"):
        source(scans, classes=(1,), min_pixels=5)


def small(number):
    """A scan whose only organ is one pixel in a corner, easily lost."""
    labels = np.zeros((1, SIZE, SIZE), np.uint8)
    labels[0, 0, 0] = 1
    image = np.random.default_rng(number).normal(size=(1, 1, SIZE, SIZE))
    return prepare(Scan(f"p{number}", image, labels), size=None, intensity=Intensity())


def test_vanished_masks_are_drawn_again_and_counted():
    far = replace(Augmentation.none(), shift=15.0)
    drawn = source([small(0), small(1)], classes=(1,), augmentation=far, max_draws=500)
    told = 0
    for index in range(10):
        episode = drawn.episode(index)
        assert episode.support.masks.any()
        assert episode.query_labels.any()
        told += int(episode.extras["redrawn"])
    assert told == drawn.redrawn > 10
    fresh = source([small(0), small(1)], classes=(1,), augmentation=far, max_draws=500)
    assert same(fresh.episode(9), episode)
    assert fresh.redrawn < drawn.redrawn


def test_drawing_gives_up_with_a_reason():
    gone = replace(Augmentation.none(), zoom=(9.0, 9.0))
    drawn = source([small(0), small(1)], classes=(1,), augmentation=gone, max_draws=7)
    with pytest.raises(
        DataError, match=r"drawn 7 times without success: 0 .* 7 times augmentation"
    ):
        drawn.episode(0)


def test_a_scan_that_lacks_a_way_is_passed_over():
    scans = [scan(0, (1,)), scan(1, (1, 2)), scan(2, (2,))]
    drawn = source(scans, classes=(1, 2), n_way=2, pairing="matched")
    for index in range(20):
        assert (drawn.episode(index).support.masks.flatten(3).sum(-1) > 0).all()


def test_description_is_plain_and_complete():
    drawn = source(exclude=(4,), n_shot=2, augmentation=Augmentation())
    found = drawn.describe()
    assert json.loads(json.dumps(found)) == found
    assert found["scans"] == ["p0", "p1", "p2", "p3"]
    assert found["slices"] == {"1": 20, "2": 16, "3": 20}
    assert (found["n_shot"], found["exclude"], found["setting"]) == (2, [4], "setting2_any")
    assert found["augmentation"]["zoom"] == [0.9, 1.2]


TWICE = [SCANS[0], SCANS[0]]
ALONE = [scan(0), scan(1, (1, 2)), scan(2, (1, 2))]


@pytest.mark.parametrize(
    ("scans", "options", "error", "message"),
    [
        (SCANS, {"n_way": 0}, OptionError, "n_way must be at least 1; got 0"),
        (SCANS, {"n_shot": 0}, OptionError, "n_shot must be"),
        (SCANS, {"n_query": 0}, OptionError, "n_query must be"),
        (SCANS, {"min_pixels": 0}, OptionError, "min_pixels must be"),
        (SCANS, {"max_draws": 0}, OptionError, "max_draws must be"),
        (SCANS, {"seed": -1}, OptionError, "seed must be 0 or more"),
        (SCANS, {"same_scan": "forbidden"}, OptionError, "did you mean 'forbid'"),
        (SCANS, {"pairing": "match"}, OptionError, "did you mean 'matched'"),
        (SCANS, {"exclude": (4,), "setting": "setting3"}, UnknownNameError, "did you mean 'sett"),
        (SCANS, {"classes": (0, 1)}, OptionError, "ids of 1 or more"),
        (SCANS, {"classes": (1, 1)}, OptionError, "must be different"),
        (SCANS, {"exclude": (1,)}, OptionError, r"\[1\] are both trained on and held out"),
        (SCANS, {"n_way": 4}, OptionError, "need 4 base classes; got 3"),
        (SCANS, {"n_way": 2, "distinct": 2}, OptionError, "need 4 base classes; got 3"),
        (SCANS, {"exclude": (9,)}, DataError, r"held-out class ids \[9\] appear in none"),
        (SCANS, {"classes": (7,)}, DataError, r"class 7 appears in none .* show \[1, 2, 3, 4\]"),
        (SCANS, {"classes": (3,), "exclude": (1, 2, 4)}, None, ""),
        (SCANS, {"classes": (2,), "exclude": (1,)}, DataError, "no slice is left"),
        ([], {}, DataError, "there is no training scan"),
        (TWICE, {}, DataError, "given twice: p0"),
        (SCANS[:1], {}, DataError, "1 training scan.*from different scans.*same_scan='allow'"),
        (ALONE, {}, DataError, r"class 3 is shown by 5 usable slice\(s\) of 1 training scan"),
        (ALONE, {"same_scan": "allow"}, None, ""),
        (SCANS[:2], {"n_shot": 6}, DataError, "class 3 .* 6 shot"),
        (SCANS[:2], {"n_shot": 3, "pairing": "matched"}, DataError, "same third"),
        ([scan(0), scan(1, labelled=False)], {}, DataError, "scan p1 has no labels"),
        ([scan(0), scan(1, size=32)], {}, DataError, r"scan p1 is \(3, 32, 32\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_once(scans, options, error, message):
    if error is None:
        source(scans, **options).episode(0)
    else:
        with pytest.raises(error, match=message):
            source(scans, **options)


def test_episode_from_slices_at_test_time():
    unlabelled = scan(5, labelled=False)
    support = [[Slice(SCANS[0], 4)]]
    episode = episode_from_slices(support, [Slice(unlabelled, z) for z in (3, 4)], [2])
    assert episode.query_labels is None
    assert origin(episode.query_images) == [(5, 3), (5, 4)]
    assert torch.equal(episode.support.masks[0, 0, 0], (SCANS[0].labels[4] == 2).float())
    with pytest.raises(DataError, match="scan p5 has no labels, so it cannot be a support"):
        episode_from_slices([[Slice(unlabelled, 3)]], [Slice(SCANS[0], 3)], [2])
    with pytest.raises(ValueError, match="for 2 classes"):
        episode_from_slices(support, [Slice(SCANS[1], 4)], [1, 2])
    with pytest.raises(ValueError, match="needs a generator"):
        episode_from_slices(support, [Slice(SCANS[1], 4)], [2], augmentation=Augmentation())
