"""Scans in a sentence."""

from collections.abc import Sequence

SHOWN = 6
"""Scans that are named in one sentence; the rest is counted."""


def listed(items: Sequence[object]) -> str:
    """The first of them, and how many more there are."""
    more = len(items) - SHOWN
    text = ", ".join(map(str, items[:SHOWN]))
    return f"{text} and {more} more" if more > 0 else text


def scans(ids: Sequence[str]) -> str:
    """ "scan 1" or "scans 1, 2, 3"."""
    return f"scan{'s' * (len(ids) > 1)} {listed(ids)}"
