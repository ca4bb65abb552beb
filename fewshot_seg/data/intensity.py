"""Bringing raw intensities to the numbers a network sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from fewshot_seg.data.moments import Moments, stored_moments
from fewshot_seg.data.pseudo_cache import AUTO
from fewshot_seg.data.scan import Dataset
from fewshot_seg.errors import DataError, OptionError, UnknownNameError, did_you_mean
from fewshot_seg.typed import make

MODALITIES = ("mr", "ct", "picture")

Volume = Float[np.ndarray, "slice channel height width"]


@dataclass(frozen=True)
class Intensity:
    """A normalisation, in plain numbers so that it can travel with a checkpoint.

    mean, std: both None for a z-score of each scan over all its voxels, padding and channels
        included (MR and pictures: their numbers have no unit). Both given for the same two
        numbers for every scan (CT: Hounsfield units mean something); see `fit_intensity`.
    window: intensities are first clipped to (low, high), in raw units; None clips nothing.

    Raises OptionError for half a pair, a standard deviation or a window that is not positive.
    """

    mean: float | None = None
    std: float | None = None
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise OptionError(
                "give both mean and std, or neither for a z-score of each scan; "
                f"got mean={self.mean}, std={self.std}"
            )
        if self.std is not None and not self.std > 0:
            raise OptionError(f"std must be positive; got {self.std}")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise OptionError(f"window must be (low, high) with low < high; got {self.window}")

    def normalise(self, image: Volume, *, name: str) -> Volume:
        """The image as float32 around 0 with a spread of about 1.

        name: the scan, for messages.
        Raises DataError for an empty image, values that are not finite, or a single grey value.
        """
        values = self.clipped(image, name=name)
        mean, std = self.mean, self.std
        if mean is None or std is None:
            mean, std = float(values.mean()), float(values.std())
        return ((values - mean) / std).astype(np.float32)

    def clipped(self, image: Volume, *, name: str) -> Volume:
        """The checked image within the window, in float64. Raises DataError as `normalise`."""
        _check(image, name)
        values = image.astype(np.float64)
        if self.window is not None:
            values = values.clip(*self.window)
        if values.min() == values.max():
            within = f" within the window {self.window}" if self.window else ""
            raise DataError(
                f"scan {name} has the same intensity {values.flat[0]:g} everywhere{within}, so it "
                "shows nothing. Check the file, or leave the scan out."
            )
        return values

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON or TOML; what is None is left out."""
        found: dict[str, Any] = {}
        if self.mean is not None:
            found |= {"mean": self.mean, "std": self.std}
        if self.window is not None:
            found["window"] = list(self.window)
        return found

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Intensity":
        """The inverse of `to_dict`. Raises OptionError for a key it does not know, or a value that
        is no number."""
        unknown = sorted(set(plain) - {"mean", "std", "window"})
        if unknown:
            raise OptionError(f"an intensity has mean, std and window; got {', '.join(unknown)}")
        window = plain.get("window")
        try:
            pair = None if window is None else tuple(map(float, window))
            return make(cls, {**plain, "window": pair})
        except OptionError:  # which is a TypeError too
            raise
        except (TypeError, ValueError) as error:
            raise OptionError(f"an intensity takes numbers: {error}") from error


def _check(image: Volume, name: str) -> None:
    if image.size == 0:
        raise DataError(f"scan {name} is empty: its image has shape {image.shape}")
    bad = int(image.size - np.isfinite(image).sum())
    if bad:
        raise DataError(
            f"scan {name} has {bad} intensities that are not finite numbers (NaN or infinite). "
            "Replace them in the file, or leave the scan out."
        )


def to_channels(
    image: Volume, channels: int, *, name: str
) -> Float[np.ndarray, "slice channels height width"]:
    """Colour as luminance (ITU-R BT.601) when one channel is asked for; else unchanged.

    Raises DataError when the image has neither one channel, nor three, nor `channels`.
    """
    given = image.shape[1]
    if given in (1, channels):
        return image
    if given == 3 and channels == 1:
        weights = np.array([0.299, 0.587, 0.114], image.dtype)
        return np.einsum("schw,c->shw", image, weights)[:, None]
    raise DataError(
        f"scan {name} has {given} channels and cannot be shown to a network that takes "
        f"{channels}: one channel is repeated, three become one; nothing else is converted"
    )


def fit_intensity(
    dataset: Dataset,
    ids: Sequence[str],
    *,
    modality: str | None = None,
    window: tuple[float, float] | None = None,
    cache: str | Path | None = AUTO,
) -> Intensity:
    """The normalisation of a data set: for CT one mean and standard deviation over all voxels
    of the scans `ids` (hand in those of the training fold only), for others a z-score of each scan.

    modality: "mr", "ct" or "picture"; the data set's own unless given.
    window: clip to (low, high) first, for example (-125, 275) for raw abdominal CT.
    cache: folder that keeps each CT scan's mean and variance, "auto" for the user's, None for none.

    Raises UnknownNameError for another modality, DataError for no ids or a scan as in `normalise`.
    """
    modality = dataset.modality if modality is None else modality
    if modality not in MODALITIES:
        hint = did_you_mean(modality, MODALITIES) or "."
        known = ", ".join(MODALITIES)
        raise UnknownNameError(f"unknown modality '{modality}'{hint} Known: {known}.")
    each = Intensity(window=window)
    if modality != "ct":
        return each
    if not ids:
        raise DataError(f"no scan of {dataset.name} was given to fit the CT intensities on")
    mean, std = _pooled(each, dataset, ids, cache)
    return Intensity(mean, std, window)


def _pooled(
    each: Intensity, dataset: Dataset, ids: Sequence[str], cache: str | Path | None
) -> tuple[float, float]:
    """Mean and population standard deviation over many volumes, one in memory at a time.

    The pairwise update of Chan et al. (1979), which loses no digits to large offsets.
    """
    count, mean, squares = 0, 0.0, 0.0
    for scan_id in ids:
        one = stored_moments(
            dataset,
            scan_id,
            partial(_moments, each, dataset, scan_id),
            window=each.window,
            cache=cache,
        )
        total = count + one.voxels
        delta = one.mean - mean
        squares += one.variance * one.voxels + delta**2 * count * one.voxels / total
        mean += delta * one.voxels / total
        count = total
    return mean, (squares / count) ** 0.5


def _moments(each: Intensity, dataset: Dataset, scan_id: str) -> Moments:
    values = each.clipped(dataset.load(scan_id).image, name=scan_id)
    return Moments(values.size, float(values.mean()), float(values.var()))
