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
        for name in ("novel", "folds", "seeds"):
            _check_list(name, getattr(self, name), str if name == "novel" else int)
        if self.setting is not None:
            check_choice("setting", self.setting, SETTINGS)
        check_choice("augmentation", self.augmentation, AUGMENTATIONS)
        check_choice("fold_rule", self.fold_rule, FOLD_RULES)
        check_choice("unlabelled", self.unlabelled, POOLS)
        for name, least in (("size", 8), ("n_folds", 1), ("n_support", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise OptionError(f"{name} is a whole number from {least}; got {value!r}")
        for name in ("surface", "predictions", "features"):
            if not isinstance(getattr(self, name), bool):
                raise OptionError(f"{name} is true or false; got {getattr(self, name)!r}")
        if self.window is not None:
            _check_list("window", self.window, (int, float))
            if len(self.window) != 2 or self.window[0] >= self.window[1]:
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
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in table.items()
    }
    for name in ("novel", "folds", "seeds"):
        if name in values and not isinstance(values[name], tuple):
            values[name] = (values[name],)
    return Protocols(**values)


def _check_list(name: str, values: Any, kind: type | tuple[type, ...]) -> None:
    if not isinstance(values, tuple) or not all(
        isinstance(one, kind) and not isinstance(one, bool) for one in values
    ):
        words = "names" if kind is str else "numbers"
        raise OptionError(f"{name} is a list of {words}; got {values!r}")
    if len(set(values)) < len(values):
        raise OptionError(f"{name} holds a value twice: {list(values)}")
