"""The protocol of a grid's cells: on which folds and classes, and how they are judged."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fewshot_seg.data.settings import SETTINGS
from fewshot_seg.errors import OptionError, check_choice, did_you_mean

AUGMENTATIONS = ("field", "strong", "none")
FOLD_RULES = ("alpnet", "adnet")
POOLS = ("train", "query")
TEST_ONLY = ("matching", "surface", "unlabelled", "predictions", "features")
"""Settings that need no other training."""


@dataclass(frozen=True, kw_only=True)
class Protocols:
    """The `[protocol]` table of a grid.

    novel: classes held out, a training each; "liver,spleen" holds out both at once.
    folds, seeds: each is a cell.   setting, size, n_folds, n_support, fold_rule, window: see
        `train_fold`.   augmentation: "field", "strong" or "none".
    matching, surface, unlabelled: see `evaluate_runs`.
    predictions, features: keep what the report draws: label volumes, and features of pixels.
    Raises OptionError for a value that does not fit.
    """

    novel: tuple[str, ...] = ()
    folds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0,)
    setting: str | None = None
    size: int = 256
    n_folds: int = 5
    n_support: int = 1
    fold_rule: str = "alpnet"
    window: tuple[float, float] | None = None
    augmentation: str = "field"
    matching: str = "parts-3"
    surface: bool = False
    unlabelled: str = "train"
    predictions: bool = True
    features: bool = False

    def __post_init__(self) -> None:
        if self.setting is not None:
            check_choice("setting", self.setting, SETTINGS)
        check_choice("augmentation", self.augmentation, AUGMENTATIONS)
        check_choice("fold_rule", self.fold_rule, FOLD_RULES)
        check_choice("unlabelled", self.unlabelled, POOLS)
        for name, least in (("size", 8), ("n_folds", 1), ("n_support", 1)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} is {least} or more; got {getattr(self, name)}")
        if self.window is not None and self.window[0] >= self.window[1]:
            raise OptionError(f"window is [low, high]; got {list(self.window)}")
        for fold in self.folds:
            if not 0 <= fold < self.n_folds:
                raise OptionError(f"there are folds 0 to {self.n_folds - 1}; got fold {fold}")

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Classes held out together, a training each."""
        return tuple(tuple(name.strip() for name in one.split(",")) for one in self.novel)


KNOWN = tuple(one.name for one in fields(Protocols))


def check_protocol(table: Mapping[str, Any], where: str) -> None:
    """Raise OptionError for a setting that there is not; values are checked by `protocols_from`."""
    for name in table:
        if name not in KNOWN:
            raise OptionError(
                f"{where}: the protocol has no setting '{name}'{did_you_mean(name, KNOWN)} "
                f"It takes: {', '.join(KNOWN)}."
            )


def protocols_from(table: Mapping[str, Any]) -> Protocols:
    """A table with lists or single values. Raises OptionError."""
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name in LISTS:
            values[name] = _row(name, value, LISTS[name])
        elif name == "window":
            values[name] = None if value is None else _window(value)
        elif name == "setting" and value is None:
            values[name] = None
        else:
            values[name] = _one(name, value)
    return Protocols(**values)


def _row(name: str, value: Any, kind: type) -> tuple[Any, ...]:
    row = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not all(isinstance(one, kind) and not isinstance(one, bool) for one in row):
        raise OptionError(f"{name} is a list of {WORDS[kind]}s; got {value!r}")
    if len(set(row)) < len(row):
        raise OptionError(f"{name} holds a value twice: {list(row)}")
    return row


def _window(value: Any) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_is_number, value)):
        raise OptionError(f"window is [low, high]; got {value!r}")
    return float(value[0]), float(value[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _one(name: str, value: Any) -> Any:
    """A single value, of the kind of the setting's default."""
    kind = str if name == "setting" else type(getattr(DEFAULTS, name))
    if type(value) is not kind:
        raise OptionError(f"{name} is a {WORDS[kind]}; got {value!r}")
    return value


LISTS: Mapping[str, type] = {"novel": str, "folds": int, "seeds": int}
WORDS: Mapping[type, str] = {str: "name", int: "number", bool: "truth value, true or false"}
DEFAULTS = Protocols()
