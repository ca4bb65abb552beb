"""The masks behind a score, for those who want to keep or draw them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from fewshot_seg.data.prepared import PreparedScan
from fewshot_seg.evaluation.scores import ScanScore


class Segmented(NamedTuple):
    """One class in the scored slices of one query scan, at the scan's own resolution.

    slices: which slices of `query` were scored, sorted; those of both masks.
    truth: the scan's labels, which the method has not seen.
    """

    score: ScanScore
    query: PreparedScan
    slices: tuple[int, ...]
    prediction: Bool[np.ndarray, "slice height width"]
    truth: Bool[np.ndarray, "slice height width"]


OnPrediction = Callable[[Segmented], None]
