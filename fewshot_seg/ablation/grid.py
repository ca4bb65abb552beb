"""A grid as data: one page of TOML that says what is varied, on which data, judged how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot_seg.ablation.axes import Axis, Labels, axis_from, set_from
from fewshot_seg.ablation.columns import RESERVED
from fewshot_seg.ablation.request import check_protocol
from fewshot_seg.errors import OptionError, did_you_mean
from fewshot_seg.parsing import parse_toml

TABLES = ("set", "training", "episodes", "protocol", "data", "paper")
LISTS = ("axis", "variant", "skip")
WORDS = ("name", "title", "method", "reference")
VARIANT = "variant"
"""The axis that `[[variant]]` entries make."""


@dataclass(frozen=True)
class Grid:
    """What a study runs. `Grid.load("grid.toml")` reads one; docs/ablation.md explains the file.

    name: of the study; a folder of results belongs to one.   title: for people.
    method: the registered name or recipe file that every cell starts from.
    reference: label of the variant that the others are compared with, "" for none.
    set: overrides for every cell, as `build` takes them; those of parts reach methods made of
        parts, not whole networks.
    data: name -> what `open_dataset` takes (a name or a folder) with its options.
    protocol: settings of `fewshot_seg.ablation.request.Protocols`, for every cell.
    axes: what is varied; a cell is one value of each.
    skip: combinations left out, each as axis name -> labels.
    paper: variant -> class name or "mean" -> published Dice in per cent.
    """

    name: str
    method: str
    title: str = ""
    reference: str = ""
    set: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    axes: tuple[Axis, ...] = ()
    skip: tuple[Mapping[str, tuple[str, ...]], ...] = ()
    paper: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    text: str = field(default="", compare=False, repr=False)

    @classmethod
    def load(cls, path: Path | str) -> "Grid":
        """Raises OptionError, naming the file and the entry that is wrong."""
        try:
            return cls.from_toml(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"cannot read the grid {path}: {error}") from error
        except OptionError as error:
            raise OptionError(f"the grid {path}: {error}") from error

    @classmethod
    def from_toml(cls, text: str) -> "Grid":
        """Raises OptionError when the text is no TOML or no grid."""
        try:
            table = parse_toml(text)
        except ValueError as error:
            raise OptionError(f"this is not valid TOML: {error}") from error
        return cls.from_dict(table, text=text)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], *, text: str = "") -> "Grid":
        """Raises OptionError for entries that are unknown, missing or of the wrong kind."""
        _check_entries(table)
        axes = [axis_from(one) for one in table.get("axis", [])]
        if "variant" in table:
            axes.insert(0, axis_from({"name": VARIANT, "value": table["variant"]}))
        _check_names(axes)
        common = set_from(table.get("set", {}), "[set]")
        for name in ("training", "episodes"):
            common |= {f"{name}.{key}": value for key, value in table.get(name, {}).items()}
        protocol = dict(table.get("protocol", {}))
        check_protocol(protocol, "[protocol]")
        return cls(
            name=table["name"],
            method=table.get("method", "apscl"),
            title=table.get("title", ""),
            reference=table.get("reference", ""),
            set=common,
            data={name: _source(name, value) for name, value in table.get("data", {}).items()},
            protocol=protocol,
            axes=tuple(axes),
            skip=tuple(_skip(entry, axes) for entry in table.get("skip", [])),
            paper={name: _numbers(name, row) for name, row in table.get("paper", {}).items()},
            text=text,
        )

    @property
    def axis_names(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.axes)

    def skips(self, labels: Labels) -> bool:
        """Whether a combination is left out."""
        return any(
            all(labels[axis] in wanted for axis, wanted in rule.items()) for rule in self.skip
        )


def _check_entries(table: Mapping[str, Any]) -> None:
    known = [*WORDS, *TABLES, *LISTS]
    for name, value in table.items():
        if name not in known:
            raise OptionError(
                f"a grid has no entry '{name}'{did_you_mean(name, known)} "
                f"It takes: {', '.join(known)}."
            )
        if name in WORDS and not isinstance(value, str):
            raise OptionError(f'{name} is a word, as in {name} = "..."; got {value!r}')
        if name in TABLES and not isinstance(value, Mapping):
            raise OptionError(f"[{name}] is a table; got {value!r}")
        if name in LISTS and not (
            isinstance(value, list) and all(isinstance(one, Mapping) for one in value)
        ):
            raise OptionError(f"write [[{name}]], once for each; got {value!r}")
    if not table.get("name"):
        raise OptionError('a grid needs a name, as in name = "table2"')


def _check_names(axes: list[Axis]) -> None:
    names = [axis.name for axis in axes]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"two axes are called '{name}'; give one of them another name")
        if name in RESERVED:
            raise OptionError(
                f"an axis cannot be called '{name}', which is a column of every result; "
                "give it a name of its own beside its key"
            )


def _source(name: str, value: Any) -> Mapping[str, Any]:
    """A data set: its source and options."""
    table = {"source": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping) or not isinstance(table.get("source", ""), str):
        raise OptionError(
            f'[data] {name} is a name or folder, or {{source = "...", option = ...}}; got {value!r}'
        )
    return dict(table)


def _skip(entry: Mapping[str, Any], axes: list[Axis]) -> Mapping[str, tuple[str, ...]]:
    """`{FEM = "off", latent = [2, 4]}` with its axes and labels checked."""
    known = {axis.name: axis for axis in axes}
    rule: dict[str, tuple[str, ...]] = {}
    for name, value in entry.items():
        if name not in known:
            raise OptionError(f"[[skip]] names the axis '{name}'{did_you_mean(name, known)}")
        wanted = tuple(str(one) for one in (value if isinstance(value, list) else [value]))
        for label in wanted:
            if label not in known[name].labels:
                raise OptionError(
                    f"[[skip]] names the value '{label}' of axis '{name}'"
                    f"{did_you_mean(label, known[name].labels)} "
                    f"It has: {', '.join(known[name].labels)}."
                )
        rule[name] = wanted
    if not rule:
        raise OptionError("an empty [[skip]] would leave out every cell")
    return rule


def _numbers(name: str, row: Any) -> Mapping[str, float]:
    if not isinstance(row, Mapping) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in row.values()
    ):
        raise OptionError(f"[paper] '{name}' is a table of numbers, {{mean = 85.47}}; got {row!r}")
    return {key: float(value) for key, value in row.items()}
