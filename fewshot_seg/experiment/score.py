"""One method on one fold: what `evaluate_runs` and its neighbours have in common."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from fewshot_seg.data.folds import Fold
from fewshot_seg.data.prepare import PreparedScan, load_prepared
from fewshot_seg.data.scan import Dataset
from fewshot_seg.evaluation import Matching, Protocol, Results, evaluate_fold, provenance
from fewshot_seg.evaluation.modes import device_of
from fewshot_seg.evaluation.segmented import OnPrediction
from fewshot_seg.evaluation.transductive import pool_rule, usable_scans
from fewshot_seg.experiment.notes import RunNotes
from fewshot_seg.interfaces import Method
from fewshot_seg.precision import resolve_precision

OnProgress = Callable[[int, int], None]
"""Called with how many classes of how many query scans are done with, and how many there are."""


class Tally:
    """Counts what is done, and tells it."""

    def __init__(self, total: int, tell: OnProgress | None) -> None:
        self.done, self.total, self._tell = 0, total, tell

    def __call__(self, number: int) -> None:
        self.done += number
        if self._tell is not None:
            self._tell(self.done, self.total)


class Scans:
    """Prepared scans, each read once as long as fold and preparation stay the same."""

    def __init__(self, dataset: Dataset, cache: str | Path | None) -> None:
        self.dataset, self.cache = dataset, cache
        self._key: tuple[object, ...] = ()
        self._kept: dict[str, PreparedScan] = {}

    def loader(self, notes: RunNotes) -> Callable[[str], PreparedScan]:
        key = (notes.fold, notes.size, notes.channels, notes.intensity)
        if key != self._key:
            self._key, self._kept = key, {}
        kept = self._kept

        def load(scan_id: str) -> PreparedScan:
            if scan_id not in kept:
                kept[scan_id] = load_prepared(
                    self.dataset,
                    scan_id,
                    size=notes.size,
                    intensity=notes.intensity,
                    channels=notes.channels,
                    cache=self.cache,
                )
            return kept[scan_id]

        return load


def score_fold(
    method: Method,
    scans: Scans,
    fold: Fold,
    notes: RunNotes,
    classes: Sequence[int],
    rule: Matching,
    *,
    batch: int,
    device: torch.device | str | None,
    surface: bool,
    unlabelled: str,
    precision: str,
    name: str | None = None,
    on_done: Callable[[int], None] | None = None,
    on_prediction: OnPrediction | None = None,
) -> Results:
    """Score a method on the query scans of a fold, under the protocol that the notes describe.

    classes: ids.   name: of the row; that of the method's recipe unless given.
    on_done, on_prediction, and the others: see `evaluate_fold` and `evaluate_runs`.
    """
    used = torch.device(device_of(method) if device is None else device)
    computed_in = resolve_precision(precision, used)
    load = scans.loader(notes)
    pool, words = pool_rule(method, unlabelled, lambda: usable_scans(load, fold.train))
    scores = evaluate_fold(
        method,
        load,
        fold,
        {value: notes.classes[value] for value in classes},
        matching=rule,
        seed=notes.seed,
        batch=batch,
        device=device,
        surface=surface,
        unlabelled=pool,
        precision=computed_in,
        on_done=on_done,
        on_prediction=on_prediction,
    )
    protocol = Protocol(
        dataset=notes.dataset,
        matching=rule.name,
        uses_query_range=rule.uses_query_range,
        setting=notes.setting_rule,
        n_shot=notes.n_support,
        size=notes.size,
        intensity=notes.intensity_rule,
        n_folds=notes.n_folds,
        fold_rule=notes.fold_rule,
        folds=(notes.fold,),
        seeds=(notes.seed,),
        unlabelled=words,
    )
    if name is None:
        recipe = getattr(method, "recipe", None)
        name = "" if recipe is None else recipe.method
    return Results(protocol, scores, name, provenance(used, method, computed_in))
