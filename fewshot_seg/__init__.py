"""Few-shot medical image segmentation: every method of the field as parts behind five interfaces.

    from fewshot_seg import build
    model = build("apscl", encoder="resnet18")

Names are resolved on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fewshot_seg._version import __version__

if TYPE_CHECKING:
    from fewshot_seg.building import build as build
    from fewshot_seg.checkpoint import load_method as load_method
    from fewshot_seg.checkpoint import save_method as save_method
    from fewshot_seg.episode import Episode as Episode
    from fewshot_seg.episode import Features as Features
    from fewshot_seg.episode import Output as Output
    from fewshot_seg.episode import Support as Support
    from fewshot_seg.pipeline import Pipeline as Pipeline
    from fewshot_seg.recipe import Part as Part
    from fewshot_seg.recipe import Recipe as Recipe
    from fewshot_seg.registry import names as names

_HOME = {
    "build": "building",
    "load_method": "checkpoint",
    "save_method": "checkpoint",
    "Episode": "episode",
    "Features": "episode",
    "Output": "episode",
    "Support": "episode",
    "Pipeline": "pipeline",
    "Part": "recipe",
    "Recipe": "recipe",
    "names": "registry",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"fewshot_seg.{_HOME[name]}"), name)
    raise AttributeError(f"module 'fewshot_seg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
