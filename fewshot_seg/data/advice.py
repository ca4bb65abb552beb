"""What to do after a check, as a command."""

import shlex

from fewshot_seg.data.findings import HOUNSFIELD
from fewshot_seg.data.folder import Folder
from fewshot_seg.data.report import Report
from fewshot_seg.data.serves import FOLDS

CT_WINDOW = ("--window", "-125", "275")
"""Soft tissue; without it bone and air take up most of the range."""


def next_step(report: Report, folder: Folder | None) -> str:
    """The command that comes next; empty where there is none.   folder: that was checked."""
    if not report.ok:
        return "Next: put this right, then check again."
    if folder is not None and report.one_scan:
        return _with_scan(folder)
    labelled = [row.id for row in report.rows if row.voxels]
    if folder is not None and len(labelled) <= 1 < len(report.rows):
        return _with_one_example(folder, *labelled)
    return _training(report)


def _with_scan(folder: Folder) -> str:
    (files,) = folder.files.values()
    example, query = ("LABELLED", "ITS_LABELS"), str(files.image)
    if files.labels is not None:
        example, query = (str(files.image), str(files.labels)), "OTHER_SCANS"
    pair = ("--support", example[0], "--label", example[1])
    return _command("segment", "--checkpoint", "RUN", *pair, "--out", "segmented", query)


def _with_one_example(folder: Folder, scan_id: str | None = None) -> str:
    """Too little to cross-validate, but what one labelled scan is for."""
    labels = None if scan_id is None else folder.files[scan_id].labels
    which = ("LABELS", "--scan", "ITS_SCAN") if labels is None else (str(labels), "--scan", scan_id)
    return _command("oneshot", str(folder.root), "--label", *map(str, which), "--out", "answers")


def _training(report: Report) -> str:
    seen = [value for value, count in report.class_voxels.items() if count]
    folds = report.serves.folds
    if not folds or not seen:
        return ""
    # Without a second class there are no labels to learn from, so a method that needs none.
    method = "apscl" if len(seen) > 1 else "alpnet"
    novel = report.classes.get(seen[0], str(seen[0]))
    words = ["train", method, "--data", report.source, "--novel", novel, "--out", "runs"]
    if len(folds) != FOLDS:
        words += ["--n-folds", str(len(folds))]
    if report.modality == "ct" and any((row.low or 0.0) < HOUNSFIELD for row in report.rows):
        words += CT_WINDOW
    return _command(*words)


def _command(*words: str) -> str:
    return f"Next: {shlex.join(['fewshot-seg', *words])}"
