"""What an entry point stands for, in its author's words. Reads the source, imports nothing."""

import ast
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

MARK = "RECONSTRUCTED"
"""Stands in the first line of a package whose method has no code or full text to agree with."""


class About(NamedTuple):
    """summary: the first line of the object's docstring, or of its module's; empty without any.
    reconstructed: whether its package says so."""

    summary: str
    reconstructed: bool


def about(entry: EntryPoint) -> About:
    """What the source of an entry point says of itself; nothing for source that is not there."""
    package = _docstrings(entry.module.split(".")[0]).get("", "")
    # a method's package carries the paper's name, its function or class only the variant's
    whole = entry.group.endswith(".methods") and "." not in entry.module
    told = package if whole else _of(entry.module, entry.attr)
    summary = told.replace(MARK + ".", "").strip()
    return About(summary, MARK in package or MARK in told)


def _of(module: str, name: str) -> str:
    """What is said of an object where it is defined, which may be where its module has it from."""
    here = _docstrings(module)
    if name in here:
        return here[name]
    source = _imports(module).get(name)
    return _docstrings(source).get(name, "") if source else here.get("", "")


def module_spec(name: str) -> ModuleSpec | None:
    """Where a module is. Nothing is imported, not even its parents."""
    first, *rest = name.split(".")
    if not all(part.isidentifier() for part in (first, *rest)):
        return None
    spec = find_spec(first)
    found = first
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        found = f"{found}.{part}"
        spec = PathFinder.find_spec(found, spec.submodule_search_locations)
    return spec


def _docstrings(module: str) -> dict[str, str]:
    """First lines by name of a module's classes and functions; of the module itself by ''."""
    tree = _tree(module)
    parts = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    found = {node.name: _first_line(ast.get_docstring(node)) for node in parts}
    return {**found, "": _first_line(ast.get_docstring(tree))}


def _imports(module: str) -> dict[str, str]:
    """The names that a module has from others, and from which."""
    nodes = [node for node in _tree(module).body if isinstance(node, ast.ImportFrom)]
    return {
        alias.asname or alias.name: node.module
        for node in nodes
        if node.module and not node.level
        for alias in node.names
    }


@lru_cache(maxsize=256)
def _tree(module: str) -> ast.Module:
    """A module's source; empty where there is none or it cannot be read."""
    spec = module_spec(module)
    nothing = ast.Module(body=[], type_ignores=[])
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return nothing
    try:
        return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):  # a broken plugin is named where it is loaded
        return nothing


def _first_line(text: str | None) -> str:
    return text.strip().splitlines()[0] if text and text.strip() else ""
