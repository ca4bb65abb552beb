"""What stands in a dataset, and what is wrong with it: behind `fewshot-seg data check`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fewshot_seg.data.advice import next_step
from fewshot_seg.data.facts import describe
from fewshot_seg.data.findings import problems, warnings
from fewshot_seg.data.folder import ONE_SCAN, Folder, open_folder
from fewshot_seg.data.placement import label_placements
from fewshot_seg.data.report import Report, ScanRow
from fewshot_seg.data.scan import Dataset, Scan
from fewshot_seg.data.serves import serves
from fewshot_seg.errors import FewshotSegError

__all__ = ["Report", "ScanRow", "check"]

UNLABELLED = ("scans", ONE_SCAN)
"""Layouts of scans that nobody needs to have labelled."""


def check(
    dataset: Dataset | str | Path,
    *,
    on_scan: Callable[[ScanRow], None] | None = None,
    on_load: Callable[[Scan], None] | None = None,
) -> Report:
    """Load every scan of a dataset, or of a folder, and say what is there and what is wrong.

    Scans that cannot be loaded, and a folder that cannot be opened, become problems of the report.
    on_scan: called with each row as soon as it is known, for a progress display.
    on_load: called with each scan that loads, while it is in memory.
    """
    if isinstance(dataset, str | Path):
        try:
            dataset = open_folder(root=dataset)
        except FewshotSegError as error:
            return Report(name=str(dataset), source=str(dataset), problems=(str(error),))
    rows = []
    for scan_id in dataset.ids:
        rows.append(_load(dataset, scan_id, on_load))
        if on_scan is not None:
            on_scan(rows[-1])
    return _report(dataset, tuple(rows))


def _load(dataset: Dataset, scan_id: str, on_load: Callable[[Scan], None] | None) -> ScanRow:
    # The errors that files cause; anything else is a fault of the code and goes up.
    try:
        scan = dataset.load(scan_id)
        row = describe(scan, scan_id)
    except (FewshotSegError, OSError, ValueError) as error:
        return ScanRow(scan_id, error=str(error) or type(error).__name__)
    if on_load is not None:
        on_load(scan)
    return replace(row, placements=label_placements(scan))


def _report(dataset: Dataset, rows: tuple[ScanRow, ...]) -> Report:
    folder = dataset if isinstance(dataset, Folder) else None
    layout = None if folder is None else folder.layout
    known = None if folder is None else folder.known
    found = tuple(problems(rows, dataset.classes, labels_needed=layout not in UNLABELLED))
    report = Report(
        name=dataset.name,
        source=dataset.name if folder is None else str(folder.root),
        title=None if known is None else known.title,
        layout=layout,
        modality=dataset.modality,
        one_scan=layout == ONE_SCAN,
        classes=dataset.classes,
        rows=rows,
        problems=found,
        warnings=tuple(
            warnings(
                rows,
                dataset.classes,
                known=known,
                modality=dataset.modality,
                several=layout not in UNLABELLED,
            )
        ),
    )
    if not report.one_scan:
        groups = () if known is None else known.tested_together
        report = replace(report, serves=serves(rows, dataset.classes, groups))
    return replace(report, next_step=next_step(report, folder))
