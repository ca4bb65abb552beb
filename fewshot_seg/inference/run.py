"""Files in, files out: labelled scans and other scans, to label volumes on each scan's own grid."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.scan import Scan
from fewshot_seg.data.settings import class_ids
from fewshot_seg.errors import DataError, FewshotSegError, OptionError
from fewshot_seg.inference.files import output_paths, read, seen_like, write
from fewshot_seg.inference.overlap import overlapped
from fewshot_seg.inference.pairing import DEFAULT, get_pairing
from fewshot_seg.inference.report import Failed, SegmentationReport, Written
from fewshot_seg.inference.segmenter import Segmented, Segmenter
from fewshot_seg.interfaces import Method

log = logging.getLogger(__name__)

Labelled = tuple[Path, Path]
"""An image file and the file with its labels."""


def segment_scans(
    method: Method,
    support: Sequence[Labelled | Scan],
    queries: Sequence[Path] | Mapping[str, Path],
    *,
    out: Path,
    classes: Iterable[int | str] | None = None,
    names: Mapping[int, str] | None = None,
    matching: str = DEFAULT,
    intensity: Intensity | None = None,
    size: int | tuple[int, int] = 256,
    batch: int | None = None,
    device: torch.device | str | None = None,
    precision: str = "auto",
    on_scan: Callable[[Written | Failed], None] | None = None,
) -> SegmentationReport:
    """Segment each scan by the example of the labelled ones, and write `<name>_seg.nii.gz`.

    support: labelled scans, image and label file each, or scans in memory; several are shots.
    queries: volumes (NIfTI, MetaImage, NRRD, DICOM folders) of any axis order, spacing and size,
        or pictures, whose answers are PNGs. Nothing needs to be known of them. A mapping gives
        each the name of its answer, for scans whose files have one name in many folders.
    out: folder of the label files.
    classes: ids or names to look for; all that the labelled scans show unless given.
    names: class id -> name; "class <id>" where not named.
    matching: which labelled slices serve which slices, see `fewshot_seg.inference.pairing`.
    intensity, size: as the method was trained; a z-score of each scan, and 256 pixels.
    batch: slices in one call; as many as free memory holds unless given.
    device: where to compute (None: where the method is).
    precision: "32", "bf16", or "auto" for bf16 where the hardware computes in it.
    on_scan: called with what became of each scan, for a progress display or a record.

    While one scan is segmented, the next is read and the last one written.
    A scan that cannot be segmented is named in the report with its reason (the log has the
    traceback); the others go on.
    Raises DataError for labelled scans that cannot be used, UnknownNameError for an unknown class
    or matching, OptionError for no scan or two scans of one name.
    """
    pairing = get_pairing(matching)
    targets = output_paths(queries, out)
    labelled = _supports(support)
    wanted = _classes(labelled, classes, names or {})
    segmenter = Segmenter(
        method,
        labelled,
        classes=wanted,
        size=(size, size) if isinstance(size, int) else size,
        pairing=pairing,
        intensity=intensity or Intensity(),
        channels=channels_of(method),
        batch=batch,
        device=device,
        precision=precision,
    )
    written: list[Written] = []
    failures: list[Failed] = []
    for path, future in overlapped(
        targets,
        read=lambda path: _seen(path, segmenter.supports[0]),
        work=lambda path, seen: (seen, segmenter.segment(seen.scan)),
        write=lambda path, answer: _written(path, targets[path], *answer),
    ):
        outcome: Written | Failed
        try:
            outcome = future.result()
            written.append(outcome)
        except Exception as error:
            if not isinstance(error, FewshotSegError):
                log.error("%s: %s", path, error, exc_info=error)
            outcome = Failed(path, str(error) or type(error).__name__)
            failures.append(outcome)
        if on_scan is not None:
            on_scan(outcome)
    return SegmentationReport(wanted, pairing.name, tuple(written), tuple(failures))


def channels_of(method: object) -> int:
    """Channels of the images that a method takes; 1 where it does not say."""
    for owner in (method, getattr(method, "encoder", None)):
        found = getattr(owner, "in_channels", None)
        if isinstance(found, int):
            return found
    return 1


class _Seen(NamedTuple):
    """A scan as its file holds it, and cut and turned like the labelled ones."""

    original: Scan
    scan: Scan
    notes: tuple[str, ...]


def _seen(path: Path, support: Scan) -> _Seen:
    original = read(path)
    return _Seen(original, *seen_like(original, support))


def _written(path: Path, target: Path, seen: _Seen, answer: Segmented) -> Written:
    labels, notes = answer
    write(target, labels, seen=seen.scan, original=seen.original, source=path)
    values, counts = np.unique(labels, return_counts=True)
    voxels = {int(value): int(count) for value, count in zip(values, counts) if value}
    return Written(path, target, voxels, (*seen.notes, *notes))


def _supports(support: Sequence[Labelled | Scan]) -> list[Scan]:
    """The labelled scans, all cut and turned like the first."""
    if not support:
        raise OptionError("at least one labelled scan is needed")
    scans = [one if isinstance(one, Scan) else read(*one) for one in support]
    for scan in scans:
        if scan.labels is None:
            raise DataError(f"scan {scan.id} has no labels; a labelled scan needs them")
        if not scan.class_slices:
            raise DataError(f"the labels of scan {scan.id} are empty; mark at least one slice")
    return [scans[0], *(seen_like(scan, scans[0])[0] for scan in scans[1:])]


def _classes(
    scans: Sequence[Scan], wanted: Iterable[int | str] | None, names: Mapping[int, str]
) -> dict[int, str]:
    shown = sorted({value for scan in scans for value in scan.class_slices})
    known = {value: names.get(value, f"class {value}") for value in shown}
    if wanted is None:
        return known
    asked = list(wanted)
    if not asked:
        raise OptionError("no class was asked for")
    # a class that has a name but no pixel deserves the clearer message of the Segmenter, unless a
    # class of that name has pixels under another id
    absent = {value: name for value, name in names.items() if name not in known.values()}
    named = {**absent, **known}
    return {value: named[value] for value in class_ids(named, asked)}
