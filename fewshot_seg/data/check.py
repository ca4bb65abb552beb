"""What stands in a dataset, and what is wrong with it: behind `fewshot-seg data check`."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path

import numpy as np

from fewshot_seg.data.folder import Folder, open_folder
from fewshot_seg.data.orientation import axis_codes
from fewshot_seg.data.report import Report, ScanRow
from fewshot_seg.data.scan import Dataset, Scan
from fewshot_seg.errors import FewshotSegError

__all__ = ["Report", "ScanRow", "check"]

UNEVEN = 1.05
"""Spacings that differ by more than this factor between scans are worth a warning."""


def check(
    dataset: Dataset | str | Path, *, on_scan: Callable[[ScanRow], None] | None = None
) -> Report:
    """Load every scan of a dataset, or of a folder, and say what is there and what is wrong.

    Scans that cannot be loaded, and a folder that cannot be opened, become problems of the report.
    on_scan: called with each row as soon as it is known, for a progress display.
    """
    if not isinstance(dataset, str | Path):
        return _check(dataset, on_scan)
    try:
        folder = open_folder(root=dataset)
    except FewshotSegError as error:
        return Report(name=str(dataset), problems=(str(error),))
    return _check(folder, on_scan)


def _check(dataset: Dataset, on_scan: Callable[[ScanRow], None] | None) -> Report:
    rows = []
    for scan_id in dataset.ids:
        rows.append(_load(dataset, scan_id))
        if on_scan is not None:
            on_scan(rows[-1])
    return Report(
        name=dataset.name,
        layout=dataset.layout if isinstance(dataset, Folder) else None,
        modality=dataset.modality,
        classes=dataset.classes,
        rows=tuple(rows),
        problems=tuple(_problems(rows)),
        warnings=tuple(_warnings(rows, dataset.classes)),
    )


def _load(dataset: Dataset, scan_id: str) -> ScanRow:
    # The errors that files cause; anything else is a fault of the code and goes up.
    try:
        return _describe(dataset.load(scan_id), scan_id)
    except (FewshotSegError, OSError, ValueError) as error:
        return ScanRow(scan_id, error=str(error) or type(error).__name__)


def _describe(scan: Scan, scan_id: str) -> ScanRow:
    slices, channels, height, width = scan.image.shape
    voxels = None
    if scan.labels is not None:
        values, counts = np.unique(scan.labels, return_counts=True)
        voxels = {int(value): int(count) for value, count in zip(values, counts) if value}
    digest = blake2b(str(scan.image.shape).encode(), digest_size=16)
    digest.update(scan.image.tobytes())
    return ScanRow(
        id=scan_id,
        shape=(slices, height, width),
        channels=channels,
        spacing=scan.spacing,
        axes=None if scan.geometry is None else "".join(axis_codes(scan.geometry)),
        slice_axis=None if scan.geometry is None else scan.geometry.slice_axis,
        low=float(scan.image.min()),
        high=float(scan.image.max()),
        slices=voxels and {value: len(seen) for value, seen in scan.class_slices.items()},
        voxels=voxels,
        digest=digest.hexdigest(),
    )


def _problems(rows: list[ScanRow]) -> list[str]:
    problems = [f"scan {row.id}: {row.error}" for row in rows if row.error is not None]
    if not any(row.voxels for row in rows):
        problems.append("no scan has a labelled voxel, so there is nothing to learn from")
    return problems


def _warnings(rows: list[ScanRow], classes: Mapping[int, str]) -> list[str]:
    loaded = [row for row in rows if row.error is None]
    return [
        *_class_warnings(loaded, classes),
        *_duplicates(loaded),
        *_differences("stored orientations", Counter(row.axes for row in loaded)),
        *_differences("slice axes", Counter(row.slice_axis for row in loaded)),
        *_differences("numbers of channels", Counter(row.channels for row in loaded)),
        *_spacings(loaded),
    ]


def _class_warnings(rows: list[ScanRow], classes: Mapping[int, str]) -> list[str]:
    seen = Counter(value for row in rows for value in row.voxels or ())
    empty = [row.id for row in rows if row.voxels == {}]
    warnings = [
        f"class {value} ({name}) is in {'no scan' if not seen[value] else 'one scan only'}; "
        "support and query need two"
        for value, name in classes.items()
        if seen[value] < 2
    ]
    unnamed = sorted(set(seen) - set(classes))
    if unnamed:
        warnings.append(f"the labels hold ids without a name: {', '.join(map(str, unnamed))}")
    if empty:
        warnings.append(f"the labels of these scans are empty: {', '.join(empty)}")
    return warnings


def _duplicates(rows: list[ScanRow]) -> list[str]:
    same: dict[str | None, list[str]] = defaultdict(list)
    for row in rows:
        same[row.digest].append(row.id)
    return [
        f"scans {', '.join(ids)} are one image; in two folds it would be trained and tested on"
        for ids in same.values()
        if len(ids) > 1
    ]


def _differences(what: str, counts: Counter) -> list[str]:
    if len(counts) < 2:
        return []
    parts = ", ".join(f"{value} in {count}" for value, count in counts.most_common())
    return [f"scans have different {what}: {parts}"]


def _spacings(rows: list[ScanRow]) -> list[str]:
    known = np.array([row.spacing for row in rows if row.spacing is not None]).reshape(-1, 3)
    if len(known) == 0:
        return []
    low, high = known.min(axis=0), known.max(axis=0)
    return [
        f"the spacing along {axis} runs from {low[index]:.3g} to {high[index]:.3g} mm"
        for index, axis in enumerate(("slice", "height", "width"))
        if high[index] > UNEVEN * low[index]
    ]
