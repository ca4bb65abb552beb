"""A method as data: which parts, which options, which loss weights, how it is trained.

A recipe is plain data, so it goes into TOML files and checkpoints and comes back equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

import tomli_w

from fewshot_seg.errors import RecipeError, did_you_mean
from fewshot_seg.parsing import parse_toml

SLOTS = ("encoder", "prior", "enrichment", "contrastive", "decoder")
TABLES = ("options", "weights", "training", "episodes")
CUSTOM = "custom"
"""Option of a part that was handed in as a module: the class it came from."""


@dataclass(frozen=True)
class Part:
    """A part by its registered name, with the options that differ from its defaults."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def with_options(self, options: Mapping[str, Any]) -> "Part":
        return Part(self.name, {**self.options, **options})

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **_plain(self.options, f"part '{self.name}'")}

    @classmethod
    def from_dict(cls, table: object, slot: str) -> "Part":
        """Raises RecipeError unless `table` holds a name and options."""
        if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
            raise RecipeError(f'[{slot}] of the recipe needs `name = "..."`; got {table!r}')
        return cls(table["name"], {key: table[key] for key in table if key != "name"})


@dataclass(frozen=True)
class Recipe:
    """What `build` needs to make a method.

    method: its registered name.
    encoder .. decoder: the parts; all None for a method that is one whole network.
    options: of the pipeline (`ce_weights`, `image_size`), or of the whole network.
    weights: loss name -> factor in the total loss; 1 where not named.
    training: defaults for `fewshot_seg.training.TrainConfig`.
    episodes: defaults for the training episodes, see `fewshot_seg.experiment.EpisodeSettings`.
    """

    method: str
    encoder: Part | None = None
    prior: Part | None = None
    enrichment: Part | None = None
    contrastive: tuple[Part, ...] = ()
    decoder: Part | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    episodes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_pipeline(self) -> bool:
        return self.encoder is not None or self.decoder is not None

    def parts(self) -> list[tuple[str, Part]]:
        """(slot, part) for every part there is, in the order of SLOTS."""
        found: list[tuple[str, Part]] = []
        for slot in SLOTS:
            value = getattr(self, slot)
            for part in value if isinstance(value, tuple) else (value,):
                if part is not None:
                    found.append((slot, part))
        return found

    def with_entry(self, name: str, value: Any) -> "Recipe":
        """The recipe with another part or table under the field `name`."""
        changes: dict[str, Any] = {name: value}
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain tables. Raises RecipeError for a value that TOML cannot hold."""
        table: dict[str, Any] = {"method": self.method}
        for slot in SLOTS:
            value = getattr(self, slot)
            if isinstance(value, tuple):
                if value:
                    table[slot] = [part.to_dict() for part in value]
            elif value is not None:
                table[slot] = value.to_dict()
        for name in TABLES:
            if getattr(self, name):
                table[name] = _plain(getattr(self, name), name)
        return table

    def to_toml(self) -> str:
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "Recipe":
        """The inverse of `to_dict`. Raises RecipeError for unknown or missing entries."""
        known = ["method", *SLOTS, *TABLES]
        for key in table:
            if key not in known:
                raise RecipeError(
                    f"a recipe has no entry '{key}'{did_you_mean(key, known)} "
                    f"It takes: {', '.join(known)}."
                )
        if not isinstance(table.get("method"), str):
            raise RecipeError('a recipe needs `method = "..."`')
        parts: dict[str, Any] = {}
        for slot in SLOTS:
            if slot not in table:
                continue
            value = table[slot]
            if slot == "contrastive":
                several = value if isinstance(value, list) else [value]
                parts[slot] = tuple(Part.from_dict(item, slot) for item in several)
            else:
                parts[slot] = Part.from_dict(value, slot)
        for name in TABLES:
            if not isinstance(table.get(name, {}), Mapping):
                raise RecipeError(f"[{name}] of the recipe must be a table; got {table[name]!r}")
            parts[name] = dict(table.get(name, {}))
        parts["weights"] = _factors(parts["weights"])
        return cls(method=table["method"], **parts)

    @classmethod
    def from_toml(cls, text: str) -> "Recipe":
        """Raises RecipeError when the text is no TOML or no recipe."""
        try:
            table = parse_toml(text)
        except ValueError as error:
            raise RecipeError(f"the recipe is not valid TOML: {error}") from error
        return cls.from_dict(table)

    def save(self, path: Path | str) -> None:
        Path(path).write_text(self.to_toml(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> "Recipe":
        """Raises RecipeError, naming the file."""
        try:
            return cls.from_toml(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, RecipeError) as error:
            raise RecipeError(f"cannot read the recipe {path}: {error}") from error


def _factors(weights: Mapping[str, Any]) -> dict[str, float]:
    for name, value in weights.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
            raise RecipeError(f"the weight of '{name}' is a number; got {value!r:.60}")
    return {name: float(value) for name, value in weights.items()}


def _plain(value: Any, where: str) -> Any:
    """`value` with tuples as lists, refusing what TOML cannot hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}, '{key}'") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bool | int | float | str):
        return value
    raise RecipeError(f"{where}: a recipe holds numbers, words, lists and tables, not {value!r}")
