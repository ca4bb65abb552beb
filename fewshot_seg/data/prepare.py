"""Scans made ready for a network: normalised, on its in-plane size, with its channels."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from fewshot_seg.data.intensity import Intensity, to_channels
from fewshot_seg.data.resize import resize_images, resize_labels
from fewshot_seg.data.scan import Dataset, Scan
from fewshot_seg.errors import DataError, OptionError, did_you_mean


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan as a network sees it, and what is needed to score an answer at full resolution.

    images: normalised intensities on the network's size. A grey scan's channels share their
        memory (stride 0), so write to them only after a copy.
    labels: class ids on the network's size, each pixel by majority of area; None if not annotated.
    original_labels: class ids as stored in the scan.    original_size: its height and width.
    spacing: millimetres along (slice, height, width) of the ORIGINAL voxels; None if unknown.
    class_slices: class id -> the slices that show it in the original labels. A tiny structure can
        be listed here and yet be gone on the network's size.
    """

    id: str
    images: Float[Tensor, "slice channel height width"]
    labels: Integer[Tensor, "slice height width"] | None
    original_labels: Integer[np.ndarray, "slice full_height full_width"] | None
    original_size: tuple[int, int]
    spacing: tuple[float, float, float] | None
    class_slices: dict[int, tuple[int, ...]]

    @property
    def n_slices(self) -> int:
        return self.images.shape[0]

    def position(self, index: int) -> float:
        """Where slice `index` lies, from 0 (first) to 1 (last); 0.5 in a scan of one slice."""
        return index / (self.n_slices - 1) if self.n_slices > 1 else 0.5

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.images.shape[2], self.images.shape[3]


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


def prepare_all(
    dataset: Dataset,
    ids: Iterable[str],
    *,
    size: int | tuple[int, int] | None,
    intensity: Intensity,
    channels: int = 3,
) -> Preparation:
    """Load and `prepare` the scans `ids`, going on past those that cannot be used.

    A file that cannot be read and a scan that `prepare` refuses are listed among the failures;
    report them. Raises DataError when no scan is left, when `ids` is empty or names a scan that
    the data set does not have; OptionError as `prepare`.
    """
    scans: list[PreparedScan] = []
    failures: list[Failure] = []
    for scan_id in _known(dataset, ids):
        try:
            scan = dataset.load(scan_id)
            scans.append(prepare(scan, size=size, intensity=intensity, channels=channels))
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
