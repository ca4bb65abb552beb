"""`train`: from a method and a source of episodes to a trained method and a run folder."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from fewshot_seg.checkpoint import HasToml
from fewshot_seg.data.episodes import EpisodeSource
from fewshot_seg.training.config import TrainConfig
from fewshot_seg.training.engine import OnDevice, trained_parameters
from fewshot_seg.training.hardware import make_fabric
from fewshot_seg.training.interrupt import deferred_interrupt
from fewshot_seg.training.progress import Display
from fewshot_seg.training.randomness import callers_randomness
from fewshot_seg.training.records import Records
from fewshot_seg.training.run import Request
from fewshot_seg.training.session import Session, Stop, TrainResult


def train(
    method: nn.Module,
    source: EpisodeSource,
    config: TrainConfig,
    *,
    out: Path | None = None,
    recipe: HasToml | None = None,
    notes: Mapping[str, Any] | None = None,
    on_device: OnDevice | None = None,
    progress: bool = True,
    console: Console | None = None,
    stop: Stop | None = None,
) -> TrainResult:
    """Train `method` in place on the episodes of `source`.

    out: the run folder. One that holds this very run goes on from its newest checkpoint, or gives
        back the finished method at once. None keeps nothing on disk.
    recipe: written into folder and checkpoints; by default the method's own `recipe`.
    notes: what else should stand there (fold, novel class, intensity statistics).
    on_device: changes each step's episodes on the run's device before the method sees them, such as
        `fewshot_seg.data.batch_augment.BatchAugmentation`. Random draws come from torch's global
        generators.
    progress: show a bar on a terminal and messages elsewhere, on `console` (standard error).
    stop: asked after each step with the number of finished steps (with several devices on CUDA,
        when the log is due); True saves a checkpoint and ends the run early.

    The same call on the same machine gives the same weights, bit for bit on a CPU, also after kill
    and resume. Dropout and the like draw from torch's global generator, which is set for each step
    and given back as it was. The method stays on the run's device, in the mode it was in.

    Raises TrainingError for a loss that is not finite or a method without trainable parameters;
    CheckpointError when `out` holds another run, another process trains into it, or the disk
    refuses (it is full, or read-only);
    KeyboardInterrupt after Ctrl-C, when the step at hand is finished and saved.
    """
    trained_parameters(method)
    fabric = make_fabric(config)
    recipe = getattr(method, "recipe", None) if recipe is None else recipe
    describe = getattr(source, "describe", dict)
    request = Request(recipe, config, notes or {}, describe())
    with ExitStack() as held:
        held.enter_context(callers_randomness(fabric.device))
        held.enter_context(_training_mode(method))
        records = None
        if out is not None and fabric.is_global_zero:
            records = Records(Path(out), request)
            held.callback(records.close)
        interrupt = held.enter_context(deferred_interrupt())
        shown = console or Console(stderr=True)
        display = Display(
            shown if progress and fabric.is_global_zero else None, config.episodes_per_step
        )
        run = Session(fabric, method, source, config, records, display, interrupt, stop, on_device)
        return run.go(None if out is None else Path(out))


@contextmanager
def _training_mode(method: nn.Module) -> Iterator[None]:
    before = method.training
    method.train()
    try:
        yield
    finally:
        method.train(before)
