"""The scans segmented with a checkpoint, those that are done already left alone."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from fewshot_seg.experiment.apply import segment_with_checkpoint
from fewshot_seg.experiment.oneshot.choose import Chosen
from fewshot_seg.experiment.oneshot.done import FILE_NAME, Done, digest
from fewshot_seg.inference import Failed, Written
from fewshot_seg.inference.files import output_path

OnScan = Callable[[Written | Failed], None]


def answer(
    chosen: Chosen,
    checkpoint: Path,
    out: Path,
    classes: Mapping[int, str],
    matching: str,
    batch: int | None,
    device: torch.device | str | None,
    on_scan: OnScan | None,
) -> dict[str, Written | Failed]:
    """What became of each scan; those that are done already are left alone."""
    labels = [one.labels for one in chosen.examples]
    done = Done(
        out / FILE_NAME,
        {
            "checkpoint": digest([checkpoint]),
            "examples": [str(one.image.resolve()) for one in chosen.examples],
            "labels": digest(labels),
            "classes": sorted(classes),
            "matching": matching,
        },
    )
    folder = out / "segmented"
    outcomes: dict[str, Written | Failed] = {}
    for scan_id, path in chosen.queries.items():
        known = done.find(path, output_path(path, folder, scan_id)) if path.exists() else None
        if known is not None:
            outcomes[scan_id] = known
            if on_scan is not None:
                on_scan(known)
    rest = {key: path for key, path in chosen.queries.items() if key not in outcomes}

    def finished(outcome: Written | Failed) -> None:
        done.note(outcome)
        if on_scan is not None:
            on_scan(outcome)

    if rest:
        made = segment_with_checkpoint(
            checkpoint,
            [one.scan for one in chosen.examples],
            rest,
            out=folder,
            classes=list(classes),
            names=classes,
            matching=matching,
            batch=batch,
            device=device,
            on_scan=finished,
        )
        came: list[Written | Failed] = [*made.written, *made.failures]
        by_path = {one.scan: one for one in came}
        outcomes |= {key: by_path[path] for key, path in rest.items()}
    return {key: outcomes[key] for key in chosen.queries}
