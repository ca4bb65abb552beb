"""Everything that is fuzzed, by name."""

import gzip
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import fuzz_checkpoints as checkpoints
import fuzz_scans as scans
import fuzz_tables as tables
import nibabel as nib
from fuzz_target import Codec, Target, json_codec, lines_codec, toml_codec

from fewshot_seg.data.nifti import read_labels, read_scan
from fewshot_seg.data.pictures import read_picture
from fewshot_seg.training.log import read_log

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("FEWSHOT_SEG_DATA", ROOT.parent / "shared" / "data"))


Read = Callable[[Path], object]
Seeds = Callable[[], list[bytes]]


@cache
def real_headers() -> list[bytes]:
    """Headers of real scans, where there are some, over voxels that are left out."""
    folders = sorted(DATA.glob("*/")) if DATA.is_dir() else []
    files = [path for folder in folders for path in sorted(folder.rglob("*.nii.gz"))[:2]]
    return [_small(path) for path in files]


def _small(path: Path) -> bytes:
    image = nib.load(path)
    crop = image.slicer[:6, :5, :4]
    return nib.Nifti1Image(crop.dataobj, crop.affine, image.header).to_bytes()


def read_pair(path: Path) -> None:
    """A picture with itself as labels, where it can be."""
    read_picture(path, path if path.suffix == ".png" else None)


def read_series(path: Path) -> None:
    """A damaged slice among whole ones."""
    folder = path.parent / "series"
    folder.mkdir()
    for z, content in enumerate(scans.dicom()[1:]):
        (folder / f"{z}.dcm").write_bytes(content)
    path.rename(folder / "slice.dcm")
    read_scan(folder)


def read_both(path: Path) -> None:
    """As an image, and as labels."""
    try:
        read_labels(path)
    finally:
        read_scan(path)


def _nifti(name: str, pack: Callable[[bytes], bytes] = bytes) -> Target:
    seeds = [*scans.nifti(), *real_headers()]
    return Target(name, read_both, seeds, scans.nifti_codec(seeds), pack)


def _itk(name: str) -> Target:
    return Target(name, read_scan, scans.itk(name), scans.itk_codec(name))


def _json(name: str, read: Read, seeds: Seeds) -> Target:
    return Target(name, read, seeds(), json_codec(seeds()))


def _toml(name: str, read: Read, seeds: Seeds) -> Target:
    return Target(name, read, seeds(), toml_codec(seeds()))


def _lines(name: str, read: Read, seeds: Seeds) -> Target:
    return Target(name, read, seeds(), lines_codec(seeds()))


def _checkpoint(read: Read, codec: Callable[[], Codec]) -> Target:
    return Target("c.safetensors", read, codec().seeds, codec())


TARGETS: Mapping[str, Callable[[], Target]] = {
    "nifti": lambda: _nifti("a.nii"),
    "nifti gz": lambda: _nifti("a.nii.gz", gzip.compress),
    "gzip": lambda: Target("a.nii.gz", read_scan, scans.zipped()),
    "metaimage": lambda: _itk("a.mha"),
    "nrrd": lambda: _itk("a.nrrd"),
    "dicom": lambda: Target("slice.dcm", read_series, scans.dicom()),
    "png": lambda: Target("a.png", read_pair, scans.pictures("a.png")),
    "jpeg": lambda: Target("a.jpg", read_pair, scans.pictures("a.jpg")),
    "dataset.json": lambda: _json("dataset.json", tables.read_folder, tables.decathlon),
    "dataset.json, nnU-Net": lambda: _json("dataset.json", tables.read_folder, tables.nnunet),
    "dataset.json, prepared": lambda: _json("dataset.json", tables.read_record, tables.prepared),
    "recipe.toml": lambda: _toml("recipe.toml", tables.read_recipe, tables.recipes),
    "results.json": lambda: _json("results.json", tables.read_results, tables.results),
    "run.toml": lambda: _toml("run.toml", tables.read_run, tables.runs),
    "state.toml": lambda: _toml("state.toml", tables.read_state, tables.states),
    "log.jsonl": lambda: _lines("log.jsonl", read_log, tables.logs),
    "oneshot.json": lambda: _json("oneshot.json", tables.read_plan, tables.plans),
    "segmentations.json": lambda: _json("segmentations.json", tables.read_done, tables.done),
    "grid.toml": lambda: _toml("grid.toml", tables.read_grid, tables.grids),
    "checkpoint": lambda: _checkpoint(checkpoints.read_weights, checkpoints.header_codec),
    "checkpoint, right checksum": lambda: _checkpoint(
        checkpoints.read_stranger, checkpoints.honest_codec
    ),
    "prepared scan": lambda: Target("file", checkpoints.read_stored, checkpoints.prepared()),
    "prepared scan, sealed": lambda: Target(
        "sealed", checkpoints.read_sealed, checkpoints.prepared()
    ),
}
"""By name; made when it is asked for."""
