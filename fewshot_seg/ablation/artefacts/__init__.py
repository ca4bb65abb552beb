"""What a report draws beside scores: masks and pictures of test scans, features of their pixels.

Files of numbers only, each written whole or not at all, and checked when read.
"""

from fewshot_seg.ablation.artefacts.collect import collect_features, features_of_run
from fewshot_seg.ablation.artefacts.features import FeatureSample, read_features, write_features
from fewshot_seg.ablation.artefacts.predictions import (
    Prediction,
    PredictionWriter,
    image_of,
    read_predictions,
)

__all__ = [
    "FeatureSample",
    "Prediction",
    "PredictionWriter",
    "collect_features",
    "features_of_run",
    "image_of",
    "read_features",
    "read_predictions",
    "write_features",
]
