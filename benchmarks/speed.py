"""What a method costs beside its bare encoder, as ratios measured in one process.

    python benchmarks/speed.py                                  # apscl at its defaults, 256x256
    python benchmarks/speed.py --method panet --encoder resnet18 --size 128 --rounds 9

Train: forward + backward of a step against the encoder's forward + backward on the same images.
Test: `segment` of a batch of slices (support encoded before) against the encoder's forward on the
same slices; the difference is what prior, enrichment and decoder add.
Rounds alternate between the two, and medians are compared, as machines drift.
"""

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from fewshot_seg import build
from fewshot_seg.testing import make_episode


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
    """Seconds of a whole step and of the bare encoder."""
    device = next(method.parameters()).device
    episode = make_episode(batch=1, size=(size, size)).to(device)
    images = torch.cat([episode.support.images.flatten(0, 2), episode.query_images.flatten(0, 1)])
    images = images.to(memory_format=torch.channels_last)
    encoder: nn.Module = method.encoder  # type: ignore[assignment]
    method.train()

    def step() -> None:
        method.zero_grad(set_to_none=True)
        with autocast(device, precision):
            output = method(episode)
        output.loss.backward()

    def bare() -> None:
        encoder.zero_grad(set_to_none=True)
        with autocast(device, precision):
            maps: Tensor = encoder(images)
        maps.float().mean().backward()

    whole, alone = alternate(rounds, step, bare)
    return whole, alone


@torch.inference_mode()
def testing(
    method: nn.Module, size: int, slices: int, rounds: int, precision: str
) -> tuple[float, float]:
    """Seconds of `segment` on a batch of slices and of the bare encoder on them."""
    device = next(method.parameters()).device
    episode = make_episode(batch=1, n_query=slices, size=(size, size)).to(device)
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
    method: Annotated[str, typer.Option(help="registered name")] = "apscl",
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
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    changes = {"encoder": encoder} if encoder else {}
    network = build(method, image_size=size, **changes).to(device)
    network.to(memory_format=torch.channels_last)
    step, bare_step = training(network, size, rounds, precision)
    test, bare_test = testing(network, size, slices, rounds, precision)
    name = network.recipe.encoder.name  # type: ignore[union-attr]
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{threads} CPU threads"
    row = (
        f"| {method} | {name} | {size} | {precision} | {step:.3f} | {bare_step:.3f} | "
        f"**{step / bare_step:.3f}** | {test / slices:.4f} | {bare_test / slices:.4f} | "
        f"**{test / bare_test:.3f}** | {where}, {platform.machine()}, torch {torch.__version__} |"
    )
    head = (
        "| method | encoder | size | precision | train step s | bare s | ratio | test s/slice | "
        "bare s/slice | ratio | where |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    print(f"{head}\n{row}")
    if out is not None:
        new = not out.exists()
        with out.open("a", encoding="utf-8") as file:
            file.write(f"{head}\n{row}\n" if new else f"{row}\n")


if __name__ == "__main__":
    typer.run(main)
