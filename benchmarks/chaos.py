"""Leave one organ out on CHAOS T2: Dice of each novel organ for several methods, at equal budget.

    python benchmarks/chaos.py --data path/to/chaos_MR_T2_normalized --out runs/chaos
    python benchmarks/chaos.py --data ... --out runs/chaos --methods apscl --organs "right kidney"

Every run is resumable: the same command goes on where it was stopped, and finished runs are only
tested again, so organs can be trained side by side and tabulated together afterwards. Training
settings are the same for every method (`TRAINING`, `CHANGES`), so the recipe's own optimiser is not
used; `copy` needs no training. The table names the protocol; figures go to benchmarks/results.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from fewshot_seg.cli.values import parse_settings
from fewshot_seg.data.folder import open_folder
from fewshot_seg.evaluation import Results
from fewshot_seg.experiment import (
    augmentation_named,
    evaluate_runs,
    evaluate_unlearned,
    resolve_recipe,
    run_name,
    train_fold,
)

TRAINING: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.01,
    "schedule": "one_cycle",
    "clip_norm": 5.0,
    "episodes_per_step": 2,
    "precision": "auto",
    "channels_last": True,
    "checkpoint_every": 250,
}
CHANGES: dict[str, Any] = {"encoder": "resnet18", "ce_weights": [0.3, 1.0]}
"""The same for every method; all else is the recipe's."""
OWN: dict[str, dict[str, Any]] = {"apscl": {"bg": "grid"}}
"""Options that only one method has."""
ORGANS = ("liver", "right kidney", "left kidney", "spleen")


def main(
    data: Annotated[Path, typer.Option(help="the folder chaos_MR_T2_normalized")],
    out: Annotated[Path, typer.Option(help="run folders and tables")],
    methods: Annotated[str, typer.Option(help="of apscl, panet, copy")] = "apscl,panet,copy",
    organs: Annotated[str, typer.Option(help="comma separated")] = ",".join(ORGANS),
    steps: Annotated[int, typer.Option(help="optimiser steps of two episodes")] = 1200,
    fold: int = 0,
    size: int = 128,
    seed: int = 0,
    threads: int = 2,
    augmentation: str = "field",
    pseudo: Annotated[float, typer.Option(help="share of superpixel episodes")] = 0.5,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="change every recipe: scale=10; repeatable"),
    ] = None,
) -> None:
    """Train, test and tabulate."""
    torch.set_num_threads(threads)
    changes = parse_settings(settings or [])
    dataset = open_folder(root=data)
    console = Console()
    chosen = [organ.strip() for organ in organs.split(",")]
    tables: list[Results] = []
    seconds: dict[str, float] = {}
    for method in (name.strip() for name in methods.split(",")):
        if method == "copy":
            tables.append(
                evaluate_unlearned("copy", dataset, folds=[fold], novel=chosen, size=size)
            )
            continue
        runs = []
        for organ in chosen:
            run = out / method / run_name(fold, [organ])
            start = time.process_time()
            train_fold(
                dataset,
                resolve_recipe(method, {**CHANGES, **OWN.get(method, {}), **changes}),
                novel=organ,
                out=run,
                fold=fold,
                size=size,
                seed=seed,
                training={**TRAINING, "steps": steps},
                augmentation=augmentation_named(augmentation),
                pseudo=pseudo,
                min_pixels=10,
            )
            seconds[f"{method}, {organ}"] = time.process_time() - start
            runs.append(run)
            found = evaluate_runs([run], dataset)
            console.print(found.table())
            (run / "results.md").write_text(_line(found) + "\n", encoding="utf-8")
        tables.append(evaluate_runs(runs, dataset))
    for found in tables:
        console.print(found.table())
        found.to_json(out / f"{found.name}.json")
        found.to_csv(out / f"{found.name}.csv")
    (out / "cpu_seconds.json").write_text(json.dumps(seconds, indent=1), encoding="utf-8")
    print(_markdown(tables, chosen))


def _line(results: Results) -> str:
    return f"{results.name}: " + ", ".join(
        f"{name} {100 * results.mean(name):.1f}" for name in results.classes
    )


def _markdown(tables: Iterable[Results], organs: list[str]) -> str:
    """A row a method: Dice in per cent of each organ, and their mean."""
    lines = [f"| method | {' | '.join(organs)} | mean |", "|---" * (len(organs) + 2) + "|"]
    for found in tables:
        values = [100 * found.mean(organ) for organ in organs]
        cells = [f"{value:.1f}" for value in [*values, sum(values) / len(values)]]
        lines.append(f"| {found.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
