"""What was measured, as data."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.profiling.subject import BACKWARD, FORWARD, SEGMENT, Load


@dataclass(frozen=True)
class Costs:
    """By phase (`forward`, `backward`, `support`, `segment`) seconds and FLOPs."""

    seconds: Mapping[str, float]
    flops: Mapping[str, float]

    @property
    def step(self) -> float:
        """Seconds of a training step."""
        return self.seconds[FORWARD] + self.seconds[BACKWARD]

    @property
    def step_flops(self) -> float:
        return self.flops[FORWARD] + self.flops[BACKWARD]

    @property
    def segment(self) -> float:
        """Seconds for all slices of a call, the support encoded before."""
        return self.seconds[SEGMENT]

    @property
    def segment_flops(self) -> float:
        return self.flops[SEGMENT]


@dataclass(frozen=True)
class Row:
    """A part, the numbers in its parameters, and what it costs."""

    part: str
    parameters: int
    costs: Costs


@dataclass(frozen=True)
class Memory:
    """Peak bytes of a training step and of segmenting, and of the process so far, if known.

    train is 0 for a method that does not learn.
    """

    train: int
    test: int
    resident: int | None


@dataclass(frozen=True)
class Profile:
    """A method's costs, part by part, beside its bare networks' (see `Subject.bare_step`)."""

    load: Load
    precision: str
    clock: str
    machine: Mapping[str, str | int]
    rows: tuple[Row, ...]
    bare: Costs
    memory: Memory

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def whole(self) -> Costs:
        """The sum of all parts."""
        phases = self.bare.seconds
        return Costs(
            {one: sum(row.costs.seconds[one] for row in self.rows) for one in phases},
            {one: sum(row.costs.flops[one] for row in self.rows) for one in phases},
        )

    @property
    def train_ratio(self) -> float | None:
        """A training step over the bare networks'; None for a method that does not learn."""
        return ratio(self.whole.step, self.bare.step)

    @property
    def test_ratio(self) -> float | None:
        """Segmenting over the bare encoder; None for a whole network, which has none."""
        return ratio(self.whole.segment, self.bare.segment)

    def to_dict(self) -> dict[str, Any]:
        """Plain tables: all above, the sums and the ratios."""
        return {
            **asdict(self),
            "whole": {"parameters": self.parameters, "costs": asdict(self.whole)},
            "train_ratio": self.train_ratio,
            "test_ratio": self.test_ratio,
        }

    def to_json(self, path: Path) -> None:
        """Raises DataError when it cannot be written."""
        write_bytes(path, (json.dumps(self.to_dict(), indent=2) + "\n").encode())


def ratio(whole: float, bare: float) -> float | None:
    """None where there is nothing to compare with."""
    return whole / bare if bare else None
