"""What the ablation room itself costs: planning and reporting 10 000 cells, overhead of a cell.

    python benchmarks/grids.py

The plan is of 10 000 different recipes on synthetic scans. The report is of 10 000 synthetic cells
(100 variants, 4 organs, 5 folds, 5 seeds, 4 scans each). The overhead of a cell is the time that
`run` takes beyond training and testing it. Processor time stands beside wall-clock time, for busy
machines.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from grid_cases import tiny
from study_cases import Row, write_study

from fewshot_seg.ablation import make_plan, read_study, run
from fewshot_seg.ablation.folder import StudyFolder
from fewshot_seg.ablation.report.page import write_report


@contextmanager
def timed(what: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    print(
        f"{what}: {time.perf_counter() - wall:.1f} s, processor {time.process_time() - cpu:.1f} s"
    )


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as place:
        _plan(Path(place))
        _report(Path(place))
        _overhead(Path(place))


def _plan(place: Path) -> None:
    values = [number / 1000 for number in range(1, 101)]
    axes = [{"name": "ce", "key": "weights.ce", "values": values},
            {"name": "rate", "key": "training.lr", "values": values}]  # fmt: skip
    make_plan(tiny())  # imports are not what is measured
    with timed("plan of 10 000 cells"):
        plan = make_plan(tiny(axis=axes))
        folder = StudyFolder(place / "plan")
        folder.claim(plan.to_dict(), "")
        assert len({folder.state(cell.id) for cell in plan.cells}) == 1
    assert len(plan.cells) == 10_000


def _report(place: Path) -> None:
    rows = [Row(f"v{number}", {"x": str(number)}, 0.3 + number / 250) for number in range(100)]
    organs, five = ("liver", "right kidney", "left kidney", "spleen"), range(5)
    write_study(place / "study", rows, organs=organs, folds=five, seeds=five, reference="v0")
    with timed("reading 10 000 cells"):
        study = read_study(place / "study")
    assert len(study.cells) == 10_000
    with timed("report of 10 000 cells"):
        write_report(study, place / "report")


def _overhead(place: Path) -> None:
    plan = make_plan(tiny())
    begin = time.perf_counter()
    assert run(plan, place / "run").ok
    seconds = time.perf_counter() - begin
    cell = read_study(place / "run").cells.iloc[0]
    spent = cell.train_seconds + cell.test_seconds
    print(f"one cell: {seconds:.2f} s, of which training and testing {spent:.2f} s")


if __name__ == "__main__":
    main()
