"""Scores of a method on query scans: one scan, then one fold."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool

from fewshot_seg.data.folds import Fold
from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.errors import DataError, check_choice
from fewshot_seg.evaluation.encoded import EncodedSlices
from fewshot_seg.evaluation.matching import Matching, Part, Stack
from fewshot_seg.evaluation.metrics import count, mean_slice_dice, surface_distances
from fewshot_seg.evaluation.predict import predict, support_mask
from fewshot_seg.evaluation.scores import FoldScores, ScanScore, Unscored
from fewshot_seg.evaluation.segmented import OnPrediction, Segmented
from fewshot_seg.evaluation.transductive import PoolOf
from fewshot_seg.interfaces import Method
from fewshot_seg.precision import PRECISIONS

log = logging.getLogger(__name__)


def evaluate_scan(
    method: Method,
    support: Sequence[PreparedScan],
    query: PreparedScan,
    *,
    class_id: int,
    matching: Matching,
    class_name: str | None = None,
    fold: int = 0,
    seed: int = 0,
    batch: int = 8,
    device: torch.device | str | None = None,
    surface: bool = True,
    unlabelled: PoolOf | None = None,
    precision: str = "32",
    on_prediction: OnPrediction | None = None,
    encoded: EncodedSlices | None = None,
) -> ScanScore:
    """Segment one class in a query scan and compare with its labels at their own resolution.

    support: the labelled scans; several are several shots.
    matching: which slices are paired and scored, see `get_matching`.
    class_name, fold, seed: written into the score; the class's number unless it has a name.
    batch: query slices in one call.   device: where to compute (None: where the method is).
    surface: also measure HD95 and ASSD, which takes seconds for a large organ.
    unlabelled: gives a query scan's unlabelled slices, to methods that need them.
    precision: "32", "bf16", or "auto" for bf16 where the hardware computes in it.
    on_prediction: given the masks that the score was computed from.
    encoded: the query's slices, where they are asked for other classes too.

    The method is in eval mode meanwhile, and never sees a label of the query. Dice is 0 when
    nothing is predicted.
    Raises DataError when a support scan or the query does not show the class.
    """
    name = class_name or f"class {class_id}"
    paired = matching.match(
        [stack_of(scan, _slices(scan, class_id, name, "support")) for scan in support],
        stack_of(query, _slices(query, class_id, name, "query")),
    )
    truth = _labels(query) == class_id
    found = predict(
        method,
        support,
        query.images,
        class_id=class_id,
        parts=paired.parts,
        size=(truth.shape[1], truth.shape[2]),
        batch=batch,
        device=device,
        unlabelled=None if unlabelled is None else unlabelled(query),
        precision=precision,
        encoded=encoded,
    )
    slices = list(paired.scored)
    nothing = np.zeros_like(truth[0])
    masks = {index: found.get(index, nothing) for index in slices}
    prediction, marked = np.stack(list(masks.values())), truth[slices]
    counts = count(prediction, marked)
    distances = None
    if surface:
        distances = surface_distances(
            _volume(masks, slices), _volume(dict(enumerate(truth)), slices), query.spacing
        )
    score = ScanScore(
        fold=fold,
        class_name=name,
        scan_id=query.id,
        dice=counts.dice,
        hd95=None if distances is None else distances.hd95,
        assd=None if distances is None else distances.assd,
        unit="px" if query.spacing is None else "mm",
        n_slices=len(slices),
        n_predicted=counts.true_positive + counts.false_positive,
        n_truth=counts.true_positive + counts.false_negative,
        slice_dice=mean_slice_dice(prediction, marked),
        seed=seed,
        notes=(*_notes(masks, support, paired.parts, class_id), *paired.notes),
    )
    if on_prediction is not None:
        on_prediction(Segmented(score, query, paired.scored, prediction, marked))
    return score


def evaluate_fold(
    method: Method,
    load: Callable[[str], PreparedScan],
    fold: Fold,
    classes: Mapping[int, str],
    *,
    matching: Matching,
    seed: int = 0,
    batch: int = 8,
    device: torch.device | str | None = None,
    surface: bool = True,
    unlabelled: PoolOf | None = None,
    precision: str = "32",
    on_done: Callable[[int], None] | None = None,
    on_prediction: OnPrediction | None = None,
) -> FoldScores:
    """Score the fold's query scans on each class (id -> name); options as in `evaluate_scan`.

    load: scan id -> prepared scan; called once for a support scan, once for a query scan.
    on_done: called with a number of classes that a query scan is done with, for a progress
        display; the numbers sum up to all classes of all query scans, failures included.

    A query scan that does not show a class is skipped. One that cannot be evaluated, for whatever
    reason, is named among the failures with that reason (the log has the traceback), and the
    others go on.
    Raises OptionError for another precision, and what `on_prediction` raises.
    """
    check_choice("precision", precision, PRECISIONS)
    support: list[PreparedScan] = []
    scores = FoldScores()
    done = on_done or (lambda _: None)
    for scan_id in fold.query:
        try:
            # Within the loop, so that a damaged support file shows as the failure it causes.
            support = support or [load(one) for one in fold.support]
            query = load(scan_id)
            absent = _absent(query, classes)
        except Exception as error:
            scores += _failed(error, fold, scan_id, classes.values(), seed)
            done(len(classes))
            continue
        scores += _skipped(fold, scan_id, [classes[class_id] for class_id in absent], seed)
        done(len(absent))
        several = len(classes) - len(absent) > 1
        encoded = EncodedSlices(query.images) if several else None
        for class_id in classes:
            if class_id in absent:
                continue
            segmented: list[Segmented] = []
            try:
                row = evaluate_scan(
                    method,
                    support,
                    query,
                    class_id=class_id,
                    matching=matching,
                    class_name=classes[class_id],
                    fold=fold.index,
                    seed=seed,
                    batch=batch,
                    device=device,
                    surface=surface,
                    unlabelled=unlabelled,
                    precision=precision,
                    on_prediction=segmented.append,
                    encoded=encoded,
                )
            except Exception as error:
                scores += _failed(error, fold, scan_id, [classes[class_id]], seed)
            else:
                scores += FoldScores(rows=(row,))
            if on_prediction is not None and segmented:
                on_prediction(segmented[0])  # out here: its errors are no failures of the scan
            done(1)
    return scores


def _failed(
    error: Exception, fold: Fold, scan_id: str, names: Iterable[str], seed: int
) -> FoldScores:
    log.error("fold %d, scan %s: %s", fold.index, scan_id, error, exc_info=error)
    reason = f"{type(error).__name__}: {error}"
    return FoldScores(
        failures=tuple(
            Unscored(fold=fold.index, class_name=name, scan_id=scan_id, reason=reason, seed=seed)
            for name in names
        )
    )


def _skipped(fold: Fold, scan_id: str, names: Sequence[str], seed: int) -> FoldScores:
    reason = "the scan does not show the class"
    return FoldScores(
        skipped=tuple(
            Unscored(fold=fold.index, class_name=name, scan_id=scan_id, reason=reason, seed=seed)
            for name in names
        )
    )


def _absent(query: PreparedScan, classes: Iterable[int]) -> list[int]:
    _labels(query)
    return [class_id for class_id in classes if class_id not in query.class_slices]


def _labels(scan: PreparedScan) -> np.ndarray:
    if scan.original_labels is None:
        raise DataError(f"scan {scan.id} has no labels; give it some, or leave the scan out")
    return scan.original_labels


def _slices(scan: PreparedScan, class_id: int, name: str, role: str) -> tuple[int, ...]:
    _labels(scan)
    if class_id not in scan.class_slices:
        raise DataError(
            f"{role} scan {scan.id} does not show {name} (label {class_id}): check the labels, or "
            "leave the scan or the class out"
        )
    return scan.class_slices[class_id]


def stack_of(scan: PreparedScan, shown: Sequence[int]) -> Stack:
    """What a matching may know of a scan; `shown` are the slices that show the class."""
    return Stack.of(scan.images, None if scan.spacing is None else scan.spacing[0], shown)


def _volume(
    planes: Mapping[int, Bool[np.ndarray, "height width"]], slices: Sequence[int]
) -> Bool[np.ndarray, "slice height width"]:
    """The scored slices where they lie in the scan; those between them are empty."""
    first, last = slices[0], slices[-1]
    nothing = np.zeros_like(planes[first])
    scored = set(slices)
    return np.stack([planes[z] if z in scored else nothing for z in range(first, last + 1)])


def _notes(
    masks: Mapping[int, np.ndarray],
    support: Sequence[PreparedScan],
    parts: Sequence[Part],
    class_id: int,
) -> tuple[str, ...]:
    notes = []
    if not any(mask.any() for mask in masks.values()):
        notes.append("nothing predicted")
    lost = {
        (scan.id, index)
        for part in parts
        for scan, index in zip(support, part.support)
        if not support_mask(scan, index, class_id).any()
    }
    notes += [f"support mask of scan {s}, slice {z} vanished in resizing" for s, z in sorted(lost)]
    return tuple(notes)
