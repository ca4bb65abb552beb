"""The store of prepared scans: the same numbers, at once, or as if it were not there."""

import logging
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from store_cases import OPTIONS, assert_same, files, folder, forbid, write

from fewshot_seg.data import pseudo_cache
from fewshot_seg.data.folder import Folder, open_folder
from fewshot_seg.data.identity import identity
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.prepare import load_prepared, prepare_all
from fewshot_seg.data.scan import Scan
from fewshot_seg.errors import UnknownNameError
from fewshot_seg.tensorfile import load_tensors


@pytest.fixture(autouse=True)
def _said_anew() -> Iterator[None]:
    pseudo_cache._complained.clear()
    yield
    pseudo_cache._complained.clear()


@pytest.fixture
def data(tmp_path: Path) -> Folder:
    return folder(tmp_path / "data")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, ">i2", np.int32])
@pytest.mark.parametrize("options", [{}, {"size": None}, {"size": (12, 18), "channels": 1}])
def test_the_numbers_are_those_without_a_store(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, options: dict
) -> None:
    write(tmp_path / "typed", 1, dtype)
    data = open_folder(root=tmp_path / "typed")
    given = {**OPTIONS, **options}
    plain = load_prepared(data, "1", **given, cache=None)
    assert plain.reopen is None
    assert not cache.exists()
    assert_same(plain, load_prepared(data, "1", **given, cache=cache))
    forbid(monkeypatch)
    assert_same(plain, load_prepared(data, "1", **given, cache=cache))


def test_pictures_and_scans_without_labels_or_spacing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pictures" / "images").mkdir(parents=True)
    (tmp_path / "pictures" / "labels").mkdir()
    for name in ("a", "b"):
        colours = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
        Image.fromarray(colours).save(tmp_path / "pictures" / "images" / f"{name}.png")
    Image.fromarray(colours[..., 0] // 200).save(tmp_path / "pictures" / "labels" / "a.png")
    data = open_folder(root=tmp_path / "pictures")
    plain = {name: load_prepared(data, name, **OPTIONS, cache=None) for name in data.ids}
    assert plain["b"].labels is None
    assert plain["a"].spacing is None
    for name in data.ids:
        load_prepared(data, name, **OPTIONS, cache=cache)
    forbid(monkeypatch)
    for name in data.ids:
        assert_same(plain[name], load_prepared(data, name, **OPTIONS, cache=cache))


def test_whatever_decides_a_scan_decides_its_file(data: Folder, cache: Path) -> None:
    other = Folder(**{**_arguments(data), "slice_axis": 0})
    chosen = open_folder(root=data.root, classes={1: "liver"})
    cases: list[tuple[Folder, dict[str, Any]]] = [
        (data, {}), (data, {"size": 17}), (data, {"size": (16, 17)}), (data, {"size": None}),
        (data, {"channels": 1}), (data, {"intensity": Intensity(1.0, 2.0)}), (other, {}),
        (data, {"intensity": Intensity(window=(0.0, 300.0))}), (chosen, {}),
    ]  # fmt: skip
    for reader, options in [*cases, (data, {"size": (16, 16)})]:
        load_prepared(reader, "0", **{**OPTIONS, **options}, cache=cache)
    assert len(files(cache)) == len(cases)
    load_prepared(data, "1", **OPTIONS, cache=cache)
    assert len(files(cache)) == len(cases) + 1


def _arguments(data: Folder) -> dict[str, Any]:
    names = ("root", "layout", "files", "classes", "modality", "name", "known")
    return {**{name: getattr(data, name) for name in names}, "complete": False}


@pytest.mark.parametrize("file", ["image_0.nii", "label_0.nii"])
@pytest.mark.parametrize("quietly", [False, True])
def test_another_source_is_noticed_and_takes_the_place(
    data: Folder, cache: Path, file: str, quietly: bool
) -> None:
    load_prepared(data, "0", **OPTIONS, cache=cache)
    path = data.root / file
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-500:] = bytes(500)
    path.write_bytes(content)
    if quietly:  # as tools do that unpack archives
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    expected = load_prepared(data, "0", **OPTIONS, cache=None)
    for _ in range(2):
        assert_same(expected, load_prepared(data, "0", **OPTIONS, cache=cache))
    assert len(files(cache)) == 1


def test_another_version_of_the_library_is_noticed(
    data: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = identity(data, "0")
    monkeypatch.setattr("fewshot_seg.data.identity.__version__", "99")
    second = identity(data, "0")
    assert first is not None
    assert second is not None
    assert first.where == second.where
    assert first.state != second.state


def test_voxels_beside_a_header_and_folders_of_slices_count(tmp_path: Path) -> None:
    class Parts:
        name, modality, classes, ids = "parts", "mr", {1: "liver"}, ("x",)

        def __init__(self, path: Path) -> None:
            self.path = path

        def load(self, scan_id: str) -> Scan:
            raise NotImplementedError

        def reads(self, scan_id: str) -> tuple[list[Path], dict[str, Any]]:
            return [self.path], {}

    for path, part in (
        (tmp_path / "a" / "x.mhd", tmp_path / "a" / "x.raw"),
        (tmp_path / "series", tmp_path / "series" / "deep" / "2.dcm"),
    ):
        part.parent.mkdir(parents=True)
        (part.parent / "x.mhd").touch()
        part.write_bytes(b"1")
        before = identity(Parts(path), "x")
        part.write_bytes(b"22")
        assert identity(Parts(path), "x") != before
    assert identity(Parts(tmp_path / "gone"), "x") is None


@pytest.mark.parametrize(
    "damage", ["empty", "cut", "header", "first", "flipped", "last", "foreign"]
)
def test_a_damaged_file_is_made_anew(
    data: Folder, cache: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    expected = load_prepared(data, "0", **OPTIONS, cache=cache)
    (file,) = files(cache)
    whole = file.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    places = {"header": whole.index(b"sealed") + 12, "first": start, "flipped": len(whole) // 2,
              "last": len(whole) - 1}  # fmt: skip
    broken = {"empty": b"", "cut": whole[: len(whole) // 2], "foreign": b"this is no scan"}
    if damage in places:
        content = bytearray(whole)
        content[places[damage]] ^= 1
        broken[damage] = bytes(content)
    file.unlink()  # not written over: the scan above is still in use
    file.write_bytes(broken[damage])
    with caplog.at_level(logging.INFO):
        assert_same(expected, load_prepared(data, "0", **OPTIONS, cache=cache))
    assert "made anew" in caplog.text
    load_tensors(file)  # whole again
    assert len(files(cache)) == 1


def test_a_copied_store_is_checked_once_and_used(
    data: Folder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_prepared(data, "0", **OPTIONS, cache=cache)
    (file,) = files(cache)
    os.utime(file)
    forbid(monkeypatch)
    load_prepared(data, "0", **OPTIONS, cache=cache)
    monkeypatch.setattr("fewshot_seg.data.store.load_tensors", pytest.fail)
    load_prepared(data, "0", **OPTIONS, cache=cache)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_folder_that_cannot_be_used_is_said_once(
    data: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "a file"
    blocked.touch()
    for _ in range(2):
        found = prepare_all(data, data.ids, **OPTIONS, cache=blocked)
        assert len(found.scans) == 4
        assert not found.failures
    (said,) = complaints(caplog)
    assert str(blocked) in said
    assert "FEWSHOT_SEG_CACHE" in said


def test_a_full_disk_is_said_once_and_leaves_nothing(
    data: Folder, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # no file may be longer
    try:
        found = prepare_all(data, data.ids, **OPTIONS, cache=cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(found.scans) == 4
    assert len(complaints(caplog)) == 1
    assert not files(cache)


def test_a_scan_that_cannot_be_read_is_no_complaint_about_the_cache(
    data: Folder, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (data.root / "image_1.nii").write_bytes(b"broken")
    found = prepare_all(data, data.ids, **OPTIONS, cache=cache)
    assert [scan.id for scan in found.scans] == ["0", "2", "3"]
    assert [failure.id for failure in found.failures] == ["1"]
    with pytest.raises(UnknownNameError, match="no scan '9'"):
        load_prepared(data, "9", **OPTIONS, cache=cache)
    assert not complaints(caplog)
    assert len(files(cache)) == 3
