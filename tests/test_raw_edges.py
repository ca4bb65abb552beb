"""Labels lie on their image the right way round, and in no other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.raw.edges import AS_GIVEN, check_placement, edge_score, placements
from fewshot_seg.errors import DataError


def lopsided(size: tuple[int, int, int] = (6, 48, 48)) -> tuple[np.ndarray, np.ndarray]:
    """A bright and a dark organ that look alike in no other placement."""
    labels = np.zeros(size, np.uint8)
    labels[1:4, 6:20, 8:34] = 1
    labels[3:6, 28:40, 30:38] = 2
    image = np.random.default_rng(0).normal(100, 4, size)
    return (image + 60 * (labels == 1) - 50 * (labels == 2)).astype(np.float32), labels


def test_on_real_scans_only_the_right_placement_scores(shared_data: Callable[[str], Path]) -> None:
    """The range of data_protocols: 1.7 to 2.7 as they lie, about 1 flipped along any axis."""
    folder = open_folder(root=shared_data("chaos_MR_T2_normalized"))
    for scan_id in ("5", "19", "39", "3"):  # the lowest scores, the highest, the best flipped
        scan = folder.load(scan_id)
        scores = placements(scan.image[:, 0], scan.labels)
        assert len(scores) == 16
        assert 1.65 < scores.pop(AS_GIVEN) < 2.75
        assert max(scores.values()) < 1.3


def test_scores_of_all_real_scans(shared_data: Callable[[str], Path]) -> None:
    folder = open_folder(root=shared_data("chaos_MR_T2_normalized"))
    scans = [folder.load(scan_id) for scan_id in folder.ids]
    scores = [edge_score(scan.image[:, 0], scan.labels) for scan in scans]
    assert (round(min(scores), 2), round(max(scores), 2)) == (1.7, 2.67)


def test_a_slow_loop_gives_the_same_score() -> None:
    image, labels = lopsided((4, 44, 40))
    border, around = [], []
    for z in range(4):
        ring = set()
        for y, x in np.argwhere(labels[z]):
            near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            if any(labels[z][place] != labels[z, y, x] for place in near):
                ring.add((int(y), int(x)))
        down, across = np.gradient(image[z])
        edge = np.hypot(down, across)
        border += [edge[place] for place in ring]
        for place in np.ndindex(44, 40):
            if place not in ring and any(
                abs(place[0] - y) + abs(place[1] - x) <= 8 for y, x in ring
            ):
                around.append(edge[place])
    assert edge_score(image, labels) == pytest.approx(np.mean(border) / np.mean(around), rel=1e-5)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("flips", [(), (0,), (1,), (2,), (1, 2), (0, 2), (0, 1, 2)])
def test_every_wrong_placement_is_found_and_named(flips: tuple[int, ...], turned: bool) -> None:
    image, labels = lopsided()
    wrong = np.flip(labels, flips)
    wrong = wrong.transpose(0, 2, 1) if turned else wrong
    if not flips and not turned:
        assert check_placement(image, wrong, what="masks") > 3
        return
    with pytest.raises(DataError, match=r"masks fit the image better .* Restore this scan") as told:
        check_placement(image, wrong, what="masks")
    names = ["turned"] * turned + [
        f"{('slices', 'rows', 'columns')[axis]} flipped" for axis in flips
    ]
    if not turned:  # turned back first, the others change their names
        assert f"better {', '.join(names)} (" in str(told.value)
    assert "turned" in str(told.value) or not turned


def test_slices_that_are_not_square_are_not_turned() -> None:
    image, labels = lopsided()
    assert len(placements(image[:, :40], labels[:, :40])) == 8


def test_labels_of_another_scan_fit_nowhere() -> None:
    image, labels = lopsided()
    other = np.random.default_rng(1).normal(100, 4, image.shape).astype(np.float32)
    assert edge_score(other, labels) == pytest.approx(1, abs=0.1)
    for unfit in (other, np.zeros_like(image)):
        with pytest.raises(DataError, match=r"Ground do not follow the edges .* another scan"):
            check_placement(unfit, labels, what="Ground")
    assert np.isnan(edge_score(image, np.zeros_like(labels)))
