"""Which labelled slices segment which slices of a scan, when nobody knows where the organ lies.

The rules are those of evaluation that need nothing of the query (see
`fewshot_seg.evaluation.blind`), so a result under one of them tells what `segment` is worth.
"""

from fewshot_seg.errors import UnknownNameError, did_you_mean
from fewshot_seg.evaluation.matching import BLIND, Matching, get_matching

NAMES = BLIND
DEFAULT = "aligned-10"


def get_pairing(name: str) -> Matching:
    """Raises UnknownNameError, and says why not every rule of evaluation is among the names."""
    try:
        rule = get_matching(name)
    except UnknownNameError:
        raise _unknown(name, did_you_mean(name, NAMES) or ".") from None
    if rule.uses_query_range:
        why = ". It needs the range of the organ in the scan, which only labelled scans tell."
        raise _unknown(name, why)
    return rule


def _unknown(name: str, why: str) -> UnknownNameError:
    return UnknownNameError(
        f"unknown matching '{name}'{why} Known: {', '.join(NAMES)} (with any number from 1 after "
        "the dash)."
    )
