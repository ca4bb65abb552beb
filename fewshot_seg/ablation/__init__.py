"""Ablation grids: from a page of TOML to tables with honest spread, figures and a page to look at.

from fewshot_seg.ablation import Grid, load_results, run
run(Grid.load("grid.toml"), "studies/mine")
frame = load_results("studies/mine")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewshot_seg.ablation.grid import Grid
    from fewshot_seg.ablation.plan import Plan, make_plan
    from fewshot_seg.ablation.runner import Outcome, run
    from fewshot_seg.ablation.study import Study, load_results, read_study

_PLACES = {
    "Grid": "grid",
    "Outcome": "runner",
    "Plan": "plan",
    "Study": "study",
    "load_results": "study",
    "make_plan": "plan",
    "read_study": "study",
    "run": "runner",
}

__all__ = [
    "Grid",
    "Outcome",
    "Plan",
    "Study",
    "load_results",
    "make_plan",
    "read_study",
    "run",
]


def __getattr__(name: str) -> Any:
    """Loaded when asked for: tables of results need no torch, planning needs no pandas."""
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
