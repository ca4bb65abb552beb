"""Which scans the page shows, and whose predictions for them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest

import pandas as pd

from fewshot_seg.ablation.report.groups import Group

MOST_VARIANTS = 12
MOST_SCANS = 48
"""Of all classes together; the best, median and worst of each class come first."""
ROLES = ("best", "median", "worst")


@dataclass(frozen=True)
class Choice:
    """A class in a scan.

    role: "best", "median" or "worst" by the mean Dice of the variants shown, else "".
    cells: variant -> the cell whose prediction is shown, the lowest seed and fold that has it.
    """

    class_name: str
    scan_id: str
    role: str
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Choices:
    """What is shown, the most telling first, and of how much it was chosen."""

    shown: tuple[Choice, ...]
    n_scans: int
    variants: tuple[str, ...]
    n_variants: int


def choose(group: Group, kept: frozenset[str]) -> Choices:
    """The best, median and worst scan of every class, then the others, up to MOST_SCANS.

    kept: cells whose predictions were kept.
    """
    rows = group.scores[group.scores["cell"].isin(kept)]
    means = group.means["mean"][group.means.index.isin(rows["variant"])]
    best = set(means.nlargest(MOST_VARIANTS).index)
    variants = tuple(name for name in group.variants if name in best)
    rows = rows[rows["variant"].isin(best)].sort_values(["seed", "fold"], kind="stable")
    by_class = [_of_class(rows[rows["class_name"] == name], variants) for name in group.classes]
    in_turn = [one for one in chain.from_iterable(zip_longest(*by_class)) if one is not None]
    return Choices(tuple(in_turn[:MOST_SCANS]), len(in_turn), variants, len(means))


def _of_class(rows: pd.DataFrame, variants: tuple[str, ...]) -> Iterator[Choice]:
    """Every scan of one class, best, median and worst first, the rest from high to low Dice."""
    dice = rows.groupby(["scan_id", "variant"])["dice"].mean().groupby("scan_id").mean()
    order = list(dice.sort_values(ascending=False, kind="stable").index)
    places = {"best": 0, "median": len(order) // 2, "worst": len(order) - 1}
    roles = {order[place]: role for role, place in places.items()} if len(order) > 2 else {}
    first = rows.drop_duplicates(["scan_id", "variant"])
    cells = {scan: dict(zip(own["variant"], own["cell"])) for scan, own in first.groupby("scan_id")}
    for scan in sorted(order, key=lambda one: ROLES.index(roles[one]) if one in roles else 3):
        own = {name: cells[scan][name] for name in variants if name in cells[scan]}
        yield Choice(str(rows["class_name"].iloc[0]), scan, roles.get(scan, ""), own)
