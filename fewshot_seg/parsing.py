"""JSON and TOML that somebody else may have written: whatever is wrong with it is a ValueError."""

import json
import tomllib
from typing import Any

DEEPEST = 50
"""Tables or lists within each other; no file of ours has more than 8."""


def parse_json(text: str | bytes) -> Any:
    """What the text holds. Raises ValueError, also for nesting that would exhaust the stack."""
    try:
        return _shallow(json.loads(text))
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of the text. Raises ValueError as `parse_json`."""
    try:
        return _shallow(tomllib.loads(text))
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error


_TOO_DEEP = f"tables or lists within each other, more than {DEEPEST} deep"


def _shallow(value: Any) -> Any:
    """The value, unless code that walks through it would go too deep."""
    level = [value]
    for _ in range(DEEPEST):
        level = [child for one in level for child in _children(one)]
        if not level:
            return value
    raise ValueError(_TOO_DEEP)


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
