"""What is wrong with a data set, or strange about it, as sentences that name scans and remedies."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fewshot_seg.data.anatomy import odd_patients, wrong_names
from fewshot_seg.data.facts import ScanRow
from fewshot_seg.data.known import Published
from fewshot_seg.data.placement import better_placement
from fewshot_seg.data.words import listed, scans

UNEVEN = 1.05
"""Spacings that differ by more than this factor between scans are worth a warning."""
HOUNSFIELD = -500.0
"""Intensities below it are Hounsfield units: air and lungs in CT."""

Names = Mapping[int, str]


def problems(rows: Sequence[ScanRow], classes: Names, *, labels_needed: bool) -> Iterator[str]:
    """What must be put right before training.   labels_needed: somebody must have labelled it."""
    for row in rows:
        if row.error is not None:
            yield f"scan {row.id}: {row.error}"
    if labels_needed and not any(row.voxels for row in rows):
        yield "no scan has a labelled voxel, so there is nothing to learn from"
    yield from _misplaced(rows)
    yield from wrong_names(rows, classes)


def warnings(
    rows: Sequence[ScanRow],
    classes: Names,
    *,
    known: Published | None,
    modality: str | None,
    several: bool,
) -> Iterator[str]:
    """What is allowed but often a mistake.   several: scans are to serve one another."""
    loaded = [row for row in rows if row.error is None]
    if several:
        yield from _classes(loaded, classes)
    yield from _unnamed(loaded, classes)
    yield from _duplicates(loaded)
    yield from odd_patients(loaded, classes)
    yield from _gaps(loaded, classes)
    yield from _differences("stored orientations", Counter(row.axes for row in loaded))
    yield from _differences("slice axes", Counter(row.slice_axis for row in loaded))
    yield from _differences("numbers of channels", Counter(row.channels for row in loaded))
    yield from _spacings(loaded)
    yield from _intensities(loaded, modality if several else None)
    if known is not None:
        yield from _unlike(loaded, known, [row.id for row in rows], classes)


def _misplaced(rows: Sequence[ScanRow]) -> Iterator[str]:
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        better = better_placement(row)
        if better is not None:
            found[better].append(row.id)
    for better, turned in found.items():
        yield (
            f"the labels of {scans(turned)} follow the edges of the image only when {better}: "
            "image or labels were turned over; export both again from the original, with their "
            "own geometry"
        )


def _classes(rows: Sequence[ScanRow], classes: Names) -> Iterator[str]:
    seen = Counter(value for row in rows for value in row.voxels or ())
    for value, name in classes.items():
        if seen[value] < 2:
            where = "no scan" if not seen[value] else "one scan only"
            yield f"class {value} ({name}) is in {where}; support and query need two"


def _unnamed(rows: Sequence[ScanRow], classes: Names) -> Iterator[str]:
    unnamed = sorted({value for row in rows for value in row.voxels or ()} - set(classes))
    if unnamed:
        yield f"the labels hold ids without a name: {listed(unnamed)}"
    empty = [row.id for row in rows if row.voxels == {}]
    if empty:
        yield f"the labels of these scans are empty: {listed(empty)}"


def _duplicates(rows: Sequence[ScanRow]) -> Iterator[str]:
    images: dict[str | None, list[ScanRow]] = defaultdict(list)
    labels: dict[str, list[ScanRow]] = defaultdict(list)
    for row in rows:
        images[row.digest].append(row)
        if row.labels_digest is not None and row.voxels:
            labels[row.labels_digest].append(row)
    for same in images.values():
        if len(same) > 1:
            yield (
                f"scans {listed([row.id for row in same])} are one image; in two folds it would "
                "be trained and tested on. Keep one of them"
            )
    for same in labels.values():
        if len({row.digest for row in same}) > 1:
            yield (
                f"scans {listed([row.id for row in same])} are different images with the same "
                "labels, voxel by voxel; one of the label files was copied"
            )


def _gaps(rows: Sequence[ScanRow], classes: Names) -> Iterator[str]:
    for value, name in classes.items():
        holes = [(row.id, row.gaps[value]) for row in rows if value in row.gaps]
        if holes:
            told = listed([f"scan {scan} misses {_slices(missing)}" for scan, missing in holes])
            yield f"{name} has holes between the slices that show it: {told}"


def _slices(missing: Sequence[int]) -> str:
    if len(missing) > 3:
        return f"{len(missing)} slices"
    return f"slice{'s' * (len(missing) > 1)} {' and '.join(map(str, missing))}"


def _differences(what: str, counts: Counter) -> Iterator[str]:
    if len(counts) > 1:
        parts = ", ".join(f"{value} in {count}" for value, count in counts.most_common())
        yield f"scans have different {what}: {parts}"


def _spacings(rows: Sequence[ScanRow]) -> Iterator[str]:
    known = np.array([row.spacing for row in rows if row.spacing is not None]).reshape(-1, 3)
    if len(known) == 0:
        return
    low, high = known.min(axis=0), known.max(axis=0)
    for index, axis in enumerate(("slice", "height", "width")):
        if high[index] > UNEVEN * low[index]:
            yield f"the spacing along {axis} runs from {low[index]:.3g} to {high[index]:.3g} mm"


def _intensities(rows: Sequence[ScanRow], modality: str | None) -> Iterator[str]:
    alike = [row.id for row in rows if row.looks_like_labels]
    if alike:
        yield f"the image of {scans(alike)} holds few whole numbers; is it a label file?"
    deep = [row.id for row in rows if row.low is not None and row.low < HOUNSFIELD]
    if deep and modality == "mr":
        yield (
            f"intensities of {scans(deep)} go down to Hounsfield units of air, but the modality is "
            '\'mr\'; say --data-option modality=ct, or {"modality": {"0": "CT"}} in dataset.json'
        )


def _unlike(
    rows: Sequence[ScanRow], known: Published, ids: Sequence[str], classes: Names
) -> Iterator[str]:
    missing = [one for one in known.ids if one not in ids]
    further = [one for one in ids if one not in known.ids]
    if missing:
        yield (
            f"{len(missing)} of the {len(known.ids)} scans of {known.title} are missing "
            f"({listed(missing)}), so folds are not those of the published results"
        )
    if further:
        yield f"{known.title} has no scans {listed(further)}; folds are not the published ones"
    other = [row.id for row in rows if row.spacing and not known.spaced_like(row.spacing)]
    if other and known.spacing is not None:
        depth, height, width = known.spacing
        yield (
            f"the spacing of {scans(other)} is not that of {known.title} ({width:g} x {height:g} x "
            f"{depth:g} mm): prepared in another way"
        )
    renamed = [
        f"{value} is '{name}' here and '{known.classes[value]}' there"
        for value, name in classes.items()
        if value in known.classes and name.casefold() != known.classes[value]
    ]
    if renamed:
        yield f"class names differ from those of {known.title}: {listed(renamed)}"
