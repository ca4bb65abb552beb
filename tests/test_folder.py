"""Folders of scans in the layouts people bring."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.layouts import natural_key
from fewshot_seg.data.scan import Dataset
from fewshot_seg.errors import DataError, OptionError, UnknownNameError

NAMES = {"0": "background", "1": "liver", "2": "spleen"}


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.arange(60, dtype=np.int16).reshape(4, 5, 3)
    if path.suffix == ".png":
        Image.fromarray(data[..., 0].astype(np.uint8)).save(path)
    else:
        nib.save(nib.Nifti1Image(data, np.diag([1.0, 1.0, 5.0, 1.0])), path)


def label(path: Path, highest: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = (np.arange(60).reshape(4, 5, 3) % (highest + 1)).astype(np.uint8)
    if path.suffix == ".png":
        Image.fromarray(data.reshape(-1)[:20].reshape(4, 5)).save(path)
    else:
        nib.save(nib.Nifti1Image(data, np.diag([1.0, 1.0, 5.0, 1.0])), path)


def manifest(root: Path, **content: object) -> None:
    (root / "dataset.json").write_text(json.dumps(content))


def fill(root: Path, *names: str) -> Path:
    """Files whose name or folder says label are labels, all others images."""
    for name in names:
        (label if "label" in name else image)(root / name)
    return root


BENCHMARK = ("image_10.nii.gz", "image_9.nii.gz", "label_9.nii.gz", "label_10.nii.gz")


def test_the_benchmark_layout(tmp_path: Path) -> None:
    data = open_folder(root=fill(tmp_path, *BENCHMARK, "superpix-MIDDLE_9.nii.gz"))
    assert isinstance(data, Dataset)
    assert (data.layout, data.ids, data.unlabelled) == ("benchmark", ("9", "10"), ())
    assert (data.name, data.modality) == (tmp_path.name, "mr")
    assert data.classes == {1: "class 1", 2: "class 2"}
    scan = data.load("10")
    assert scan.id == "10"
    assert scan.image.shape == (3, 1, 5, 4)
    assert scan.labels is not None
    assert data.load("10") is not scan


def test_the_decathlon_layout_and_its_names(tmp_path: Path) -> None:
    root = fill(
        tmp_path,
        "imagesTr/case_002.nii.gz",
        "imagesTr/case_010.nii.gz",
        "imagesTr/._case_010.nii.gz",
        "imagesTs/case_001.nii.gz",
        "labelsTr/case_002.nii.gz",
        "labelsTr/._case_002.nii.gz",
    )
    manifest(
        root,
        labels=NAMES,
        modality={"0": "CT"},
        training=[{"image": "./imagesTr/case_002.nii.gz", "label": "./labelsTr/case_002.nii.gz"}],
    )
    data = open_folder(root=str(root))
    assert (data.layout, data.ids) == ("decathlon", ("case_002", "case_010"))
    assert data.unlabelled == ("case_010",)
    assert data.load("case_010").labels is None
    assert data.classes == {1: "liver", 2: "spleen"}
    assert data.modality == "ct"


@pytest.mark.parametrize("known", [True, False])
def test_the_nnunet_layout(tmp_path: Path, known: bool) -> None:
    root = fill(tmp_path, *(f"imagesTr/a_{n}_0000.nii.gz" for n in (1, 2)), "labelsTr/a_1.nii.gz")
    if known:
        manifest(
            root,
            labels={"background": 0, "spleen": 2, "liver": 1},
            channel_names={"0": "T2"},
            numTraining=2,
            file_ending=".nii.gz",
        )
    data = open_folder(root=root)
    assert (data.layout, data.ids, data.unlabelled) == ("nnunet", ("a_1", "a_2"), ("a_2",))
    assert data.load("a_1").labels is not None
    names = {1: "liver", 2: "spleen"} if known else {1: "class 1", 2: "class 2"}
    assert list(data.classes.items()) == list(names.items())


def test_lists_of_nnunet_1_name_images_without_their_channel(tmp_path: Path) -> None:
    root = fill(tmp_path, "imagesTr/a_1_0000.nii.gz", "labelsTr/a_1.nii.gz")
    entry = {"image": "./imagesTr/a_1.nii.gz", "label": "./labelsTr/a_1.nii.gz"}
    manifest(root, labels=NAMES, modality={"0": "MRI"}, training=[entry])
    assert open_folder(root=root).ids == ("a_1",)


def test_decathlon_names_with_four_digits_are_no_channels(tmp_path: Path) -> None:
    root = fill(tmp_path, "imagesTr/case_0001.nii.gz", "labelsTr/case_0001.nii.gz")
    assert open_folder(root=root).layout == "decathlon"
    assert open_folder(root=root).ids == ("case_0001",)


def test_one_channel_of_several(tmp_path: Path) -> None:
    root = fill(tmp_path, *(f"imagesTr/a_{c:04}.nii.gz" for c in (0, 1)), "labelsTr/a.nii.gz")
    with pytest.raises(DataError, match=r"2 channels a scan.*channel=0 or 1"):
        open_folder(root=root)
    data = open_folder(root=root, channel=1)
    assert data.ids == ("a",)
    assert data.files["a"].image.name == "a_0001.nii.gz"
    with pytest.raises(OptionError, match="no channel 2"):
        open_folder(root=root, channel=2)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".png"])
def test_pairs_of_equal_names(tmp_path: Path, suffix: str) -> None:
    root = fill(tmp_path, f"images/b{suffix}", f"images/a{suffix}", f"labels/a{suffix}")
    data = open_folder(root=root)
    assert (data.layout, data.ids, data.unlabelled) == ("pairs", ("a", "b"), ("b",))
    assert data.modality == ("picture" if suffix == ".png" else "mr")
    assert data.classes == {1: "class 1", 2: "class 2"}
    assert data.load("a").image.shape == ((1, 1, 4, 5) if suffix == ".png" else (3, 1, 5, 4))


def test_what_is_given_wins(tmp_path: Path) -> None:
    manifest(fill(tmp_path, *BENCHMARK), labels={"1": "liver"}, modality="CT")
    data = open_folder(
        root=tmp_path,
        layout="benchmark",
        classes={2: "milz"},
        modality="mr",
        name="mine",
        slice_axis=0,
    )
    assert (data.name, data.modality, data.classes) == ("mine", "mr", {2: "milz"})
    assert data.load("9").image.shape[0] == 4


@pytest.mark.parametrize(
    ("told", "modality"),
    [
        ("CT", "ct"),
        ("MR T2-SPIR", "mr"),
        ({"0": "MRI"}, "mr"),
        ({"0": "T1w"}, "mr"),
        ("PET/CT", "ct"),
        ("ectopic", "mr"),
        ("CT and MR", "mr"),
    ],
)
def test_the_modality_that_dataset_json_tells(tmp_path: Path, told: object, modality: str) -> None:
    manifest(fill(tmp_path, *BENCHMARK), modality=told)
    assert open_folder(root=tmp_path).modality == modality


def test_ids_sort_by_their_numbers() -> None:
    names = ["b_2", "a_10", "a_9", "100", "20", "a_9_1", "A_1"]
    assert sorted(names, key=natural_key) == ["20", "100", "A_1", "a_9", "a_9_1", "a_10", "b_2"]


PAIR = ("image_1.nii.gz", "label_1.nii.gz")


@pytest.mark.parametrize(
    ("files", "content", "message"),
    [
        ((), None, "has no layout this library knows. Known layouts: image_<id>"),
        (("ct_image.nii.gz", "ct_label.nii.gz"), None, "no layout"),
        ((*PAIR, "images/1.nii.gz"), None, r"several layouts \(benchmark, pairs\)"),
        (("labelsTr/a.nii.gz", "images/._a.nii.gz"), None, "no images where the layout 'pairs'"),
        ((*PAIR, "image_01.nii.gz"), None, "the same scan number"),
        (("images/Case_7.nii", "images/case_007.nii"), None, "the same scan number"),
        ((*PAIR, "image_1.nii"), None, "are the same scan"),
        ((*PAIR, "label_2.nii.gz"), None, "1 label files have no image, first .*label_2"),
        (("images/1.nii.gz", "images/2.png"), None, "mixes pictures and volumes"),
        (("imagesTr/a_0000.nii", "imagesTr/b.nii"), {"channel_names": {}}, "channel number"),
        (("imagesTr/a.nii",), {"modality": {"0": "T1", "1": "T2"}}, "2 channels .T1, T2."),
        (PAIR, [], r"must hold an object"),
        (PAIR, {"labels": ["liver"]}, '"labels" must be an object'),
        (PAIR, {"labels": {"liver": "one"}}, "maps an id to a name"),
        (PAIR, {"labels": {"liver": -1}}, "maps an id to a name"),
        (PAIR, {"labels": {"whole": [1, 2]}}, "regions of several ids"),
        (PAIR, {"labels": {"1": "liver", "2": "liver"}}, "a name twice"),
        (PAIR, {"labels": {"liver": 1, "spleen": 1}}, "an id or a name twice"),
        (PAIR, {"modality": 3}, "channels must be a name"),
        (PAIR, {"training": {"image": "a"}}, '"training" must be a list'),
        (PAIR, {"cases": ["image_1.nii.gz"]}, '"cases" must be a list'),
        (
            PAIR,
            {"cases": [{"image": "image_1.nii.gz", "label": "gone.nii.gz"}]},
            "lists 1 files that are not there, first gone.nii.gz",
        ),
        (PAIR, {"cases": [{"image": ["a", "b"]}]}, r"""name a file each; got \['a', 'b'\]"""),
        (PAIR, {"cases": [{"image": "x" * 300}]}, "not there, first x{200};"),
    ],
)
def test_folders_that_cannot_be_used(
    tmp_path: Path, files: tuple[str, ...], content: object, message: str
) -> None:
    fill(tmp_path, *files)
    if content is not None:
        (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as error:
        open_folder(root=tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{}", b""])
def test_a_broken_dataset_json(tmp_path: Path, content: bytes) -> None:
    (fill(tmp_path, *PAIR) / "dataset.json").write_bytes(content)
    with pytest.raises(DataError, match=r"dataset\.json cannot be read"):
        open_folder(root=tmp_path)


def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        open_folder(root=tmp_path / "nowhere")
    fill(tmp_path, *PAIR)
    with pytest.raises(DataError, match="is not a folder"):
        open_folder(root=tmp_path / PAIR[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "benchmrk"}, "unknown layout 'benchmrk'; did you mean 'benchmark'[?] It is"),
        ({"layout": "zzz"}, "unknown layout 'zzz'[.] It is one of: auto, benchmark"),
        ({"modality": "mri"}, "unknown modality 'mri'; did you mean 'mr'[?] It is one of: mr, ct"),
        ({"channel": 0}, "is for the layout 'nnunet'"),
        ({"classes": {}}, "from 1 up"),
        ({"classes": {0: "background"}}, "from 1 up"),
        ({"classes": {1: "a", 2: "a"}}, "different names"),
    ],
)
def test_options_that_do_not_exist(tmp_path: Path, options: dict, message: str) -> None:
    fill(tmp_path, *PAIR)
    with pytest.raises(OptionError, match=message):
        open_folder(root=tmp_path, **options)


def test_an_unknown_scan(tmp_path: Path) -> None:
    data = open_folder(root=fill(tmp_path, *BENCHMARK))
    with pytest.raises(UnknownNameError, match=r"no scan '100'; did you mean '10'\?.*has 2"):
        data.load("100")


def test_ids_that_dataset_json_does_not_know(tmp_path: Path) -> None:
    manifest(fill(tmp_path, *PAIR), labels={"0": "background", "2": "spleen"})
    data = open_folder(root=tmp_path)
    with pytest.raises(DataError, match=r"label_1.nii.gz holds the class ids \[1\].*names \[2\]"):
        data.load("1")
    assert open_folder(root=tmp_path, classes={2: "spleen"}).load("1").labels is not None


def test_a_damaged_label_file_is_left_for_its_scan_to_report(tmp_path: Path) -> None:
    (fill(tmp_path, *BENCHMARK) / "label_9.nii.gz").write_bytes(b"")
    data = open_folder(root=tmp_path)
    assert data.classes == {1: "class 1", 2: "class 2"}
    assert data.load("10").labels is not None
    with pytest.raises(DataError, match=r"label_9\.nii\.gz is empty"):
        data.load("9")


@pytest.mark.parametrize(
    ("name", "layout", "modality", "first", "last", "count"),
    [
        ("chaos_MR_T2_normalized", "benchmark", "mr", "1", "39", 20),
        ("msd_hippocampus_mr", "decathlon", "mr", "hippocampus_001", "hippocampus_387", 60),
        ("sunnybrook_cine_mr", "pairs", "mr", "SC-HF-I-1", "SC-HF-I-5", 4),
        ("wbc_dataset1_2d", "pairs", "picture", "001", "298", 100),
    ],
)
def test_real_folders(
    shared_data, name: str, layout: str, modality: str, first: str, last: str, count: int
) -> None:
    data = open_folder(root=shared_data(name))
    assert (data.layout, data.modality, len(data.ids)) == (layout, modality, count)
    assert (data.ids[0], data.ids[-1]) == (first, last)
    described = json.loads((data.root / "dataset.json").read_text())
    assert [case["id"] for case in described["cases"]] == list(data.ids)
    scan, case = data.load(last), described["cases"][-1]
    counts = case.get("voxels", case.get("pixels"))
    assert scan.labels is not None
    for value in data.classes:
        assert (scan.labels == value).sum() == counts[str(value)]
