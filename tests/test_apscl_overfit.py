"""Both methods can learn one episode by heart, which needs every gradient to arrive.

benchmarks/overfit.py measures the same at larger sizes, and the literal preset beside it.
"""

from typing import Any

import pytest
import torch

from fewshot_seg import Episode, build
from fewshot_seg.data.episodes import SupervisedSource
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.prepare import prepare
from fewshot_seg.testing import overfit

SIZE = 64
ENCODER = {"name": "timm", "backbone": "resnet18", "stride": 4, "dim": 64}
"""At 64 pixels a stride of 8 leaves 8x8 cells; 4 leaves the outline some room."""


@pytest.fixture(scope="module")
def liver() -> Episode:
    """A slice of one synthetic patient, to be segmented by a slice of another."""
    dataset = abdomen(n_scans=2, size=SIZE, n_slices=8)
    value = next(value for value, name in dataset.classes.items() if name == "liver")
    scans = [
        prepare(dataset.load(scan_id), size=SIZE, intensity=Intensity()) for scan_id in dataset.ids
    ]
    source = SupervisedSource(scans, classes=[value], pairing="matched", min_pixels=300)
    return source.episode(0)


@pytest.mark.parametrize(
    ("method", "options"), [("apscl", {"image_size": SIZE}), ("panet", {})], ids=["apscl", "panet"]
)
def test_one_episode_is_learnt_by_heart(
    liver: Episode, method: str, options: dict[str, Any]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(method, encoder=ENCODER, **options).train()
        assert overfit(model, liver, steps=200, target=0.95, every=20) > 0.95
