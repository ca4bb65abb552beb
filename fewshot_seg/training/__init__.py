"""Training: one loop for every method, on Lightning Fabric, with exact resume."""

from fewshot_seg.training.config import TrainConfig
from fewshot_seg.training.loop import train
from fewshot_seg.training.provenance import commit, versions
from fewshot_seg.training.session import TrainResult

__all__ = ["TrainConfig", "TrainResult", "commit", "train", "versions"]
