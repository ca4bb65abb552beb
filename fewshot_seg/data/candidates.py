"""Which slices of which scans can stand for a class in training."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
import torch

from fewshot_seg.data.prepare import PreparedScan

Pick = tuple[int, int]
"""Position of a scan in the list of scans, and a slice of it."""

THIRDS = 3


@dataclass(frozen=True, eq=False)
class Candidates:
    """The slices that show one class.

    pool: scan position -> slices.
    thirds: the same, for the lower, middle and upper third of the class's range in each scan.
    ranges: scan position -> first and last slice that shows the class in the original labels.
    """

    pool: Mapping[int, Sequence[int]]
    thirds: Sequence[Mapping[int, Sequence[int]]]
    ranges: Mapping[int, tuple[int, int]]

    @classmethod
    def collect(
        cls,
        scans: Sequence[PreparedScan],
        kept: Sequence[AbstractSet[int]],
        class_id: int,
        min_pixels: int,
    ) -> "Candidates":
        """The slices in `kept` (one set a scan) with `min_pixels` or more of the class."""
        pool: dict[int, list[int]] = {}
        thirds: list[dict[int, list[int]]] = [{} for _ in range(THIRDS)]
        ranges: dict[int, tuple[int, int]] = {}
        for position, scan in enumerate(scans):
            shown = scan.class_slices.get(class_id)
            if not shown or scan.labels is None:
                continue
            ranges[position] = shown[0], shown[-1]
            pixels = torch.sum(scan.labels[list(shown)] == class_id, (1, 2)).tolist()
            for index, count in zip(shown, pixels):
                if count >= min_pixels and index in kept[position]:
                    pool.setdefault(position, []).append(index)
                    third = third_of(index, ranges[position])
                    thirds[third].setdefault(position, []).append(index)
        return cls(pool, thirds, ranges)

    def shared_with(self, others: Sequence["Candidates"]) -> "Candidates":
        """The slices that show this class and each of the `others`; thirds are this class's."""

        def both(pool: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
            kept = {
                scan: [one for one in slices if all(one in o.pool.get(scan, ()) for o in others)]
                for scan, slices in pool.items()
            }
            return {scan: slices for scan, slices in kept.items() if slices}

        return Candidates(both(self.pool), [both(third) for third in self.thirds], self.ranges)

    @property
    def total(self) -> int:
        """Number of slices over all scans."""
        return sum(len(slices) for slices in self.pool.values())

    def third(self, pick: Pick) -> int | None:
        """The third of the class's range that a slice is in, or nearest to; None where its scan
        does not show the class."""
        extent = self.ranges.get(pick[0])
        return None if extent is None else third_of(pick[1], extent)

    def draw(
        self,
        count: int,
        generator: np.random.Generator,
        *,
        third: int | None = None,
        without_scans: AbstractSet[int] = frozenset(),
        without: AbstractSet[Pick] = frozenset(),
    ) -> list[Pick] | None:
        """`count` different slices, each from a scan drawn uniformly; None if there are too few.

        third: draw from that third of the range only.
        """
        pool = self.pool if third is None else self.thirds[third]
        scans = [scan for scan in pool if scan not in without_scans]
        taken = set(without)
        found: list[Pick] = []
        while len(found) < count:
            if not scans:
                return None
            scan = scans[int(generator.integers(len(scans)))]
            free = [index for index in pool[scan] if (scan, index) not in taken]
            if not free:
                scans.remove(scan)
                continue
            found.append((scan, free[int(generator.integers(len(free)))]))
            taken.add(found[-1])
        return found


def third_of(index: int, extent: tuple[int, int]) -> int:
    """0, 1 or 2: the third of the range (first slice, last slice) that a slice is in or nearest to.

    The rule of ALPNet's "parts-3" protocol, so that training pairs slices as testing does.
    """
    first, last = extent
    if first == last:
        return 0
    return min(max(THIRDS * (index - first) // (last - first), 0), THIRDS - 1)
