"""From a folder of scans and one label file to a trained method and a label file for every scan."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.text import Text

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.data.orientation import axis_codes
from fewshot_seg.data.settings import class_ids
from fewshot_seg.errors import DataError, OptionError
from fewshot_seg.experiment.oneshot.answer import OnScan, answer
from fewshot_seg.experiment.oneshot.choose import Chosen, choose
from fewshot_seg.experiment.oneshot.learn import STEPS, learn
from fewshot_seg.experiment.oneshot.measure import odd_ones, scores_of, sizes_of
from fewshot_seg.experiment.oneshot.picture import draw_answers
from fewshot_seg.experiment.oneshot.plan import Plan
from fewshot_seg.experiment.oneshot.report import OneShotReport
from fewshot_seg.inference import DEFAULT, Failed, Written, get_pairing


def oneshot(
    scans: Path,
    labels: Sequence[Path],
    *,
    out: Path,
    which: Sequence[str] | None = None,
    method: str | None = None,
    changes: Mapping[str, Any] | None = None,
    steps: int = STEPS,
    size: int | None = None,
    seed: int = 0,
    classes: Sequence[int | str] | None = None,
    matching: str | None = None,
    modality: str | None = None,
    window: tuple[float, float] | None = None,
    batch: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    console: Console | None = None,
    on_scan: OnScan | None = None,
) -> OneShotReport:
    """Train without labels on a folder of scans, and segment them by the example of one.

    scans: a folder of volumes, of DICOM series or of pictures, in any layout or none.
    labels: a label file for each labelled scan; several are shots.
    which: those scans, by id or path; found by the names of the label files unless given.
    out: everything is put there: run/ (training), segmented/<id>_seg.nii.gz, overlay.png,
        report.md. The same call goes on where it stopped; other labels use the same training.
    method: one that learns without labels; adnet, or alpnet for pictures, unless given.
    changes: to its recipe, as for `build`, on top of `CHANGES`.
    size: height and width of the images; of the labelled scan, in SIZES, unless given.
    classes: ids or names to look for; all in the labels unless given.
    matching: see `fewshot_seg.inference.pairing`; its default, or "middle" for pictures, which
        have one slice, unless given.
    window: clip intensities first, in raw units.
    on_scan: called with what became of each scan.

    Label files that the folder has for other scans are read at the very end only, to measure Dice.
    A scan that cannot be read is named and left out; the others go on.
    Raises DataError, OptionError, UnknownNameError, CheckpointError (`out` holds another run) and
    TrainingError; what is wrong with the labelled scan shows before training.
    """
    shown = console or Console(stderr=True)
    if matching is not None:
        get_pairing(matching)
    if out.resolve().is_relative_to(scans.resolve()):
        raise OptionError(f"{out} lies inside {scans}, whose files are the scans; choose another")
    chosen = choose(scans, labels, which, modality=modality)
    wanted = _wanted(chosen, classes)
    rule = matching or ("middle" if chosen.pictures else DEFAULT)
    _tell(chosen, wanted, shown)
    with _disk(out):
        plan, checkpoint = learn(
            chosen, out, method, changes or {}, steps, size, seed, window, progress, shown
        )
        outcomes = answer(chosen, checkpoint, out, wanted, rule, batch, device, on_scan)
        return _report(chosen, plan, checkpoint, out, wanted, rule, outcomes)


def _wanted(chosen: Chosen, asked: Sequence[int | str] | None) -> dict[int, str]:
    """Class id -> name of what to look for. Raises UnknownNameError."""
    values = sorted({value for one in chosen.examples for value in one.scan.class_slices})
    known = {value: chosen.dataset.classes.get(value, f"class {value}") for value in values}
    return {value: known[value] for value in class_ids(known, asked)} if asked else known


def _tell(chosen: Chosen, classes: Mapping[int, str], console: Console) -> None:
    dataset = chosen.dataset
    kind = "pictures" if chosen.pictures else "volumes"
    if any(entry.image.is_dir() for entry in dataset.files.values()):
        kind = "DICOM series or volumes"
    lines = [
        f"{dataset.root}: {len(dataset.ids)} {kind} (layout '{dataset.layout}'), "
        f"{dataset.ids[0]} to {dataset.ids[-1]}; {len(chosen.queries)} to segment"
    ]
    if chosen.left_out:
        names = ", ".join(path.name for path in chosen.left_out[:5])
        lines.append(f"left out, as their names say labels: {len(chosen.left_out)} files ({names})")
    for one in chosen.examples:
        slices, _, height, width = one.scan.image.shape
        spacing = one.scan.spacing
        lines.append(
            f"labelled scan {one.id}: {slices} slices of {height}x{width}"
            + ("" if spacing is None else f", {' x '.join(f'{mm:.3g}' for mm in spacing)} mm")
            + ("" if one.scan.geometry is None else f", {''.join(axis_codes(one.scan.geometry))}")
        )
        for value, name in classes.items():
            pixels = int((one.scan.labels == value).sum()) if one.scan.labels is not None else 0
            shown = len(one.scan.class_slices.get(value, ()))
            lines.append(f"    {value} {name}: {pixels} voxels in {shown} slices")
        if dataset.modality == "mr" and one.scan.image.min() < -500:
            lines.append("    values far below 0: if this is CT, say --modality ct")
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _report(
    chosen: Chosen,
    plan: Plan,
    checkpoint: Path,
    out: Path,
    classes: Mapping[int, str],
    matching: str,
    outcomes: Mapping[str, Written | Failed],
) -> OneShotReport:
    answers = {key: one for key, one in outcomes.items() if isinstance(one, Written)}
    truths = {
        key: entry.labels
        for key, entry in chosen.dataset.files.items()
        if key in answers and entry.labels is not None
    }
    volumes = {key: sizes_of(one.labels, classes) for key, one in answers.items()}
    examples = [sizes_of(one.labels, classes) for one in chosen.examples]
    expected = {
        value: float(np.mean([row[value] for row in examples if row[value]])) for value in classes
    }
    picture = out / "overlay.png" if answers else None
    if picture is not None:
        draw_answers(picture, chosen.examples[0].scan, list(answers.items()), truths, classes)
    report = OneShotReport(
        folder=out,
        checkpoint=checkpoint,
        training=plan.words,
        matching=matching,
        classes=classes,
        examples=chosen.examples,
        answers=answers,
        failures={key: one for key, one in outcomes.items() if isinstance(one, Failed)},
        volumes=volumes,
        scores={key: scores_of(answers[key].labels, path, classes) for key, path in truths.items()},
        odd=odd_ones(volumes, answers, expected, classes),
        picture=picture,
    )
    write_bytes(out / "report.md", report.markdown().encode())
    return report


@contextmanager
def _disk(out: Path) -> Iterator[None]:
    """A full or read-only disk as an error that a user can read."""
    try:
        yield
    except OSError as error:
        where = error.filename or out
        raise DataError(
            f"{where} cannot be used: {error.strerror or error}; make room or choose another folder"
        ) from error
