"""Checkpoints and the store of prepared scans: safetensors files with TOML and JSON in the header.

A stranger can compute a checksum too, so changes come both without and with the right one.
"""

import json
import os
import struct
import tempfile
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import tomli_w
import torch
from fuzz_target import Codec
from safetensors.torch import save
from torch import nn

from fewshot_seg import Recipe, build
from fewshot_seg.checkpoint import load_method, load_weights, save_method
from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.prepare import load_prepared
from fewshot_seg.experiment import segment_with_checkpoint
from fewshot_seg.experiment.notes import RunNotes, read_notes
from fewshot_seg.tensorfile import FORMAT, FORMAT_VERSION, _checksum, load_tensors

COPY = 'method = "copy"\n'
OPTIONS: dict[str, Any] = {"size": 8, "intensity": Intensity(), "channels": 3}


def notes() -> dict[str, Any]:
    return RunNotes(
        dataset="d", modality="mr", classes={1: "liver"}, ids=("1", "2"), novel=(1,), base=(),
        fold=0, n_folds=2, n_support=1, fold_rule="alpnet", setting="setting1", size=(16, 16),
        channels=1, intensity=Intensity(), window=None, seed=0,
    ).to_dict()  # fmt: skip


class Tiny(nn.Module):
    """Tensors of several types, one of them empty."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("short", torch.ones(2, dtype=torch.bfloat16))
        self.register_buffer("empty", torch.zeros(0, 3))


@cache
def checkpoints() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c.safetensors")
        save_method(Tiny(), path, recipe=Recipe.from_toml(COPY), notes=notes())
        return [path.read_bytes()]


@cache
def copies() -> list[bytes]:
    """Of a method without weights, which segments at once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c.safetensors")
        method = build(Recipe.from_toml(COPY))
        save_method(method, path, recipe=method.recipe, notes=notes())
        return [path.read_bytes()]


def header_codec() -> Codec:
    """The header as plain data: names, types, shapes, places and words, without a new checksum."""

    def decode(content: bytes) -> dict[str, Any]:
        size = struct.unpack("<Q", content[:8])[0]
        return {"header": json.loads(content[8 : 8 + size]), "rest": content[8 + size :]}

    def encode(plain: Any) -> bytes:
        text = json.dumps(plain["header"]).encode()
        return struct.pack("<Q", len(text)) + text + plain["rest"]

    return Codec(checkpoints(), decode, encode)


def honest_codec() -> Codec:
    """Recipe and notes as plain data, written with the checksum that goes with them."""

    def decode(content: bytes) -> dict[str, Any]:
        size = struct.unpack("<Q", content[:8])[0]
        words = json.loads(content[8 : 8 + size])["__metadata__"]
        return {name: tomllib.loads(words[name]) for name in ("recipe", "notes")}

    def encode(plain: Any) -> bytes:
        words = {name: tomli_w.dumps(plain[name]) for name in ("recipe", "notes")}
        own = {"format": FORMAT, "version": str(FORMAT_VERSION), "sha256": _checksum({}, words)}
        return save({}, metadata={**own, **words})

    return Codec(copies(), decode, encode)


def read_weights(path: Path) -> None:
    load_weights(Tiny(), path)


def read_stranger(path: Path) -> None:
    """All that is done with somebody's checkpoint."""
    scan = path.parent / "scan.nii"
    labels = np.zeros((16, 16, 3), np.uint8)
    labels[4:9, 5:11] = 1
    nib.save(nib.Nifti1Image(labels * 3 + np.arange(3, dtype=np.uint8), np.eye(4)), scan)
    nib.save(nib.Nifti1Image(labels, np.eye(4)), path.parent / "labels.nii")
    load_method(path)
    read_notes(path)
    report = segment_with_checkpoint(
        path, [(scan, path.parent / "labels.nii")], [scan], out=path.parent / "out", device="cpu"
    )
    assert report.ok, report.failures


@cache
def prepared() -> list[bytes]:
    """One file of the store."""
    with tempfile.TemporaryDirectory() as folder:
        data = _scans(Path(folder))
        load_prepared(data, "1", **OPTIONS, cache=folder)
        (file,) = Path(folder).rglob("*.safetensors")
        return [file.read_bytes()]


def _scans(folder: Path) -> Any:
    values = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    nib.save(nib.Nifti1Image(values, np.eye(4)), folder / "image_1.nii")
    nib.save(nib.Nifti1Image(values // 40, np.eye(4)), folder / "label_1.nii")
    return open_folder(root=folder)


def read_stored(path: Path) -> None:
    """Whatever stands in the store, the scan is the same, and the store whole afterwards."""
    data, own = _store(path)
    plain = load_prepared(data, "1", **OPTIONS, cache=None)
    again = load_prepared(data, "1", **OPTIONS, cache=path.parent / "cache")
    assert torch.equal(plain.images, again.images)
    assert torch.equal(plain.labels, again.labels)
    load_tensors(own)


def read_sealed(path: Path) -> None:
    """A header that was damaged without a change of the file's time."""
    data, own = _store(path)
    load_prepared(data, "1", **OPTIONS, cache=path.parent / "cache")
    assert own.is_file()


def _store(path: Path) -> tuple[Any, Path]:
    """A data set, and its file in a store, which is the one at `path` under the time of its own."""
    data = _scans(path.parent)
    load_prepared(data, "1", **OPTIONS, cache=path.parent / "cache")
    (own,) = (path.parent / "cache").rglob("*.safetensors")
    before = own.stat()
    path.replace(own)
    if path.name == "sealed":
        os.utime(own, ns=(before.st_atime_ns, before.st_mtime_ns))
    return data, own
