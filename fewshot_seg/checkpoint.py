"""Trained methods as files: one safetensors file, its recipe in the header; nothing is pickled."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tomli_w
import torch
from torch import Tensor, nn

from fewshot_seg.allowance import Allowance
from fewshot_seg.architecture import architecture_only
from fewshot_seg.errors import CheckpointError
from fewshot_seg.parsing import parse_toml
from fewshot_seg.tensorfile import load_tensors, read_words, save_tensors

SPARE_BYTES = 2**28
"""For what building a network takes beside its weights."""


@runtime_checkable
class HasToml(Protocol):
    """A recipe, as far as a checkpoint is concerned."""

    def to_toml(self) -> str: ...


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself.

    recipe: TOML; empty for a network that was trained without a recipe.
    notes: what the writer wanted to keep, such as intensity statistics.
    shapes: tensor name -> shape.   library: version of fewshot-seg that wrote it.
    """

    recipe: str
    notes: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    checksum: str
    library: str


def save_method(
    method: nn.Module,
    path: Path | str,
    *,
    recipe: HasToml | None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write weights, recipe and notes to one file, replacing it in one move.

    recipe: None for a network without one; it is then read back with `load_weights` only.
    notes: tables, lists, words and numbers; None values are left out.
    Raises CheckpointError for state that is no tensor, or notes that TOML cannot hold.
    """
    header = {
        "recipe": "" if recipe is None else recipe.to_toml(),
        "notes": tomli_w.dumps(plain(notes or {})),
    }
    save_tensors(_state(method), path, header)


def load_method(
    path: Path | str, *, device: torch.device | str = "cpu", **modules: Any
) -> nn.Module:
    """Build the method that the file's recipe describes and give it the file's weights; eval mode.

    modules: overrides for `fewshot_seg.build`, for the parts that were modules when training.
    Raises CheckpointError for a file that is missing, damaged, changed, of another program or a
    newer format, or whose weights are not those of its recipe.
    """
    from fewshot_seg import build
    from fewshot_seg.recipe import Recipe

    header = read_header(path)
    if not header.recipe:
        raise CheckpointError(
            f"{path} was saved without a recipe: build the network yourself and "
            "give it the weights with fewshot_seg.checkpoint.load_weights"
        )
    tensors = load_tensors(path)  # compares the checksum before the recipe is believed
    room = Allowance(_room(tensors), what=f"the recipe in {path}")
    with architecture_only(), room:  # weights that a recipe asks for, the file is about to replace
        method: nn.Module = build(Recipe.from_toml(header.recipe), **modules)
    _give(method, tensors, path)
    return method.to(device).eval()


def load_weights(method: nn.Module, path: Path | str) -> None:
    """Give `method` the weights of a file. Raises CheckpointError when they are not its own.

    Buffers that a module names in `added_state`, because files of earlier versions lack them, stay
    as they are when the file has none of them.
    """
    _give(method, load_tensors(path), path)


def read_header(path: Path | str) -> Header:
    """What the file says of itself, without reading or checking its tensors."""
    words, shapes = read_words(Path(path))
    try:
        notes = parse_toml(words.get("notes", ""))
    except ValueError as error:
        raise CheckpointError(f"the notes in {path} cannot be read: {error}") from error
    return Header(
        recipe=words.get("recipe", ""),
        notes=notes,
        shapes=shapes,
        checksum=words.get("sha256", ""),
        library=words.get("library", "unknown"),
    )


def plain(value: Any, where: str = "notes") -> Any:
    """`value` as TOML can hold it: tuples as lists, paths as words, no None entries."""
    if isinstance(value, Mapping):
        return {
            str(key): plain(item, f"{where}.{key}")
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list | tuple):
        return [plain(item, where) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(f"{where}: {value!r} is neither number, word, list nor table")


def _state(method: nn.Module) -> dict[str, Tensor]:
    state = method.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"'{name}' in the state of {type(method).__name__} is no tensor but "
                f"{type(value).__name__}; keep state in parameters and buffers"
            )
    return state


def _give(method: nn.Module, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    own = _state(method)
    full = {**_added_since(method, own), **tensors}
    _check_names(own, full, path)
    method.load_state_dict(full)


def _room(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that building a network of these weights may take: what is drawn and thrown away too,
    such as the classifier of a backbone."""
    return 4 * sum(tensor.nbytes for tensor in tensors.values()) + SPARE_BYTES


def _added_since(method: nn.Module, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in method.named_modules()
        for name in getattr(module, "added_state", ())
    ]
    return {name: own[name] for name in names}


def _check_names(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path | str) -> None:
    shapes = [
        f"{name} is {tuple(given[name].shape)} in the file, {tuple(own[name].shape)} in the method"
        for name in own
        if name in given and own[name].shape != given[name].shape
    ]
    problems = (
        ("missing", [name for name in own if name not in given]),
        ("unexpected", [name for name in given if name not in own]),
        ("of another shape", shapes),
    )
    found = [f"{what}: {_some(names)}" for what, names in problems if names]
    if found:
        raise CheckpointError(
            f"{path} holds the weights of another recipe; tensors {'; '.join(found)}"
        )


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + rest
