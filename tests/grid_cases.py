"""A grid small enough to be run in a test, and its study."""

from collections.abc import Mapping
from typing import Any

from fewshot_seg.ablation import Grid

TINY: Mapping[str, Any] = {
    "name": "tiny",
    "method": "panet",
    "data": {"phantom": {"source": "phantom_abdomen", "n_scans": 5, "size": 32, "n_slices": 6}},
    "set": {"encoder": {"name": "unet", "width": 4}},
    "training": {"steps": 4, "checkpoint_every": 2, "log_every": 1},
    "protocol": {"novel": ["liver"], "n_folds": 5, "size": 32},
}


def tiny(**changes: Any) -> Grid:
    """The grid with other entries; None takes one away."""
    table = {**TINY, **changes}
    return Grid.from_dict({name: value for name, value in table.items() if value is not None})


def scales(*values: float) -> list[dict[str, Any]]:
    """An axis of the decoder's scale."""
    return [{"name": "scale", "key": "decoder.scale", "values": list(values)}]
