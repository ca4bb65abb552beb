"""What `ablate` shows."""

import time
from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fewshot_seg.ablation.cell import Cell
from fewshot_seg.ablation.estimate import Estimate
from fewshot_seg.ablation.folder import DONE, FAILED, MISSING, StudyFolder
from fewshot_seg.ablation.plan import ONLY, Plan
from fewshot_seg.errors import OptionError


def places(pairs: Iterable[str]) -> dict[str, str]:
    """`["FOLDER"]` or `["chaos=FOLDER"]` as data name -> folder. Raises OptionError."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, place = pair.partition("=")
        name, place = (name, place) if equals else (ONLY, pair)
        if not place or name in found:
            raise OptionError(f"--data {pair}: write FOLDER, or NAME=FOLDER once for each data set")
        found[name] = place
    return found


def plan_table(plan: Plan, folder: StudyFolder | None, cost: Estimate | None) -> Table:
    """A row for each variant: its cells, how many are done, and the time that is left."""
    grid = plan.grid
    made = Table(
        title=f"{grid.name}: {len(plan.cells)} cells" + (f". {grid.title}" if grid.title else ""),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        caption=_caption(plan, cost),
        caption_justify="left",
    )
    made.add_column("variant", overflow="fold")
    for name in ("cells", "done", "failed", *(["training left"] if cost else [])):
        made.add_column(name, justify="right")
    by_variant: dict[str, list[Cell]] = {}
    for cell in plan.cells:
        by_variant.setdefault(cell.variant, []).append(cell)
    for variant, cells in by_variant.items():
        states = [folder.state(cell.id) if folder else MISSING for cell in cells]
        row = [str(len(cells)), str(states.count(DONE)), str(states.count(FAILED))]
        if cost:
            row.append(duration(cost.seconds.get(variant, 0.0)))
        made.add_row(variant, *row)
    return made


def _caption(plan: Plan, cost: Estimate | None) -> str:
    trainings = len({cell.training for cell in plan.cells})
    data = ", ".join(
        f"{source.dataset.name} (version {source.version})" for source in plan.sources.values()
    )
    lines = [f"{trainings} trainings; data: {data}"]
    if cost is not None:
        lines.append(
            f"about {duration(cost.total)} of training left in one process on this machine "
            f"(steps of {cost.known} variants known from finished trainings, {cost.measured} "
            "measured now); testing is not counted"
        )
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """`3 h 20 min`, `12 min` or `40 s`; `unknown` for NaN."""
    if seconds != seconds:
        return "unknown"
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"


class Teller:
    """A line for each cell that begins or ends, with the time that is left."""

    def __init__(self, console: Console, plan: Plan, folder: StudyFolder) -> None:
        self.console, self.folder = console, folder
        self.total = len(plan.cells)
        self.left = [cell.id for cell in plan.cells if folder.state(cell.id) != DONE]
        self.begun, self.through = time.monotonic(), 0

    def __call__(self, cell: Cell, state: str) -> None:
        if state == "start":
            self._say(f"{cell.words}: begins", "bold")
            return
        self.through += 1
        self.left = [one for one in self.left if one != cell.id]
        spent = time.monotonic() - self.begun
        rest = f", about {duration(spent / self.through * len(self.left))} left"
        told = f"{self.total - len(self.left)} of {self.total}{rest if self.left else ''}"
        error = f": {self.folder.read_failure(cell.id)}" if state == FAILED else ""
        self._say(f"{cell.words}: {state}{error} ({told})", "red" if state == FAILED else "green")

    def _say(self, words: str, style: str) -> None:
        self.console.print(Text(words, style=style), soft_wrap=True)
