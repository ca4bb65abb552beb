"""What a check finds wrong: turned labels, wrong names, copies, holes; and what it must not."""

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from fewshot_seg.data.anatomy import rules
from fewshot_seg.data.check import check
from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.known import CHAOS, CMR, SYNAPSE
from fewshot_seg.data.scan import Geometry, Scan
from fewshot_seg.data.serves import serves

SHAPE = (7, 40, 40)
LAS = np.diag([-2.0, 2.0, 6.0, 1.0])
"""Columns run to the patient's left, rows to the front, slices to the head."""
WHERE = {
    "liver": (slice(2, 7), slice(14, 32), slice(2, 18)),
    "right kidney": (slice(0, 3), slice(4, 12), slice(6, 14)),
    "left kidney": (slice(0, 3), slice(4, 12), slice(24, 32)),
    "spleen": (slice(3, 7), slice(4, 14), slice(34, 39)),
}


class Made:
    """A dataset in memory."""

    name = "made"
    modality = "mr"

    def __init__(self, classes: Mapping[int, str], scans: list[Scan]) -> None:
        self.classes = classes
        self.scans = {scan.id: scan for scan in scans}
        self.ids = tuple(self.scans)

    def load(self, scan_id: str) -> Scan:
        return self.scans[scan_id]


def abdomen(number: int, ids: Mapping[int, str] = CHAOS.classes, affine: np.ndarray = LAS) -> Scan:
    """Organs at their places, brighter than what is around them."""
    rng = np.random.default_rng(number)
    labels = np.zeros(SHAPE, np.int16)
    for value, name in ids.items():
        if name in WHERE:
            labels[WHERE[name]] = value
    labels[2, 0, number] = 1  # so that no two scans have the same labels
    image = (labels > 0) * 100.0 + rng.normal(0, 3, SHAPE)
    geometry = Geometry(affine, (SHAPE[2], SHAPE[1], SHAPE[0]))
    return Scan(str(number), image[:, None].astype(np.float32), labels, geometry.spacing, geometry)


def made(names: Mapping[int, str] = CHAOS.classes, count: int = 4, **options: object) -> Made:
    return Made(names, [abdomen(number, **options) for number in range(count)])  # type: ignore[arg-type]


def turned(scan: Scan, *axes: int) -> Scan:
    assert scan.labels is not None
    return replace(scan, labels=np.ascontiguousarray(np.flip(scan.labels, axes)))


def one_of(sentences: tuple[str, ...], pattern: str) -> str:
    assert len(sentences) == 1, sentences
    assert re.search(pattern, sentences[0]), sentences[0]
    return sentences[0]


def test_nothing_is_wrong_with_good_scans() -> None:
    report = check(made())
    assert (report.problems, report.warnings) == ((), ())


@pytest.mark.parametrize(
    ("axes", "words"),
    [((0,), "slices flipped"), ((1,), "rows flipped"), ((2,), "columns flipped"),
     ((1, 2), "rows flipped, columns flipped")],
)  # fmt: skip
def test_labels_that_fit_better_turned_over_are_a_problem(
    axes: tuple[int, ...], words: str
) -> None:
    data = made()
    data.scans["2"] = turned(data.scans["2"], *axes)
    found = [text for text in check(data).problems if "edges of the image" in text]
    one_of(tuple(found), rf"labels of scan 2 .* only when {words}:")


def test_edges_that_tell_nothing_are_no_problem() -> None:
    data = made()
    for key, scan in data.scans.items():
        noise = np.random.default_rng(int(key)).random(scan.image.shape, np.float32)
        data.scans[key] = replace(scan, image=noise)
    assert check(data).problems == ()


def test_the_real_scans_turned_over_are_found(shared_data) -> None:
    folder = open_folder(root=shared_data("chaos_MR_T2_normalized"))
    scans = [folder.load(scan_id) for scan_id in ("1", "5", "36")]
    assert check(Made(CHAOS.classes, scans)).problems == ()
    for axis, words in enumerate(("slices", "rows", "columns")):
        wrong = Made(CHAOS.classes, [turned(scan, axis) for scan in scans])
        told = [text for text in check(wrong).problems if "edges" in text]
        one_of(tuple(told), f"labels of scans 1, 5, 36 .* only when {words} flipped:")


def test_the_ids_of_another_published_set_are_recognised() -> None:
    """A folder called Synapse that holds the ids of CHAOS."""
    report = check(made(names=SYNAPSE.classes, ids=CHAOS.classes))
    told = one_of(report.problems, r"look like those of CHAOS-T2 \(1 liver, 2 right kidney")
    assert "gallbladder lies to the right of spleen" in told


def test_names_on_the_wrong_side_are_found() -> None:
    swapped = {1: "liver", 2: "left kidney", 3: "right kidney", 5: "spleen"}
    right = {1: "liver", 2: "right kidney", 3: "left kidney", 5: "spleen"}
    told = one_of(check(made(names=swapped, ids=right)).problems, "left and right look swapped")
    assert "in 4 of 4 scans it is not so that right kidney lies to the right of left kid" in told


def test_a_mirrored_affine_is_found() -> None:
    mirrored = LAS * np.array([-1, 1, 1, 1])
    one_of(check(made(affine=mirrored)).problems, "the affine of the files if it mirrors")


@pytest.mark.parametrize(("axis", "words"), [(1, "in front of"), (2, "above")])
def test_a_patient_turned_over_by_the_affine_is_found(axis: int, words: str) -> None:
    affine = LAS.copy()
    affine[axis, axis] *= -1
    one_of(check(made(affine=affine)).problems, f"that liver lies {words} right kidney")


def test_one_unusual_patient_is_a_warning() -> None:
    data = made()
    data.scans["3"] = abdomen(3, affine=LAS * np.array([-1, 1, 1, 1]))
    report = check(data)
    assert report.ok
    told = [text for text in report.warnings if "liver lies to the right of spleen" in text]
    one_of(tuple(told), "in scan 3 of 4 it is not so that .*; look at the labels")


def test_which_names_make_rules() -> None:
    def told(*names: str) -> set[str]:
        return {rule.text for rule in rules(dict(enumerate(names, start=1)))}

    assert told("Kidney_Left", "kidney_right") == {"kidney right lies to the right of kidney left"}
    assert told("posterior x", "anterior x") == {"anterior x lies in front of posterior x"}
    assert told("lung_upper_lobe", "lung_lower_lobe") == {
        "lung upper lobe lies above lung lower lobe"
    }
    assert told("tumour", "class 2", "left thing") == set()


def heart(number: int, muscle: int, pool: int, right: int) -> Scan:
    y, x = np.mgrid[:40, :40]
    far = np.hypot(y - 20, x - 24)
    plane = np.where(far < 6, pool, np.where(far < 10, muscle, 0))
    plane = np.where((far >= 10) & (np.hypot(y - 20, x - 12) < 9), right, plane)
    labels = np.repeat(plane[None], 3, axis=0).astype(np.int16)
    labels[0, 0, number] = muscle
    image = np.random.default_rng(number).random((3, 1, 40, 40), np.float32)
    return Scan(str(number), image, labels)


@pytest.mark.parametrize(
    ("ids", "good"), [((1, 2, 3), True), ((3, 2, 1), False), ((2, 1, 3), False)]
)
def test_a_pool_without_its_muscle_around_it_is_found(
    ids: tuple[int, int, int], good: bool
) -> None:
    """Swapped 200 and 600, or 200 and 500, in copies of MS-CMRSeg."""
    report = check(Made(CMR.classes, [heart(number, *ids) for number in range(3)]))
    assert report.ok is good
    if not good:
        one_of(report.problems, "blood pool lies within left ventricular myocardium")


def test_holes_are_warned_of() -> None:
    data = made()
    labels = data.scans["1"].labels
    assert labels is not None
    labels[1][labels[1] == 3] = 0
    told = one_of(check(data).warnings, "left kidney has holes .* scan 1 misses slice 1$")
    assert told
    assert check(data).rows[1].gaps == {3: (1,)}


def test_labels_copied_to_another_scan_are_warned_of() -> None:
    data = made()
    data.scans["1"] = replace(data.scans["1"], labels=data.scans["0"].labels)
    one_of(check(data).warnings, "scans 0, 1 are different images with the same labels")


def test_a_label_file_in_place_of_an_image_is_warned_of() -> None:
    data = made()
    labels = data.scans["1"].labels
    assert labels is not None
    data.scans["1"] = replace(data.scans["1"], image=labels[:, None].astype(np.float32))
    one_of(check(data).warnings, "image of scan 1 holds few whole numbers; is it a label file")


def test_hounsfield_units_under_the_name_of_mr_are_warned_of() -> None:
    data = made()
    data.scans["0"].image[0, 0, 0, 0] = -1000
    one_of(check(data).warnings, "scan 0 go down to Hounsfield units .* modality=ct")


def test_what_few_scans_and_pictures_serve() -> None:
    rows = check(made(count=4)).rows
    assert len(serves(rows, CHAOS.classes).folds) == 4
    assert serves(rows[:2], CHAOS.classes).folds == ()
    assert serves((), CHAOS.classes).pseudo == ()
    flat = [replace(row, shape=(1, 40, 40), shown={1: (0,)}) for row in rows]
    found = serves(flat, {1: "cell"})
    assert found.pseudo == ("superpixel",)
    assert "leave_one_organ" not in found.held_out[0].slices
    assert set(found.held_out[0].slices["setting2_any"]) == {0}


def test_a_fold_whose_example_lacks_the_class_is_told() -> None:
    data = made(count=5)
    labels = data.scans["1"].labels
    assert labels is not None
    labels[labels == 4] = 0
    found = {entry.classes: entry.untestable for entry in check(data).serves.held_out}
    assert found == {(1,): (), (2,): (), (3,): (), (4,): (0,)}
