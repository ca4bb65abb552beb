"""Judge a method: slice matching protocols, metrics, cross-validation, results."""

from fewshot_seg.evaluation.crossval import cross_validate
from fewshot_seg.evaluation.fold import evaluate_fold, evaluate_scan
from fewshot_seg.evaluation.matching import Matching, Paired, Part, Stack, get_matching
from fewshot_seg.evaluation.metrics import (
    SurfaceDistances,
    dice,
    mean_slice_dice,
    surface_distances,
)
from fewshot_seg.evaluation.predict import predict
from fewshot_seg.evaluation.protocol import Protocol
from fewshot_seg.evaluation.provenance import provenance
from fewshot_seg.evaluation.results import Results
from fewshot_seg.evaluation.scores import FoldScores, ScanScore, Unscored
from fewshot_seg.evaluation.summary import ClassSummary

__all__ = [
    "ClassSummary",
    "FoldScores",
    "Matching",
    "Paired",
    "Part",
    "Protocol",
    "Results",
    "ScanScore",
    "Stack",
    "SurfaceDistances",
    "Unscored",
    "cross_validate",
    "dice",
    "evaluate_fold",
    "evaluate_scan",
    "get_matching",
    "mean_slice_dice",
    "predict",
    "provenance",
    "surface_distances",
]
