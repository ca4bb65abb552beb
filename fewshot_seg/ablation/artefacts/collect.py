"""Pick features of test pixels where the decoder meets them: encoded and enriched.

Labels of test slices are looked at last, to say of what class a point is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fewshot_seg.ablation.artefacts.features import FeatureSample, no_features
from fewshot_seg.checkpoint import load_method
from fewshot_seg.data.folds import Fold
from fewshot_seg.data.prepared import PreparedScan
from fewshot_seg.data.pseudo_cache import AUTO
from fewshot_seg.data.scan import Dataset
from fewshot_seg.evaluation.fold import stack_of
from fewshot_seg.evaluation.matching import Matching, Part, get_matching
from fewshot_seg.evaluation.predict import predict
from fewshot_seg.evaluation.transductive import PoolOf, pool_rule, usable_scans
from fewshot_seg.experiment.notes import checkpoint_path, read_notes
from fewshot_seg.experiment.score import Scans
from fewshot_seg.functional import area_average
from fewshot_seg.pipeline import Pipeline

COUNT = 1000
SLICES = 8
"""Of each query scan, spread over those that are segmented."""
MAJORITY = 0.5
"""Share of a feature cell that a class must cover for the cell to be of it."""

Maps = Float[np.ndarray, "slice dim rows cols"]
Points = Float[np.ndarray, "point dim"]


def features_of_run(
    run: Path,
    dataset: Dataset,
    *,
    matching: str = "parts-3",
    changes: Mapping[str, Any] | None = None,
    unlabelled: str = "train",
    cache: str | Path | None = AUTO,
    device: torch.device | str | None = None,
    count: int = COUNT,
    seed: int = 0,
) -> FeatureSample:
    """`collect_features` of a trained run on its own fold and held-out classes.

    Arguments as in `evaluate_runs`, which it raises as well.
    """
    path = checkpoint_path(run)
    notes = read_notes(path)
    method = load_method(path, **(changes or {}))
    fold, load = notes.fold_of(dataset), Scans(dataset, cache).loader(notes)
    pool, _ = pool_rule(method, unlabelled, lambda: usable_scans(load, fold.train))
    return collect_features(
        method,
        load,
        fold,
        {value: notes.classes[value] for value in notes.novel},
        matching=get_matching(matching),
        device=device,
        unlabelled=pool,
        count=count,
        seed=seed,
    )


def collect_features(
    method: nn.Module,
    load: Callable[[str], PreparedScan],
    fold: Fold,
    classes: Mapping[int, str],
    *,
    matching: Matching,
    device: torch.device | str | None = None,
    unlabelled: PoolOf | None = None,
    count: int = COUNT,
    seed: int = 0,
) -> FeatureSample:
    """At most `count` features of the fold's query slices, half of them of `classes` (id -> name).

    seed: of the choice, which does not depend on the method: variants of one encoder grid show the
        same pixels.   The other arguments as in `evaluate_fold`.
    Methods that are no pipeline of parts have no such features; the sample's note says so.
    Raises DataError when no support or query scan can be read.
    """
    names = tuple(classes.values())
    if not isinstance(method, Pipeline):
        kind = type(method).__name__
        return no_features(names, f"{kind} is a whole network without maps before a decoder")
    rng = np.random.default_rng(seed)
    room = max(1, count // (2 * len(classes)))
    kept = {(label, inside): _Kept(room) for label in range(len(names)) for inside in (0, 1)}
    support = usable_scans(load, fold.support)
    for query in usable_scans(load, fold.query):
        for label, class_id in enumerate(classes):
            if class_id not in query.class_slices:
                continue
            pool = None if unlabelled is None else unlabelled(query)
            for part in _thinned(matching, support, query, class_id):
                maps = _maps(method, support, query, part, class_id, device=device, unlabelled=pool)
                inside = _cells(query, part.query, class_id, maps.shape[-2:])
                points, draws = np.moveaxis(maps, 1, -1), rng.random(inside.shape)
                for side in (0, 1):
                    chosen = inside == side
                    kept[label, side].add(points[chosen], draws[chosen])
    return _sample(kept, names)


class _Kept:
    """The points with the lowest draws: an even choice among all, however many come."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.points: Points | None = None
        self.draws: Float[np.ndarray, " point"] = np.zeros(0)

    def add(self, points: Points, draws: Float[np.ndarray, " point"]) -> None:
        if self.points is not None:
            points = np.concatenate([self.points, points])
            draws = np.concatenate([self.draws, draws])
        order = np.argsort(draws, kind="stable")[: self.room]
        self.points, self.draws = points[order], draws[order]


def _sample(kept: Mapping[tuple[int, int], _Kept], names: tuple[str, ...]) -> FeatureSample:
    found = [
        (one.points, np.full(len(one.points), (label + 1) * inside, np.uint8))
        for (label, inside), one in kept.items()
        if one.points is not None
    ]
    if not found:
        return no_features(names, f"no query scan shows {' or '.join(names)}")
    points, labels = zip(*found)
    return FeatureSample(np.concatenate(points), np.concatenate(labels), names)


def _thinned(
    matching: Matching, support: Sequence[PreparedScan], query: PreparedScan, class_id: int
) -> list[Part]:
    """As the matching pairs them, but a few slices only and each once; by their support."""
    paired = matching.match(
        [stack_of(scan, scan.class_slices[class_id]) for scan in support],
        stack_of(query, query.class_slices[class_id]),
    )
    served: dict[int, tuple[int, ...]] = {}
    for part in paired.parts:
        for index in part.query:
            served.setdefault(index, part.support)
    indices = sorted(served)
    places = np.linspace(0, len(indices) - 1, min(SLICES, len(indices))).round().astype(int)
    groups: dict[tuple[int, ...], list[int]] = {}
    for place in places.tolist():
        groups.setdefault(served[indices[place]], []).append(indices[place])
    return [Part(slices, tuple(queries)) for slices, queries in groups.items()]


def _maps(
    method: Pipeline,
    support: Sequence[PreparedScan],
    query: PreparedScan,
    part: Part,
    class_id: int,
    **options: Any,
) -> Maps:
    """What the decoder is given of the part's query slices; of several latent samples the first."""
    with _seen_by(method.decoder) as seen:  # type: ignore[arg-type]  # parts are modules
        predict(
            method, support, query.images, class_id=class_id, parts=[part], size=query.size,
            **options,
        )  # fmt: skip
    return torch.cat([maps[0].float().cpu() for maps in seen]).numpy()


@contextmanager
def _seen_by(decoder: nn.Module) -> Iterator[list[Tensor]]:
    """The query maps of every call of the decoder within."""
    seen: list[Tensor] = []
    handle = decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        handle.remove()


def _cells(
    query: PreparedScan, slices: Sequence[int], class_id: int, grid: tuple[int, int]
) -> Bool[np.ndarray, "slice rows cols"]:
    """Which feature cells are of the class."""
    assert query.original_labels is not None, "it shows the class"
    truth = torch.from_numpy(query.original_labels[list(slices)] == class_id)
    return (area_average(truth.float(), grid) > MAJORITY).numpy()
