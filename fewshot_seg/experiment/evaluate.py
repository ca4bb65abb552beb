"""Test trained runs, and methods that nobody trained, under one protocol."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewshot_seg.building import recipe_of
from fewshot_seg.checkpoint import load_method
from fewshot_seg.data.folds import make_folds
from fewshot_seg.data.intensity import fit_intensity
from fewshot_seg.data.pseudo_cache import AUTO
from fewshot_seg.data.scan import Dataset
from fewshot_seg.data.settings import class_ids
from fewshot_seg.errors import CheckpointError, DataError, OptionError, check_choice
from fewshot_seg.evaluation import FoldScores, Results, get_matching
from fewshot_seg.evaluation.scores import require_rows
from fewshot_seg.evaluation.segmented import OnPrediction
from fewshot_seg.experiment.notes import RunNotes, checkpoint_path, find_runs, read_notes
from fewshot_seg.experiment.score import OnProgress, Scans, Tally, score_fold
from fewshot_seg.experiment.train import choose_fold, fresh_method
from fewshot_seg.inference import channels_of
from fewshot_seg.precision import PRECISIONS
from fewshot_seg.recipe import Recipe

OnScores = Callable[[FoldScores], None]


def evaluate_runs(
    runs: Path | Sequence[Path],
    dataset: Dataset,
    *,
    matching: str = "parts-3",
    folds: Iterable[int] | None = None,
    novel: Iterable[str | int] | None = None,
    batch: int = 8,
    device: torch.device | str | None = None,
    surface: bool = True,
    unlabelled: str = "train",
    precision: str = "32",
    cache: str | Path | None = AUTO,
    changes: Mapping[str, Any] | None = None,
    on_scores: OnScores | None = None,
    on_progress: OnProgress | None = None,
    on_prediction: OnPrediction | None = None,
) -> Results:
    """Test each trained run on its own fold and the classes it did not see.

    runs: checkpoints, run folders, or a folder of run folders; all of one recipe and protocol.
    dataset: the one they were trained on.
    folds, novel: restrict to these folds and classes; every run's own unless given.
    matching: see `get_matching`.   batch, device, surface: see `evaluate_scan`.
    unlabelled: where methods that need unlabelled images get them: "train", the fold's training
        scans, or "query", other slices of the query scan.
    precision: "32", "bf16", or "auto" for bf16 where the hardware computes in it; recorded in
        the results' provenance.
    cache: folder for prepared scans, see `load_prepared`.
    changes: overrides of the recipe for this test alone, as `build` takes them; the weights must
        still fit.
    on_scores: called with the scores of each run.   on_progress: see `OnProgress`.
    on_prediction: given the masks of each class in each scan, see `Segmented`.
    Raises CheckpointError for a checkpoint of another recipe or data set, UnknownNameError for an
    unknown matching or class, OptionError for another precision, DataError when nothing could be
    scored.
    """
    rule = get_matching(matching)
    given = [runs] if isinstance(runs, Path) else list(runs)
    checkpoints = [found for one in given for found in find_runs(one)]
    pairs = [(path, read_notes(path)) for path in checkpoints]
    splits = {path: notes.fold_of(dataset) for path, notes in pairs}
    wanted = None if novel is None else set(class_ids(dataset.classes, novel))
    chosen = set(folds) if folds is not None else None
    pairs = [
        (path, notes)
        for path, notes in pairs
        if (chosen is None or notes.fold in chosen)
        and (wanted is None or wanted & set(notes.novel))
    ]
    if not pairs:
        raise DataError(_nothing_chosen(checkpoints))
    scans = Scans(dataset, cache)
    asked = {
        path: [one for one in notes.novel if wanted is None or one in wanted]
        for path, notes in pairs
    }
    tally = Tally(
        sum(len(splits[path].query) * len(classes) for path, classes in asked.items()), on_progress
    )
    results: Results | None = None
    for path, notes in sorted(pairs, key=lambda pair: (pair[1].fold, pair[1].novel)):
        method = load_method(path, **(changes or {}))
        found = score_fold(
            method,  # type: ignore[arg-type]  # build has checked that it is a Method
            scans,
            splits[path],
            notes,
            asked[path],
            rule,
            batch=batch,
            device=device,
            surface=surface,
            unlabelled=unlabelled,
            precision=precision,
            on_done=tally,
            on_prediction=on_prediction,
        )
        if on_scores is not None:
            on_scores(found.scores)
        results = found if results is None else _joined(results, found, path)
    assert results is not None
    require_rows(results.scores, dataset.name)
    return results


def evaluate_untrained(
    method: nn.Module,
    dataset: Dataset,
    like: RunNotes,
    *,
    name: str,
    matching: str = "parts-3",
    batch: int = 8,
    device: torch.device | str | None = None,
    surface: bool = True,
    unlabelled: str = "train",
    precision: str = "32",
    cache: str | Path | None = AUTO,
    on_prediction: OnPrediction | None = None,
) -> Results:
    """Test any method under the protocol of a trained run: the row beside it in a table."""
    found = score_fold(
        method,  # type: ignore[arg-type]
        Scans(dataset, cache),
        like.fold_of(dataset),
        like,
        like.novel,
        get_matching(matching),
        batch=batch,
        device=device,
        surface=surface,
        unlabelled=unlabelled,
        precision=precision,
        name=name,
        on_prediction=on_prediction,
    )
    require_rows(found.scores, dataset.name)
    return found


def evaluate_unlearned(
    method: str | Recipe,
    dataset: Dataset,
    *,
    matching: str = "parts-3",
    folds: Iterable[int] | None = None,
    novel: Iterable[str | int] | None = None,
    size: int | tuple[int, int] = 256,
    setting: str = "leave_one_organ",
    n_folds: int = 5,
    n_support: int = 1,
    fold_rule: str = "alpnet",
    window: tuple[float, float] | None = None,
    seed: int = 0,
    batch: int = 8,
    device: torch.device | str | None = None,
    surface: bool = True,
    unlabelled: str = "train",
    precision: str = "32",
    cache: str | Path | None = AUTO,
    name: str | None = None,
    on_scores: OnScores | None = None,
    on_progress: OnProgress | None = None,
    on_prediction: OnPrediction | None = None,
) -> Results:
    """Test a method as it is built, on every fold and class or those given.

    method: a registered name, or a recipe. One with weights is tested with those that `seed`
        gives it, and named "(untrained)".
    name: of the row, in place of the method's.
    Other arguments as in `train_fold` and `evaluate_runs`, which it raises as well.
    """
    rule = get_matching(matching)
    check_choice("precision", precision, PRECISIONS)
    height, width = (size, size) if isinstance(size, int) else size
    recipe = recipe_of(method)
    network = fresh_method(recipe, size=(height, width), seed=seed)
    if name is None:
        learns = any(True for _ in network.parameters())
        name = f"{recipe.method} (untrained)" if learns else recipe.method
    splits = make_folds(dataset.ids, n_folds=n_folds, n_support=n_support, rule=fold_rule)
    chosen = range(len(splits)) if folds is None else list(dict.fromkeys(folds))
    classes = class_ids(dataset.classes, dataset.classes if novel is None else novel)
    scans = Scans(dataset, cache)
    folds_run = [
        choose_fold(dataset, index, n_folds=n_folds, n_support=n_support, rule=fold_rule)
        for index in chosen
    ]
    tally = Tally(sum(len(split.query) for split in folds_run) * len(classes), on_progress)
    results: Results | None = None
    for split in folds_run:
        notes = RunNotes(
            dataset=dataset.name,
            modality=dataset.modality,
            classes=dict(dataset.classes),
            ids=tuple(dataset.ids),
            novel=classes,
            base=(),
            fold=split.index,
            n_folds=n_folds,
            n_support=n_support,
            fold_rule=fold_rule,
            setting=setting,
            size=(height, width),
            channels=channels_of(network),
            intensity=fit_intensity(dataset, split.train, window=window, cache=cache),
            window=window,
            seed=seed,
        )
        found = score_fold(
            network,  # type: ignore[arg-type]
            scans,
            split,
            notes,
            classes,
            rule,
            batch=batch,
            device=device,
            surface=surface,
            unlabelled=unlabelled,
            precision=precision,
            name=name,
            on_done=tally,
            on_prediction=on_prediction,
        )
        if on_scores is not None:
            on_scores(found.scores)
        results = found if results is None else results.merge(found)
    if results is None:
        raise OptionError("no fold was asked for")
    require_rows(results.scores, dataset.name)
    return results


def _joined(results: Results, found: Results, path: Path) -> Results:
    try:
        return results.merge(found)
    except ValueError as error:
        raise CheckpointError(
            f"{path} cannot be judged together with the runs before it: {error}. "
            "Evaluate them one by one"
        ) from error


def _nothing_chosen(checkpoints: Sequence[Path]) -> str:
    there = []
    for path in checkpoints:
        notes = read_notes(checkpoint_path(path))
        there.append(f"fold {notes.fold} without {', '.join(notes.novel_names)}")
    return f"no run has the folds and classes asked for; there are: {'; '.join(there)}"
