"""The prepared folders that the field publishes, without a `dataset.json`."""

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fewshot_seg.building import build
from fewshot_seg.data.folder import Folder, open_folder
from fewshot_seg.data.known import CHAOS, CMR, PUBLISHED, SYNAPSE, Published, with_raw_names
from fewshot_seg.data.nifti import read_labels, write_labels
from fewshot_seg.errors import DataError
from fewshot_seg.experiment import evaluate_unlearned
from fewshot_seg.inference import segment_scans

RAW = {200: 1, 500: 2, 600: 3}


def save(path: Path, voxels: np.ndarray, spacing: Sequence[float]) -> None:
    nib.save(nib.Nifti1Image(voxels, np.diag([*spacing, 1.0])), path)


def volume(ids: Sequence[int], side: int = 256, depth: int = 3) -> np.ndarray:
    """A row of voxels for each id, in all slices but the last; (x, y, z)."""
    labels = np.zeros((side, side, depth), np.int16)
    for place, value in enumerate(ids):
        labels[10 * place : 10 * place + 10, 5, :-1] = value
    return labels


def write_scan(root: Path, name: str, labels: np.ndarray, spacing: Sequence[float]) -> None:
    """The image is empty in the last slice, as resampling leaves Synapse."""
    root.mkdir(exist_ok=True)
    image = np.random.default_rng(0).random(labels.shape, np.float32)
    image[:, :, -1] = 0
    save(root / f"image_{name}.nii.gz", image, spacing)
    save(root / f"label_{name}.nii.gz", labels, spacing)


def named_only(root: Path, one: Published) -> Path:
    """All files of a set, of which only the names are right."""
    root.mkdir()
    for scan_id in one.ids:
        for name in (f"image_{scan_id}", f"label_{scan_id}", f"superpix-MIDDLE_{scan_id}"):
            (root / f"{name}.nii.gz").touch()
        (root / f"fgmask_{scan_id}.nii.gz").touch()
    (root / "classmap_1.json").write_text("{}")
    return root


@pytest.mark.parametrize("one", PUBLISHED, ids=lambda one: one.name)
def test_a_published_folder_is_known_by_its_name(one: Published, tmp_path: Path) -> None:
    data = open_folder(root=named_only(tmp_path / one.name.upper(), one))
    assert data.known is one
    assert (data.name, data.modality, data.ids) == (one.name, one.modality, one.ids)
    assert data.classes == one.classes


def test_the_tables_of_ids() -> None:
    assert CHAOS.classes == {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
    assert (len(CHAOS.ids), len(SYNAPSE.ids), len(CMR.ids)) == (20, 30, 35)
    assert [SYNAPSE.classes[value] for value in (1, 2, 3, 6)] == [
        "spleen",
        "right kidney",
        "left kidney",
        "liver",
    ]
    assert list(SYNAPSE.classes) == list(range(1, 14))
    assert "myocardium" in CMR.classes[1]
    assert "blood pool" in CMR.classes[2]
    assert CMR.raw_ids == RAW


SYNAPSE_SPACING = (1.4, 1.4, 3.0)
BY_CONTENT = [
    (CHAOS, (1, 2, 3, 4), 256, (1.25, 1.25, 7.7), True),
    (CHAOS, (1, 2, 3, 4), 256, (1.25, 1.25, 6.0), False),
    (CHAOS, (1, 2, 3, 4), 320, (1.25, 1.25, 7.7), False),
    (CHAOS, (1, 2, 3, 4, 5), 256, (1.25, 1.25, 7.7), False),
    (CHAOS, (1,), 256, (1.25, 1.25, 7.7), False),
    (SYNAPSE, range(1, 12), 257, SYNAPSE_SPACING, True),
    (SYNAPSE, range(1, 12), 256, SYNAPSE_SPACING, True),
    (SYNAPSE, (1, 2, 3, 6), 257, SYNAPSE_SPACING, False),
    (CMR, tuple(RAW), 256, (1.25, 1.25, 7.99), True),
    (CMR, (1, 2, 3), 256, (1.25, 1.25, 7.99), True),
    (CMR, (200, 2, 3), 256, (1.25, 1.25, 7.99), False),
]


@pytest.mark.parametrize(("one", "ids", "side", "spacing", "known"), BY_CONTENT)
def test_a_renamed_folder_is_known_by_ids_grid_and_label_values(
    one: Published, ids: Sequence[int], side: int, spacing: Sequence[float], known: bool,
    tmp_path: Path,
) -> None:  # fmt: skip
    root = named_only(tmp_path / "mine", one)
    for path in root.glob("label_*"):
        path.unlink()
    save(root / f"label_{one.ids[0]}.nii.gz", volume(ids, side), spacing)
    data = open_folder(root=root)
    assert data.known is (one if known else None)
    assert data.name == (one.name if known else "mine")


def test_the_folder_above_is_told_where_the_scans_are(tmp_path: Path) -> None:
    root = named_only(tmp_path / CHAOS.name, CHAOS)
    with pytest.raises(DataError, match=f"no layout .*; did you mean {root}"):
        open_folder(root=tmp_path)


def test_other_scan_ids_are_another_data_set(tmp_path: Path) -> None:
    root = named_only(tmp_path / "mine", CHAOS)
    (root / "image_40.nii.gz").touch()
    save(root / "label_1.nii.gz", volume((1, 2, 3, 4)), (1.25, 1.25, 7.7))
    assert open_folder(root=root).known is None


def cmr(root: Path, ids: Sequence[int] = tuple(RAW)) -> Folder:
    write_scan(root, "1", volume(ids, 32), (1.25, 1.25, 7.99))
    return open_folder(root=root)


def test_ids_that_were_never_mapped_are_mapped(tmp_path: Path) -> None:
    data = cmr(tmp_path / CMR.name)
    assert sorted(data.classes) == [1, 2, 3]
    scan = data.load("1")
    assert scan.labels is not None
    stored, _ = read_labels(tmp_path / CMR.name / "label_1.nii.gz")
    for raw, value in RAW.items():
        assert np.array_equal(scan.labels == value, stored == raw)
    assert list(scan.class_slices) == [1, 2, 3]


def test_mapped_ids_stay(tmp_path: Path) -> None:
    assert list(cmr(tmp_path / CMR.name, (1, 2, 3)).load("1").class_slices) == [1, 2, 3]


def test_dataset_json_is_believed_first(tmp_path: Path) -> None:
    root = tmp_path / CMR.name
    root.mkdir()
    names = {"0": "background", "200": "muscle", "500": "pool", "600": "right"}
    (root / "dataset.json").write_text(json.dumps({"labels": names, "modality": {"0": "CT"}}))
    data = cmr(root)
    assert (data.known, data.modality) == (CMR, "ct")
    assert data.classes == {200: "muscle", 500: "pool", 600: "right"}
    assert list(data.load("1").class_slices) == [200, 500, 600]


@pytest.mark.parametrize("side", [256, 257])
def test_the_row_column_and_frame_too_many_of_synapse_are_cut(side: int, tmp_path: Path) -> None:
    root = tmp_path / SYNAPSE.name
    labels = volume((1, 2, 6), side)
    write_scan(root, "0", labels, SYNAPSE_SPACING)
    scan = open_folder(root=root).load("0")
    assert scan.image.shape == (2, 1, 256, 256)
    assert scan.labels is not None
    assert np.array_equal(scan.labels, labels[:256, :256, :2].transpose(2, 1, 0))
    assert scan.geometry is not None
    assert scan.geometry.shape == (256, 256, 2)
    write_labels(tmp_path / "answer.nii.gz", scan.labels, scan.geometry)
    again, _ = read_labels(tmp_path / "answer.nii.gz")
    assert np.array_equal(again, scan.labels)


def test_a_last_slice_that_shows_something_stays(tmp_path: Path) -> None:
    root = tmp_path / SYNAPSE.name
    labels = volume((1, 2, 6), 257)
    labels[0, 0, -1] = 1
    write_scan(root, "0", labels, SYNAPSE_SPACING)
    assert len(open_folder(root=root).load("0").image) == 3


def test_the_other_sets_keep_every_slice(tmp_path: Path) -> None:
    assert len(cmr(tmp_path / CMR.name).load("1").image) == 3


def test_ids_of_another_set_are_refused_and_said_to_be(tmp_path: Path) -> None:
    root = tmp_path / CHAOS.name
    write_scan(root, "1", volume((1, 2, 9), 32), (1.25, 1.25, 7.7))
    with pytest.raises(DataError, match=r"CHAOS-T2 does not have.*Synapse \(BTCV\) has them"):
        open_folder(root=root).load("1")


def test_an_evaluation_names_the_set_and_its_classes(tmp_path: Path) -> None:
    for number in range(1, 5):
        write_scan(tmp_path / CMR.name, str(number), volume(tuple(RAW), 32), (1.25, 1.25, 7.99))
    (tmp_path / "elsewhere").symlink_to(tmp_path / CMR.name)
    results = evaluate_unlearned(
        "copy", open_folder(root=tmp_path / "elsewhere"), size=32, n_folds=4, surface=False
    )
    assert results.protocol.dataset == CMR.name
    assert results.classes == tuple(CMR.classes.values())
    assert results.mean() == 1.0


def test_an_unmapped_label_file_serves_as_an_example_by_name(tmp_path: Path) -> None:
    root = tmp_path / CMR.name
    for number, ids in ((1, tuple(RAW)), (2, (1, 2, 3))):
        write_scan(root, str(number), volume(ids, 32), (1.25, 1.25, 7.99))
    names = with_raw_names(CMR.classes)
    assert [names[value] for value in RAW] == list(CMR.classes.values())
    assert with_raw_names(CHAOS.classes) == CHAOS.classes
    for number, value in ((1, 600), (2, 3)):
        pair = (root / f"image_{number}.nii.gz", root / f"label_{number}.nii.gz")
        report = segment_scans(
            build("copy"), [pair], [pair[0]], out=tmp_path / "out", size=32,
            names=names, classes=["right ventricle"],
        )  # fmt: skip
        assert report.classes == {value: "right ventricle"}
        found, _ = read_labels(report.written[0].labels)
        assert set(np.unique(found)) == {0, value}


def test_the_real_chaos_folder_is_known(shared_data) -> None:
    data = open_folder(root=shared_data("chaos_MR_T2_normalized"))
    assert data.known is CHAOS
    assert data.ids == CHAOS.ids
    assert data.classes == CHAOS.classes
