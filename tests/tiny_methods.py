"""Every method of the library at a size at which a step takes milliseconds."""

from typing import Any

import torch
from torch import nn

from fewshot_seg import Episode, build, names
from fewshot_seg.building import recipe_of
from fewshot_seg.needs import needs_of
from fewshot_seg.registry import Registry
from fewshot_seg.testing import make_episode

SIZE = (64, 64)
WHOLE: dict[str, dict[str, Any]] = {
    "senet": {"conditioner_width": 4, "segmenter_width": 6},
    "rpnet": {"encoder": {"name": "unet", "width": 4}, "width": 8, "train_steps": 2,
              "test_steps": 2, "registration_steps": 2},
    "gcn_de": {"width_divisor": 16},
    "aas_dcl": {"width": 4},
}  # fmt: skip
PIPELINE: dict[str, dict[str, Any]] = {
    "apscl": {"prior.hidden": 16},
    "apscl_fast": {"prior.hidden": 16},
    "apscl_literal": {"label_encoder": "light", "prior.hidden": 16},
    "lvqm": {"som_size": [3, 3], "sweeps": 2, "lvq_iterations": 2},
}


class Patches(nn.Module):
    """An encoder of stride 8 that is one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.stride, self.in_channels = 16, 8, 3
        self.conv = nn.Conv2d(3, 16, 8, stride=8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images)


def methods(*, pipelines: bool) -> list[str]:
    """The names of our methods that are made of parts, or of those that are not."""
    found = Registry("method").providers()
    ours = [one for one in names("methods") if found[one][0].distribution.startswith("fewshot-seg")]
    return [name for name in ours if recipe_of(name).is_pipeline == pipelines]


def tiny(name: str, **changes: Any) -> nn.Module:
    """The method by its recipe, with weights from seed 0."""
    torch.manual_seed(0)
    if not recipe_of(name).is_pipeline:
        return build(name, **{**WHOLE.get(name, {}), **changes})
    options = {"encoder": Patches(), "image_size": SIZE, **PIPELINE.get(name, {}), **changes}
    return build(name, **options)


def task(method: nn.Module, seed: int = 0, *, n_query: int = 1) -> Episode:
    """An episode with everything that the method needs."""
    return make_episode(batch=1, n_query=n_query, size=SIZE, seed=seed, needs=needs_of(method))
