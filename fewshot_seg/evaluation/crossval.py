"""Cross-validation: every fold, every class held out, one protocol."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial

import torch

from fewshot_seg.data.folds import Fold, make_folds
from fewshot_seg.data.intensity import Intensity, fit_intensity
from fewshot_seg.data.prepare import PreparedScan, prepare
from fewshot_seg.data.scan import Dataset
from fewshot_seg.data.settings import check_setting, class_ids
from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.evaluation.fold import evaluate_fold
from fewshot_seg.evaluation.matching import get_matching
from fewshot_seg.evaluation.modes import device_of
from fewshot_seg.evaluation.protocol import Protocol
from fewshot_seg.evaluation.provenance import provenance
from fewshot_seg.evaluation.results import Results
from fewshot_seg.evaluation.scores import FoldScores, require_rows
from fewshot_seg.evaluation.transductive import pool_rule, usable_scans
from fewshot_seg.interfaces import Method
from fewshot_seg.precision import PRECISIONS, resolve_precision

MakeMethod = Callable[[Fold, str], Method]


def cross_validate(
    dataset: Dataset,
    make_method: MakeMethod,
    *,
    name: str = "",
    folds: Sequence[int] | None = None,
    classes: Iterable[str | int] | None = None,
    matching: str = "parts-3",
    setting: str = "setting1",
    n_folds: int = 5,
    n_shot: int = 1,
    fold_rule: str = "alpnet",
    size: int | tuple[int, int] = 256,
    channels: int = 3,
    intensity: Intensity | None = None,
    seed: int = 0,
    batch: int = 8,
    device: torch.device | str | None = None,
    surface: bool = True,
    unlabelled: str = "train",
    precision: str = "32",
    on_scores: Callable[[FoldScores], None] | None = None,
) -> Results:
    """Score `make_method(fold, novel class)` on every fold and class.

    make_method: hands out the method to be tested on a class in a fold; trains it first, if it
        learns, on `fold.train` only. It is called for each pair and may answer with the same
        method twice (in setting 1 one method serves all classes of a fold).
    name: of what is evaluated, for tables.
    folds: indices of the folds to run; all unless given.   classes: names or ids; all unless given.
    matching: name of the slice matching, see `get_matching`.
    setting: what training was allowed to see (see `SETTINGS`); recorded, `make_method` keeps it.
    n_shot: support scans of each fold.   fold_rule: see `make_folds`.
    size: height and width of the images the method sees, one number for both.
    channels: of those images.
    intensity: normalisation; fitted on each fold's training scans unless given.
    seed: the run seed of the method, recorded.
    batch, device, surface, precision: see `evaluate_scan`.
    unlabelled: where methods that need unlabelled images get them, "train" or "query" scans.
    on_scores: called with the scores of each fold and class as soon as they are known.

    Raises UnknownNameError for an unknown matching, setting or class, OptionError for a fold that
    does not exist or another precision, DataError when no scan at all could be scored, and what
    `make_method` raises.
    """
    check_setting(setting, ())
    check_choice("precision", precision, PRECISIONS)
    rule = get_matching(matching)
    chosen = _choose(
        make_folds(dataset.ids, n_folds=n_folds, n_support=n_shot, rule=fold_rule), folds
    )
    ids = class_ids(dataset.classes, dataset.classes if classes is None else classes)
    protocol = Protocol(
        dataset=dataset.name,
        matching=rule.name,
        uses_query_range=rule.uses_query_range,
        setting=setting,
        n_shot=n_shot,
        size=(size, size) if isinstance(size, int) else size,
        intensity=intensity_rule(dataset, intensity),
        n_folds=n_folds,
        fold_rule=fold_rule,
        folds=tuple(fold.index for fold in chosen),
        seeds=(seed,),
    )
    scores = FoldScores()
    origin = provenance()
    for fold in chosen:
        load = _loader(dataset, fold, size, channels, intensity)
        for class_id in ids:
            class_name = dataset.classes[class_id]
            method = make_method(fold, class_name)
            used = torch.device(device_of(method) if device is None else device)
            computed_in = resolve_precision(precision, used)
            pool, words = pool_rule(method, unlabelled, partial(usable_scans, load, fold.train))
            if words != protocol.unlabelled:
                protocol = replace(protocol, unlabelled=words)
            found = evaluate_fold(
                method,
                load,
                fold,
                {class_id: class_name},
                matching=rule,
                seed=seed,
                batch=batch,
                device=device,
                surface=surface,
                unlabelled=pool,
                precision=computed_in,
            )
            origin = provenance(used, method, computed_in)
            scores += found
            if on_scores is not None:
                on_scores(found)
    require_rows(scores, dataset.name)
    return Results(protocol, scores, name, origin)


def intensity_rule(dataset: Dataset, intensity: Intensity | None) -> str:
    """The normalisation in words, for the protocol."""
    if intensity is None and dataset.modality == "ct":
        return "mean and standard deviation of the training scans"
    if intensity is None:
        return "z-score of each scan"
    words = "z-score of each scan"
    if intensity.mean is not None:
        words = f"mean {intensity.mean:.4g}, standard deviation {intensity.std:.4g}"
    if intensity.window is not None:
        words += " within {:g} to {:g}".format(*intensity.window)
    return words


def _choose(folds: Sequence[Fold], wanted: Sequence[int] | None) -> list[Fold]:
    if wanted is None:
        return list(folds)
    if unknown := sorted(set(wanted) - set(range(len(folds)))):
        raise OptionError(f"there are folds 0 to {len(folds) - 1}; got {unknown}")
    return [folds[index] for index in dict.fromkeys(wanted)]


def _loader(
    dataset: Dataset,
    fold: Fold,
    size: int | tuple[int, int],
    channels: int,
    intensity: Intensity | None,
) -> Callable[[str], PreparedScan]:
    """Reads a scan once a fold, however many classes are evaluated; forgotten with the fold."""
    known = intensity or fit_intensity(dataset, fold.train)

    @cache
    def load(scan_id: str) -> PreparedScan:
        return prepare(dataset.load(scan_id), size=size, intensity=known, channels=channels)

    return load
