"""A folder of scans in no layout: what is a scan, what is it called, what is left out."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from test_dicom import write_series

from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.plain import LABEL_NAME, plain_scans
from fewshot_seg.errors import DataError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5)).save(path)
        elif path.suffix in (".nii", ".gz"):
            nib.save(nib.Nifti1Image(np.arange(60.0).reshape(4, 5, 3), np.eye(4)), path)
        else:
            write_series(path)
    return root


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (("b.nii.gz", "a.nii"), "a b"),
        (("deep/er/b.nii.gz", "a.nii"), "a deep_er_b"),
        (("p1/t2.nii", "p2/t2.nii"), "p1 p2"),  # what all have in common says nothing
        (("MR/1/T2/DICOM", "MR/10/T2/DICOM", "MR/2/T2/DICOM"), "1 2 10"),
        (("p1/t2.nii", "p1/t1.nii", "p2/t2.nii"), "p1_t1 p1_t2 p2_t2"),
        (("only/one/scan.nii.gz",), "scan"),
        (("1.2.840.1", "1.2.840.2"), "1.2.840.1 1.2.840.2"),
        (("with space/ü.nii", "with space/ö.nii"), "ö ü"),
        (("b.png", "a.png"), "a b"),
        (("b.nii", "screenshot.png"), "b"),
        ((".trash/x.nii", "._a.nii", "a.nii"), "a"),
    ],
)
def test_scans_and_their_names(tmp_path: Path, names: tuple[str, ...], ids: str) -> None:
    names = tuple(name for name in names)
    data = open_folder(root=fill(tmp_path, *names))
    assert data.layout == "scans"
    assert " ".join(data.ids) == ids
    assert data.unlabelled == data.ids
    assert data.modality == ("picture" if all(name.endswith(".png") for name in names) else "mr")
    assert data.classes == {}
    for scan_id in data.ids:
        assert data.load(scan_id).labels is None


def test_the_folder_may_be_a_series_itself(tmp_path: Path) -> None:
    data = open_folder(root=write_series(tmp_path / "series.7"))
    assert data.ids == ("series.7",)
    assert data.load("series.7").image.shape == (6, 1, 12, 10)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", "a.nii")
    fill(tmp_path / "elsewhere", "b.nii")
    (root / "more").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root)
    (root / "c.nii").symlink_to(tmp_path / "elsewhere" / "b.nii")
    (root / "gone.nii").symlink_to(tmp_path / "nowhere.nii")
    data = open_folder(root=root)
    assert data.ids == ("a", "c", "gone", "more_b")
    assert data.load("more_b").image.shape == (3, 1, 5, 4)
    with pytest.raises(DataError, match=r"gone\.nii does not exist"):
        data.load("gone")


@pytest.mark.parametrize(
    "name",
    ["a_label.nii", "a-seg.nii.gz", "labels/a.nii", "label_7.nii", "LabelsTr/a.nii", "GT/a.nii",
     "a_mask2.nii", "x/Ground/a.nii", "patient1_C0_manual.nii.gz", "a.seg.nrrd"],
)  # fmt: skip
def test_files_that_are_named_like_labels_are_no_scans(tmp_path: Path, name: str) -> None:
    root = fill(tmp_path, "a.nii")
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    scans, left_out = plain_scans(root)
    assert list(scans) == ["a"]
    assert left_out == [path]
    with pytest.raises(DataError, match="no layout this library knows"):
        open_folder(root=root)  # whose labels they are, nobody has said
    assert open_folder(root=root, layout="scans").ids == ("a",)


@pytest.mark.parametrize(
    "name", ["masked_bandit", "gtv", "segal", "stage", "unlabelled", "background"]
)
def test_other_words_say_nothing_of_labels(name: str) -> None:
    assert not LABEL_NAME.search(name)


def test_the_folder_itself_may_be_called_anything(tmp_path: Path) -> None:
    assert open_folder(root=fill(tmp_path / "segmentation", "a.nii", "b.nii")).ids == ("a", "b")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a_b.nii", "a/b.nii"), "would have one name"),
        (("a.nii", "a.nii.gz"), "would have one name"),
    ],
)
def test_names_that_clash(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_folder(root=fill(tmp_path, *names))
