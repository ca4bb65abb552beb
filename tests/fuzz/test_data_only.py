"""Files are data: nothing of the library unpickles, evaluates or executes what a file holds."""

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fewshot_seg.checkpoint import load_method
from fewshot_seg.encoders.weights import read_state
from fewshot_seg.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for top in ("fewshot_seg", "plugins") for path in (ROOT / top).rglob("*.py"))
CODE_IN_DATA = {"marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy"}
ERROR = "Error"
"""Of pickle only its errors are used, to be caught where others raise them."""
SAFE = {
    ("torch", "load"): ("weights_only", True),
    ("np", "load"): ("allow_pickle", False),
    ("numpy", "load"): ("allow_pickle", False),
}
"""Calls that must say that they take data only."""


def test_there_is_a_source_to_look_at() -> None:
    assert len(SOURCES) > 200


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_in_data(path: Path) -> None:
    found = list(faults(ast.parse(path.read_text(encoding="utf-8"))))
    assert not found, "; ".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle\npickle.loads(x)",
        "from pickle import loads",
        "import dill",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "np.load(path)",
        "eval(text)",
        "exec(text)",
        "torch.save(x, path)",
    ],
)
def test_the_search_finds_it(text: str) -> None:
    assert list(faults(ast.parse(text)))


def faults(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name in CODE_IN_DATA)
        elif isinstance(node, ast.ImportFrom) and node.module in CODE_IN_DATA:
            yield f"from {node.module}"
        elif isinstance(node, ast.ImportFrom) and node.module == "pickle":
            yield from (one.name for one in node.names if not one.name.endswith(ERROR))
        elif isinstance(node, ast.Attribute) and _owner(node) == "pickle":
            if not node.attr.endswith(ERROR):
                yield f"pickle.{node.attr}"
        elif isinstance(node, ast.Call):
            yield from _call(node)


def _call(node: ast.Call) -> Iterator[str]:
    if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
        yield node.func.id
    if not isinstance(node.func, ast.Attribute):
        return
    called = (_owner(node.func), node.func.attr)
    if called == ("torch", "save"):
        yield "torch.save"
    if called in SAFE:
        name, safe = SAFE[called]
        given = {one.arg: ast.unparse(one.value) for one in node.keywords}
        if given.get(name) != str(safe):
            yield f"{called[0]}.load without {name}={safe}"


def _owner(node: ast.Attribute) -> str:
    return node.value.id if isinstance(node.value, ast.Name) else ""


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
def test_a_pickle_in_place_of_weights_is_not_run(how: object, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    for name in ("final.safetensors", "backbone.pth"):
        how({"weight": Trap(sprung)}, tmp_path / name)  # type: ignore[operator]
    with pytest.raises(CheckpointError):
        load_method(tmp_path / "final.safetensors")
    with pytest.raises(CheckpointError):
        read_state(str(tmp_path / "backbone.pth"))
    assert not sprung.exists()
    with (tmp_path / "backbone.pth").open("rb") as file:  # the trap works
        torch.load(file, weights_only=False) if how is torch.save else pickle.load(file)
    assert sprung.exists()
