"""The published counts of CHAOS T2, on the real scans: slices, folds, settings, pseudo-labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.folds import make_folds
from fewshot_seg.data.scan import Scan
from fewshot_seg.data.settings import class_ids, kept_slices
from fewshot_seg.data.superpixels import OFFICIAL, superpixels
from fewshot_seg.data.supervoxels import supervoxels

LIVER, RIGHT, LEFT, SPLEEN = "liver", "right kidney", "left kidney", "spleen"
BODY = 50 + 1e-4
"""Grey value above which the official code sees the body."""


@pytest.fixture(scope="module")
def scans(shared_data: Callable[[str], Path]) -> dict[str, Scan]:
    dataset = open_folder(root=shared_data("chaos_MR_T2_normalized"))
    assert list(dataset.classes.values()) == [LIVER, RIGHT, LEFT, SPLEEN]
    return {scan_id: dataset.load(scan_id) for scan_id in dataset.ids}


CLASSES = {1: LIVER, 2: RIGHT, 3: LEFT, 4: SPLEEN}


def test_scans_and_slices(scans: dict[str, Scan]) -> None:
    assert " ".join(scans) == "1 2 3 5 8 10 13 15 19 20 21 22 31 32 33 34 36 37 38 39"
    lengths = [len(scan.image) for scan in scans.values()]
    assert (sum(lengths), min(lengths), max(lengths)) == (718, 31, 46)
    for value, slices in {1: 461, 2: 285, 3: 300, 4: 274}.items():
        assert sum(len(scan.class_slices.get(value, ())) for scan in scans.values()) == slices
        assert all(value in scan.class_slices for scan in scans.values())


def test_the_median_areas_of_the_organs(scans: dict[str, Scan]) -> None:
    for value, area in {1: 5246, 2: 1163, 3: 1095, 4: 1648}.items():
        found = [
            np.count_nonzero(scan.labels[z] == value)
            for scan in scans.values()
            if scan.labels is not None
            for z in scan.class_slices[value]
        ]
        assert np.median(found) == pytest.approx(area, abs=0.5)


def test_the_only_hole_in_an_organ(scans: dict[str, Scan]) -> None:
    holes = [
        (scan_id, CLASSES[value])
        for scan_id, scan in scans.items()
        for value, shown in scan.class_slices.items()
        if len(shown) != shown[-1] - shown[0] + 1
    ]
    assert holes == [("3", LEFT)]


@pytest.mark.parametrize(
    ("novel", "setting", "kept"),
    [
        ([LEFT, RIGHT], "setting1", 544),
        ([LIVER], "leave_one_organ", 544),
        ([LEFT, RIGHT], "setting2_any", 303),
        ([LEFT, RIGHT], "setting2_all", 349),
        ([LIVER, SPLEEN], "setting2_any", 202),
        ([LIVER, SPLEEN], "setting2_all", 343),
        ([LIVER, RIGHT, LEFT, SPLEEN], "setting2_any", 120),
        ([LIVER, RIGHT, LEFT, SPLEEN], "setting2_all", 490),
    ],
)
def test_training_slices_of_fold_0(
    scans: dict[str, Scan], novel: list[str], setting: str, kept: int
) -> None:
    ids = class_ids(CLASSES, novel)
    train = [scans[scan_id] for scan_id in make_folds(list(scans))[0].train]
    assert len(train) == 15
    found = [kept_slices(scan.class_slices, len(scan.image), ids, setting) for scan in train]
    assert sum(map(len, found)) == kept


def test_superpixels(scans: dict[str, Scan]) -> None:
    """Every 12th slice of each scan, by the official parameters.

    Published files: about 25 ids a slice, median area 1350 to 1420 pixels, 14 % below 400. Over
    all 718 slices ours are 24.1, 1276 and 17.8 %. The official relabelling loses the segment that
    is numbered 0, mostly below 400 pixels, which explains a part of the difference only (1254 to
    1289 and 18.0 to 16.6 % on this sample). Tolerances are the spread of such samples.
    """
    planes = [plane for scan in scans.values() for plane in scan.image[::12, 0]]
    areas = [
        np.bincount(superpixels(plane, **OFFICIAL, threshold=BODY).ravel())[1:] for plane in planes
    ]
    pooled = np.concatenate(areas)
    assert np.mean([len(one) for one in areas]) == pytest.approx(24.1, abs=2)
    assert np.median(pooled) == pytest.approx(1276, rel=0.05)
    assert np.mean(pooled < 400) == pytest.approx(0.178, abs=0.025)
    assert pooled.min() > 0  # no id is empty


@pytest.mark.parametrize(("scan_id", "count"), [("39", 22), ("13", 37)])
def test_supervoxels(scans: dict[str, Scan], scan_id: str, count: int) -> None:
    """Published: 20 to 39 ids a volume; ours are 21 to 38. One of the least and of the most."""
    scan = scans[scan_id]
    assert scan.spacing is not None
    ratio = scan.spacing[0] / scan.spacing[1]
    assert ratio == pytest.approx(6.16, abs=0.001)
    found = supervoxels(scan.image[:, 0], spacing_ratio=ratio)
    assert found.max() == pytest.approx(count, abs=1)  # ties between equal edges
    assert len(np.unique(found)) == found.max() + 1
