"""`data prepare`."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fewshot_seg.cli.console import BAD_REQUEST, counting, err, guarded, out

MAX_WORKERS = 4
"""Unless more are asked for: each holds a scan in memory, and a raw CT scan is large."""


@guarded("scans prepared so far are kept; start the same command again for the rest")
def prepare(
    benchmark: Annotated[str, typer.Argument(help="chaos-t2, synapse or ms-cmrseg.")],
    raw: Annotated[
        Path,
        typer.Argument(help="The download: its zip, the unpacked folder, or one above or inside."),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where the folder of prepared scans is put.")
    ],
    workers: Annotated[
        int | None,
        typer.Option(help="Processes; one a core, at most 4, unless given.", min=1),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a download that lacks scans.")
    ] = False,
) -> None:
    """Make a benchmark folder from the downloaded archive, as the published numbers have it.

    The same command goes on where it was stopped. Exit code 2 when a scan cannot be used; the
    others are prepared.

    [bold]Example[/]  fewshot-seg data prepare chaos-t2 CHAOS_Train_Sets.zip data
    """
    from fewshot_seg.data.raw.runner import find_raw, prepare_found

    found = find_raw(benchmark, raw, strict=strict)
    with counting(f"preparing {benchmark}", len(found.scans)) as advance:
        report = prepare_found(found, folder, workers=workers or _cores(), on_scan=advance)
    out().print(report.table())
    if not report.ok:
        failed = ", ".join(one.id for one in report.failed)
        err().print(Text(f"cannot be used: {failed}", style="bold red"), soft_wrap=True)
        raise typer.Exit(BAD_REQUEST)
    out().print(Text(f"Look at them with: fewshot-seg data check {report.folder}"), soft_wrap=True)


def _cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(usable or 1, MAX_WORKERS)
