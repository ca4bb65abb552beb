"""DICOM series: read as they lie in the patient, and refused when a slice is missing or foreign."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from fewshot_seg.data.dicom import is_dicom
from fewshot_seg.data.nifti import read_scan, stem, write_labels
from fewshot_seg.data.volume import load_volume
from fewshot_seg.errors import DataError

SPACING = (1.5, 1.25, 5.0)
VOXELS = np.random.default_rng(0).integers(0, 1000, (6, 12, 10)).astype(np.int16)
UPRIGHT = np.eye(3)
TURNED = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
SAGITTAL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def write_series(
    folder: Path,
    voxels: np.ndarray = VOXELS,
    *,
    direction: np.ndarray = UPRIGHT,
    places: Sequence[float] | None = None,
    aside: float = 0.0,
    uid: str = "1.2.3.4",
    first: int = 0,
    what: str = "T2 SPIR",
    spacing: tuple[float, float, float] = SPACING,
) -> Path:
    """One file a slice, at `places` along the normal, each `aside` farther along the rows (mm)."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    places = [spacing[2] * z for z in range(len(voxels))] if places is None else places
    for z, place in enumerate(places):
        image = sitk.JoinSeries(sitk.GetImageFromArray(voxels[z]))
        position = np.array([-10.0, 20.0, 30.0]) + direction @ [aside * z, 0.0, place]
        image.SetSpacing(spacing)
        image.SetDirection(direction.ravel().tolist())
        image.SetOrigin(position.tolist())
        for key, value in {
            "0008|0060": "MR",
            "0008|0018": f"{uid}.{first + z + 1}",
            "0008|103e": what,
            "0020|000d": "1.2.3",
            "0020|000e": uid,
            "0020|0013": str(z + 1),
            "0020|0032": "\\".join(f"{one:.6f}" for one in position),
            "0020|0037": "\\".join(str(one) for one in direction[:, :2].T.ravel()),
        }.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"IM{first + z:04}.dcm"))
        writer.Execute(image)
    return folder


@pytest.mark.parametrize("direction", [UPRIGHT, TURNED, SAGITTAL])
@pytest.mark.parametrize("name", ["series", "scan of Müller 日本", "1.2.840.113619"])
def test_a_series_lies_where_its_headers_say(
    tmp_path: Path, direction: np.ndarray, name: str
) -> None:
    folder = write_series(tmp_path / name, direction=direction)
    volume = load_volume(folder)
    np.testing.assert_array_equal(volume.data.transpose(2, 1, 0), VOXELS)
    for x, y, z in ((0, 0, 0), (9, 11, 5), (3, 7, 2)):
        lps = np.array([-10.0, 20.0, 30.0]) + direction @ (np.array(SPACING) * (x, y, z))
        np.testing.assert_allclose((volume.affine @ [x, y, z, 1])[:3], lps * (-1, -1, 1), atol=1e-4)
    assert stem(folder) == name


def test_the_order_comes_from_positions_not_from_names(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    for number, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        path.rename(folder / f"x{number}")
    np.testing.assert_array_equal(load_volume(folder).data.transpose(2, 1, 0), VOXELS)


def test_foreign_files_beside_a_series_do_no_harm(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    (folder / "README.txt").write_text("from the archive")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "._IM0000.dcm").write_bytes(b"left by a Mac")
    assert load_volume(folder).data.shape == (10, 12, 6)


def test_a_file_of_many_frames_and_a_single_slice(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(VOXELS)
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetMetaData("0008|0060", "MR")
    (tmp_path / "frames").mkdir()
    sitk.WriteImage(image, str(tmp_path / "frames" / "all.dcm"))
    assert load_volume(tmp_path / "frames").spacing == (1.0, 2.0, 3.0)
    one = write_series(tmp_path / "one", VOXELS[:1])
    assert load_volume(one).data.shape == (10, 12, 1)


def _cut(keep: int, which: int) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        write_series(folder)
        path = folder / f"IM{which:04}.dcm"
        path.write_bytes(path.read_bytes()[:keep])

    return damage


def _both(**other: object) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        write_series(folder)
        write_series(folder, first=50, **other)  # type: ignore[arg-type]

    return write


@pytest.mark.parametrize(
    ("make", "message"),
    [
        # GDCM alone leaves the last one out and gives a volume of five slices.
        (_cut(0, 5), r"IM0005\.dcm cannot be read as DICOM \(1 of 6 files.*truncated.*again"),
        (_cut(150, 5), r"IM0005\.dcm cannot be read as DICOM"),
        (_cut(400, 5), r"IM0005\.dcm cannot be read as DICOM"),
        (_cut(-100, 5), r"IM0005\.dcm cannot be read as DICOM"),
        (_cut(-100, 2), r"IM0002\.dcm cannot be read as DICOM"),
        (
            lambda folder: write_series(folder, VOXELS[:5], places=[0, 5, 15, 20, 25]),
            r"not evenly spaced; IM0001\.dcm and IM0002\.dcm lie 10 mm apart.*may be missing",
        ),
        (
            _both(uid="1.2.3.9", what="T1 DUAL"),
            r"2 DICOM series.*T2 SPIR MR with IM0000\.dcm, 6 files; T1 DUAL MR with IM0050\.dcm, 6 "
            r"files.*folder of its own",
        ),
        (_both(), r"IM00.0\.dcm and IM00.0\.dcm lie at the same place.*echoes, time points"),
        (
            _both(voxels=VOXELS[:, :8, :8], places=[30 + 5 * z for z in range(6)]),
            r"is 8x8 but IM0000\.dcm is 12x10",
        ),
        (_both(voxels=VOXELS, direction=SAGITTAL), "cut in another direction than IM0000"),
        (lambda folder: write_series(folder, aside=1.0), "stacked aslant.*tilted gantry"),
        (lambda folder: folder.mkdir(), "holds no DICOM series; a scan is one file"),
    ],
)
def test_series_that_are_no_scan(
    tmp_path: Path, make: Callable[[Path], object], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "s")
    with pytest.raises(DataError, match=message) as error:
        load_volume(tmp_path / "s")
    assert str(tmp_path / "s") in str(error.value)
    assert capfd.readouterr().err == ""  # ITK's own words stay away from the terminal


def test_a_series_too_large_for_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "s")
    monkeypatch.setattr("fewshot_seg.data.grid.memory", lambda: 12 * 10 * 6 * 8 - 1)
    with pytest.raises(DataError, match=r"would take 5\.76e\+03 bytes of memory"):
        load_volume(tmp_path / "s")


def test_which_files_are_dicom(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", VOXELS[:1])
    bare = (folder / "IM0000.dcm").rename(folder / "I1")
    assert is_dicom(bare)
    assert not is_dicom(folder)
    for name, content in (("a.txt", b"x"), ("empty", b""), (".hidden.dcm", b"x")):
        (folder / name).write_bytes(content)
        assert not is_dicom(folder / name)


def test_labels_of_a_series_are_nifti_on_its_grid(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", direction=TURNED)
    scan = read_scan(folder)
    assert scan.geometry is not None
    labels = (scan.image[:, 0] > 500).astype(np.int16)
    write_labels(tmp_path / "l.nii.gz", labels, scan.geometry, folder)
    again = read_scan(folder, tmp_path / "l.nii.gz")
    np.testing.assert_array_equal(again.labels, labels)
