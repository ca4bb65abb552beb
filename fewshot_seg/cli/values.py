"""`--set key=value` as Python values, by TOML's rules."""

import tomllib
from collections.abc import Iterable
from typing import Any

from fewshot_seg.errors import OptionError

SLOTS = ("encoder", "prior", "enrichment", "contrastive", "decoder")
"""As in `fewshot_seg.recipe`; `none` leaves such a part out."""


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """`["decoder.scale=10", "encoder=resnet18"]` as `{"decoder.scale": 10, "encoder": "resnet18"}`.

    A value is what TOML reads (numbers, true, lists, {inline = "tables"}), else a word.
    Raises OptionError for a pair without `=` or a key given twice.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise OptionError(f"'{pair}' is no setting; write key=value, as in decoder.scale=10")
        if key in settings:
            raise OptionError(f"'{key}' is set twice")
        settings[key] = None if key in SLOTS and text.strip() == "none" else _value(text.strip())
    return settings


def _value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # A line break in the text could smuggle in further keys; it is then a word like any other.
    return table["value"] if len(table) == 1 else text


def parse_numbers(text: str) -> list[int]:
    """`"0,1"` or `"0-4"` as numbers. Raises OptionError."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise OptionError(f"'{text}' is no list of folds; write 0,1 or 0-4")
        found += range(int(first), int(last if dash else first) + 1)
    return list(dict.fromkeys(found))
