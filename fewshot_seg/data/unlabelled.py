"""Unlabelled slices that lie where the query lies, for methods that learn from them."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.data.settings import kept_slices
from fewshot_seg.errors import DataError, OptionError

TOLERANCE = 0.1
"""Relative slice positions this far apart still count as the same (PoissonSeg notes: 10 %)."""


class UnlabelledPool:
    """Slices by their relative position in the scan. No label is read from them.

    scans: of one size.   count: slices given at a time.
    exclude, setting: classes held out, and which slices that costs (this alone reads labels, and
        only in the settings that drop slices); see `kept_slices`.
    Raises OptionError for a count below 1, DataError when no slice is left.
    """

    def __init__(
        self,
        scans: Sequence[PreparedScan],
        count: int,
        *,
        exclude: Sequence[int] = (),
        setting: str = "setting1",
    ) -> None:
        if count < 1:
            raise OptionError(f"the number of unlabelled slices must be at least 1; got {count}")
        kept = [kept_slices(one.class_slices, one.n_slices, exclude, setting) for one in scans]
        pairs = [(scan, slices) for scan, slices in zip(scans, kept, strict=True) if slices]
        if not pairs:
            raise DataError(f"none of the {len(scans)} scans has a slice to be used unlabelled")
        self.count = count
        self.scans = tuple(scan for scan, _ in pairs)
        self._kept = [np.array(slices) for _, slices in pairs]
        self._positions = [
            np.array([scan.position(index) for index in slices]) for scan, slices in pairs
        ]

    def draw(
        self, position: float, generator: np.random.Generator
    ) -> Float[Tensor, "unlabelled channel height width"]:
        """Random slices within 0.1 of `position`, from different scans as far as there are."""
        order = generator.permutation(len(self.scans))
        chosen = []
        for turn in range(self.count):
            scan = int(order[turn % len(order)])
            distance = np.abs(self._positions[scan] - position)
            near = np.flatnonzero(distance <= max(TOLERANCE, distance.min()))
            chosen.append((scan, int(self._kept[scan][generator.choice(near)])))
        return self._images(chosen)

    def at(self, position: float) -> Float[Tensor, "unlabelled channel height width"]:
        """The same slices for every call: scans evenly spread, each slice nearest to `position`;
        where there are fewer scans than slices, the next nearest."""
        chosen = []
        spread = np.linspace(0, len(self.scans) - 1, self.count).round().astype(int).tolist()
        for turn, scan in enumerate(spread):
            order = np.argsort(np.abs(self._positions[scan] - position), kind="stable")
            rank = spread[:turn].count(scan) % len(order)
            chosen.append((scan, int(self._kept[scan][order[rank]])))
        return self._images(chosen)

    def _images(self, chosen: Sequence[tuple[int, int]]) -> Tensor:
        return torch.stack([self.scans[scan].images[index] for scan, index in chosen])
