"""Work that is killed: each job does all of it into a folder, and goes on where it was.

A job's result is what must come out the same, by name; dates and durations are none of it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from grid_cases import scales, tiny
from raw_cases import patient

from fewshot_seg.ablation import run
from fewshot_seg.checkpoint import read_header
from fewshot_seg.data.folder import Folder, open_folder
from fewshot_seg.data.raw.runner import prepare_raw
from fewshot_seg.errors import DataError
from fewshot_seg.experiment import (
    evaluate_runs,
    resolve_recipe,
    segment_with_checkpoint,
    train_fold,
)
from fewshot_seg.training.log import read_log

RECIPE = {
    "encoder": {"name": "timm", "backbone": "test_resnet", "dim": 8, "in_channels": 1},
    "training.steps": 12,
    "training.checkpoint_every": 2,
    "training.log_every": 2,
}
GRID = {"encoder": RECIPE["encoder"]}
N_SCANS = 4


def make_inputs(root: Path) -> None:
    """Scans with labels, a raw download, and a trained method."""
    torch.set_num_threads(1)
    for number in range(N_SCANS):
        _write_scan(root / "scans", number)
    for number in (1, 2):
        patient(root / "raw", number, size=(24, 22, 6), spacing=(5.5, 4.4, 13.0))
    train(root, root / "trained")


def _write_scan(folder: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    labels = np.zeros((32, 30, 6), np.uint8)
    labels[4:14, 5 + number : 15], labels[17:28, 9 : 24 + number] = 1, 2
    noise = rng.integers(0, 300, labels.shape) + 400 * labels.astype(int)
    affine = np.diag([1.5, 1.5, 6.0, 1.0])
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(noise.astype(np.int16), affine), folder / f"image_{number}.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), folder / f"label_{number}.nii.gz")


def _scans(root: Path) -> Folder:
    return open_folder(root=root / "scans", name="scans")


def train(root: Path, out: Path) -> None:
    train_fold(
        _scans(root), resolve_recipe("panet", RECIPE), novel="class 1", out=out / "run", size=32,
        n_folds=4, cache=out / "cache", progress=False,
    )  # fmt: skip


def trained(out: Path) -> dict[str, str]:
    """The weights' hash, and the log."""
    lines = [{**line, "seconds": 0} for line in read_log(out / "run" / "log.jsonl")]
    return {
        "weights": read_header(out / "run" / "final.safetensors").checksum,
        "log": json.dumps(lines),
    }


def evaluate(root: Path, out: Path) -> None:
    results = evaluate_runs(
        root / "trained" / "run", _scans(root), device="cpu", cache=out / "cache"
    )
    results.to_json(out / "results.json")
    results.to_csv(out / "results.csv")


def evaluated(out: Path) -> dict[str, str]:
    """The scores, as table and as JSON."""
    table = json.loads((out / "results.json").read_text())
    del table["provenance"]
    return {"csv": (out / "results.csv").read_text(), "json": json.dumps(table)}


def prepare(root: Path, out: Path) -> None:
    report = prepare_raw("chaos-t2", root / "raw", out / "prepared")
    for failed in report.failed:
        raise DataError(str(failed.error))


def prepared(out: Path) -> dict[str, str]:
    """Every file."""
    return _digests(out / "prepared")


def segment(root: Path, out: Path) -> None:
    scans = root / "scans"
    report = segment_with_checkpoint(
        root / "trained" / "run", [(scans / "image_0.nii.gz", scans / "label_0.nii.gz")],
        [scans / f"image_{number}.nii.gz" for number in range(1, N_SCANS)], out=out / "labels",
        device="cpu", precision="32",
    )  # fmt: skip
    for failed in report.failures:
        raise DataError(failed.reason)


def segmented(out: Path) -> dict[str, str]:
    """Every label volume."""
    return _digests(out / "labels")


def grid(root: Path, out: Path) -> None:
    scans = {"scans": {"source": str(root / "scans")}}
    rules = {"novel": ["class 1"], "n_folds": 4, "size": 32}
    small = tiny(axis=scales(10.0, 20.0), data=scans, protocol=rules, set=GRID)
    outcome = run(small, out / "study", device="cpu")
    for error in outcome.failures.values():
        raise DataError(error)


def ran(out: Path) -> dict[str, str]:
    """The scores of every cell."""
    found = {}
    for path in sorted((out / "study" / "cells").glob("*/results.json")):
        table = json.loads(path.read_text())
        del table["provenance"]
        found[path.parent.name] = json.dumps(table)
    return found


def _digests(folder: Path) -> dict[str, str]:
    """Of whole files; a kill may leave a hidden draft beside them, which nothing reads."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
    }


@dataclass(frozen=True)
class Job:
    """work: given the inputs' folder and its own.   result: what came out, by name."""

    work: Callable[[Path, Path], None]
    result: Callable[[Path], Mapping[str, str]]


JOBS = {
    "training": Job(train, trained),
    "evaluation": Job(evaluate, evaluated),
    "preparation": Job(prepare, prepared),
    "segmentation": Job(segment, segmented),
    "grid": Job(grid, ran),
}
