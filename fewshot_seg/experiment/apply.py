"""Segment scans with a checkpoint, which knows how its images were prepared."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from fewshot_seg.checkpoint import load_method, read_header
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.errors import CheckpointError, OptionError
from fewshot_seg.experiment.notes import checkpoint_path
from fewshot_seg.inference import DEFAULT, SegmentationReport, segment_scans
from fewshot_seg.inference.run import Labelled
from fewshot_seg.training.hardware import choose_accelerator


def segment_with_checkpoint(
    checkpoint: Path,
    support: Sequence[Labelled],
    queries: Sequence[Path],
    *,
    out: Path,
    classes: Iterable[int | str] | None = None,
    matching: str = DEFAULT,
    size: int | tuple[int, int] | None = None,
    batch: int = 8,
    device: torch.device | str | None = None,
    on_scan: Callable[[Path], None] | None = None,
) -> SegmentationReport:
    """`segment_scans` with the method, image size and intensities of a checkpoint or run folder.

    size: as trained unless given; a checkpoint without notes needs it.
    device: a GPU where there is one unless given.
    Class names are those that the method was trained with, for the ids that it knew.
    Raises CheckpointError, OptionError for a device that there is not, and what `segment_scans`
    raises.
    """
    path = checkpoint_path(checkpoint)
    notes = read_header(path).notes
    if size is None and "size" not in notes:
        raise CheckpointError(f"{path} does not say on which image size it was trained; give size")
    height, width = (
        notes["size"] if size is None else (size, size) if isinstance(size, int) else size
    )
    where = _device(device)
    return segment_scans(
        load_method(path, device=where),  # type: ignore[arg-type]  # build has checked its role
        support,
        queries,
        out=out,
        classes=classes,
        names={int(value): name for value, name in notes.get("classes", {}).items()},
        matching=matching,
        intensity=Intensity.from_dict(notes.get("intensity", {})),
        size=(height, width),
        batch=batch,
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
