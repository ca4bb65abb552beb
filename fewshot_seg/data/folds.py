"""Cross-validation by patient: who is trained on, who is the labelled example, who is tested."""

from collections.abc import Sequence
from dataclasses import dataclass

from fewshot_seg.errors import DataError, OptionError, UnknownNameError, did_you_mean

RULES = ("alpnet", "adnet")


@dataclass(frozen=True)
class Fold:
    """One split of the scan ids. No id is in two of the three groups."""

    index: int
    train: tuple[str, ...]
    support: tuple[str, ...]
    query: tuple[str, ...]


def make_folds(
    ids: Sequence[str], *, n_folds: int = 5, n_support: int = 1, rule: str = "alpnet"
) -> tuple[Fold, ...]:
    """Split `ids`, taken as a circle, into `n_folds` folds; every scan is a query exactly once.

    ids: scan ids in the data set's order (sorted numerically).
    n_support: labelled scans of each fold; they are never trained on.
    rule: "alpnet" (the default of the field) takes the scans that follow the queries as support.
        "adnet" takes the last of the fold's sorted members, as the code of ADNet and Q-Net does:
        in the last fold, which wraps around, the first scans of the list become queries a second
        time and the last ones never do. Use it only to compare with those numbers.

    Raises OptionError for counts below 1, UnknownNameError for another rule, DataError when an id
    stands twice or when a fold would have no scan left to train on.
    """
    _check(ids, n_folds, n_support, rule)
    count = len(ids)
    folds = []
    for index in range(n_folds):
        start, stop = index * count // n_folds, (index + 1) * count // n_folds
        members = [position % count for position in range(start, stop + n_support)]
        if rule == "adnet":
            members.sort()
        query, support = members[:-n_support], members[-n_support:]
        train = [position for position in range(count) if position not in members]
        folds.append(Fold(index, _pick(ids, train), _pick(ids, support), _pick(ids, query)))
    return tuple(folds)


def _pick(ids: Sequence[str], positions: list[int]) -> tuple[str, ...]:
    return tuple(ids[position] for position in positions)


def _check(ids: Sequence[str], n_folds: int, n_support: int, rule: str) -> None:
    for name, value in (("n_folds", n_folds), ("n_support", n_support)):
        if value < 1:
            raise OptionError(f"{name} must be at least 1; got {value}")
    if rule not in RULES:
        hint = did_you_mean(rule, RULES) or "."
        raise UnknownNameError(f"unknown fold rule '{rule}'{hint} Known: {', '.join(RULES)}.")
    twice = sorted({scan_id for scan_id in ids if list(ids).count(scan_id) > 1})
    if twice:
        raise DataError(f"scan ids must differ; {', '.join(twice)} appear more than once")
    largest = -(-len(ids) // n_folds)
    if n_folds > len(ids) or largest + n_support >= len(ids):
        raise DataError(
            f"{len(ids)} scans cannot make {n_folds} folds with {n_support} support scan(s): a "
            f"fold tests up to {max(largest, 1)} scans and needs at least one more to train on. "
            "Ask for other numbers of folds or support scans, or add scans."
        )
