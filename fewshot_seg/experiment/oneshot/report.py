"""What came of it, and what to do next."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fewshot_seg.data.pictures import is_picture
from fewshot_seg.experiment.oneshot.choose import Example
from fewshot_seg.inference import Failed, Written


@dataclass(frozen=True)
class OneShotReport:
    """The outcome of `oneshot`.

    folder: with everything in it.   checkpoint: the trained method.   training: in words.
    classes: id -> name.   examples: ids of the labelled scans.
    answers: what was written, by scan id.   failures: what was not, by scan id.
    volumes: millilitres (for pictures, per cent of the area) by scan id and class.
    scores: Dice, 0 to 1, by scan id and class, where a label file of the scan tells what is right;
        it was read after segmentation, for this only.
    odd: scan id -> why it is worth a look.   picture: None when there was nothing to draw.
    """

    folder: Path
    checkpoint: Path
    training: str
    matching: str
    classes: Mapping[int, str]
    examples: tuple[Example, ...]
    answers: Mapping[str, Written]
    failures: Mapping[str, Failed]
    volumes: Mapping[str, Mapping[int, float]]
    scores: Mapping[str, Mapping[int, float]]
    odd: Mapping[str, str]
    picture: Path | None

    @property
    def ok(self) -> bool:
        """Whether every scan was segmented."""
        return not self.failures

    @property
    def unit(self) -> str:
        return "% of area" if any(is_picture(one.image) for one in self.examples) else "ml"

    def mean_dice(self) -> dict[int, float]:
        """Of the scans with labels, by class; empty without any."""
        scored = {value for row in self.scores.values() for value in row}
        return {
            value: float(np.mean([row[value] for row in self.scores.values() if value in row]))
            for value in self.classes
            if value in scored
        }

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Heads and cells of a table with one line a scan."""
        heads = ["scan", *(f"{name}, {self.unit}" for name in self.classes.values())]
        if self.scores:
            heads += [f"{name}, Dice %" for name in self.classes.values()]
        lines = []
        for scan_id in self.answers:
            line = [scan_id, *_cells(self.volumes[scan_id], self.classes, 1.0)]
            if self.scores:
                line += _cells(self.scores.get(scan_id, {}), self.classes, 100.0)
            lines.append(line)
        if self.scores:
            blank = ["" for _ in self.classes]
            lines.append(["mean", *blank, *_cells(self.mean_dice(), self.classes, 100.0)])
        return heads, lines

    def table(self) -> RenderableType:
        """For a terminal."""
        heads, lines = self.rows()
        table = Table(caption=Text(f"Matching {self.matching}."))
        for head in heads:
            # As Text, because rich would read [brackets] in a name as markup.
            table.add_column(Text(head), justify="left" if head == "scan" else "right")
        for line in lines:
            table.add_row(*(Text(cell) for cell in line))
        parts: list[RenderableType] = [table] if self.answers else []
        parts += [
            Text(f"look at scan {key}: {why}", style="yellow") for key, why in self.odd.items()
        ]
        parts += [
            Text(f"failed: scan {key}: {one.reason}", style="red")
            for key, one in self.failures.items()
        ]
        return Group(*parts)

    def markdown(self) -> str:
        """The same with what to do next, as `report.md`."""
        heads, lines = self.rows()
        parts = [
            "# One labelled scan, and the others segmented",
            f"Examples: {', '.join(f'{one.id} ({one.labels})' for one in self.examples)}  ",
            f"Classes: {', '.join(f'{value} {name}' for value, name in self.classes.items())}  ",
            f"Training: {self.training}  ",
            f"Matching: {self.matching}; nothing was known of where the classes lie in a scan.",
            "",
            _markdown_table(heads, lines) if self.answers else "No scan could be segmented.",
            "",
        ]
        if self.scores:
            parts += [
                "Dice is measured with the label files that the folder has for these scans, which "
                "neither training nor segmentation read. The scans themselves were trained on, "
                "without labels, so this is no figure for scans that come later.",
                "",
            ]
        if self.failures:
            parts += [
                "## Not segmented",
                *(f"- {scan_id}: {one.reason}" for scan_id, one in self.failures.items()),
                "",
            ]
        return "\n".join([*parts, "## What to do next", *self.next_steps(), ""])

    def next_steps(self) -> list[str]:
        """Numbered advice with commands."""
        out = self.folder
        steps = [
            f"Look at `{out / 'overlay.png'}` and at the label files in `{out / 'segmented'}`."
            if self.picture
            else f"See in the list above why nothing was written to `{out / 'segmented'}`.",
        ]
        if self.odd:
            told = "; ".join(f"{scan_id}: {why}" for scan_id, why in list(self.odd.items())[:10])
            steps.append(f"Look at these first. {told}.")
        if self.answers:
            steps.append(self._second_example())
            steps.append(
                "Found too high or too low? Pair slices in another way with "
                "`--matching spread-3`, `similar-3` or `middle`; training is not repeated."
            )
        steps.append(
            "Shapes are wrong everywhere? Train longer (`--steps`) or on larger images (`--size`), "
            "into another `--out`."
        )
        steps.append(f"Later scans, without training again:\n\n        {self._segment()}\n")
        return [f"{number}. {step}" for number, step in enumerate(steps, start=1)]

    def _second_example(self) -> str:
        scan_id, one = next(
            ((key, self.answers[key]) for key in self.odd if key in self.answers),
            next(iter(self.answers.items())),
        )
        corrected = "corrected.png" if is_picture(one.labels) else "corrected.nii.gz"
        words = ["--label", corrected, "--scan", scan_id]
        return (
            f"Try a second example: copy `{one.labels}`, correct the copy, and run the same "
            f"command with `{shlex.join(words)}` added (every `--label` then needs its `--scan`). "
            "Training is not repeated."
        )

    def _segment(self) -> str:
        words = ["fewshot-seg", "segment", "--checkpoint", str(self.checkpoint.parent)]
        for one in self.examples:
            words += ["--support", str(one.image), "--label", str(one.labels)]
        return shlex.join([*words, "--out", "later"]) + " NEW_SCANS"


def _cells(row: Mapping[int, float], classes: Iterable[int], factor: float) -> list[str]:
    return [f"{factor * row[value]:.1f}" if value in row else "" for value in classes]


def _markdown_table(heads: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *("---:" for _ in heads[1:])]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
        for line in (heads, rule, *lines)
    )
