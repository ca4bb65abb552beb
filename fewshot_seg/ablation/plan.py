"""From a grid to its cells, with every mistake found before anything is trained."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewshot_seg.ablation.axes import Value, combinations, variant_label
from fewshot_seg.ablation.cell import Cell
from fewshot_seg.ablation.fingerprint import data_version
from fewshot_seg.ablation.grid import Grid
from fewshot_seg.ablation.possible import Checks
from fewshot_seg.ablation.request import protocols_from
from fewshot_seg.data.scan import Dataset
from fewshot_seg.errors import DataError, FewshotSegError, OptionError
from fewshot_seg.experiment import open_dataset, resolve_recipe
from fewshot_seg.recipe import Recipe

RUN_TABLES = ("training", "episodes")
"""Tables that every method takes; other overrides of `[set]` are for methods made of parts."""
ONLY = ""
"""The name of a grid's one data set that has no name."""


@dataclass(frozen=True)
class Source:
    """A data set of a grid, and the hash of its files."""

    dataset: Dataset
    version: str


@dataclass(frozen=True)
class Plan:
    """All cells of a grid. sources: data name -> data set."""

    grid: Grid
    cells: tuple[Cell, ...]
    sources: Mapping[str, Source]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: what reports need, without the data."""
        grid = self.grid
        return {
            "name": grid.name,
            "title": grid.title,
            "axes": list(grid.axis_names),
            "variants": list(dict.fromkeys(cell.variant for cell in self.cells)),
            "reference": grid.reference,
            "paper": {name: dict(row) for name, row in grid.paper.items()},
            "cells": [
                {**cell.to_dict(), "dataset": self.sources[cell.data].dataset.name}
                for cell in self.cells
            ],
        }


def make_plan(grid: Grid, data: Mapping[str, str] | None = None) -> Plan:
    """Every cell of `grid`, in the order of its axes.

    data: name -> folder, for data sets that lie elsewhere than the grid says; under "" the one
        data set of a grid that names none or one.
    Raises OptionError, UnknownNameError, RecipeError or DataError for whatever cannot run: an
    unknown part, option, class or fold, parts that do not go together, two cells that are the same
    run. The message names the cell and the remedy.
    """
    sources = _Sources(grid, data or {})
    recipes, checks = _Recipes(grid), Checks()
    cells: dict[str, Cell] = {}
    known: set[str] = set()
    for values in combinations(grid.axes):
        labels = {axis.name: value.label for axis, value in zip(grid.axes, values)}
        if grid.skips(labels):
            continue
        try:
            found = list(_cells(grid, values, labels, sources, recipes, checks))
        except FewshotSegError as error:
            raise type(error)(f"{_told(labels)}: {error}{_remedy(grid, labels)}") from error
        for cell in found:
            if cell.id in cells:
                raise OptionError(_same(cells[cell.id], cell))
            cells[cell.id] = cell
            known.add(cell.variant)
    if not cells:
        raise OptionError(f"the grid '{grid.name}' has no cell left: [[skip]] leaves out all")
    _check_named(grid, known)
    return Plan(grid, tuple(cells.values()), sources.opened)


def _cells(
    grid: Grid,
    values: tuple[Value, ...],
    labels: Mapping[str, str],
    sources: "_Sources",
    recipes: "_Recipes",
    checks: Checks,
) -> Iterator[Cell]:
    rules: dict[str, Any] = dict(grid.protocol)
    for value in values:
        rules |= value.protocol
    asked = protocols_from(rules)
    if not asked.novel:
        raise OptionError('[protocol] needs novel = ["..."], the classes to hold out')
    name = _one([value.data for value in values if value.data], "data set") or sources.default()
    source = sources.open(name)
    recipe = recipes.of(values)
    test = _joined([value.test for value in values])
    checks.method(recipe, test, asked.size)
    for group, novel in zip(asked.groups, asked.novel):
        checks.data(source.dataset, recipe, asked, group)
        for fold in asked.folds:
            for seed in asked.seeds:
                one = replace(asked, novel=(novel,), folds=(fold,), seeds=(seed,))
                variant = variant_label(grid.axes, values)
                yield Cell(variant, labels, recipe, one, name, source.version, test)


class _Recipes:
    """Recipes of combinations; what they have in common is put together once."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._known: dict[tuple[str, frozenset[str]], Recipe] = {}

    def of(self, values: tuple[Value, ...]) -> Recipe:
        method = _one([one.method for one in values if one.method], "method") or self.grid.method
        own = _joined([value.set for value in values])
        key = (method, frozenset(own))
        if key not in self._known:
            self._known[key] = self._common(method, own)
        return resolve_recipe(self._known[key], own)

    def _common(self, method: str, own: Mapping[str, Any]) -> Recipe:
        """The method with the grid's own overrides, but for those that an axis sets."""
        recipe = resolve_recipe(Path(method) if method.endswith(".toml") else method, {})
        changes = {
            name: value
            for name, value in self.grid.set.items()
            if name not in own and (recipe.is_pipeline or name.split(".")[0] in RUN_TABLES)
        }
        return resolve_recipe(recipe, changes)


def _joined(sets: list[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in sets:
        if double := found.keys() & one.keys():
            raise OptionError(f"two axes set '{min(double)}'; let one of them do it")
        found |= one
    return found


def _one(names: list[str], what: str) -> str | None:
    if len(names) > 1:
        raise OptionError(f"two axes choose a {what}: {' and '.join(names)}")
    return names[0] if names else None


def _told(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{axis} = {label}" for axis, label in labels.items()) or "the grid's one cell"


def _remedy(grid: Grid, labels: Mapping[str, str]) -> str:
    if len(grid.axes) < 2:
        return ""
    rule = ", ".join(f'{axis} = "{label}"' for axis, label in labels.items())
    return f" (if these cannot go together, leave them out: [[skip]] with {rule})"


def _same(first: Cell, second: Cell) -> str:
    differ = [axis for axis, label in second.labels.items() if first.labels[axis] != label]
    what = " and ".join(f"'{axis}'" for axis in differ)
    return (
        f"axis {what} changes nothing between {_told(first.labels)} and {_told(second.labels)}: "
        f"both are the same run of {second.words}. Take one of the values out, or leave the pair "
        "out with [[skip]]"
    )


def _check_named(grid: Grid, variants: set[str]) -> None:
    """Raise OptionError for a reference or a published row that is no variant of the grid."""
    told = ", ".join(f"'{one}'" for one in sorted(variants)[:12])
    if grid.reference and grid.reference not in variants:
        raise OptionError(f"reference = '{grid.reference}' is no variant of the grid: {told}")
    for name in grid.paper:
        if name not in variants:
            raise OptionError(f"[paper] has the row '{name}', which is no variant: {told}")


class _Sources:
    """The grid's data sets, each opened and hashed once."""

    def __init__(self, grid: Grid, given: Mapping[str, str]) -> None:
        self.grid, self.given = grid, given
        self.opened: dict[str, Source] = {}
        for name in given:
            if name != ONLY and name not in grid.data:
                known = ", ".join(grid.data) or "none by name"
                raise OptionError(f"the grid has no data set '{name}'; it has: {known}")

    def default(self) -> str:
        if len(self.grid.data) > 1:
            raise OptionError(
                f"the grid has several data sets ({', '.join(self.grid.data)}); let an axis choose "
                'one, as in [[axis]] key = "data", values = [...]'
            )
        return next(iter(self.grid.data), ONLY)

    def open(self, name: str) -> Source:
        if name not in self.opened:
            dataset = self._dataset(name)
            self.opened[name] = Source(dataset, data_version(dataset))
        return self.opened[name]

    def _dataset(self, name: str) -> Dataset:
        table = dict(self.grid.data.get(name, {"source": name}))
        source = table.pop("source", "")
        alone = len(self.grid.data) <= 1
        source = self.given.get(name) or (self.given.get(ONLY) if alone else None) or source
        if not source:
            option = f"--data {name}=FOLDER" if name else "--data FOLDER"
            raise OptionError(f"the grid does not say where its data lie; give {option}")
        try:
            return open_dataset(source, **table)
        except DataError as error:
            hint = f" (another place: --data {name}=FOLDER)" if name else ""
            raise DataError(f"{error}{hint}") from error
