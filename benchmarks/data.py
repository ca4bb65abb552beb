"""From scans to episodes: how fast they are drawn, how fast the store opens, how much memory it is.

    python benchmarks/data.py --data path/to/chaos_MR_T2_normalized

One thread. Sampling is timed in processor time, so that it tells the speed of a core whatever else
the machine does, and the median of several rounds is shown.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from fewshot_seg import Episode, Support, build
from fewshot_seg.data import recolour
from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.batch_augment import BatchAugmentation
from fewshot_seg.data.drawn import WithDrawnChanges
from fewshot_seg.data.episodes import EpisodeSource, SupervisedSource
from fewshot_seg.data.folder import Folder, open_folder
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.prepare import PreparedScan, prepare_all
from fewshot_seg.data.selfsupervised import SuperpixelSource
from fewshot_seg.data.supervoxel_source import SupervoxelSource
from fewshot_seg.data.warp import Affine, elastic_field, resample, sampling_grid
from fewshot_seg.episode import collate
from fewshot_seg.training import TrainConfig, train

SOURCES = ("supervised", "superpixel", "supervoxel")
STEP = 8
"""Episodes that are changed at once on a device."""


def make(
    name: str, scans: list[PreparedScan], classes: tuple[int, ...], cache: Path, **options: Any
) -> EpisodeSource:
    if name == "supervised":
        return SupervisedSource(scans, classes=classes, pairing="matched", **options)
    kind = SuperpixelSource if name == "superpixel" else SupervoxelSource
    return kind(scans, cache=cache, **options)


def seconds(
    work: Callable[[], object], rounds: int, clock: Callable[[], float] = time.process_time
) -> float:
    """Of one call: the median of some rounds, after one that is not measured."""
    work()
    times = []
    for _ in range(rounds):
        start = clock()
        work()
        times.append(clock() - start)
    return statistics.median(times)


def repeat(job: Callable[[int], object], count: int) -> None:
    for index in range(count):
        job(index)


def opening(data: Folder, size: int, cache: Path, rounds: int) -> list[PreparedScan]:
    def prepared() -> list[PreparedScan]:
        return prepare_all(data, data.ids, size=size, intensity=Intensity(), cache=cache).scans

    start = time.perf_counter()
    scans = prepared()
    built = time.perf_counter() - start
    opened = seconds(prepared, rounds, time.perf_counter)
    held = sum(file.stat().st_size for file in cache.rglob("*.safetensors"))
    print("| scans | slices | prepare and keep | open | on disk |\n|---|---|---|---|---|")
    slices = sum(scan.n_slices for scan in scans)
    print(
        f"| {len(scans)} | {slices} | {built:.1f} s | **{1000 * opened:.1f} ms** | "
        f"{held / 2**20:.0f} MiB |\n"
    )
    return scans


def sampling(
    scans: list[PreparedScan], classes: tuple[int, ...], cache: Path, count: int, rounds: int
) -> None:
    print("| episodes | a second, field | strong | none | source made, first time | again |")
    print("|---|---|---|---|---|---|")
    for name in SOURCES:
        start = time.process_time()
        make(name, scans, classes, cache)
        first = time.process_time() - start
        again = seconds(partial(make, name, scans, classes, cache), 3)
        speeds = []
        for augmentation in (Augmentation(), Augmentation.strong(), Augmentation.none()):
            source = make(name, scans, classes, cache, augmentation=augmentation)
            speeds.append(count / seconds(partial(repeat, source.episode, count), rounds))
        field, strong, none = speeds
        print(
            f"| {name} | **{field:.0f}** | {strong:.0f} | {none:.0f} | {first:.1f} s | "
            f"{again:.2f} s |",
            flush=True,
        )


def pieces(size: int, rounds: int) -> None:
    """What one augmented slice costs, with one mask."""
    generator = np.random.default_rng(0)
    sides, affine = (size, size), Affine(3.0, (2.0, 1.0), 2.0, 1.1)
    field = elastic_field(sides, 10.0, 5.0, generator)
    grid, planes = sampling_grid(sides, affine, field)[None], torch.rand(1, 2, size, size)
    jobs: dict[str, Callable[[int], object]] = {
        "elastic: noise": lambda _: generator.random((2, size, size), dtype=np.float32),
        "elastic: noise and blur": lambda _: elastic_field(sides, 10.0, 5.0, generator),
        "grid": lambda _: sampling_grid(sides, affine, field),
        "resampling of image and mask": lambda _: resample(planes, grid),
        "gamma": lambda _: recolour.gamma(planes[:1, :1], 1.3),
    }
    print("\n| part of an augmented slice | ms |\n|---|---|")
    for name, job in jobs.items():
        many = seconds(partial(repeat, job, 50), rounds)
        print(f"| {name} | {1000 * many / 50:.2f} |")


def places(
    scans: list[PreparedScan], classes: tuple[int, ...], cache: Path, count: int, rounds: int
) -> None:
    """What an episode costs, with its images changed by a worker and on the device."""
    print(
        f"\n| augmentation | by a worker, ms | only drawn | in a step of {STEP}, changed at once |"
    )
    print("|---|---|---|---|")
    for name, strength in (("field", Augmentation()), ("strong", Augmentation.strong())):
        made = make("supervised", scans, classes, cache, augmentation=strength)
        drawn = WithDrawnChanges(make("supervised", scans, classes, cache), strength, seed=0)
        step = collate([drawn.episode(index) for index in range(STEP)])
        times = [seconds(partial(repeat, one.episode, count), rounds) for one in (made, drawn)]
        there = seconds(partial(BatchAugmentation(strength), step), rounds)
        cells = [*(1000 * one / count for one in times), 1000 * there / STEP]
        print(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")


class OneEpisode:
    """The same random episode again and again: training without data."""

    def __init__(self, like: Episode) -> None:
        self._episode = like.map(torch.clone)

    def episode(self, index: int) -> Episode:
        return self._episode

    def describe(self) -> dict[str, Any]:
        return {"source": "one"}


def memory(data: Path, size: int, cache: Path, method: str, encoder: str) -> None:
    """Peak resident memory of training processes, each on its own."""
    print("\n| training on | peak MiB | beside one episode |\n|---|---|---|")
    alone = 0.0
    cases = [("one", True), *((name, kept) for kept in (True, False) for name in SOURCES)]
    for name, kept in cases:
        asked = json.dumps([str(data), size, str(cache) if kept else None, method, encoder, name])
        command = [sys.executable, __file__, "--task", asked]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peak = float(answer.split()[-1])
        alone = alone or peak
        words = "one episode, no scans" if name == "one" else name
        words += "" if kept else ", no store"
        print(f"| {words} | {peak:.0f} | {peak / alone:.2f} |", flush=True)


def train_and_tell(asked: str) -> None:
    """In a process of its own: a few steps, then the most memory that was resident."""
    data, size, cache, method, encoder, name = json.loads(asked)
    torch.set_num_threads(1)
    network = build(method, encoder=encoder, image_size=size)
    source: EpisodeSource
    if name == "one":
        shown = torch.zeros(1, 1, 1, size, size)
        shown[..., : size // 2] = 1
        images = torch.randn(1, 1, 3, size, size)
        source = OneEpisode(Episode(Support(images[:, :, None], shown), images, shown[:, 0].long()))
    else:
        folder = open_folder(root=data)
        given: dict[str, Any] = {"size": size, "intensity": Intensity(), "cache": cache}
        scans = prepare_all(folder, folder.ids[5:], **given).scans
        source = make(name, scans, tuple(folder.classes), cache)
    with tempfile.TemporaryDirectory() as out:
        train(network, source, TrainConfig(steps=6), out=Path(out) / "run", progress=False)
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main(
    data: Annotated[Path | None, typer.Option(help="a folder of scans")] = None,
    size: Annotated[int, typer.Option(help="pixels of a side")] = 256,
    count: Annotated[int, typer.Option(help="episodes in a round")] = 100,
    rounds: Annotated[int, typer.Option(help="measured rounds")] = 5,
    method: Annotated[str, typer.Option(help="trained to measure memory; empty: none")] = "panet",
    encoder: Annotated[str, typer.Option(help="its encoder")] = "resnet18",
    task: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    if task:
        train_and_tell(task)
        return
    if data is None:
        raise typer.BadParameter("name a folder of scans with --data")
    folder = open_folder(root=data)
    with tempfile.TemporaryDirectory() as empty:
        cache = Path(empty)
        scans = opening(folder, size, cache, rounds)
        sampling(scans, tuple(folder.classes), cache, count, rounds)
        pieces(size, rounds)
        places(scans, tuple(folder.classes), cache, count, rounds)
        if method:
            memory(data, size, cache, method, encoder)


if __name__ == "__main__":
    typer.run(main)
