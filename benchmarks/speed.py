"""What a method costs beside its bare encoder, as ratios measured in one process.

    python benchmarks/speed.py                                  # apscl at its defaults, 256x256
    python benchmarks/speed.py --method panet,alpnet --encoder resnet18 --size 128 --rounds 9

Train: forward + backward of a step against the encoder's forward + backward on the same images, or,
for a whole network, against its own forward + backward without losses.
Test: `segment` of a batch of slices (support encoded before) against the encoder's forward on the
same slices; the difference is what prior, enrichment and decoder add.
Rounds alternate between the two, and medians are compared, as machines drift.
"""

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from fewshot_seg import Episode, Pipeline, build
from fewshot_seg.building import recipe_of
from fewshot_seg.needs import needs_of
from fewshot_seg.testing import make_episode

HEAD = (
    "| method | encoder | size | precision | train step s | bare s | ratio | test s/slice | "
    "bare s/slice | ratio | where |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def alternate(rounds: int, *jobs: Callable[[], object]) -> list[float]:
    """Median seconds of each job; one unmeasured round first."""
    times: list[list[float]] = [[] for _ in jobs]
    for index in range(rounds + 1):
        for job, found in zip(jobs, times, strict=True):
            start = time.perf_counter()
            job()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if index:
                found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def training(method: nn.Module, size: int, rounds: int, precision: str) -> tuple[float, float]:
    """Seconds of a whole step and of its networks alone."""
    device = next(method.parameters()).device
    episode = make_episode(batch=1, size=(size, size), needs=needs_of(method)).to(device)
    floor = encoder_alone if isinstance(method, Pipeline) else unlabelled
    networks = floor(method, episode)
    method.train()

    def step() -> None:
        method.zero_grad(set_to_none=True)
        with autocast(device, precision):
            output = method(episode)
        output.loss.backward()

    def bare() -> None:
        method.zero_grad(set_to_none=True)
        with autocast(device, precision):
            answer = networks()
        answer.float().mean().backward()

    whole, alone = alternate(rounds, step, bare)
    return whole, alone


def encoder_alone(method: nn.Module, episode: Episode) -> Callable[[], Tensor]:
    """The encoder on support and query; without gradient on images that serve a part only."""
    images = torch.cat([episode.support.images.flatten(0, 2), episode.query_images.flatten(0, 1)])
    images = images.to(memory_format=torch.channels_last)
    further = [
        tensor.flatten(0, 1).to(memory_format=torch.channels_last)
        for tensor in (episode.support.unlabelled, episode.extras.get("second_view_images"))
        if tensor is not None
    ]
    encoder: nn.Module = method.encoder  # type: ignore[assignment]

    def run() -> Tensor:
        with torch.no_grad():
            for more in further:
                encoder(more)
        maps: Tensor = encoder(images)
        return maps

    return run


def unlabelled(method: nn.Module, episode: Episode) -> Callable[[], Tensor]:
    """A whole network without its losses: what it does with an episode that has no labels."""
    blind = episode.without_labels()
    return lambda: method(blind).logits


@torch.inference_mode()
def testing(
    method: nn.Module, size: int, slices: int, rounds: int, precision: str
) -> tuple[float, float]:
    """Seconds of `segment` on a batch of slices and of the bare encoder on them."""
    device = next(method.parameters()).device
    needs = needs_of(method)
    episode = make_episode(batch=1, n_query=slices, size=(size, size), needs=needs).to(device)
    images = episode.query_images.flatten(0, 1).to(memory_format=torch.channels_last)
    method.eval()
    encoder: nn.Module = method.encoder  # type: ignore[assignment]
    with autocast(device, precision):
        state = method.encode_support(episode.support)  # type: ignore[operator]

    def segment() -> None:
        with autocast(device, precision):
            method.segment(state, episode.query_images)  # type: ignore[operator]

    def bare() -> None:
        with autocast(device, precision):
            encoder(images)

    whole, alone = alternate(rounds, segment, bare)
    return whole, alone


def main(
    method: Annotated[str, typer.Option(help="registered names, comma separated")] = "apscl",
    encoder: Annotated[str, typer.Option(help="registered name; the recipe's own if empty")] = "",
    size: Annotated[int, typer.Option(help="pixels of a side")] = 256,
    slices: Annotated[int, typer.Option(help="query slices in a batch at test")] = 4,
    rounds: Annotated[int, typer.Option(help="measured rounds")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    precision: Annotated[str, typer.Option(help="32 or bf16")] = "32",
    out: Annotated[Path | None, typer.Option(help="append a Markdown row to this file")] = None,
) -> None:
    """Print the two ratios, and what they were measured on."""
    torch.set_num_threads(threads)
    print(HEAD)
    for name in method.split(","):
        row = measure(name.strip(), encoder, size, slices, rounds, threads, precision)
        print(row, flush=True)
        if out is not None:
            new = not out.exists()
            with out.open("a", encoding="utf-8") as file:
                file.write(f"{HEAD}\n{row}\n" if new else f"{row}\n")


def measure(
    method: str, encoder: str, size: int, slices: int, rounds: int, threads: int, precision: str
) -> str:
    """A row of the table."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    changes: dict[str, Any] = {"encoder": encoder} if encoder else {}
    whole = not recipe_of(method).is_pipeline
    network = build(method, **({} if whole else {"image_size": size, **changes})).to(device)
    network.to(memory_format=torch.channels_last)
    step, bare_step = training(network, size, rounds, precision)
    tested = "| | | "
    if not whole:
        test, bare_test = testing(network, size, slices, rounds, precision)
        tested = f"| {test / slices:.4f} | {bare_test / slices:.4f} | **{test / bare_test:.3f}** "
    name = "its own" if whole else network.recipe.encoder.name  # type: ignore[union-attr]
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{threads} CPU threads"
    return (
        f"| {method} | {name} | {size} | {precision} | {step:.3f} | {bare_step:.3f} | "
        f"**{step / bare_step:.3f}** {tested}| {where}, {platform.machine()}, "
        f"torch {torch.__version__} |"
    )


if __name__ == "__main__":
    typer.run(main)
