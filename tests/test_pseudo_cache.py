"""The folder that keeps pseudo-labels: right, or as if it were not there."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fewshot_seg.data import pseudo_cache
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.prepare import prepare
from fewshot_seg.data.pseudo_cache import PseudoCache, default_folder
from fewshot_seg.data.superpixels import pseudo_superpixels
from fewshot_seg.data.supervoxels import pseudo_supervoxels
from fewshot_seg.errors import DataError

IMAGE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
LABELS = np.arange(24, dtype=np.int32).reshape(2, 3, 4) * 20


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FEWSHOT_SEG_CACHE", str(tmp_path / "default"))
    pseudo_cache._complained.clear()
    yield
    pseudo_cache._complained.clear()


class Counted:
    """Something to compute that counts how often it was."""

    def __init__(self, labels: np.ndarray = LABELS) -> None:
        self.labels, self.calls = labels, 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return self.labels


def test_the_second_time_is_read_from_disk(tmp_path: Path) -> None:
    compute = Counted()
    for _ in range(3):
        got = PseudoCache(tmp_path).labels(IMAGE, compute, kind="x", version=1, min_size=5)
        assert np.array_equal(got, LABELS)
        assert got.dtype == np.uint16
    assert compute.calls == 1
    (file,) = tmp_path.iterdir()
    with np.load(file, allow_pickle=False) as arrays:  # a plain archive for anybody
        assert np.array_equal(arrays["labels"], LABELS)


def test_whatever_decides_the_labels_decides_the_file(tmp_path: Path) -> None:
    compute, cache = Counted(), PseudoCache(tmp_path)
    other = IMAGE.copy()
    other[1, 2, 3] += 1e-5
    cases = [
        (IMAGE, "x", 1, 5), (other, "x", 1, 5), (IMAGE.astype(np.float64), "x", 1, 5),
        (IMAGE, "y", 1, 5), (IMAGE, "x", 2, 5), (IMAGE, "x", 1, 6),
    ]  # fmt: skip
    for image, kind, version, size in cases:
        cache.labels(image, compute, kind=kind, version=version, min_size=size)
    assert compute.calls == len(cases) == len(list(tmp_path.iterdir()))
    flat = Counted(LABELS.reshape(2, 4, 3))
    cache.labels(IMAGE.reshape(2, 4, 3), flat, kind="x", version=1, min_size=5)
    assert flat.calls == 1
    strided = np.ascontiguousarray(IMAGE.transpose(2, 1, 0)).transpose(2, 1, 0)
    cache.labels(strided, compute, kind="x", version=1, min_size=5)
    assert compute.calls == len(cases)  # memory order is no difference


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "end", "foreign"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str) -> None:
    compute, cache = Counted(), PseudoCache(tmp_path)
    cache.labels(IMAGE, compute, kind="x", version=1)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    middle = len(whole) // 2
    broken = {
        "empty": b"",
        "cut": whole[:middle],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "end": whole[:-1],
        "foreign": b"these are no labels",
    }
    file.write_bytes(broken[damage])
    got = cache.labels(IMAGE, compute, kind="x", version=1)
    assert np.array_equal(got, LABELS)
    assert compute.calls == 2
    assert file.read_bytes() == whole


def test_none_keeps_nothing(tmp_path: Path) -> None:
    compute = Counted()
    for _ in range(2):
        assert np.array_equal(PseudoCache(None).labels(IMAGE, compute, kind="x", version=1), LABELS)
    assert compute.calls == 2
    assert not default_folder().exists()


def test_the_folder_is_the_argument_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PseudoCache(tmp_path / "own").folder == tmp_path / "own"
    assert PseudoCache().folder == tmp_path / "default"
    monkeypatch.delenv("FEWSHOT_SEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert PseudoCache().folder == tmp_path / "xdg" / "fewshot-seg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert PseudoCache().folder == tmp_path / ".cache" / "fewshot-seg"


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_folder_that_cannot_be_used_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "a file"
    blocked.touch()
    compute = Counted()
    for folder in (blocked, blocked / "inside"):
        for version in (1, 2):
            cache = PseudoCache(folder)
            assert np.array_equal(cache.labels(IMAGE, compute, kind="x", version=version), LABELS)
    assert compute.calls == 4
    first, second = complaints(caplog)
    assert "FEWSHOT_SEG_CACHE" in first
    assert str(blocked / "inside") in second


def test_a_full_disk_does_not_stop_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise DataError(f"{path} cannot be written: No space left on device")

    monkeypatch.setattr(pseudo_cache, "write_bytes", full)
    for version in range(3):
        PseudoCache(tmp_path).labels(IMAGE, Counted(), kind="x", version=version)
    (said,) = complaints(caplog)
    assert "No space left" in said


def test_a_user_without_a_home_goes_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pseudo_cache, "default_folder", homeless)
    assert PseudoCache().folder is None
    assert len(complaints(caplog)) == 1


def test_many_may_write_at_once(tmp_path: Path) -> None:
    def once(_: int) -> bool:
        got = PseudoCache(tmp_path).labels(IMAGE, lambda: LABELS, kind="x", version=1)
        return bool(np.array_equal(got, LABELS))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(once, range(64)))
    assert len(list(tmp_path.iterdir())) == 1


def test_pseudo_labels_of_scans_come_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = abdomen(n_scans=2, size=32, n_slices=4)
    scans = [prepare(dataset.load(one), size=None, intensity=Intensity()) for one in dataset.ids]
    planes = pseudo_superpixels(scans, cache=tmp_path)
    voxels = pseudo_supervoxels(scans, cache=tmp_path)
    assert len(list(tmp_path.glob("superpixels-*.npz"))) == 2
    assert len(list(tmp_path.glob("supervoxels-*.npz"))) == 2

    def never(*_: object, **__: object) -> np.ndarray:
        raise AssertionError("computed twice")

    monkeypatch.setattr("fewshot_seg.data.superpixels.superpixels", never)
    monkeypatch.setattr("fewshot_seg.data.supervoxels.supervoxels", never)
    again = pseudo_superpixels(scans, cache=tmp_path)
    assert all(
        np.array_equal(a, b) for x, y in zip(planes, again) for a, b in zip(x, y, strict=True)
    )
    for a, b in zip(voxels, pseudo_supervoxels(scans, cache=tmp_path), strict=True):
        assert np.array_equal(a, b)
    with pytest.raises(AssertionError, match="twice"):
        pseudo_supervoxels(scans, min_size=900, cache=tmp_path)
