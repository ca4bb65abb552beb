"""The store of prepared scans in use: other processes, training and test, real scans."""

import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
import torch
from store_cases import OPTIONS, assert_same, files, folder, forbid, write

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.episodes import SupervisedSource
from fewshot_seg.data.folder import Folder, open_folder
from fewshot_seg.data.intensity import Intensity, fit_intensity
from fewshot_seg.data.loader import EpisodeLoader
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.prepare import load_prepared, prepare_all
from fewshot_seg.errors import DataError
from fewshot_seg.experiment import evaluate_unlearned, resolve_recipe, train_fold
from fewshot_seg.tensorfile import load_tensors


@pytest.fixture
def data(tmp_path: Path) -> Folder:
    return folder(tmp_path / "data")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_data_sets_without_files_are_not_kept(cache: Path) -> None:
    phantom = abdomen(n_scans=2, size=32, n_slices=4)
    assert load_prepared(phantom, phantom.ids[0], **OPTIONS, cache=cache).reopen is None
    assert not cache.exists()


def test_a_scan_travels_as_its_files_name(data: Folder, cache: Path) -> None:
    scan = load_prepared(data, "0", **OPTIONS, cache=cache)
    sent = pickle.dumps(scan)
    assert len(sent) < 500
    assert_same(scan, pickle.loads(sent))
    changed = replace(scan, images=scan.images + 1)
    assert_same(changed, pickle.loads(pickle.dumps(changed)))
    plain = load_prepared(data, "0", **OPTIONS, cache=None)
    assert_same(plain, pickle.loads(pickle.dumps(plain)))


@pytest.mark.parametrize("change", ["gone", "cut", "source"])
def test_a_scan_that_changed_on_its_way_is_refused(data: Folder, cache: Path, change: str) -> None:
    sent = pickle.dumps(load_prepared(data, "0", **OPTIONS, cache=cache))
    (file,) = files(cache)
    if change == "gone":
        file.unlink()
    elif change == "cut":
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content[:-1])
    else:
        write(data.root, 0)
        load_prepared(data, "0", **OPTIONS, cache=cache)
    with pytest.raises(DataError, match=r"safetensors.*start again"):
        pickle.loads(sent)


def test_writing_to_a_scan_changes_no_file(data: Folder, cache: Path) -> None:
    scan = load_prepared(data, "0", **OPTIONS, cache=cache)
    (file,) = files(cache)
    before = file.read_bytes()
    scan.images[:, 0] = 7
    assert scan.labels is not None
    assert scan.original_labels is not None
    scan.labels[:] = 7
    scan.original_labels[:] = 7
    assert file.read_bytes() == before


def test_a_rebuilt_file_does_not_disturb_who_uses_the_old_one(data: Folder, cache: Path) -> None:
    scan = load_prepared(data, "0", **OPTIONS, cache=cache)
    before = scan.images.clone()
    write(data.root, 0)
    other = nib.load(data.root / "image_0.nii")
    nib.save(nib.Nifti1Image(other.get_fdata()[::-1], other.affine), data.root / "image_0.nii")
    rebuilt = load_prepared(data, "0", **OPTIONS, cache=cache)
    assert torch.equal(scan.images, before)
    assert not torch.equal(rebuilt.images, before)


def _sum(root: Path, cache: Path) -> float:
    data = open_folder(root=root)
    scans = prepare_all(data, data.ids, **OPTIONS, cache=cache).scans
    return float(sum(scan.images.double().sum() for scan in scans))


def test_many_may_build_at_once(data: Folder, cache: Path) -> None:
    expected = _sum(data.root, cache / "other")
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        jobs = [pool.submit(_sum, data.root, cache / str(turn // 3)) for turn in range(12)]
        assert {job.result() for job in jobs} == {expected}
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: _sum(data.root, cache / "threads"), range(8))) == {
            expected
        }
    assert len(files(cache)) == 6 * 4  # no drafts left


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_share_it_and_change_nothing(data: Folder, cache: Path, start_method: str) -> None:
    def steps(cache: Path | None, **options: Any) -> list[torch.Tensor]:
        scans = prepare_all(data, data.ids, **OPTIONS, cache=cache).scans
        source = SupervisedSource(scans, classes=(1, 2), augmentation=Augmentation(), seed=5)
        loader = EpisodeLoader(source, episodes_per_step=2, n_steps=2, **options)
        return [tensor for step in loader for tensor in (step.support.images, step.query_images)]

    for one, two in zip(steps(None), steps(cache, workers=1, start_method=start_method)):
        assert torch.equal(one, two)


def test_ct_statistics_are_kept(data: Folder, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(cache: Path | None, **options: Any) -> Intensity:
        return fit_intensity(data, data.ids, modality="ct", cache=cache, **options)

    expected, cut = fit(None), fit(None, window=(50.0, 300.0))
    assert fit(cache) == expected
    assert fit(cache, window=(50.0, 300.0)) == cut != expected
    kept = files(cache)
    assert len(kept) == 8
    for file in kept:
        file.write_bytes(file.read_bytes().replace(b"2400", b"2401"))
    kept[0].write_bytes(b"\xff")
    write(data.root, 1)
    assert fit(cache) == expected  # the damaged and the outdated are made anew
    with monkeypatch.context() as patch:
        forbid(patch)
        assert fit(cache) == expected
    assert fit(cache, window=(50.0, 300.0)) == cut


def test_a_second_run_reads_no_scan(
    data: Folder, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = {"name": "timm", "backbone": "test_resnet", "dim": 16, "in_channels": 1}
    recipe = resolve_recipe("panet", {"encoder": encoder, "training.steps": 1})

    def run(out: str, cache: Path | None) -> tuple[dict[str, torch.Tensor], list[float]]:
        checkpoint = train_fold(
            data, recipe, novel=2, out=tmp_path / out, size=16, n_folds=4, cache=cache,
            progress=False,
        )  # fmt: skip
        results = evaluate_unlearned("copy", data, folds=[0], size=16, n_folds=4, cache=cache)
        return load_tensors(checkpoint), [row.dice for row in results.scores.rows]

    first = [run("without", None), run("building", cache)]
    forbid(monkeypatch)
    weights, dice = run("opening", cache)
    for other, other_dice in first:
        assert dice == other_dice
        assert all(torch.equal(weights[name], other[name]) for name in weights)


def test_the_chaos_store_opens_in_milliseconds(shared_data: Any, cache: Path) -> None:
    data = open_folder(root=shared_data("chaos_MR_T2_normalized"))
    given: dict[str, Any] = {"size": 256, "intensity": Intensity(), "cache": cache}
    built = prepare_all(data, data.ids, **given)
    opened = prepare_all(data, data.ids, **given)
    assert sum(scan.n_slices for scan in opened.scans) == 718
    for one, two in zip(built.scans, opened.scans):
        assert torch.equal(one.images[3], two.images[3])
    # in a process whose functions do not check their arguments
    command = [sys.executable, "-c", OPENING, str(data.root), str(cache)]
    seconds = float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert seconds < 0.05


OPENING = """
import sys, time
from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.prepare import prepare_all
data = open_folder(root=sys.argv[1])
times = []
for _ in range(5):
    start = time.perf_counter()
    prepare_all(data, data.ids, size=256, intensity=Intensity(), cache=sys.argv[2])
    times.append(time.perf_counter() - start)
print(min(times))
"""
