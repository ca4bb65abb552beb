"""Whether a scan's labels lie on its image the right way round, quickly enough for every scan."""

import numpy as np

from fewshot_seg.data.facts import ScanRow
from fewshot_seg.data.raw.edges import AS_GIVEN, placements
from fewshot_seg.data.scan import Scan

SLICES = 12
"""About so many slices are looked at: enough to tell, and a third of the time of all."""
ENOUGH = 400
"""Labelled voxels below which a good score may be chance."""
CLEAR = 1.5
"""Edge score from which labels follow their image: published CHAOS has 1.8 to 2.7."""
BETTER = 1.3
"""How many times the score as given another placement must have to be believed: published CHAOS
has at most 0.7 as it is, and 1.6 to 2 when it is turned over."""


def label_placements(scan: Scan) -> dict[str, float]:
    """Edge score by placement of the labels, the given one first; see `raw.edges.placements`.

    Empty where labels are missing or too few, or where their edges cannot be compared.
    """
    if scan.labels is None or np.count_nonzero(scan.labels) < ENOUGH:
        return {}
    depth = len(scan.labels)
    some = np.linspace(0, depth - 1, min(SLICES, depth)).round().astype(int)
    chosen = np.union1d(some, depth - 1 - some)  # so that flipped slices still meet their image
    image = scan.image[chosen].mean(axis=1)
    scores = placements(image, scan.labels[chosen])
    return {name: score for name, score in scores.items() if np.isfinite(score)}


def better_placement(row: ScanRow) -> str | None:
    """How the labels would have to be moved to lie on their image; None where they do, or where
    its edges tell nothing."""
    scores = row.placements or {}
    if AS_GIVEN not in scores:
        return None
    best = max(scores, key=lambda name: scores[name])
    clear = scores[best] >= max(CLEAR, BETTER * scores[AS_GIVEN])
    return best if clear and best != AS_GIVEN else None


def given_score(row: ScanRow) -> float | None:
    """The edge score of the labels as they lie; None where there is none."""
    return (row.placements or {}).get(AS_GIVEN)
