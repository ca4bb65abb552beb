"""One session of a run: its steps, from where the folder says to the end or an interruption."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning_fabric import Fabric
from torch import nn

from fewshot_seg.checkpoint import load_weights
from fewshot_seg.data.episodes import EpisodeSource
from fewshot_seg.data.loader import EpisodeLoader
from fewshot_seg.episode import Episode
from fewshot_seg.errors import TrainingError
from fewshot_seg.training.agreement import Wish, agree, first_decides, mean_over_ranks
from fewshot_seg.training.config import TrainConfig
from fewshot_seg.training.engine import RESERVED, Engine, OnDevice, make_engine
from fewshot_seg.training.hardware import choose_accelerator, choose_precision
from fewshot_seg.training.interrupt import Interrupt
from fewshot_seg.training.optim import learning_rate
from fewshot_seg.training.progress import Display
from fewshot_seg.training.records import Records, Start
from fewshot_seg.training.window import DIAGNOSTICS, GRADIENT, Window, check_weights

Stop = Callable[[int], bool]


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    steps: finished steps, of earlier sessions too.   finished: False when `stop` ended it early.
    losses: mean of each loss and of their `total` since the log line before the last one.
    seconds: of training, of earlier sessions too.   folder: the run folder.
    rank: of this process; with several devices only the process of rank 0 should go on to report.
    """

    steps: int
    finished: bool
    losses: Mapping[str, float]
    seconds: float
    folder: Path | None
    rank: int = 0


class Session:
    """One session of a run, in one of its processes; `records` in the first process only."""

    def __init__(
        self,
        fabric: Fabric,
        method: nn.Module,
        source: EpisodeSource,
        config: TrainConfig,
        records: Records | None,
        display: Display,
        interrupt: Interrupt,
        stop: Stop | None,
        on_device: OnDevice | None = None,
    ) -> None:
        self.fabric, self.method, self.source, self.config = fabric, method, source, config
        self.records, self.display = records, display
        self.interrupt, self.stop, self.on_device = interrupt, stop, on_device
        scaled = config.precision == "16"
        self.window = Window(frozenset({GRADIENT}) if scaled else frozenset())
        self.losses: dict[str, float] = {}
        self.done = 0
        self._earlier = 0.0
        self._clock = 0.0

    def go(self, out: Path | None) -> TrainResult:
        """All steps from the start that the folder gives."""
        records = self.records
        start = first_decides(self.fabric, records.open if records is not None else Start)
        if start.final is not None:
            return self._already_finished(start.final, out)
        engine = self._prepare(start)
        wish = self._steps(engine, start)
        if wish is Wish.INTERRUPT:
            self.display.say(self._how_to_go_on())
            raise KeyboardInterrupt
        finished = self.done == self.config.steps
        if finished and records is not None:
            records.finish(self.method)
        self.fabric.barrier()
        return self._result(finished, out)

    def _prepare(self, start: Start) -> Engine:
        """Weights, optimizer and clock as they were at the start's step."""
        if start.snapshot is not None:
            load_weights(self.method, start.snapshot.model)
        engine = make_engine(self.fabric, self.method, self.config, self.on_device)
        if start.snapshot is not None:
            engine.restore(start.snapshot.optimizer(), start.snapshot.scaler)
            self.display.say(f"going on from step {start.step} of {self.config.steps}")
        accelerator = choose_accelerator(self.config.accelerator)
        precision = choose_precision(self.config.precision, accelerator)
        if self.records is not None:
            session = {"precision": precision, "processes": self.fabric.world_size}
            self.records.begin(start, session, self.fabric.device)
            self.losses = _losses(self.records.last_numbers())
        if self.config.precision == "auto":
            self.display.say(f"precision auto: {precision} on {self.fabric.device}")
        self.done, self._earlier, self._clock = start.step, start.seconds, time.monotonic()
        return engine

    def _steps(self, engine: Engine, start: Start) -> Wish:
        loader = EpisodeLoader(
            self.source,
            episodes_per_step=self.config.episodes_per_step,
            start_step=start.step,
            n_steps=self.config.steps,
            workers=self.config.workers,
            rank=self.fabric.global_rank,
            world_size=self.fabric.world_size,
            pin=self.fabric.device.type == "cuda",
        )
        wish = Wish.CONTINUE
        saved = start.step
        with self.display.bar(start.step, self.config.steps):
            for episode in _until_interrupted(loader, self.interrupt):
                wish = self._one(engine, episode)
                if wish is not Wish.CONTINUE or self._due(self.config.checkpoint_every):
                    self._save(engine)
                    saved = self.done
                if wish is not Wish.CONTINUE:
                    break
        if wish is Wish.CONTINUE and self.done < self.config.steps:
            # Ctrl-C ended the loader's workers before it reached the loop.
            wish = Wish.INTERRUPT
            if saved < self.done:
                self._save(engine)
        return wish

    def _one(self, engine: Engine, episode: Episode) -> Wish:
        """A step, its log line, and how to go on."""
        step = self.done
        self.window.add(step + 1, self._episodes(step), engine.gradients(step, episode))
        self.done += 1
        wish = self._wish()
        if self._must_look() or (wish is not Wish.CONTINUE and self.fabric.world_size == 1):
            wish = self._look(wish)
        else:
            wish = Wish.CONTINUE
        engine.apply()
        if self._due(self.config.log_every):
            self._log(step)
        self.display.step(self.done, self.losses)
        return wish

    def _due(self, every: int) -> bool:
        return self.done % every == 0 or self.done == self.config.steps

    def _must_look(self) -> bool:
        """On CUDA a look waits for the device, so it is taken only where there is a reason."""
        return (
            self.fabric.device.type == "cpu"
            or self._due(self.config.log_every)
            or self._due(self.config.checkpoint_every)
        )

    def _wish(self) -> Wish:
        if self.interrupt.asked:
            return Wish.INTERRUPT
        if self.stop is not None and self.done < self.config.steps and self.stop(self.done):
            return Wish.STOP
        return Wish.CONTINUE

    def _look(self, wish: Wish) -> Wish:
        """Check the losses and agree how to go on. Raises TrainingError in every process."""
        complaint = self.window.look()
        wish = agree(self.fabric, Wish.FAIL if complaint else wish)
        if wish is Wish.FAIL:
            raise TrainingError(complaint or "the loss is not finite in another process")
        return wish

    def _log(self, step: int) -> None:
        means = mean_over_ranks(self.fabric, self.window.mean())
        self.window.clear()
        self.losses = _losses(means)
        if self.records is not None:
            numbers = {**means, "lr": learning_rate(self.config, step), "seconds": self._seconds()}
            self.records.write_log(self.done, numbers)

    def _save(self, engine: Engine) -> None:
        check_weights(self.method.state_dict(), self.done)
        if self.records is not None:
            self.records.save(self.method, engine.state(), step=self.done, seconds=self._seconds())

    def _episodes(self, step: int) -> str:
        """The numbers of this process's episodes in a step, as `first-last`."""
        share = self.config.episodes_per_step // self.fabric.world_size
        first = step * self.config.episodes_per_step + self.fabric.global_rank * share
        return str(first) if share == 1 else f"{first}-{first + share - 1}"

    def _seconds(self) -> float:
        return self._earlier + time.monotonic() - self._clock

    def _how_to_go_on(self) -> str:
        if self.records is None:
            return f"interrupted after step {self.done}; nothing is kept without a run folder"
        return (
            f"interrupted after step {self.done} of {self.config.steps}, which is saved; "
            f"to go on: train into {self.records.folder.path} again"
        )

    def _already_finished(self, final: Path, out: Path | None) -> TrainResult:
        load_weights(self.method, final)
        self.method.to(self.fabric.device)
        numbers = self.records.last_numbers() if self.records is not None else {}
        self.losses, self.done = _losses(numbers), self.config.steps
        self._earlier, self._clock = numbers.get("seconds", 0.0), time.monotonic()
        self.display.say(f"the run in {out} is finished")
        return self._result(True, out)

    def _result(self, finished: bool, out: Path | None) -> TrainResult:
        rank = self.fabric.global_rank
        return TrainResult(self.done, finished, self.losses, self._seconds(), out, rank)


def _losses(numbers: Mapping[str, float]) -> dict[str, float]:
    """The losses and their total, out of a line of the log."""
    return {
        name: value
        for name, value in numbers.items()
        if (name == "total" or name not in RESERVED) and not name.startswith(DIAGNOSTICS)
    }


def _until_interrupted(loader: EpisodeLoader, interrupt: Interrupt) -> Iterator[Episode]:
    """The loader's episodes. Ctrl-C reaches its workers too: their death then is no error."""
    episodes = iter(loader)
    while True:
        try:
            episode = next(episodes)
        except StopIteration:
            return
        except RuntimeError:
            if interrupt.asked:
                return
            raise
        yield episode
