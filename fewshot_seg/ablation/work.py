"""One cell from beginning to end: train, or go on training, then test."""

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from torch import nn

from fewshot_seg.ablation.cell import Cell
from fewshot_seg.ablation.folder import StudyFolder, read_json, write_json
from fewshot_seg.ablation.plan import Source
from fewshot_seg.checkpoint import load_method
from fewshot_seg.evaluation import Results
from fewshot_seg.experiment import (
    FINAL,
    augmentation_named,
    evaluate_runs,
    evaluate_unlearned,
    fresh_method,
    resolve_recipe,
    train_fold,
)
from fewshot_seg.profiling import Load, profile

COST = "cost.json"


def do_cell(
    cell: Cell, source: Source, folder: StudyFolder, *, device: str | None, console: Console | None
) -> None:
    """Train and test a cell and keep its results; the caller holds the cell's lock.

    device: "cpu", "cuda", or None for a GPU where there is one.
    console: where training shows its progress; None for nowhere.
    Raises whatever went wrong.
    """
    size = cell.protocol.size
    method = fresh_method(cell.recipe, size=(size, size), seed=cell.seed)
    learns = any(parameter.requires_grad for parameter in method.parameters())
    if learns:
        cost = train_cell(cell, source, folder, device=device, console=console)
        del method
        begin = time.monotonic()
        results = _tested(cell, source, folder, device)
    else:
        cost = {"steps": 0, "train_seconds": 0.0, "train_cpu_seconds": 0.0, **_bare(method, size)}
        begin = time.monotonic()
        results = _untrained(cell, source, device)
    cost = {**cost, "test_seconds": time.monotonic() - begin}
    folder.finish(cell.id, _bytes(results), cost)


def train_cell(
    cell: Cell, source: Source, folder: StudyFolder, *, device: str | None, console: Console | None
) -> dict[str, Any]:
    """Train the cell, unless another cell has already; what training costs."""
    place = folder.training(cell.training)
    with folder.lock(place):
        if (place / COST).exists() and (place / "run" / FINAL).exists():
            return read_json(place / COST)
        fresh = not (place / "run" / "run.toml").exists()
        wall, cpu = time.monotonic(), time.process_time()
        protocol = cell.protocol
        train_fold(
            source.dataset,
            cell.recipe,
            novel=cell.novel,
            out=place / "run",
            fold=cell.fold,
            setting=protocol.setting,
            size=protocol.size,
            seed=cell.seed,
            training={} if device is None else {"accelerator": device.split(":")[0]},
            augmentation=augmentation_named(protocol.augmentation),
            n_folds=protocol.n_folds,
            n_support=protocol.n_support,
            fold_rule=protocol.fold_rule,
            window=protocol.window,
            progress=console is not None,
            console=console,
        )
        cost: dict[str, Any] = {"steps": cell.recipe.training.get("steps")}
        if fresh:  # of a training that was taken up again only the last part is known
            cost["train_seconds"] = time.monotonic() - wall
            cost["train_cpu_seconds"] = time.process_time() - cpu
        cost |= _bare(load_method(place / "run" / FINAL), protocol.size)
        write_json(place / COST, cost)
        return cost


def _tested(cell: Cell, source: Source, folder: StudyFolder, device: str | None) -> Results:
    protocol = cell.protocol
    return evaluate_runs(
        folder.training(cell.training) / "run",
        source.dataset,
        matching=protocol.matching,
        surface=protocol.surface,
        unlabelled=protocol.unlabelled,
        device=device,
        changes=cell.test,
    )


def _untrained(cell: Cell, source: Source, device: str | None) -> Results:
    protocol = cell.protocol
    return evaluate_unlearned(
        resolve_recipe(cell.recipe, cell.test),
        source.dataset,
        matching=protocol.matching,
        folds=[cell.fold],
        novel=cell.novel,
        size=protocol.size,
        setting=protocol.setting or "leave_one_organ",
        n_folds=protocol.n_folds,
        n_support=protocol.n_support,
        fold_rule=protocol.fold_rule,
        window=protocol.window,
        seed=cell.seed,
        surface=protocol.surface,
        unlabelled=protocol.unlabelled,
        device=device,
    )


def _bare(method: nn.Module, size: int) -> dict[str, Any]:
    """Size and cost at test of a method: parameters, and what one slice takes."""
    found = profile(method, Load(size=size), precision="32", rounds=1)
    slices = found.load.slices
    return {
        "parameters": found.parameters,
        "gflops": found.whole.segment_flops / slices / 1e9,
        "slice_ms": 1000 * found.whole.segment / slices,
        "peak_mib": found.memory.train / 2**20 or None,
    }


def _bytes(results: Results) -> bytes:
    with TemporaryDirectory() as place:
        path = Path(place) / "results.json"
        results.to_json(path)
        return path.read_bytes()


def cost_of(folder: StudyFolder, cell_id: str) -> Mapping[str, Any]:
    """What a finished cell cost; empty for others."""
    path = folder.cost(cell_id)
    return read_json(path) if path.exists() else {}
