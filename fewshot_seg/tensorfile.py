"""Named tensors with words in a header, as one checked safetensors file, replaced in one move.

Nothing is pickled. The checksum in the header covers the words and every tensor's name, type, shape
and bytes. What stands under a name is always either the whole old file or the whole new one.
"""

import hashlib
import os
import secrets
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from operator import index
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewshot_seg._version import __version__
from fewshot_seg.errors import CheckpointError
from fewshot_seg.parsing import parse_json

FORMAT = "fewshot-seg"
FORMAT_VERSION = 1
_LONGEST_HEADER = 100_000_000  # the limit of the safetensors format
_OWN_WORDS = ("format", "version", "library", "sha256")


def save_tensors(tensors: Mapping[str, Tensor], path: Path | str, header: Mapping[str, str]) -> str:
    """Write tensors with header words to one file; returns their checksum."""
    ready = _storable(tensors)
    checksum = _checksum(ready, header)
    metadata = {
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "library": __version__,
        "sha256": checksum,
        **header,
    }
    with replacing(Path(path)) as temporary:
        save_file(ready, temporary, metadata=metadata)
    return checksum


def load_tensors(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a file, checked. Raises CheckpointError."""
    path = Path(path)
    words, _ = read_words(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    header = {name: value for name, value in words.items() if name not in _OWN_WORDS}
    if _checksum(tensors, header) != words.get("sha256"):
        raise CheckpointError(
            f"{path} is damaged or was changed: its content does not match its checksum; "
            "take an earlier checkpoint or a fresh copy"
        )
    return tensors


def read_words(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """The header's words and the tensors' shapes; reads no tensor. Raises CheckpointError."""
    words, shapes = _read_entries(path)
    _check_ours(words, path)
    return words, shapes


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there takes its place, safely on disk.

    Raises CheckpointError when the disk refuses; what stood under `path` is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # what could not be written cannot be cleared away either
            temporary.unlink()


def cannot_write(path: Path, error: Exception) -> CheckpointError:
    """What to tell of a file or folder when the disk is full or read-only."""
    told = getattr(error, "strerror", None) or str(error)
    return CheckpointError(
        f"{path} cannot be written: {told}. What was saved before is whole; make room or choose "
        "another place, and start again to go on"
    )


def flush(path: Path) -> None:
    """Wait until a file or folder has reached the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, no two in the same memory (tied weights are written twice)."""
    seen: set[int] = set()
    ready: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        memory = copy.untyped_storage().data_ptr()
        ready[name] = copy.clone() if memory in seen else copy
        seen.add(memory)
    return ready


def _checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(header.items()):
        digest.update(f"{name}\0{value}\0".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_entries(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Words and shapes in a safetensors file, whose promised length is compared with its own."""
    foreign = CheckpointError(f"{path} is not a checkpoint of fewshot-seg")
    try:
        length = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            text = file.read(min(size, length)) if 0 < size <= _LONGEST_HEADER else b""
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}") from error
    if not text.startswith(b"{"):
        raise foreign
    if len(text) < size:
        raise CheckpointError(f"{path} is cut off: it ends within its header")
    try:
        entries = parse_json(text)
        words = entries.get("__metadata__", {})
        tensors = {name: one for name, one in entries.items() if name != "__metadata__"}
        if not all(isinstance(word, str) for word in words.values()):
            raise ValueError("words that are none")
        shapes = {name: tuple(map(index, one["shape"])) for name, one in tensors.items()}
        expected = 8 + size + max((one["data_offsets"][1] for one in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise foreign from error
    if length < expected:
        raise CheckpointError(f"{path} is cut off: {length} of {expected} bytes are there")
    return words, shapes


def _check_ours(metadata: Mapping[str, str], path: Path | str) -> None:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of fewshot-seg")
    version = metadata.get("version", "")
    if not version.isdecimal() or len(version) > 9 or int(version) > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version or 'none'}, written by fewshot-seg "
            f"{metadata.get('library')}; this is {__version__}, which reads up to version "
            f"{FORMAT_VERSION}: upgrade it"
        )
