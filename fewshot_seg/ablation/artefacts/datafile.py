"""A file of named arrays with a table of words, of one kind; checked when read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewshot_seg.errors import CheckpointError, DataError
from fewshot_seg.parsing import parse_json
from fewshot_seg.tensorfile import load_tensors, read_words, save_tensors

Arrays = Mapping[str, np.ndarray]


def write_data(path: Path, kind: str, arrays: Arrays, table: Mapping[str, Any]) -> None:
    """Write arrays and their table, making the folder. Raises DataError when that is refused."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(tensors, path, {"kind": kind, "table": json.dumps(dict(table))})
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
    except CheckpointError as error:  # says as much itself
        raise DataError(str(error)) from error


def read_data(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and their table. Raises DataError for any other file, and a damaged one."""
    try:
        words, _ = read_words(path)
        if words.get("kind") != kind:
            raise ValueError(f"it holds {words.get('kind', 'a checkpoint')}, not {kind}")
        tensors = load_tensors(path)  # compares the checksum, of the table too
        table = parse_json(words["table"])
        if not isinstance(table, dict):
            raise ValueError("its table is none")
        return {name: one.numpy() for name, one in tensors.items()}, table
    except (CheckpointError, OSError, ValueError, KeyError) as error:
        raise unusable(path, kind, error) from error


def unusable(path: Path, kind: str, error: Exception) -> DataError:
    """What to tell of a file that is not what it should be."""
    return DataError(
        f"{path} cannot be used as {kind}: {error}; delete it and test again what it belongs to"
    )
