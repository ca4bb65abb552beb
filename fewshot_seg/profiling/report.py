"""A profile to look at."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fewshot_seg.profiling.result import Costs, Profile, ratio
from fewshot_seg.profiling.subject import BACKWARD, FORWARD, SUPPORT

COLUMNS = (
    "weights",
    "GFLOP\nstep",
    "GFLOP\nslice",
    "ms\nforward",
    "ms\nbackward",
    "ms\nsupport",
    "ms\nslice",
)


def table(profile: Profile, title: str) -> Table:
    """A row for each part, the whole, the bare networks and the ratios; 80 letters are enough."""
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    made.add_column("part", overflow="fold")
    for heading in COLUMNS:
        made.add_column(heading, justify="right", no_wrap=True)
    slices = profile.load.slices
    for row in profile.rows:
        made.add_row(row.part, _count(row.parameters), *_cells(row.costs, slices))
    made.add_section()
    made.add_row("whole", _count(profile.parameters), *_cells(profile.whole, slices), style="bold")
    made.add_row("bare networks", "", *_cells(profile.bare, slices))
    made.add_row("ratio", "", *_ratios(profile.whole, profile.bare))
    return made


def summary(profile: Profile) -> list[str]:
    """Ratios, memory, what was asked for and the machine, a line each."""
    told, memory = profile.machine, profile.memory
    found = []
    if profile.train_ratio is not None:
        found.append(f"a training step costs {profile.train_ratio:.3f} times its bare networks")
    if profile.test_ratio is not None:
        found.append(f"segmenting costs {profile.test_ratio:.3f} times its bare encoder")
    peaks = {"training step": memory.train, "segmenting": memory.test,
             "process so far": memory.resident}  # fmt: skip
    shown = ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in peaks.items() if size)
    asked = ", ".join(f"{name} {value}" for name, value in vars(profile.load).items())
    seconds = "processor time" if profile.clock == "process" else "wall-clock time"
    return [
        *found,
        f"peak memory: {shown}",
        f"{asked}; precision {profile.precision}; medians of {seconds}",
        f"{told['device']}; {told['processor']}, {told['threads']} threads; "
        f"torch {told['torch']}; {told['system']}",
    ]


def _cells(costs: Costs, slices: int) -> list[str]:
    seconds = costs.seconds
    return [
        _number(costs.step_flops / 1e9),
        _number(costs.segment_flops / slices / 1e9),
        *(_number(1000 * seconds[one]) for one in (FORWARD, BACKWARD, SUPPORT)),
        _number(1000 * costs.segment / slices),
    ]


def _ratios(whole: Costs, bare: Costs) -> list[str]:
    pairs = [
        (whole.step_flops, bare.step_flops),
        (whole.segment_flops, bare.segment_flops),
        *((whole.seconds[one], bare.seconds[one]) for one in (FORWARD, BACKWARD, SUPPORT)),
        (whole.segment, bare.segment),
    ]
    found = (ratio(one, other) for one, other in pairs)
    return ["" if one is None else f"{one:.3f}" for one in found]


def _number(value: float) -> str:
    """Two digits behind the point; nothing for what is not there."""
    if not value:
        return ""
    return f"{value:.2f}" if value >= 0.005 else "< 0.01"


def _count(parameters: int) -> str:
    """Millions, or themselves where they are few."""
    if parameters < 10_000:
        return str(parameters or "")
    return f"{parameters / 1e6:.2f} M"
