"""`ablate` and `report`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fewshot_seg.cli.console import INCOMPLETE, err, guarded, out


@guarded("start the same command again to go on where it stopped")
def ablate(
    grid: Annotated[Path, typer.Argument(help="The grid, a TOML file; see docs/ablation.md.")],
    folder: Annotated[Path, typer.Option("--out", help="The study's folder; it is resumable.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", help="Where the data lie: FOLDER, or NAME=FOLDER for one of several."
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local: this process; ray: a Ray cluster (extra `cluster`).")
    ] = "local",
    gpus_per_run: Annotated[
        float, typer.Option(help="Of each cell on a Ray cluster, 0.25 for four on a GPU.", min=0)
    ] = 0.0,
    cpus_per_run: Annotated[
        int, typer.Option(help="Cores of each cell on a Ray cluster.", min=1)
    ] = 1,
    max_failures: Annotated[
        int | None, typer.Option(help="Stop after so many failed cells.", min=1)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; a GPU where there is one unless given.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; torch's choice unless given.", min=1)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and what it costs; run nothing.")
    ] = False,
) -> None:
    """Run a grid of experiments: every cell once, resumable, whatever fails.

    Several of these commands may work in one folder, on one machine or more.

    [bold]Example[/]  fewshot-seg ablate benchmarks/table2-small.toml --out studies/table2
    --data chaos_MR_T2_normalized
    """
    import torch

    from fewshot_seg.ablation import Grid, make_plan, run
    from fewshot_seg.ablation.estimate import estimate
    from fewshot_seg.ablation.folder import StudyFolder
    from fewshot_seg.cli.grids import Teller, places, plan_table

    if threads is not None:
        torch.set_num_threads(threads)
    plan = make_plan(Grid.load(grid), places(data or []))
    study = StudyFolder(folder)
    known = study if study.plan.exists() else None
    cost = None
    if dry_run:
        cost = estimate(plan, known, on_probe=lambda one: err().print(Text(f"measuring {one}")))
    out().print(plan_table(plan, known, cost))
    if dry_run:
        return
    console = err()
    teller = Teller(console, plan, study)
    done = run(
        plan,
        folder,
        engine=engine,
        gpus_per_run=gpus_per_run,
        cpus_per_run=cpus_per_run,
        max_failures=max_failures,
        device=device,
        console=console if engine == "local" else None,
        on_cell=teller,
    )
    told = ", ".join(f"{count} {state}" for state, count in done.states.items())
    out().print(Text(f"{len(plan.cells)} cells: {told}"))
    for words, error in done.failures.items():
        err().print(Text(f"failed: {words}: {error}", style="red"), soft_wrap=True)
    if done.stopped:
        err().print(Text(f"stopped after {max_failures} failed cells", style="red"))
    out().print(Text(f"next: fewshot-seg report {folder}"), soft_wrap=True)
    if not done.ok:
        raise typer.Exit(INCOMPLETE)


@guarded("start the same command again")
def report(
    folder: Annotated[Path, typer.Argument(help="A study's folder, finished or not.")],
    target: Annotated[
        Path | None,
        typer.Option("--out", help="Where to; the study's folder `report` unless given."),
    ] = None,
) -> None:
    """A page to look at, tables in Markdown, LaTeX and CSV, and every score, of a study.

    [bold]Example[/]  fewshot-seg report studies/table2
    """
    from fewshot_seg.ablation import read_study
    from fewshot_seg.ablation.report.page import write_report
    from fewshot_seg.ablation.study import scores_table
    from fewshot_seg.data.atomic import write_bytes

    study = read_study(folder)
    place = folder / "report" if target is None else target
    page = write_report(study, place)
    write_bytes(place / "scores.csv", scores_table(study).encode())
    out().print(Text(f"written: {page}, tables and scores.csv beside it"), soft_wrap=True)
