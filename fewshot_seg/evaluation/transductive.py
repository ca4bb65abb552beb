"""Where unlabelled images come from at test, for methods that learn from them."""

import logging
from collections.abc import Callable, Sequence

from torch import nn

from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.data.unlabelled import UnlabelledPool
from fewshot_seg.errors import DataError, check_choice
from fewshot_seg.needs import needs_of

log = logging.getLogger(__name__)

PoolOf = Callable[[PreparedScan], UnlabelledPool]
"""The unlabelled slices to be used with a query scan."""

RULES = ("train", "query")
WORDS = {"train": "slices of the training scans", "query": "slices of the query scan itself"}
COUNT = 4
"""Unlabelled slices beside each support slice unless the recipe says otherwise."""


def usable_scans(load: Callable[[str], PreparedScan], ids: Sequence[str]) -> list[PreparedScan]:
    """The scans that can be read; the log names the others. Raises DataError when none can."""
    found = []
    for scan_id in ids:
        try:
            found.append(load(scan_id))
        except (ValueError, OSError) as error:
            log.warning("scan %s gives no unlabelled images: %s", scan_id, error)
    if not found:
        raise DataError(f"none of the {len(ids)} training scans can be read for unlabelled images")
    return found


def unlabelled_count(method: object) -> int:
    """Unlabelled images that the method is given beside a support slice; 0 where it needs none."""
    if not isinstance(method, nn.Module) or "unlabelled" not in needs_of(method):
        return 0
    recipe = getattr(method, "recipe", None)
    return COUNT if recipe is None else int(recipe.episodes.get("unlabelled", COUNT))


def pool_rule(
    method: object,
    rule: str,
    training_scans: Callable[[], Sequence[PreparedScan]],
) -> tuple[PoolOf | None, str]:
    """How `method` is given unlabelled images, and that in words for the protocol.

    rule: "train" or "query"; `training_scans` is called for the first only.
    (None, "none") for a method that needs none. Raises OptionError for another rule.
    """
    check_choice("unlabelled", rule, RULES)
    count = unlabelled_count(method)
    if not count:
        return None, "none"
    words = f"{count} {WORDS[rule]}"
    if rule == "query":
        return lambda query: UnlabelledPool([query], count), words
    pool = UnlabelledPool(training_scans(), count)
    return lambda query: pool, words
