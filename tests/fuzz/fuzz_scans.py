"""Small scans in every format, and their headers as plain data."""

import gzip
import io
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from fuzz_target import Codec
from PIL import Image

SPACING = (1.5, 1.5, 4.0)


def voxels(dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 5, (6, 5, 4)).astype(dtype)


def _saved(name: str, save: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder, name))
        return Path(folder, name).read_bytes()


@cache
def nifti() -> list[bytes]:
    """NIfTI-1 of two types, NIfTI-2, and big-endian."""
    affine = np.diag([*SPACING, 1.0])
    turned = affine @ np.array([[0, -1, 0, 3], [1, 0, 0, 2], [0, 0, 1, 1], [0, 0, 0, 1.0]])
    images = [
        nib.Nifti1Image(voxels(), affine),
        nib.Nifti1Image(voxels(np.float32), turned),
        nib.Nifti2Image(voxels(), affine),
        nib.Nifti1Image(voxels(), affine, nib.Nifti1Header(endianness=">")),
    ]
    return [image.to_bytes() for image in images]


def zipped() -> list[bytes]:
    return [gzip.compress(one, mtime=0) for one in nifti()]


def nifti_codec(real: list[bytes]) -> Codec:
    """A NIfTI-1 header's fields by name; the voxels stay."""

    def decode(content: bytes) -> dict[str, Any]:
        header = nib.Nifti1Header.from_fileobj(io.BytesIO(content), check=False)
        fields = {name: header[name].tolist() for name in header}
        return {"fields": fields, "rest": content[348:]}

    def encode(plain: Any) -> bytes:
        header = nib.Nifti1Header(check=False)
        for name, value in plain["fields"].items():
            wanted = header[name]
            filled = np.resize(np.asarray(value).ravel(), wanted.size).reshape(wanted.shape)
            header[name] = filled.astype(wanted.dtype)
        return bytes(header.binaryblock) + plain["rest"]

    return Codec([one for one in real if one[:4] == b"\x5c\x01\0\0"], decode, encode)


@cache
def itk(name: str) -> list[bytes]:
    """MetaImage or NRRD, plain and compressed."""
    image = sitk.GetImageFromArray(voxels().T)
    image.SetSpacing(SPACING)
    return [
        _saved(name, lambda path, packed=packed: sitk.WriteImage(image, str(path), packed))
        for packed in (False, True)
    ]


def itk_codec(name: str) -> Codec:
    """The lines of a text header as a list; the voxels stay."""
    end = b"LOCAL\n" if name.endswith("mha") else b"\n\n"

    def decode(content: bytes) -> dict[str, Any]:
        head, _, rest = content.partition(end)
        lines = [line.split(" ") for line in head.decode().split("\n")]
        return {"lines": lines, "rest": rest}

    def encode(plain: Any) -> bytes:
        lines = (" ".join(map(str, line)) for line in plain["lines"])
        return "\n".join(lines).encode() + end + plain["rest"]

    return Codec(itk(name), decode, encode)


@cache
def dicom() -> list[bytes]:
    """The slices of a series, one file each."""
    return [_saved("slice.dcm", lambda path, z=z: _write_slice(path, z)) for z in range(3)]


def _write_slice(path: Path, z: int) -> None:
    image = sitk.JoinSeries(sitk.GetImageFromArray(voxels()[:, :, z].T))
    image.SetSpacing(SPACING)
    image.SetOrigin((0.0, 0.0, z * SPACING[2]))
    tags = {"0008|0060": "MR", "0020|000d": "1.2", "0020|000e": "1.2.3", "0020|0013": str(z + 1)}
    for key, value in {**tags, "0008|0018": f"1.2.3.{z}"}.items():
        image.SetMetaData(key, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.Execute(image)


@cache
def pictures(name: str) -> list[bytes]:
    """Grey, colour and, as PNG, palette and one-bit pictures."""
    grey = Image.fromarray(voxels(np.uint8)[:, :, 0])
    colour = Image.fromarray(np.ascontiguousarray(voxels(np.uint8)[:, :, :3]))
    several = [grey, colour]
    if name.endswith(".png"):
        several += [grey.convert("P"), grey.point(lambda one: one > 2, mode="1")]
    return [_saved(name, one.save) for one in several]
