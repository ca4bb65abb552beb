"""One cell from beginning to end: train, or go on training, then test."""

import time
from typing import Any

import torch
from rich.console import Console
from torch import nn

from fewshot_seg.ablation.artefacts import PredictionWriter, features_of_run, write_features
from fewshot_seg.ablation.cell import Cell
from fewshot_seg.ablation.cost import cost_at_test
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
from fewshot_seg.training import TrainConfig
from fewshot_seg.training.hardware import choose_accelerator

RUN, COST = "run", "cost.json"
UNTRAINED = {"steps": 0, "train_seconds": 0.0, "train_cpu_seconds": 0.0}


def do_cell(
    cell: Cell, source: Source, folder: StudyFolder, *, device: str | None, console: Console | None
) -> None:
    """Train and test a cell and keep its results; the caller holds the cell's lock.

    device: "cpu", "cuda", or None for a GPU where there is one.
    console: where training shows its progress; None for nowhere.
    Raises whatever went wrong.
    """
    place = torch.device(choose_accelerator("auto") if device is None else device)
    size = cell.protocol.size
    method = fresh_method(cell.recipe, size=(size, size), seed=cell.seed)
    if any(parameter.requires_grad for parameter in method.parameters()):
        del method
        cost = train_cell(cell, source, folder, device=place, console=console)
        begin = time.monotonic()
        results = _tested(cell, source, folder, place)
    else:
        cost = {
            "steps": 0,
            "train_seconds": 0.0,
            "train_cpu_seconds": 0.0,
            **_size(method, cell, place),
        }
        begin = time.monotonic()
        results = _untrained(cell, source, folder, place)
    cost = {**cost, "test_seconds": time.monotonic() - begin}
    folder.finish(cell.id, results.to_bytes(), cost)


def train_cell(
    cell: Cell,
    source: Source,
    folder: StudyFolder,
    *,
    device: torch.device,
    console: Console | None,
) -> dict[str, Any]:
    """Train the cell, unless another cell has already; what training costs."""
    place = folder.training(cell.training)
    with folder.lock(place):
        if (place / COST).exists() and (place / RUN / FINAL).exists():
            return read_json(place / COST)
        fresh = not (place / RUN / "run.toml").exists()
        wall, cpu = time.monotonic(), time.process_time()
        protocol = cell.protocol
        train_fold(
            source.dataset,
            cell.recipe,
            novel=cell.novel,
            out=place / RUN,
            fold=cell.fold,
            setting=protocol.setting,
            size=protocol.size,
            seed=cell.seed,
            training={"accelerator": device.type},
            augmentation=augmentation_named(protocol.augmentation),
            n_folds=protocol.n_folds,
            n_support=protocol.n_support,
            fold_rule=protocol.fold_rule,
            window=protocol.window,
            progress=console is not None,
            console=console,
        )
        cost: dict[str, Any] = {"steps": TrainConfig.from_dict(cell.recipe.training).steps}
        if fresh:  # of a training that was taken up again only the last part is known
            cost["train_seconds"] = time.monotonic() - wall
            cost["train_cpu_seconds"] = time.process_time() - cpu
        if device.type == "cuda":
            cost["peak_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
        cost |= _size(load_method(place / RUN / FINAL), cell, device)
        write_json(place / COST, cost)
        return cost


def _tested(cell: Cell, source: Source, folder: StudyFolder, device: torch.device) -> Results:
    protocol = cell.protocol
    run = folder.training(cell.training) / RUN
    writer = _writer(cell, folder)
    results = evaluate_runs(
        run,
        source.dataset,
        matching=protocol.matching,
        surface=protocol.surface,
        unlabelled=protocol.unlabelled,
        device=device,
        changes=cell.test,
        on_prediction=writer,
    )
    if writer is not None:
        writer.write()
    if protocol.features:
        sample = features_of_run(
            run,
            source.dataset,
            matching=protocol.matching,
            changes=cell.test,
            unlabelled=protocol.unlabelled,
            device=device,
        )
        write_features(folder.features(cell.id), sample)
    return results


def _untrained(cell: Cell, source: Source, folder: StudyFolder, device: torch.device) -> Results:
    protocol = cell.protocol
    writer = _writer(cell, folder)
    results = evaluate_unlearned(
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
        on_prediction=writer,
    )
    if writer is not None:
        writer.write()
    return results


def _writer(cell: Cell, folder: StudyFolder) -> PredictionWriter | None:
    """What keeps the masks for the report, if they are wanted."""
    if not cell.protocol.predictions:
        return None
    return PredictionWriter(
        folder.predictions(cell.id), scans=folder.scans, data_version=cell.data_version
    )


def _size(method: nn.Module, cell: Cell, device: torch.device) -> dict[str, Any]:
    return cost_at_test(method, size=cell.protocol.size, device=device)
