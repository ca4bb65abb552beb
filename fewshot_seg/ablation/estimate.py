"""What a plan will cost, before it is run."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import mean
from typing import Any

from fewshot_seg.ablation.cell import Cell
from fewshot_seg.ablation.folder import DONE, StudyFolder, read_json
from fewshot_seg.ablation.plan import Plan
from fewshot_seg.ablation.work import COST
from fewshot_seg.experiment import fresh_method
from fewshot_seg.profiling import Load, profile
from fewshot_seg.training import TrainConfig

PROBES = 12
"""How many different methods are measured at most; the mean of them stands for the rest."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of training that are left, and how they were found.

    seconds: by variant, for the trainings that are not finished; NaN when nothing is known.
    measured: methods whose step was measured now.   known: those with finished trainings.
    """

    seconds: dict[str, float]
    measured: int
    known: int

    @property
    def total(self) -> float:
        return math.fsum(self.seconds.values())


def estimate(
    plan: Plan, folder: StudyFolder | None, *, on_probe: Callable[[str], None] | None = None
) -> Estimate:
    """Estimate the trainings of `plan` that `folder` does not hold.

    A step's time is that of finished trainings of the same variant, else it is measured on a
    synthetic episode on this machine, for the first PROBES variants. Testing is not counted.
    on_probe: told of each variant that is about to be measured.
    """
    per_step: dict[str, float] = {}
    known = 0
    if folder is not None:
        per_step = _finished(plan.cells, folder)
        known = len(per_step)
    measured = 0
    for variant, cell in _first(plan.cells).items():
        if variant not in per_step and measured < PROBES:
            if on_probe is not None:
                on_probe(variant)
            per_step[variant] = step_seconds(cell)
            measured += 1
    usual = mean(per_step.values()) if per_step else math.nan
    left: dict[str, float] = {}
    seen: set[str] = set()
    for cell in plan.cells:
        done = folder is not None and folder.state(cell.id) == DONE
        if cell.training in seen or done:
            continue
        seen.add(cell.training)
        steps = TrainConfig.from_dict(cell.recipe.training).steps
        seconds = steps * per_step.get(cell.variant, usual)
        left[cell.variant] = left.get(cell.variant, 0.0) + seconds
    return Estimate(left, measured, known)


def step_seconds(cell: Cell) -> float:
    """A training step on a synthetic episode here; 0 for a method that does not learn."""
    config = TrainConfig.from_dict(cell.recipe.training)
    size = cell.protocol.size
    episodes = cell.recipe.episodes
    load = Load(
        size=size,
        shots=int(episodes.get("n_shot", 1)),
        ways=int(episodes.get("n_way", 1)),
        queries=int(episodes.get("n_query", 1)),
        episodes=config.episodes_per_step,
        slices=1,
    )
    method = fresh_method(cell.recipe, size=(size, size), seed=cell.seed)
    precision = config.precision if config.precision in ("32", "bf16", "auto") else "32"
    return profile(method, load, precision=precision, rounds=1).whole.step


def _first(cells: Iterable[Cell]) -> dict[str, Cell]:
    """The first cell of each variant."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(cell.variant, cell)
    return found


def _finished(cells: Iterable[Cell], folder: StudyFolder) -> dict[str, float]:
    """Seconds a step of finished trainings, by variant."""
    found: dict[str, list[float]] = {}
    for cell in cells:
        path = folder.training(cell.training) / COST
        if path.exists():
            cost: dict[str, Any] = read_json(path)
            if cost.get("steps") and cost.get("train_seconds") is not None:
                found.setdefault(cell.variant, []).append(cost["train_seconds"] / cost["steps"])
    return {variant: mean(values) for variant, values in found.items()}
