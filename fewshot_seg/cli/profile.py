"""`profile`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fewshot_seg.cli.console import guarded, out
from fewshot_seg.cli.values import parse_settings


@guarded("nothing was written; start the same command again")
def profile(
    method: Annotated[
        str, typer.Argument(help="A method by name (see `fewshot-seg list methods`), or a recipe.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the recipe: encoder=resnet18, prior=none. Repeatable."),
    ] = None,
    size: Annotated[
        int, typer.Option(help="Height and width of the images, in pixels.", min=8)
    ] = 256,
    shots: Annotated[int, typer.Option(help="Labelled slices of each class.", min=1)] = 1,
    ways: Annotated[int, typer.Option(help="Classes of an episode.", min=1)] = 1,
    queries: Annotated[int, typer.Option(help="Query slices of a training episode.", min=1)] = 1,
    episodes: Annotated[int, typer.Option(help="Episodes of a training step.", min=1)] = 1,
    slices: Annotated[int, typer.Option(help="Slices segmented in one call.", min=1)] = 4,
    precision: Annotated[
        str, typer.Option(help="32, bf16, or auto: bf16 where the hardware computes in it.")
    ] = "auto",
    rounds: Annotated[int, typer.Option(help="Measured rounds; medians count.", min=1)] = 3,
    clock: Annotated[
        str, typer.Option(help="wall, or process: processor time, for a busy machine.")
    ] = "wall",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; torch's choice unless given.", min=1)
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")
    ] = "auto",
    as_json: Annotated[
        Path | None,
        typer.Option("--json", help="Write everything that was measured.", show_default=False),
    ] = None,
) -> None:
    """What a method costs, part by part: time, floating-point operations, memory.

    On synthetic images, in training (forward and backward of a step) and at test, beside its bare
    encoder on the same images; a whole network beside itself without losses.

    [bold]Example[/]  fewshot-seg profile apscl --set encoder=resnet18 --size 128
    """
    import torch

    from fewshot_seg.building import build, recipe_of
    from fewshot_seg.profiling import Load, summary, table
    from fewshot_seg.profiling import profile as measure

    if threads is not None:
        torch.set_num_threads(threads)
    source = Path(method) if method.endswith(".toml") else method
    changes = parse_settings(settings or [])
    if recipe_of(source).is_pipeline:
        changes = {"image_size": size, **changes}
    found = measure(
        build(source, **changes),
        Load(size=size, shots=shots, ways=ways, queries=queries, episodes=episodes, slices=slices),
        precision=precision,
        rounds=rounds,
        clock=clock,
        device=device,
    )
    out().print(table(found, " ".join([method, *(settings or [])])))
    for line in summary(found):
        out().print(Text(line), soft_wrap=True)
    if as_json is not None:
        found.to_json(as_json)
