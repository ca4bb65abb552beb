"""Synthetic studies on disk, as `fewshot-seg ablate` leaves them, for tests of what reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_seg.ablation.cell import Cell
from fewshot_seg.ablation.folder import StudyFolder
from fewshot_seg.ablation.request import Protocols
from fewshot_seg.evaluation import FoldScores, Protocol, Results, ScanScore
from fewshot_seg.recipe import Part, Recipe

ORGANS = ("liver", "spleen")
PROTOCOL = Protocol(
    dataset="chaos",
    matching="parts-3",
    uses_query_range=True,
    setting="leave_one_organ",
    n_shot=1,
    size=(128, 128),
    intensity="z-score of each scan",
    n_folds=5,
    folds=(0,),
)
PROVENANCE = {"date": "2026-01-02T03:04:05+00:00", "device": "cpu", "commit": "0123abc"}


@dataclass(frozen=True)
class Row:
    """A variant: its labels, its true Dice, and how far its scans spread around it."""

    variant: str
    labels: Mapping[str, str]
    dice: float
    spread: float = 0.05
    recipe: Recipe = field(default_factory=lambda: Recipe("apscl", encoder=Part("resnet18")))


def write_study(
    root: Path,
    rows: Sequence[Row],
    *,
    name: str = "synthetic",
    title: str = "A synthetic study",
    reference: str = "",
    paper: Mapping[str, Mapping[str, float]] | None = None,
    organs: Sequence[str] = ORGANS,
    folds: Sequence[int] = (0,),
    seeds: Sequence[int] = (0,),
    n_scans: int = 4,
    protocol: Protocol = PROTOCOL,
    data_version: str = "v1",
    failed: Sequence[tuple[str, str]] = (),
    missing: Sequence[tuple[str, str]] = (),
    provenance: Mapping[str, str] = PROVENANCE,
    seed: int = 0,
) -> StudyFolder:
    """A study of `rows` x organs x folds x seeds, every cell done but those named.

    failed, missing: (variant, organ) of cells without results.   seed: of the scores.
    """
    folder = StudyFolder(root)
    random = np.random.default_rng(seed)
    cells: list[Cell] = []
    for row in rows:
        for organ in organs:
            for fold in folds:
                for one in seeds:
                    rules = Protocols(novel=(organ,), folds=(fold,), seeds=(one,), size=128)
                    # a setting of its own, so that no two rows are the same cell
                    recipe = replace(row.recipe, weights={**row.recipe.weights, row.variant: 1.0})
                    cells.append(
                        Cell(row.variant, row.labels, recipe, rules, "chaos", data_version)
                    )
    plan: dict[str, Any] = {
        "name": name,
        "title": title,
        "axes": list(rows[0].labels) if rows else [],
        "variants": [row.variant for row in rows],
        "reference": reference,
        "paper": {key: dict(value) for key, value in (paper or {}).items()},
        "cells": [{**cell.to_dict(), "dataset": protocol.dataset} for cell in cells],
    }
    folder.claim(plan, f'name = "{name}"\n')
    by_name = {row.variant: row for row in rows}
    for cell in cells:
        at = (cell.variant, cell.novel[0])
        if at in missing:
            continue
        if at in failed:
            folder.fail(cell.id, "DataError: no scan <b>could</b> be scored", "Traceback ...")
            continue
        row = by_name[cell.variant]
        finish(folder, cell, random.normal(row.dice, row.spread, n_scans), protocol, provenance)
    return folder


def finish(
    folder: StudyFolder,
    cell: Cell,
    dices: Sequence[float],
    protocol: Protocol = PROTOCOL,
    provenance: Mapping[str, str] = PROVENANCE,
) -> None:
    """Write a cell's results: the Dice of each scan."""
    rows = tuple(
        ScanScore(
            fold=cell.fold,
            class_name=cell.novel[0],
            scan_id=str(index + 1),
            dice=float(np.clip(dice, 0, 1)),
            hd95=None,
            assd=None,
            unit="mm",
            n_slices=12,
            n_predicted=100,
            n_truth=120,
            slice_dice=float(np.clip(dice - 0.05, 0, 1)),
            seed=cell.seed,
        )
        for index, dice in enumerate(dices)
    )
    rules = replace(protocol, folds=(cell.fold,), seeds=(cell.seed,))
    results = Results(rules, FoldScores(rows), cell.recipe.method, dict(provenance))
    cost = {
        "train_seconds": 120.0,
        "train_cpu_seconds": 110.0,
        "test_seconds": 6.0,
        "steps": 400,
        "parameters": 12_000_000,
        "gflops": 4.2,
        "slice_ms": 20.0,
        "peak_mib": 300.0,
    }
    folder.finish(cell.id, results.to_bytes(), cost)
