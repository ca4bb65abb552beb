"""Segment scans with a checkpoint, which knows how its images were prepared."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from fewshot_seg.checkpoint import load_method, read_header
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.known import with_raw_names
from fewshot_seg.data.scan import Scan
from fewshot_seg.errors import CheckpointError, OptionError
from fewshot_seg.experiment.notes import checkpoint_path, classes_in, size_in, understanding
from fewshot_seg.inference import DEFAULT, Failed, SegmentationReport, Written, segment_scans
from fewshot_seg.inference.run import Labelled
from fewshot_seg.training.hardware import choose_accelerator


def segment_with_checkpoint(
    checkpoint: Path,
    support: Sequence[Labelled | Scan],
    queries: Sequence[Path] | Mapping[str, Path],
    *,
    out: Path,
    classes: Iterable[int | str] | None = None,
    matching: str = DEFAULT,
    size: int | tuple[int, int] | None = None,
    batch: int | None = None,
    device: torch.device | str | None = None,
    precision: str = "auto",
    on_scan: Callable[[Written | Failed], None] | None = None,
    names: Mapping[int, str] | None = None,
) -> SegmentationReport:
    """`segment_scans` with the method, image size and intensities of a checkpoint or run folder.

    size: as trained unless given; a checkpoint without notes needs it.
    device: a GPU where there is one unless given.
    names: class id -> name; those that the method was trained with, for the ids that it knew,
        unless given.
    Raises CheckpointError, OptionError for a device that there is not, and what `segment_scans`
    raises.
    """
    path = checkpoint_path(checkpoint)
    notes = read_header(path).notes
    if size is None and "size" not in notes:
        raise CheckpointError(f"{path} does not say on which image size it was trained; give size")
    with understanding(path):
        trained_on = size_in(notes) if size is None else (0, 0)
        known = classes_in(notes) if "classes" in notes else {}
        intensity = Intensity.from_dict(notes.get("intensity", {}))
    height, width = trained_on if size is None else (size, size) if isinstance(size, int) else size
    where = _device(device)
    return segment_scans(
        load_method(path, device=where),  # type: ignore[arg-type]  # build has checked its role
        support,
        queries,
        out=out,
        classes=classes,
        names=with_raw_names(known) if names is None else names,
        matching=matching,
        intensity=intensity,
        size=(height, width),
        batch=batch,
        precision=precision,
        on_scan=on_scan,
    )


def _device(wanted: torch.device | str | None) -> torch.device:
    try:
        device = torch.device(choose_accelerator("auto") if wanted is None else wanted)
    except RuntimeError as error:
        raise OptionError(f"there is no device '{wanted}'; say cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise OptionError(f"device '{wanted}' was asked for, but torch finds no GPU here; say cpu")
    return device
