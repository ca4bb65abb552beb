"""The picture: the labelled scan in the first row, some answers below it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fewshot_seg.data.scan import Scan
from fewshot_seg.inference import Written
from fewshot_seg.inference.files import read, seen_like
from fewshot_seg.pictures import Panel, draw

COLOURS = ("#38d9a9", "#ff8c69", "#b197fc", "#4dabf7", "#f06595", "#ffd43b")
"""Of the classes, in their order; further classes begin again."""
PLACES = (0.25, 0.5, 0.75)
"""Where in the range of what was found slices are taken from."""
MOST = 5
"""Scans in the picture."""
ACROSS = 4
"""Pictures in a row, for data without slices."""


def draw_answers(
    path: Path,
    example: Scan,
    answers: Sequence[tuple[str, Written]],
    truths: Mapping[str, Path],
    classes: Mapping[int, str],
) -> None:
    """Write the overlay: every class in its colour, dashed what a label file of the scan says.

    answers: scan id and what was written; some are chosen, evenly spread over all.
    Raises DataError when a file cannot be read again or the picture cannot be written.
    """
    colours = {value: COLOURS[index % len(COLOURS)] for index, value in enumerate(classes)}
    rows = [_row(example, None, colours, f"example: scan {example.id}")]
    for scan_id, one in _spread(answers):
        found = _seen(one.scan, one.labels, example)
        truth = truths.get(scan_id)
        right = None if truth is None else _seen(one.scan, truth, example)
        rows.append(_row(found, right, colours, f"scan {scan_id}"))
    if example.geometry is None:
        panels = [panel for row in rows for panel in row]
        rows = [panels[start : start + ACROSS] for start in range(0, len(panels), ACROSS)]
    spacing = example.spacing or (1.0, 1.0, 1.0)
    draw(
        path,
        rows,
        title="The labelled scan, and answers",
        caption="Dashed: what a label file of the scan says, where there is one.",
        legend=[(name, colours[value], False) for value, name in list(classes.items())[:3]],
        aspect=spacing[1] / spacing[2],
        upright=_upright(example),
    )


def _spread(answers: Sequence[tuple[str, Written]]) -> list[tuple[str, Written]]:
    places = np.linspace(0, len(answers) - 1, min(MOST, len(answers))).round().astype(int)
    return [answers[place] for place in dict.fromkeys(places.tolist())]


def _seen(image: Path, labels: Path, example: Scan) -> Scan:
    """A scan with labels, turned as the example is."""
    return seen_like(read(image, labels), example)[0]


def _row(scan: Scan, truth: Scan | None, colours: Mapping[int, str], note: str) -> list[Panel]:
    assert scan.labels is not None
    shown = sorted({z for value in colours for z in scan.class_slices.get(value, ())})
    inside = shown or range(len(scan.image))
    places = PLACES if len(scan.image) > 1 else (0.5,)
    panels = []
    for place in places:
        z = inside[round(place * (len(inside) - 1))]
        image = scan.image[z].mean(0)
        right = None
        if truth is not None and truth.labels is not None:
            right = np.isin(truth.labels[z], list(colours))
        where = f", slice {z}" if len(scan.image) > 1 else ""
        panels.append(
            Panel(
                image,
                masks=[(scan.labels[z] == value, colour) for value, colour in colours.items()],
                truth=right,
                note=note + where + ("" if shown else ": nothing found"),
            )
        )
    return panels


def _upright(scan: Scan) -> bool:
    """Whether rows run to the front or the top of the patient, so that the last belongs on top."""
    if scan.geometry is None:
        return False
    direction = scan.geometry.affine[:3, scan.geometry.order[1]]
    return bool(direction[1:][np.abs(direction[1:]).argmax()] > 0)
