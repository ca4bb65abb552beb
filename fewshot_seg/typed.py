"""Dataclasses from plain data, as a file held it: each value is of the type that its field says."""

from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Made = TypeVar("Made")


def make(cls: type[Made], values: Mapping[str, Any]) -> Made:
    """The dataclass `cls` with these values; a whole number will do where a number is asked for.

    Raises TypeError, naming the field, for one that is missing, unknown or of another type.
    """
    hints = get_type_hints(cls)
    ready = {}
    for name, value in values.items():
        hint = hints.get(name, Any)  # an unknown name is refused by `cls` itself
        ready[name] = float(value) if type(value) is int and _fits(0.5, hint) else value
        if not _fits(ready[name], hint):
            raise TypeError(f"'{name}' is {value!r:.60}, but should be {_name(hint)}")
    return cls(**ready)


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = args[:1] * len(value) if args[-1] is ... else args
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(key, args[0]) and _fits(one, args[1]) for key, one in value.items()
        )
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)
