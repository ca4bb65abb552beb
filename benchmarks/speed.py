"""What methods cost beside their bare networks, as ratios measured in one process.

    python benchmarks/speed.py                                  # apscl at its defaults, 256x256
    python benchmarks/speed.py --method all --encoder resnet18 --size 128 --parts parts.md
    python benchmarks/speed.py --curves curves.csv              # over size, shots, ways, ...
    python benchmarks/speed.py --method apscl,senet --organs 4  # several organs of one scan

Train: forward + backward of a step against the encoder's forward + backward on the same images, or,
for a whole network, against its own forward + backward without losses.
Test: `segment` of a batch of slices (support encoded before) against the encoder's forward on the
same slices; the difference is what prior, enrichment and decoder add.
Scan: 36 slices with 3 support slices, each encoded once and serving 12 slices, in batches as free
memory allows; a slice of it against the encoder's forward of one image alone.
Organs: a scan of 36 slices segmented for several organs, each by a labelled slice of its own;
methods made of parts encode a slice once for all, which is compared with encoding it for each.
Rounds alternate between what is compared, and medians count, as machines drift. `--clock process`
is for busy machines: processor time, which with several threads counts their waiting too.
Everything else is as in `fewshot-seg profile`, whose code this is.
"""

import csv
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from fewshot_seg import build, names
from fewshot_seg.allocator import keep_freed_memory
from fewshot_seg.building import recipe_of
from fewshot_seg.errors import EpisodeError
from fewshot_seg.profiling import (
    Load,
    Profile,
    Subject,
    episodes_a_second,
    phantom_source,
    profile_together,
    time_organs,
    time_scan,
)

HEADINGS = (
    "method", "encoder", "size", "precision", "train step s", "bare s", "ratio", "test s/slice",
    "bare s/slice", "ratio", "scan s/slice", "one image s", "ratio", "train GFLOP", "bare GFLOP",
    "test GFLOP/slice", "train MiB", "test MiB", "where",
)  # fmt: skip
ORGANS = (
    "method", "encoder", "size", "precision", "organs", "encoded for each, s", "once, s", "times",
    "where",
)  # fmt: skip
PARTS = (
    "method", "part", "parameters", "train GFLOP", "test GFLOP/slice", "forward ms", "backward ms",
    "support ms", "test ms/slice",
)  # fmt: skip
CURVES: Mapping[str, tuple[int, ...]] = {
    "size": (64, 96, 128, 192, 256),
    "shots": (1, 2, 3, 5),
    "ways": (1, 2, 3, 4),
    "queries": (1, 2, 4, 8),
    "episodes": (1, 2, 4, 8),
}
"""By axis; "queries" are query slices in training and slices of a call at test."""
WORKERS, STEPS = (0, 1, 2), (1, 8)
"""Processes that make episodes (0: the one that trains does), and episodes of a step."""


def main(
    method: Annotated[str, typer.Option(help="names, comma separated, or all")] = "apscl",
    encoder: Annotated[str, typer.Option(help="registered name; the recipe's own if empty")] = "",
    size: Annotated[int, typer.Option(help="pixels of a side")] = 256,
    slices: Annotated[int, typer.Option(help="query slices in a batch at test")] = 4,
    rounds: Annotated[int, typer.Option(help="measured rounds", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads", min=1)] = 2,
    precision: Annotated[str, typer.Option(help="32, bf16 or auto")] = "32",
    clock: Annotated[str, typer.Option(help="wall or process")] = "wall",
    out: Annotated[Path | None, typer.Option(help="append a Markdown row to this file")] = None,
    parts: Annotated[Path | None, typer.Option(help="append a row for each part")] = None,
    curves: Annotated[Path | None, typer.Option(help="write scaling curves, CSV")] = None,
    keep_memory: Annotated[
        bool, typer.Option("--keep-memory", help="as the program does; see fewshot_seg.allocator")
    ] = False,
    organs: Annotated[int, typer.Option(help="time so many organs of a scan only", min=0)] = 0,
) -> None:
    """Print a row for each method; or write how costs grow, with --curves; or see --organs."""
    torch.set_num_threads(threads)
    if keep_memory and not keep_freed_memory():
        raise typer.BadParameter("--keep-memory needs glibc, and no MALLOC_... in the environment")
    chosen = names("methods") if method == "all" else [one.strip() for one in method.split(",")]
    settings = Settings(encoder, precision, clock, rounds)
    if curves is not None:
        settings.write_curves(curves, chosen, Load(size=size, slices=slices))
        return
    headings = ORGANS if organs else HEADINGS
    print(line(headings), rule(headings), sep="\n")
    for name in chosen:
        if organs:
            row = line(settings.organs(name, Load(size=size), organs))
            print(row, flush=True)
            append(out, headings, [row])
            continue
        found, scan, bare = settings.measure(name, Load(size=size, slices=slices))
        row = line(summary_cells(name, settings.encoder_of(name), found, scan, bare))
        print(row, flush=True)
        append(out, HEADINGS, [row])
        append(parts, PARTS, [line(cells) for cells in part_cells(name, found)])


class Settings:
    """How everything is built and measured."""

    def __init__(self, encoder: str, precision: str, clock: str, rounds: int) -> None:
        self.encoder, self.precision = encoder, precision
        self.clock, self.rounds = clock, rounds
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def network(self, name: str, size: int) -> nn.Module:
        torch.manual_seed(0)
        if not recipe_of(name).is_pipeline:
            return build(name)
        changes: dict[str, Any] = {"encoder": self.encoder} if self.encoder else {}
        return build(name, image_size=size, **changes)

    def encoder_of(self, name: str) -> str:
        own = recipe_of(name).encoder
        return "its own" if own is None else self.encoder or own.name

    def subject(self, network: nn.Module, load: Load) -> Subject:
        return Subject(network, load, precision=self.precision, device=self.device)

    def measure(self, name: str, load: Load) -> tuple[Profile, float, float]:
        """The profile, and seconds of a scan's slice and of one image in the bare encoder."""
        subject = self.subject(self.network(name, load.size), load)
        found = profile_together([subject], rounds=self.rounds, clock=self.clock)[0]
        return found, *time_scan(subject, rounds=self.rounds, clock=self.clock)

    def organs(self, name: str, load: Load, organs: int) -> list[str]:
        """Seconds of a scan for all organs: slices encoded once, and for each organ."""
        subject = self.subject(self.network(name, load.size), load)
        together, apart = time_organs(subject, organs, rounds=self.rounds, clock=self.clock)
        where = f"{torch.get_num_threads()} CPU threads" if self.device.type == "cpu" else "GPU"
        words = [name, self.encoder_of(name), str(load.size), subject.precision, str(organs)]
        return [*words, number(apart, 2), number(together, 2), f"**{apart / together:.2f}**", where]

    def write_curves(self, path: Path, chosen: list[str], base: Load) -> None:
        """A CSV row for each method, axis and value. What a method refuses has the reason only.

        The axis "workers" has nothing to do with a method; its rows say "loader, ..." in its place.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            columns = ("method", "axis", "value", *CURVE_COLUMNS, "episodes_a_second", "refused")
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            for name in chosen:
                for axis in CURVES:
                    for value, cells in self.curve(name, axis, base):
                        writer.writerow({"method": name, "axis": axis, "value": value, **cells})
                    file.flush()
                    print(f"{name}: {axis} done", flush=True)
            for row in loader_rates(base.size):
                writer.writerow(row)

    def curve(self, name: str, axis: str, base: Load) -> Iterator[tuple[int, dict[str, Any]]]:
        """The points of an axis, which take turns in being measured."""
        subjects: dict[int, Subject] = {}
        for value in CURVES[axis]:
            load = load_at(base, axis, value)
            subject = self.subject(self.network(name, load.size), load)
            try:
                subject.check()
            except EpisodeError as error:
                yield value, {"refused": str(error)}
            else:
                subjects[value] = subject
        if not subjects:
            return
        found = profile_together(list(subjects.values()), rounds=self.rounds, clock=self.clock)
        for value, one in zip(subjects, found):
            yield value, curve_cells(one)


def loader_rates(size: int) -> Iterator[dict[str, Any]]:
    """Rows of the axis "workers": episodes made, or only drawn (`augment_on=device`)."""
    for words, on_device in (("loader", False), ("loader, on device", True)):
        source = phantom_source(size, on_device=on_device)
        for episodes in STEPS:
            for value in WORKERS:
                rate = episodes_a_second(source, value, episodes=episodes, count=200 // episodes)
                method = f"{words}, steps of {episodes}"
                yield {
                    "method": method,
                    "axis": "workers",
                    "value": value,
                    "episodes_a_second": rate,
                }


def load_at(base: Load, axis: str, value: int) -> Load:
    """`base` with another value on one axis."""
    changes = {"queries": value, "slices": value} if axis == "queries" else {axis: value}
    return Load(**{**vars(base), **changes})


def summary_cells(
    name: str, encoder: str, found: Profile, scan: float, one_image: float
) -> list[str]:
    whole, bare, slices = found.whole, found.bare, found.load.slices
    on_gpu = found.machine["device"] != "cpu"
    threads = f"{found.machine['threads']} CPU threads"
    return [
        name,
        encoder,
        str(found.load.size),
        found.precision,
        *compared(whole.step, bare.step, 3),
        *compared(whole.segment / slices, bare.segment / slices, 4),
        *compared(scan, one_image, 4),
        number(whole.step_flops / 1e9, 1),
        number(bare.step_flops / 1e9, 1),
        number(whole.segment_flops / slices / 1e9, 1),
        number(found.memory.train / 2**20, 0),
        number(found.memory.test / 2**20, 0),
        f"{found.machine['device'] if on_gpu else threads}, {platform.machine()}, "
        f"torch {torch.__version__}",
    ]


def part_cells(name: str, found: Profile) -> Iterator[list[str]]:
    slices = found.load.slices
    for row in found.rows:
        costs = row.costs
        times = [costs.seconds[one] for one in ("forward", "backward", "support")]
        yield [
            name,
            row.part,
            str(row.parameters or ""),
            number(costs.step_flops / 1e9, 2),
            number(costs.segment_flops / slices / 1e9, 2),
            *(number(1000 * one, 2) for one in times),
            number(1000 * costs.segment / slices, 2),
        ]


CURVE_COLUMNS = (
    "precision", "forward_s", "backward_s", "bare_step_s", "train_ratio", "support_s", "segment_s",
    "bare_segment_s", "test_ratio", "train_gflop", "test_gflop", "train_mib", "test_mib",
)  # fmt: skip


def curve_cells(found: Profile) -> dict[str, Any]:
    seconds = found.whole.seconds
    values = (
        found.precision,
        seconds["forward"],
        seconds["backward"],
        found.bare.step,
        found.train_ratio,
        seconds["support"],
        seconds["segment"],
        found.bare.segment,
        found.test_ratio,
        found.whole.step_flops / 1e9,
        found.whole.segment_flops / 1e9,
        found.memory.train / 2**20,
        found.memory.test / 2**20,
    )
    return dict(zip(CURVE_COLUMNS, values, strict=True))


def compared(whole: float, bare: float, digits: int) -> list[str]:
    ratio = f"**{whole / bare:.3f}**" if whole and bare else ""
    return [number(whole, digits), number(bare, digits), ratio]


def number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if value else ""


def line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def rule(headings: tuple[str, ...]) -> str:
    return "|" + "---|" * len(headings)


def append(path: Path | None, headings: tuple[str, ...], rows: list[str]) -> None:
    """Rows at the end of a Markdown file, under these headings."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    head = [] if line(headings) in before else [line(headings), rule(headings)]
    gap = "\n" if before and head else ""
    with path.open("a", encoding="utf-8") as file:
        file.write(gap + "\n".join([*head, *rows]) + "\n")


if __name__ == "__main__":
    typer.run(main)
