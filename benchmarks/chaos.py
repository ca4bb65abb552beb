"""All methods on one test bed: Dice on the real CHAOS T2 scans at equal budget.

    python benchmarks/chaos.py --data path/to/chaos_MR_T2_normalized --out runs/chaos
    python benchmarks/chaos.py --data ... --out runs/chaos --methods apscl --organs "right kidney"
    python benchmarks/chaos.py --data ... --out runs/selfsup --protocol setting1
    python benchmarks/chaos.py --data ... --out runs/fast --methods apscl,apscl_fast --own-training

Protocol "leave_one_organ" trains each method once for each organ, without that organ's labels, on
the same episodes: half of them from labels of the other organs, half from superpixels. Protocol
"setting1" trains once, without any label, as ALPNet, SRNet, LVQM (superpixels) and ADNet
(supervoxels) were. Encoder, training settings and loss weights are the same for every method
(`TRAINING`, `CHANGES`), so the recipes' own are not used; whole networks have a width that brings
their step near that of the others (`OWN`). `copy` and
`copy_registered` (the mask moved by affine registration) need no training.
With --own-training optimiser, learning rate and episodes of a step are each recipe's own, and there
are as many episodes as in --steps of two, so recipes stand beside each other at equal episodes.

Every run is resumable: the same command goes on where it was stopped, and finished runs are only
tested again, so organs can be trained side by side and tabulated together afterwards. The table
names the protocol; figures go to benchmarks/results.
"""

import json
import time
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from fewshot_seg.cli.values import parse_settings
from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.scan import Dataset
from fewshot_seg.errors import check_choice
from fewshot_seg.evaluation import Results
from fewshot_seg.experiment import (
    FINAL,
    augmentation_named,
    evaluate_runs,
    evaluate_unlearned,
    resolve_recipe,
    run_name,
    train_fold,
)
from fewshot_seg.recipe import Recipe
from fewshot_seg.training import TrainConfig

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
"""The same for every method made of parts; all else is the recipe's."""
OWN: dict[str, dict[str, Any]] = {
    "apscl": {"bg": "grid"},
    "apscl_fast": {"bg": "grid"},
    "senet": {"segmenter_width": 32, "conditioner_width": 16},
    "rpnet": {"encoder": {"name": "unet", "width": 16}},
    "gcn_de": {"width_divisor": 2},
    "aas_dcl": {"width": 8},
}
"""Options that only one method has."""
WHOLE = ("senet", "rpnet", "gcn_de", "aas_dcl")
"""Whole networks: they have their own encoder and losses."""
TABLE = (
    "senet", "panet", "alpnet", "poissonseg", "rpnet", "gcn_de", "srnet", "aas_dcl", "adnet",
    "lvqm", "apscl", "copy", "copy_registered",
)  # fmt: skip
UNLEARNED: dict[str, dict[str, Any]] = {"copy": {}, "copy_registered": {"registration": True}}
"""Rows that need no training: the method `copy` with these options."""
ORGANS = ("liver", "right kidney", "left kidney", "spleen")
SELF_SUPERVISED = ("alpnet", "srnet", "lvqm", "adnet")
PROTOCOLS = ("leave_one_organ", "setting1")


def main(
    data: Annotated[Path, typer.Option(help="the folder chaos_MR_T2_normalized")],
    out: Annotated[Path, typer.Option(help="run folders and tables")],
    methods: Annotated[str, typer.Option(help="comma separated; all unless given")] = "",
    organs: Annotated[str, typer.Option(help="comma separated")] = ",".join(ORGANS),
    protocol: Annotated[str, typer.Option(help="leave_one_organ or setting1")] = PROTOCOLS[0],
    steps: Annotated[int, typer.Option(help="optimiser steps of two episodes")] = 600,
    own_training: Annotated[
        bool, typer.Option("--own-training", help="the recipes' own, with as many episodes")
    ] = False,
    fold: int = 0,
    size: int = 128,
    seed: int = 0,
    threads: int = 2,
    augmentation: str = "field",
    pseudo: Annotated[float, typer.Option(help="share of superpixel episodes")] = 0.5,
    surface: Annotated[bool, typer.Option(help="also HD95 and ASSD, which takes longer")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="change every recipe: scale=10; repeatable"),
    ] = None,
) -> None:
    """Train, test and tabulate."""
    torch.set_num_threads(threads)
    check_choice("protocol", protocol, PROTOCOLS)
    alone = protocol == "setting1"
    changes = parse_settings(settings or [])
    dataset = open_folder(root=data)
    console = Console()
    chosen = [organ.strip() for organ in organs.split(",")]
    names = methods or ",".join(SELF_SUPERVISED if alone else TABLE)
    tables: list[Results] = []
    seconds: dict[str, float] = {}
    for method in (name.strip() for name in names.split(",")):
        if method in UNLEARNED:
            tables.append(
                evaluate_unlearned(
                    resolve_recipe("copy", UNLEARNED[method]),
                    dataset,
                    folds=[fold],
                    novel=chosen,
                    size=size,
                    surface=surface,
                    name=method,
                )
            )
            continue
        shared = {} if method in WHOLE else CHANGES
        recipe = resolve_recipe(method, {**shared, **OWN.get(method, {}), **changes})
        episodes = {} if alone else {"source": "supervised", "n_way": 1, "shared": False}
        if not alone:
            episodes |= {"pseudo": pseudo, "min_pixels": 10}
        runs: list[Results] = []
        for held_out in [chosen] if alone else [[organ] for organ in chosen]:
            run = out / method / run_name(fold, held_out)
            start = time.process_time()
            train_fold(
                dataset,
                recipe,
                novel=held_out,
                out=run,
                fold=fold,
                setting=protocol,
                size=size,
                seed=seed,
                training=_own(recipe, steps) if own_training else {**TRAINING, "steps": steps},
                augmentation=augmentation_named(augmentation),
                episodes=episodes,
            )
            seconds[f"{method}, {'+'.join(held_out)}"] = time.process_time() - start
            runs.append(_tested(run, dataset, surface))
            console.print(runs[-1].table())
        tables.append(reduce(Results.merge, runs))
    for found in tables:
        console.print(found.table())
        found.to_json(out / f"{found.name}.json")
        found.to_csv(out / f"{found.name}.csv")
    (out / "cpu_seconds.json").write_text(json.dumps(seconds, indent=1), encoding="utf-8")
    print(_markdown(tables, chosen))


def _own(recipe: Recipe, steps: int) -> dict[str, Any]:
    """The recipe's training, with the episodes of `steps` shared ones."""
    config = TrainConfig.from_dict(recipe.training)
    shared = TRAINING["episodes_per_step"]
    return {
        **recipe.training,
        "steps": max(1, steps * shared // config.episodes_per_step),
        "checkpoint_every": TRAINING["checkpoint_every"],
    }


def _tested(run: Path, dataset: Dataset, surface: bool) -> Results:
    """A run's results, kept beside its checkpoint until that changes."""
    kept, final = run / "results.json", run / FINAL
    if kept.exists() and kept.stat().st_mtime > final.stat().st_mtime:
        return Results.from_json(kept)
    found = evaluate_runs([run], dataset, surface=surface)
    found.to_json(kept)
    return found


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
