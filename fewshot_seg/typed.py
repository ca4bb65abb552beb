"""Whether plain data, as a file held it, is of the types that a dataclass says."""

from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def check_fields(found: Any) -> None:
    """Raise TypeError, naming the field, unless a dataclass's values are of their types."""
    hints = get_type_hints(type(found))
    for field in fields(found):
        value, hint = getattr(found, field.name), hints[field.name]
        if not _fits(value, hint):
            raise TypeError(f"'{field.name}' is {value!r:.60}, but should be {_name(hint)}")


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
    if hint in (int, float):  # True is an int to Python; a whole number is a float to JSON
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, hint)


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)
