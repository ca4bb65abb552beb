"""What an evaluation yields for one class in one query scan."""

from dataclasses import dataclass
from typing import Literal

from fewshot_seg.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ScanScore:
    """The score of one class in one query scan.

    dice: in [0, 1], pooled over the scored slices.
    hd95, assd: distances in `unit` on the 3-D volume of the scored slices; NaN when the prediction
        is empty, None when not asked for.
    n_slices: scored slices.   n_predicted, n_truth: foreground voxels in them.
    slice_dice: the mean Dice of the scored slices, see `mean_slice_dice`; None in results that
        were written before it was measured.
    """

    fold: int
    class_name: str
    scan_id: str
    dice: float
    hd95: float | None
    assd: float | None
    unit: Literal["mm", "px"]
    n_slices: int
    n_predicted: int
    n_truth: int
    slice_dice: float | None = None
    seed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[int, int, str, str]:
        """What tells this score from others of the same results."""
        return self.seed, self.fold, self.class_name, self.scan_id


@dataclass(frozen=True, kw_only=True)
class Unscored:
    """A class in a query scan without a score, and why."""

    fold: int
    class_name: str
    scan_id: str
    reason: str
    seed: int = 0


@dataclass(frozen=True)
class FoldScores:
    """The scores of a fold.

    failures: scans that should have a score and have none.
    skipped: scans that rightly have none, because they do not show the class.
    """

    rows: tuple[ScanScore, ...] = ()
    failures: tuple[Unscored, ...] = ()
    skipped: tuple[Unscored, ...] = ()

    def __add__(self, other: "FoldScores") -> "FoldScores":
        return FoldScores(
            self.rows + other.rows,
            self.failures + other.failures,
            self.skipped + other.skipped,
        )


def require_rows(scores: FoldScores, dataset: str) -> None:
    """Raise DataError, with the first reason, when no scan of `dataset` could be scored."""
    if scores.rows:
        return
    if scores.failures:
        first = scores.failures[0]
        raise DataError(
            f"no scan of {dataset} could be scored ({len(scores.failures)} failures); "
            f"the first: {first.class_name} in scan {first.scan_id}: {first.reason}"
        )
    raise DataError(f"no query scan of {dataset} shows any of the classes asked for")
