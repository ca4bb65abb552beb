"""The program and its small commands; training, testing and segmenting have files of their own."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fewshot_seg._version import __version__
from fewshot_seg.allocator import keep_freed_memory
from fewshot_seg.cli import ablate, learn, oneshot, prepare, profile, segment
from fewshot_seg.cli.check import check_data
from fewshot_seg.cli.console import INCOMPLETE, debug, err, guarded, out

app = typer.Typer(
    name="fewshot-seg",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
data = typer.Typer(no_args_is_help=True, help="Prepare data sets and look at them.")
app.add_typer(data, name="data")


def main() -> None:
    """What the installed program runs."""
    keep_freed_memory()
    app(prog_name="fewshot-seg")


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"fewshot-seg {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    show_tracebacks: Annotated[
        bool, typer.Option("--debug", help="Show errors with their traceback.")
    ] = False,
) -> None:
    """Few-shot medical image segmentation.

    [bold]Start with[/]  fewshot-seg demo
    """
    debug.set(show_tracebacks)


@app.command("list")
@guarded("nothing was changed")
def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="encoders, priors, enrichments, contrastives, decoders, methods or "
            "datasets; all unless given."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Also import each one, within two minutes, to see it work."),
    ] = False,
) -> None:
    """What is installed, and who provides it.

    [bold]Example[/]  fewshot-seg list decoders
    """
    from fewshot_seg.cli.listing import kinds_of, table_of, tried

    kinds, unusable = kinds_of(kind), 0
    unloadable = tried(kinds) if check else {}
    for one in kinds:
        table, broken = table_of(one, unloadable)
        out().print(table)
        unusable += broken
    if unusable:
        err().print(Text(f"{unusable} cannot be used", style="red"))
        raise typer.Exit(INCOMPLETE)


@app.command()
@guarded("start the same command again to go on where it stopped")
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Where everything is put.")] = Path(
        "fewshot-seg-demo"
    ),
    seed: Annotated[int, typer.Option(help="Of phantoms, weights and episodes.", min=0)] = 0,
    steps: Annotated[
        int | None, typer.Option(help="Training steps; fewer is quicker and worse.", min=1)
    ] = None,
) -> None:
    """Train on synthetic scans and segment an organ that was never shown. Under three minutes.

    [bold]Example[/]  fewshot-seg demo --out my-demo
    """
    from fewshot_seg.demo import DEFAULT_STEPS, run_demo

    run_demo(folder, seed=seed, steps=DEFAULT_STEPS if steps is None else steps, console=out())


data.command("prepare")(prepare.prepare)
data.command("check")(check_data)
app.command()(learn.train)
app.command()(learn.evaluate)
app.command("segment")(segment.segment)
app.command("oneshot")(oneshot.oneshot)
app.command("profile")(profile.profile)
app.command()(ablate.ablate)
app.command()(ablate.report)
