"""One labelled set of scans held ready, and scans segmented by it one at a time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from fewshot_seg.batching import check_fits, choose_batch
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.prepare import PreparedScan, prepare
from fewshot_seg.data.scan import Scan
from fewshot_seg.episode import Support
from fewshot_seg.errors import DataError
from fewshot_seg.evaluation.encoded import EncodedSlices
from fewshot_seg.evaluation.matching import Matching, Part, Stack
from fewshot_seg.evaluation.modes import place
from fewshot_seg.evaluation.predict import PROBABILITY_FLOOR, log_odds
from fewshot_seg.evaluation.transductive import unlabelled_count
from fewshot_seg.inference.frame import Frame, Placement, Size
from fewshot_seg.interfaces import Method
from fewshot_seg.precision import resolve_precision

NOWHERE = math.log(PROBABILITY_FLOOR)
"""Log-odds in a slice that was not looked at."""


class Segmented(NamedTuple):
    """Class ids of a scan's voxels, and what its owner should know."""

    labels: Integer[np.ndarray, "slice height width"]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Placed:
    """A prepared scan on a canvas."""

    images: Float[Tensor, "slice channel height width"]
    labels: Integer[Tensor, "slice height width"] | None
    placement: Placement
    class_slices: Mapping[int, tuple[int, ...]]
    step: float | None


class Segmenter:
    """A method with its labelled scans.

    supports: labelled scans, each a shot, all cut and turned alike.   classes: id -> name.
    size: height and width that the method was trained on.
    intensity, channels: as the method was trained.
    batch: slices in one call; None for as many as free memory holds.
    precision: see `fewshot_seg.precision`; "auto" computes in bf16 where the hardware does.
    Raises DataError when a class is in none of the labelled scans or one of them is not of the
    others' size in millimetres, OptionError for a batch or precision that cannot be.
    """

    def __init__(
        self,
        method: Method,
        supports: Sequence[Scan],
        *,
        classes: Mapping[int, str],
        size: Size,
        pairing: Matching,
        intensity: Intensity,
        channels: int,
        batch: int | None = None,
        device: torch.device | str | None = None,
        precision: str = "auto",
    ) -> None:
        self.method, self.supports, self.classes = method, list(supports), dict(classes)
        self.pairing, self.intensity = pairing, intensity
        self.channels, self.batch = channels, batch
        self.device = place(method, device)
        self.precision = resolve_precision(precision, self.device)
        choose_batch(batch, size, self.device)  # refuses what cannot be
        self.frame = Frame.of(self.supports[0], size)
        for scan in self.supports:
            self.frame.check_scale(scan)
        for value, name in self.classes.items():
            if not any(value in scan.class_slices for scan in self.supports):
                raise DataError(
                    f"no labelled scan shows {name} (label {value}): "
                    f"{', '.join(scan.id for scan in self.supports)}"
                )
        self._placed: tuple[Frame, Size, list[_Placed]] | None = None
        self._states: dict[tuple[int, tuple[int, ...]], object] = {}
        self._unlabelled = unlabelled_count(method)

    def segment(self, query: Scan) -> Segmented:
        """The classes in a scan that is cut and turned like the labelled ones.

        A class's probability is that of a task of its own against background; a voxel gets the
        most probable class if that is above one half.
        A larger field of view than the labelled scan's makes the canvas larger; a method that
        takes one size only sees such a scan shrunk instead, and so does any for which memory does
        not suffice; which is noted.
        Raises DataError for a scan whose size in millimetres cannot be right.
        """
        self.frame.check_scale(query)
        scaled = self.frame.scaled(query)
        canvas = self._canvas(self.frame, scaled)
        if canvas == self.frame.size:
            return self._segment(query, self.frame, canvas)
        try:
            check_fits(canvas, len(query.image), self.device)
            return self._segment(query, self.frame, canvas)
        except ValueError as error:  # how a method says that it cannot take a size
            if isinstance(error, DataError):
                raise
            factor = max(canvas[axis] / self.frame.size[axis] for axis in (0, 1))
            found = self._segment(query, self.frame.shrunk(factor), self.frame.size)
            height, width = self.frame.size
            note = (
                f"is larger than the {height}x{width} pixels of the labelled scan and was shown to "
                f"the method {factor:.2f} times smaller ({error})"
            )
            return Segmented(found.labels, (*found.notes, note))

    def _canvas(self, frame: Frame, scaled: Size) -> Size:
        return frame.canvas(scaled, *(frame.scaled(scan) for scan in self.supports))

    def _segment(self, query: Scan, frame: Frame, canvas: Size) -> Segmented:
        supports = self._ready(frame, canvas)
        shown = self._place(query, frame, canvas)
        best = np.zeros((len(shown.images), *shown.placement.full), np.float32)
        labels = np.zeros(best.shape, np.int32)
        notes: list[str] = []
        encoded = EncodedSlices(shown.images) if len(self.classes) > 1 else None
        for value, name in self.classes.items():
            shots = [one for one in supports if value in one.class_slices]
            stacks = [_stack(one, one.class_slices[value]) for one in shots]
            paired = self.pairing.match(stacks, _stack(shown, ()))
            odds = self._log_odds(value, shots, shown, paired.parts, encoded)
            wins = odds > best
            labels[wins], best[wins] = value, odds[wins]
            notes += [f"{name}: {note}" for note in paired.notes]
        for value, name in self.classes.items():
            if not (labels == value).any():
                notes.append(f"{name}: nothing was found")
        return Segmented(labels, tuple(dict.fromkeys(notes)))

    def _ready(self, frame: Frame, canvas: Size) -> list[_Placed]:
        """The labelled scans on a canvas, kept with their encodings until another is needed."""
        if self._placed is None or self._placed[:2] != (frame, canvas):
            ready = [self._place(scan, frame, canvas) for scan in self.supports]
            self._placed = (frame, canvas, ready)
            self._states = {}
        return self._placed[2]

    def _place(self, scan: Scan, frame: Frame, canvas: Size) -> _Placed:
        scaled = frame.scaled(scan)
        ready: PreparedScan = prepare(
            scan, size=scaled, intensity=self.intensity, channels=self.channels
        )
        placement = Placement(ready.original_size, scaled, canvas)
        return _Placed(
            images=placement.put(ready.images),
            labels=None if ready.labels is None else placement.put_labels(ready.labels),
            placement=placement,
            class_slices=ready.class_slices,
            step=None if scan.spacing is None else scan.spacing[0],
        )

    def _log_odds(
        self,
        value: int,
        shots: Sequence[_Placed],
        query: _Placed,
        parts: Sequence[Part],
        encoded: EncodedSlices | None,
    ) -> Float[np.ndarray, "slice height width"]:
        """Of the class against the rest, on the query's own pixels; negative where not looked."""

        def encode(slices: tuple[int, ...], queries: Sequence[int]) -> object:
            return self._state(value, shots, Part(slices, tuple(queries)), query, self.device)

        found = log_odds(
            self.method,
            encode,
            query.images,
            parts,
            batch=choose_batch(self.batch, query.placement.canvas, self.device),
            device=self.device,
            precision=self.precision,
            encoded=encoded,
        )
        every = torch.full((len(query.images), *query.placement.canvas), NOWHERE)
        for index, odds in found.items():
            every[index] = odds
        cut: Float[np.ndarray, "slice height width"] = query.placement.take(every).numpy()
        return cut

    def _state(
        self,
        value: int,
        shots: Sequence[_Placed],
        part: Part,
        query: _Placed,
        device: torch.device,
    ) -> object:
        """The encoded labelled slices, computed once for all scans of one canvas; but anew for
        each part where the method also learns from slices of the query scan."""
        support = _support(value, shots, part.support, device)
        if self._unlabelled:
            chosen = _around(part.query, self._unlabelled, len(query.images))
            further = query.images[chosen][None].to(device)
            return self.method.encode_support(replace(support, unlabelled=further))
        key = (value, part.support)
        if key not in self._states:
            self._states[key] = self.method.encode_support(support)
        return self._states[key]


def _support(
    value: int, shots: Sequence[_Placed], slices: tuple[int, ...], device: torch.device
) -> Support:
    """One way, one shot a labelled scan."""
    pairs = list(zip(shots, slices, strict=True))
    images = torch.stack([one.images[z] for one, z in pairs])
    masks = []
    for one, z in pairs:
        assert one.labels is not None
        masks.append((one.labels[z] == value).to(images.dtype))
    return Support(images[None, None].to(device), torch.stack(masks)[None, None].to(device))


def _around(slices: Sequence[int], count: int, n_slices: int) -> list[int]:
    """`count` slices evenly spread over those that are segmented together and their neighbours."""
    low = max(min(slices) - 1, 0)
    high = min(max(slices) + 1, n_slices - 1)
    return np.linspace(low, high, count).round().astype(int).tolist()


def _stack(scan: _Placed, shown: tuple[int, ...]) -> Stack:
    return Stack.of(scan.images, scan.step, shown)
