"""From nothing to a segmented organ: synthetic scans, training, test, picture, next step."""

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import nn

from fewshot_seg.checkpoint import load_method
from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.folder import Folder
from fewshot_seg.data.nifti import read_labels
from fewshot_seg.data.prepare import prepare
from fewshot_seg.demo.figure import draw_overlay
from fewshot_seg.demo.scans import make_scans
from fewshot_seg.evaluation import Results
from fewshot_seg.evaluation.metrics import dice
from fewshot_seg.experiment import (
    RunNotes,
    evaluate_runs,
    evaluate_untrained,
    fresh_method,
    read_notes,
    resolve_recipe,
    segment_with_checkpoint,
    train_fold,
)
from fewshot_seg.recipe import Recipe

DEFAULT_STEPS = 300
NOVEL = "spleen"
N_SCANS, N_FOLDS, SCAN_SIZE, SIZE = 12, 3, 128, 96
MATCHING = "parts-3"
SETTING = "setting2_any"
"""Slices that show the novel organ are kept out of training: it is not even seen unlabelled."""
TRAINED, UNTRAINED, COPY = "APSCL, trained", "APSCL, untrained", "copy of the example"

CHANGES: Mapping[str, Any] = {
    "encoder": {"name": "timm", "backbone": "dla34", "dim": 64, "in_channels": 1},
    "training.optimizer": "adamw",
    "training.lr": 2e-3,
    "training.weight_decay": 1e-2,
    "training.schedule": "one_cycle",
    "training.clip_norm": 1.0,
    "training.episodes_per_step": 4,
    "training.log_every": 10,
    "training.checkpoint_every": 50,
}
"""What makes APSCL small and quick enough: a shallow encoder trained from scratch, AdamW."""

AUGMENTATION = Augmentation(
    rotation=15.0,
    shift=20.0,
    shear=10.0,
    zoom=(0.75, 1.35),
    elastic=0.0,
    gamma=0.5,
    remap=0.5,
    contrast=0.2,
    brightness=0.2,
    noise=0.1,
)
"""Strong, so that three organs in seven scans are not learnt by heart."""


def run_demo(
    folder: Path,
    *,
    seed: int = 0,
    steps: int = DEFAULT_STEPS,
    n_scans: int = N_SCANS,
    scan_size: int = SCAN_SIZE,
    size: int = SIZE,
    console: Console | None = None,
) -> Mapping[str, Results]:
    """Train a small APSCL on synthetic abdomens without the spleen, and show what it does.

    folder: everything is put there: scans/, run/, results/, overlay.png, prediction.nii.gz.
        A second call goes on where an earlier one stopped, and is quick when that had finished.
    steps: of training.   n_scans, scan_size: of the data set, at least 6 scans.
    size: height and width of the images that the network sees.

    Returns the results of each method by its name. Raises CheckpointError or DataError when the
    folder holds the demonstration of other settings.
    """
    shown = console or Console()
    started = time.monotonic()
    say = _teller(shown)
    say(f"1/4  {n_scans} synthetic abdomens in {folder / 'scans'}")
    dataset = make_scans(folder / "scans", n_scans=n_scans, size=scan_size, seed=seed)
    recipe = resolve_recipe("apscl", CHANGES)
    organs = ", ".join(name for name in dataset.classes.values() if name != NOVEL)
    say(
        f"2/4  training a small APSCL for {steps} steps on {organs};"
        f" no slice of it shows the {NOVEL}"
    )
    checkpoint = train_fold(
        dataset,
        recipe,
        novel=NOVEL,
        setting=SETTING,
        n_folds=N_FOLDS,
        out=folder / "run",
        size=size,
        seed=seed,
        training={"steps": steps},
        augmentation=AUGMENTATION,
        console=shown,
    )
    say(f"3/4  testing on the {NOVEL}, with one labelled scan as example")
    notes = read_notes(checkpoint)
    methods = _methods(recipe, checkpoint, notes)
    results = {
        name: evaluate_untrained(
            method, dataset, notes, name=name, matching=MATCHING, surface=False
        )
        for name, method in methods.items()
        if name != TRAINED
    }
    results[TRAINED] = evaluate_runs(checkpoint, dataset, matching=MATCHING, surface=False)
    for name, one in results.items():
        one.to_json(folder / "results" / f"{name.replace(', ', '_').replace(' ', '_')}.json")
    say("4/4  segmenting a whole scan, and drawing")
    whole = _segment(folder, checkpoint, dataset, notes)
    _draw(folder, methods, dataset, notes, results)
    shown.print()
    shown.print(_table(results))
    shown.print(Text(results[TRAINED].protocol.describe(), style="dim"))
    shown.print()
    _tell_files(shown, folder, dataset, notes, whole)
    shown.print(f"\nDone in {time.monotonic() - started:.0f} s.", highlight=False)
    return results


def _teller(console: Console) -> Any:
    def say(message: str) -> None:
        console.print(Text(message, style="bold"), soft_wrap=True)

    return say


def _methods(recipe: Recipe, checkpoint: Path, notes: RunNotes) -> dict[str, nn.Module]:
    """In the order of the picture's columns."""
    return {
        COPY: fresh_method(Recipe("copy"), size=notes.size, seed=notes.seed),
        UNTRAINED: fresh_method(recipe, size=notes.size, seed=notes.seed).eval(),
        TRAINED: load_method(checkpoint),
    }


def _files(folder: Path, scan_id: str) -> tuple[Path, Path]:
    return (
        folder / "scans" / f"image_{scan_id}.nii.gz",
        folder / "scans" / f"label_{scan_id}.nii.gz",
    )


def _segment(folder: Path, checkpoint: Path, dataset: Folder, notes: RunNotes) -> float:
    """Write prediction.nii.gz for a test scan; its Dice over the whole scan."""
    fold = notes.fold_of(dataset)
    scan, truth = _files(folder, fold.query[0])
    report = segment_with_checkpoint(
        checkpoint, [_files(folder, fold.support[0])], [scan], out=folder, classes=[NOVEL]
    )
    if not report.ok:
        raise RuntimeError(report.failures[0].reason)
    target = folder / "prediction.nii.gz"
    report.written[0].labels.replace(target)
    class_id = notes.novel[0]
    return dice(read_labels(target)[0] == class_id, read_labels(truth)[0] == class_id)


def _draw(
    folder: Path,
    methods: Mapping[str, nn.Module],
    dataset: Folder,
    notes: RunNotes,
    results: Mapping[str, Results],
) -> None:
    fold = notes.fold_of(dataset)
    both = []
    for scan_id in (fold.support[0], fold.query[0]):
        scan = dataset.load(scan_id)
        ready = prepare(scan, size=notes.size, intensity=notes.intensity, channels=notes.channels)
        both.append((scan, ready))
    told = [f"{name} {100 * results[name].mean():.0f} %" for name in methods]
    draw_overlay(
        folder / "overlay.png",
        methods,  # type: ignore[arg-type]  # build has checked that they are methods
        support=both[0],
        query=both[1],
        class_id=notes.novel[0],
        class_name=NOVEL.capitalize(),
        matching=MATCHING,
        caption=f"Synthetic scans. Mean Dice of {len(fold.query)} test scans: {', '.join(told)}.",
    )


def _table(results: Mapping[str, Results]) -> Table:
    """A row for each method, a column for each test scan."""
    first = next(iter(results.values()))
    scans = [row.scan_id for row in first.rows]
    table = Table(
        title=f"{NOVEL.capitalize()}, never seen in training: Dice %",
        title_justify="left",
    )
    table.add_column("method")
    for scan in scans:
        table.add_column(f"scan {scan}", justify="right")
    table.add_column("mean", justify="right", style="bold")
    for name, one in results.items():
        by_scan = {row.scan_id: row.dice for row in one.rows}
        cells = [f"{100 * by_scan[scan]:.1f}" for scan in scans]
        table.add_row(name, *cells, f"{100 * one.mean():.1f}")
    return table


def next_command(folder: Path, support: str, query: str) -> list[str]:
    """Words of the command that segments a scan of the demonstration as one's own."""
    image, labels = _files(folder, support)
    return [
        *("fewshot-seg", "segment", "--checkpoint", str(folder / "run")),
        *("--support", str(image), "--label", str(labels), "--class", NOVEL),
        *("--out", str(folder / "segmented"), str(_files(folder, query)[0])),
    ]


def _tell_files(
    console: Console, folder: Path, dataset: Folder, notes: RunNotes, whole: float
) -> None:
    fold = notes.fold_of(dataset)
    scan = _files(folder, fold.query[0])[0]
    lines = [
        f"picture      {folder / 'overlay.png'}",
        f"prediction   {folder / 'prediction.nii.gz'} for {scan}",
        f"             (whole scan, not knowing where the {NOVEL} is: Dice {100 * whole:.1f} %)",
        f"checkpoint   {folder / 'run' / 'final.safetensors'}",
        "",
        "These scans are synthetic: the numbers say nothing about real ones.",
        "Segment another scan by one labelled example; put your own files in its place:",
        "",
        shlex.join(next_command(folder, fold.support[0], fold.query[-1])),
        "",
        "Train on your own labelled scans (see docs/your-own-data.md):",
        "",
        "fewshot-seg data check MY_FOLDER",
        "fewshot-seg train apscl --data MY_FOLDER --novel MY_ORGAN --out runs",
    ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
