"""What the methods of the field have in common by custom, so that their recipes need not repeat it.

A recipe takes a copy, `training=dict(FIELD_TRAINING)`, and changes in it what its paper changes.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

FIELD_TRAINING: Mapping[str, Any] = MappingProxyType(
    {
        "optimizer": "sgd",
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "step",
        "step_every": 1000,
        "step_factor": 0.95,
        "episodes_per_step": 1,
        "steps": 100_000,
    }
)
"""The training of SSL-ALPNet (Ouyang et al., ECCV 2020; the numbers of the official code), which
the methods that followed took over. Values for `fewshot_seg.training.TrainConfig`; read-only."""
