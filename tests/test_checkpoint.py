"""Checkpoint files: what goes in comes back, and nothing else is taken for one."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny_training import TinyMethod, TinyRecipe, weights
from torch import nn

from fewshot_seg import Recipe, build, checkpoint, tensorfile
from fewshot_seg.checkpoint import load_method, load_weights, read_header, save_method
from fewshot_seg.errors import CheckpointError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    notes = {"fold": 2, "mean": 0.5, "classes": ("liver", "spleen"), "none": None}
    save_method(TinyMethod(seed=3), path, recipe=TinyRecipe(), notes=notes)
    return path


def test_the_weights_come_back_bit_for_bit(saved: Path) -> None:
    method = TinyMethod(seed=4)
    load_weights(method, saved)
    for name, value in weights(TinyMethod(seed=3)).items():
        assert torch.equal(method.state_dict()[name], value)


def test_the_header_says_what_the_file_holds(saved: Path) -> None:
    header = read_header(saved)
    assert header.recipe == TinyRecipe().to_toml()
    assert header.notes == {"fold": 2, "mean": 0.5, "classes": ["liver", "spleen"]}
    assert header.shapes["first.weight"] == (4, 2, 3, 3)


def test_a_method_is_rebuilt_from_the_file_alone(tmp_path: Path) -> None:
    changes = {"encoder.backbone": "resnet10t", "encoder.pretrained": "none"}
    method = build("panet", encoder="timm", **changes)
    save_method(method, tmp_path / "panet.safetensors", recipe=method.recipe)
    again = load_method(tmp_path / "panet.safetensors")
    assert not again.training
    assert isinstance(again.recipe, Recipe)
    assert again.recipe == method.recipe
    for name, value in method.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_odd_tensors_survive(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(24.0).reshape(2, 3, 2, 2))
            self.tied = self.weight
            self.to(memory_format=torch.channels_last)
            self.register_buffer("short", torch.tensor(1.5, dtype=torch.bfloat16))
            self.register_buffer("empty", torch.zeros(0, 3))
            self.register_buffer("turned", torch.arange(6).reshape(2, 3).T)

    save_method(Odd(), tmp_path / "odd", recipe=None)
    other = Odd()
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.zero_()
    load_weights(other, tmp_path / "odd")
    for name, value in Odd().state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_a_method_without_weights_can_be_saved(tmp_path: Path) -> None:
    save_method(nn.Identity(), tmp_path / "none", recipe=None)
    load_weights(nn.Identity(), tmp_path / "none")


def _flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _rewrite_header(change: Callable[[dict[str, str]], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])
        change(header["__metadata__"])
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])

    return damage


def _cut(keep: float) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


WRONG_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "there is no checkpoint"),
    "empty": (lambda path: path.write_bytes(b""), "not a checkpoint of fewshot-seg"),
    "a picture": (
        lambda path: path.write_bytes(b"\x89PNG" * 99),
        "not a checkpoint of fewshot-seg",
    ),
    "JSON of no use": (
        lambda path: path.write_bytes(struct.pack("<Q", 9) + b'{"a": 12}'),
        "not a checkpoint of fewshot-seg",
    ),
    "weights of another program": (
        lambda path: save_file({"a": torch.zeros(2)}, path),
        "not a checkpoint of fewshot-seg",
    ),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot read the checkpoint"),
    "cut in the tensors": (_cut(0.9), "cut off: "),
    "cut in the header": (_cut(0.1), "ends within its header"),
    "a changed weight": (_flip_last_bit, "does not match its checksum"),
    "a changed recipe": (
        _rewrite_header(lambda words: words.update(recipe='method = "panet"\n')),
        "does not match its checksum",
    ),
    "a newer format": (
        _rewrite_header(lambda words: words.update(version="2", library="9.9")),
        "has format version 2, written by fewshot-seg 9.9",
    ),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_wrong_file_is_refused_by_name(saved: Path, case: str) -> None:
    damage, message = WRONG_FILES[case]
    damage(saved)
    before = weights(method := TinyMethod(seed=5))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(method, saved)
    assert str(saved) in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_the_weights_of_another_recipe_are_named(saved: Path) -> None:
    other = TinyMethod()
    other.first = nn.Conv2d(2, 4, 5)
    other.more = nn.Linear(2, 2)
    del other.last
    with pytest.raises(CheckpointError) as caught:
        load_weights(other, saved)
    message = str(caught.value)
    assert "missing: more.weight, more.bias" in message
    assert "unexpected: last.bias, last.weight" in message
    assert "first.weight is (4, 2, 3, 3) in the file, (4, 2, 5, 5) in the method" in message


def test_without_a_recipe_nothing_can_be_rebuilt(tmp_path: Path) -> None:
    save_method(TinyMethod(), tmp_path / "tiny", recipe=None)
    with pytest.raises(CheckpointError, match="saved without a recipe"):
        load_method(tmp_path / "tiny")


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> object:
            return {"a": 1}

    with pytest.raises(CheckpointError, match="is no tensor but dict"):
        save_method(Extra(1, 1), tmp_path / "x", recipe=None)
    with pytest.raises(CheckpointError, match=r"notes\.when: .* is neither"):
        save_method(TinyMethod(), tmp_path / "x", recipe=None, notes={"when": object()})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def half(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(tensorfile, "save_file", half)
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors cannot be written: disk full"):
        checkpoint.save_method(TinyMethod(), saved, recipe=None)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_checkpoint_needs_no_pretrained_weights(tmp_path: Path) -> None:
    """The weights file of training time may be gone; batch norm stays frozen all the same."""
    tiny = {"name": "timm", "backbone": "test_resnet.r160_in1k", "dim": 8}
    first: Any = build("panet", encoder=tiny)
    weights = tmp_path / "backbone.safetensors"
    state = {
        key: value.clone()
        for key, value in timm.create_model("test_resnet.r160_in1k").state_dict().items()
    }
    save_file(state, weights)
    method: Any = build("panet", encoder={**tiny, "pretrained": str(weights)})
    saved = tmp_path / "m.safetensors"
    save_method(method, saved, recipe=method.recipe)
    weights.unlink()
    again: Any = load_method(saved)
    assert not any("running" in name for name, _ in again.named_parameters())
    assert (
        len(list(again.parameters()))
        == len(list(method.parameters()))
        < len(list(first.parameters()))
    )
    for key, value in method.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
