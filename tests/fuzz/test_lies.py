"""Files whose headers lie are refused for what they claim, before any memory is taken for it."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import fuzz_checkpoints as checkpoints
import fuzz_scans as scans
import fuzz_tables as tables
import numpy as np
import pytest
import tomli_w
from fuzz_law import obey
from fuzz_targets import read_both, read_pair, read_series

from fewshot_seg import Recipe
from fewshot_seg.checkpoint import load_method, save_method
from fewshot_seg.data.nifti import read_scan
from fewshot_seg.errors import FewshotSegError
from fewshot_seg.parsing import DEEPEST, parse_json, parse_toml

DIM, OFFSET, UNITS = 40, 108, 123
"""Where these fields begin in a NIfTI-1 header."""


def nifti(at: int, values: np.ndarray) -> bytes:
    content = bytearray(scans.nifti()[0])
    content[at : at + values.nbytes] = values.tobytes()
    return bytes(content)


def header(name: str, old: bytes, new: bytes) -> bytes:
    (plain, _) = scans.itk(name)
    assert old in plain
    return plain.replace(old, new)


def meta(kind: bytes, length: int) -> bytes:
    """A DICOM file whose first element claims a length."""
    content = scans.dicom()[0]
    return content[:132] + b"\x02\x00\x01\x00" + kind + struct.pack("<I", length) + content[144:]


def png(width: int, height: int) -> bytes:
    content = bytearray(scans.pictures("a.png")[0])
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def checkpoint(shape: list[int]) -> bytes:
    codec = checkpoints.header_codec()
    plain = codec.decode(codec.seeds[0])
    plain["header"]["layer.weight"]["shape"] = shape
    return codec.encode(plain)


def wide(path: Path) -> None:
    """A recipe of a network of 100 GB, over the weights of a small one, with the right checksum."""
    method = checkpoints.Tiny()
    recipe = {"method": "panet", "encoder": {"name": "unet", "width": 20_000}}
    save_method(method, path, recipe=Recipe.from_dict({**recipe, "decoder": {"name": "cosine"}}))
    load_method(path)


Read = Callable[[Path], object]
LIES: dict[str, tuple[str, Read, Callable[[], bytes]]] = {
    "voxels": ("a.nii", read_both, lambda: nifti(DIM + 2, np.full(3, 32767, "<i2"))),
    "too many bytes": ("a.nii", read_both, lambda: nifti(DIM + 2, np.full(3, 1200, "<i2"))),
    "voxels before the header's end": (
        "a.nii", read_both, lambda: nifti(OFFSET, np.array([0], "<f4"))
    ),
    "voxels nowhere": ("a.nii", read_both, lambda: nifti(OFFSET, np.array([np.nan], "<f4"))),
    "voxels beyond all": ("a.nii", read_both, lambda: nifti(OFFSET, np.array([1e30], "<f4"))),
    "no unit": ("a.nii", read_both, lambda: nifti(UNITS, np.array([7], "u1"))),
    "axes, MetaImage": ("a.mha", read_scan, lambda: header("a.mha", b"= 3\n", b"= -1\n")),
    "many axes, MetaImage": ("a.mha", read_scan, lambda: header("a.mha", b"= 3\n", b"= 999\n")),
    "voxels, MetaImage": (
        "a.mha", read_scan, lambda: header("a.mha", b"= 6 5 4", b"= 10000 10000 10000")
    ),
    "voxels, NRRD": (
        "a.nrrd", read_scan, lambda: header("a.nrrd", b": 6 5 4", b": 10000 10000 10000")
    ),
    "a long word, NRRD": (
        "a.nrrd", read_scan, lambda: header("a.nrrd", b": 6 5 4", b": 6 5 4" + b"1" * 5000)
    ),
    "no end, NRRD": ("a.nrrd", read_scan, lambda: b"NRRD0004\n" + b"# x\n" * 2000),
    "4 GB in DICOM's first element": ("slice.dcm", read_series, lambda: meta(b"OB\0\0", 2**32 - 2)),
    "an unknown kind in it": ("slice.dcm", read_series, lambda: meta(b"SX\0\0", 2)),
    "pixels": ("a.png", read_pair, lambda: png(13_000, 13_000)),
    "a bomb": ("a.png", read_pair, lambda: png(2**31 - 1, 2**31 - 1)),
    "a tensor": ("c", checkpoints.read_weights, lambda: checkpoint([10**6, 10**6])),
    "a negative tensor": ("c", checkpoints.read_weights, lambda: checkpoint([-1, 3])),
    "a network": ("c", wide, lambda: b""),
    "nesting, JSON": ("dataset.json", tables.read_folder, lambda: b"[" * 8000),
    "nesting, TOML": ("recipe.toml", tables.read_recipe, lambda: b"x" + b".x" * 3000 + b" = 1"),
    "a giant number": ("results.json", tables.read_results, lambda: b"9" * 8000),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused(lie: str) -> None:
    name, read, content = LIES[lie]
    assert not obey(name, read, content())


def test_results_that_cannot_be_are_no_results(tmp_path: Path) -> None:
    """A number in the wrong place would become a wrong table."""
    whole = tables.results()[0]
    for old, new in (
        (b'"dice": 0.5', b'"dice": 7.5'),
        (b'"dice": 0.5', b'"dice": "0.5"'),
        (b'"fold": 0', b'"fold": true'),
        (b'"class_name": "liver"', b'"class_name": 1'),
        (b'"provenance": {\n  "date": "x"', b'"provenance": {\n  "date": 1'),
    ):
        assert old in whole
        path = tmp_path / "results.json"
        path.write_bytes(whole.replace(old, new, 1))
        with pytest.raises(FewshotSegError, match=r"results\.json is not a results file"):
            tables.Results.from_json(path)


@pytest.mark.parametrize("depth", [DEEPEST - 1, DEEPEST])
def test_how_deep_tables_may_be(depth: int) -> None:
    text = '{"a": ' * depth + "1" + "}" * depth
    dotted = ".".join("a" * depth) + " = 1"
    if depth < DEEPEST:
        assert parse_json(text) == parse_toml(dotted)
        assert tomli_w.dumps(parse_toml(dotted))
        return
    for parse, deep in ((parse_json, text), (parse_toml, dotted)):
        with pytest.raises(ValueError, match=f"more than {DEEPEST} deep"):
            parse(deep)
