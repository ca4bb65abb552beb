"""What a grid varies: axes of labelled overrides."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

from fewshot_seg.ablation.request import check_protocol
from fewshot_seg.errors import OptionError, did_you_mean
from fewshot_seg.recipe import SLOTS
from fewshot_seg.recipe import TABLES as RECIPE_TABLES

Labels = Mapping[str, str]
"""Axis name -> the label of its value."""
ON, OFF = "on", "off"


@dataclass(frozen=True)
class Value:
    """One value of an axis.

    set: overrides of the recipe.   test: overrides at evaluation alone, which need no other
        training.   protocol: of the protocol.   method, data: another method or data set.
    """

    label: str
    set: Mapping[str, Any] = field(default_factory=dict)
    test: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    method: str | None = None
    data: str | None = None

    @property
    def is_setting(self) -> bool:
        """Whether it only says on what and how methods are judged, not what the method is."""
        return not (self.set or self.test or self.method)


@dataclass(frozen=True)
class Axis:
    """Values of which each cell has one."""

    name: str
    values: tuple[Value, ...]

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return tuple(value.label for value in self.values)

    @cached_property
    def is_switch(self) -> bool:
        """Whether it turns a module on and off."""
        return set(self.labels) <= {ON, OFF}

    @cached_property
    def is_setting(self) -> bool:
        """Whether its values make groups of tables, not rows."""
        return all(value.is_setting for value in self.values)


def combinations(axes: tuple[Axis, ...]) -> Iterator[tuple[Value, ...]]:
    """One value of each axis, the last axis changing fastest."""
    return product(*(axis.values for axis in axes))


def variant_label(axes: tuple[Axis, ...], values: tuple[Value, ...]) -> str:
    """The name of a table's row.

    Axes of "on" and "off" are modules: `FEM+SCL`, or `none`. The others say `axis=label`, or the
    label alone where only one axis tells the rows apart. Settings do not stand in it.
    """
    told = [(axis, value) for axis, value in zip(axes, values) if not axis.is_setting]
    switches = [pair for pair in told if pair[0].is_switch]
    others = [pair for pair in told if not pair[0].is_switch]
    words = []
    if switches:
        words.append("+".join(axis.name for axis, value in switches if value.label == ON) or "none")
    alone = len(told) == 1
    words += [value.label if alone else f"{axis.name}={value.label}" for axis, value in others]
    return ", ".join(words) or "as it is"


def axis_from(table: Mapping[str, Any]) -> Axis:
    """An axis of a grid file: a key with values, or labelled values. Raises OptionError."""
    name = table.get("name", table.get("key"))
    if not isinstance(name, str) or not name:
        raise OptionError(f'an [[axis]] needs name = "..." or key = "..."; got {dict(table)!r}')
    _known(table, ("name", "key", "values", "value"), f"axis '{name}'")
    if ("values" in table) == ("value" in table):
        raise OptionError(
            f"axis '{name}' takes either a key with values = [...], or [[axis.value]] entries with "
            "a label each"
        )
    if "values" in table:
        values = _plain_values(name, table)
    else:
        entries = table["value"]
        if not isinstance(entries, list) or not all(isinstance(one, Mapping) for one in entries):
            raise OptionError(f"axis '{name}': write [[axis.value]], once for each value")
        values = tuple(_value(name, entry) for entry in entries)
    if not values:
        raise OptionError(f"axis '{name}' has no values")
    labels = [value.label for value in values]
    for label in labels:
        if labels.count(label) > 1:
            raise OptionError(f"axis '{name}' has the value '{label}' twice")
    return Axis(name, values)


def _plain_values(name: str, table: Mapping[str, Any]) -> tuple[Value, ...]:
    key, values = table.get("key"), table["values"]
    if not isinstance(key, str) or not isinstance(values, list):
        raise OptionError(f"axis '{name}': values = [...] needs key = \"...\", what they are of")
    return tuple(_at(key, value) for value in values)


def _at(key: str, value: Any) -> Value:
    label = str(value).lower() if isinstance(value, bool) else str(value)
    head, _, rest = key.partition(".")
    if head == "protocol":
        check_protocol({rest: value}, f"axis '{key}'")
        return Value(label, protocol={rest: value})
    if key in ("method", "data"):
        if not isinstance(value, str):
            raise OptionError(f"axis '{key}': {value!r} is not a name")
        return Value(label, method=value) if key == "method" else Value(label, data=value)
    if head == "test":
        return Value(label, test=set_from({rest: value}, f"axis '{key}'"))
    return Value(label, set=set_from({key: value}, f"axis '{key}'"))


def _value(axis: str, entry: Mapping[str, Any]) -> Value:
    where = f"a value of axis '{axis}'"
    _known(entry, ("label", "set", "test", "protocol", "method", "data"), where)
    label = entry.get("label")
    if not isinstance(label, str) or not label:
        raise OptionError(f'{where} needs label = "..."; got {dict(entry)!r}')
    where = f"axis '{axis}', value '{label}'"
    for name in ("set", "test", "protocol"):
        if not isinstance(entry.get(name, {}), Mapping):
            raise OptionError(f"{where}: {name} is a table; got {entry[name]!r}")
    for name in ("method", "data"):
        if not isinstance(entry.get(name, ""), str):
            raise OptionError(f"{where}: {name} is a name; got {entry[name]!r}")
    check_protocol(entry.get("protocol", {}), where)
    return Value(
        label,
        set=set_from(entry.get("set", {}), where),
        test=set_from(entry.get("test", {}), where),
        protocol=dict(entry.get("protocol", {})),
        method=entry.get("method"),
        data=entry.get("data"),
    )


def set_from(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Overrides as `build` takes them: "none" leaves a slot out, tables become dotted keys."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key in SLOTS and value == "none":
            found[key] = None
        elif key in RECIPE_TABLES:
            if not isinstance(value, Mapping):
                raise OptionError(f"{where}: '{key}' is a table; got {value!r}")
            found |= {f"{key}.{name}": one for name, one in value.items()}
        elif key in SLOTS and isinstance(value, Mapping) and "name" not in value:
            found |= {f"{key}.{name}": one for name, one in value.items()}
        else:
            found[key] = value
    return found


def _known(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in known:
            raise OptionError(
                f"{where} has no entry '{name}'{did_you_mean(name, known)} "
                f"It takes: {', '.join(known)}."
            )
