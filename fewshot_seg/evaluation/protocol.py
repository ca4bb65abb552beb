"""Under which rules scores were obtained. Scores under different rules are never put together."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from fewshot_seg.typed import make

DICE_RULE = "TP, FP and FN pooled over a scan's scored slices; mean over scans, then folds"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The rules of an evaluation, as they stand under each results table.

    matching, uses_query_range: the slice matching and whether it needs the query's ground-truth
        organ range (a weak label).
    setting: the training setting ("setting1", "setting2_any", "leave_one_organ", ...).
    n_folds: folds the scan list is cut in; folds: which of them were run; fold_rule: see
        `make_folds`.
    n_shot: support scans of a fold.   size: height and width of the images the method sees.
    intensity: rule of normalisation.   dice: how Dice is pooled and averaged.
    seeds: run seeds of the methods that were scored.
    unlabelled: which unlabelled images the method was given at test, "none" for nearly all methods.
    """

    dataset: str
    matching: str
    uses_query_range: bool
    setting: str
    n_shot: int
    size: tuple[int, int]
    intensity: str
    n_folds: int
    folds: tuple[int, ...]
    fold_rule: str = "alpnet"
    seeds: tuple[int, ...] = (0,)
    dice: str = DICE_RULE
    unlabelled: str = "none"

    def differences(self, other: "Protocol") -> tuple[str, ...]:
        """Names of the rules in which two protocols differ; folds and seeds are no rules."""
        return tuple(
            field.name
            for field in fields(self)
            if field.name not in ("folds", "seeds")
            and getattr(self, field.name) != getattr(other, field.name)
        )

    def joined(self, other: "Protocol") -> "Protocol":
        """The protocol of both parts' scores. Raises ValueError when the rules differ."""
        if different := self.differences(other):
            told = "; ".join(
                f"{name}: {getattr(self, name)!r} and {getattr(other, name)!r}"
                for name in different
            )
            raise ValueError(f"results of different protocols cannot be put together ({told})")
        return replace(
            self,
            folds=tuple(sorted({*self.folds, *other.folds})),
            seeds=tuple(sorted({*self.seeds, *other.seeds})),
        )

    def describe(self) -> str:
        """The rules as a few lines of text, for under a table."""
        known = "uses" if self.uses_query_range else "does not use"
        folds = ", ".join(map(str, self.folds))
        seeds = ", ".join(map(str, self.seeds))
        height, width = self.size
        return (
            f"{self.dataset}, {self.setting}, {self.n_shot}-shot, "
            f"fold {folds} of {self.n_folds} ({self.fold_rule}), seed {seeds}, "
            f"{height}x{width} px, intensity: {self.intensity}.\n"
            f"Matching {self.matching}: {known} the query's ground-truth organ range.\n"
            f"Dice: {self.dice}."
            + ("" if self.unlabelled == "none" else f"\nUnlabelled images: {self.unlabelled}.")
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Protocol":
        """The inverse of `to_dict`. Raises TypeError for fields that are missing, unknown or of
        another type."""
        lists = {name: tuple(data[name]) for name in ("folds", "seeds", "size") if name in data}
        return make(cls, {**data, **lists})
