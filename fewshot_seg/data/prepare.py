"""Scans made ready for a network: normalised, on its in-plane size, with its channels."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from fewshot_seg.data.intensity import Intensity, to_channels
from fewshot_seg.data.prepared import PreparedScan as PreparedScan
from fewshot_seg.data.pseudo_cache import AUTO
from fewshot_seg.data.resize import resize_images, resize_labels
from fewshot_seg.data.scan import Dataset, Scan
from fewshot_seg.data.store import stored
from fewshot_seg.errors import DataError, OptionError, did_you_mean


class Failure(NamedTuple):
    """A scan that could not be used, and why."""

    id: str
    message: str


class Preparation(NamedTuple):
    """The scans that could be prepared, and those that could not."""

    scans: list[PreparedScan]
    failures: list[Failure]


def prepare(
    scan: Scan,
    *,
    size: int | tuple[int, int] | None,
    intensity: Intensity,
    channels: int = 3,
) -> PreparedScan:
    """Normalise `scan`, resize it in plane (never across slices) and give it `channels` channels.

    size: height and width, or one number for both (a scan that is not square is then stretched);
        None keeps the scan's own.
    intensity: see `fit_intensity`; it is applied at the scan's own resolution.
    channels: a grey scan is repeated, a colour picture becomes luminance for one channel.

    Raises DataError for a scan that is empty, constant, not finite or of unfit channels, and
    OptionError for a size or number of channels below 1.
    """
    height, width = _size(size, scan)
    if channels < 1:
        raise OptionError(f"channels must be at least 1; got {channels}")
    image = to_channels(scan.image, channels, name=scan.id)
    images = torch.from_numpy(intensity.normalise(image, name=scan.id))
    images = resize_images(images, (height, width)).expand(-1, channels, -1, -1)
    labels = None
    if scan.labels is not None:
        labels = resize_labels(_label_tensor(scan.labels, scan.id), (height, width))
    return PreparedScan(
        id=scan.id,
        images=images,
        labels=labels,
        original_labels=scan.labels,
        original_size=(scan.image.shape[2], scan.image.shape[3]),
        spacing=scan.spacing,
        class_slices=scan.class_slices,
    )


def load_prepared(
    dataset: Dataset,
    scan_id: str,
    *,
    size: int | tuple[int, int] | None,
    intensity: Intensity,
    channels: int = 3,
    cache: str | Path | None = AUTO,
) -> PreparedScan:
    """Load and `prepare` one scan, or open it where it is kept.

    cache: folder that keeps what was prepared, "auto" for the user's, None for none; see
        `fewshot_seg.data.store`. The numbers are the same with and without it.
    Raises as `prepare` and `Dataset.load`.
    """
    return stored(
        dataset,
        scan_id,
        lambda: prepare(dataset.load(scan_id), size=size, intensity=intensity, channels=channels),
        size=size,
        intensity=intensity,
        channels=channels,
        cache=cache,
    )


def prepare_all(
    dataset: Dataset,
    ids: Iterable[str],
    *,
    size: int | tuple[int, int] | None,
    intensity: Intensity,
    channels: int = 3,
    cache: str | Path | None = AUTO,
) -> Preparation:
    """`load_prepared` for the scans `ids`, going on past those that cannot be used.

    A file that cannot be read and a scan that `prepare` refuses are listed among the failures;
    report them. Raises DataError when no scan is left, when `ids` is empty or names a scan that
    the data set does not have; OptionError as `prepare`.
    """
    scans: list[PreparedScan] = []
    failures: list[Failure] = []
    for scan_id in _known(dataset, ids):
        try:
            scans.append(
                load_prepared(
                    dataset,
                    scan_id,
                    size=size,
                    intensity=intensity,
                    channels=channels,
                    cache=cache,
                )
            )
        except (ValueError, OSError) as error:  # DataError is a ValueError
            failures.append(Failure(scan_id, str(error)))
    if not scans:
        reasons = "; ".join(f"{failed.id}: {failed.message}" for failed in failures[:3])
        raise DataError(
            f"none of the {len(failures)} scans asked of {dataset.name} can be used. {reasons}"
        )
    return Preparation(scans, failures)


def _known(dataset: Dataset, ids: Iterable[str]) -> list[str]:
    asked = list(ids)
    if not asked:
        raise DataError(f"no scan of {dataset.name} was asked for")
    for scan_id in asked:
        if scan_id not in dataset.ids:
            hint = did_you_mean(scan_id, dataset.ids) or "."
            raise DataError(
                f"{dataset.name} has no scan '{scan_id}'{hint} It has {len(dataset.ids)}: "
                f"{', '.join(dataset.ids[:20])}{', ...' if len(dataset.ids) > 20 else ''}"
            )
    return asked


def _size(size: int | tuple[int, int] | None, scan: Scan) -> tuple[int, int]:
    if size is None:
        return scan.image.shape[2], scan.image.shape[3]
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise OptionError(f"size must be at least 1 pixel each way; got {size}")
    return height, width


def _label_tensor(
    labels: Integer[np.ndarray, "slice height width"], name: str
) -> Integer[Tensor, "slice height width"]:
    """The labels in one byte a pixel where the class ids allow it."""
    if labels.size and int(labels.min()) < 0:
        raise DataError(
            f"scan {name} has the negative class id {int(labels.min())}; ids must be 0 "
            "(background) or above"
        )
    fits = not labels.size or int(labels.max()) <= 255
    return torch.from_numpy(labels.astype(np.uint8 if fits else np.int64))
