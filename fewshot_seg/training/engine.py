"""One optimizer step: episodes in, gradients, new weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from fewshot_seg.answers import check_losses, name_of
from fewshot_seg.data.drawn import FIRST
from fewshot_seg.episode import Episode
from fewshot_seg.errors import FewshotSegError, TrainingError
from fewshot_seg.training.config import TrainConfig
from fewshot_seg.training.optim import (
    learning_rate,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from fewshot_seg.training.randomness import seed_step
from fewshot_seg.training.window import DIAGNOSTICS, GRADIENT

OnDevice = Callable[[Episode], Episode]
"""Changes a step's episodes, on the device and with its random numbers."""
RESERVED = ("step", "total", "lr", "seconds", GRADIENT)


def trained_parameters(method: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters to train, by name. Raises TrainingError when there is none."""
    found = {name: p for name, p in method.named_parameters() if p.requires_grad}
    if not found:
        raise TrainingError(
            f"{type(method).__name__} has nothing to train: no parameter requires a gradient. "
            "Evaluate it as it is (the method 'copy', for one, needs no training)"
        )
    return found


class _Parcel:
    """Carries an Episode through Fabric, which would cast its masks to 16 bits."""

    def __init__(self, episode: Episode) -> None:
        self.episode = episode


class _Losses(nn.Module):
    """The method as Fabric and DDP want it: plain containers out."""

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method = method

    def forward(self, parcel: _Parcel) -> dict[str, Tensor]:
        name = name_of(self.method)
        try:
            output = self.method(parcel.episode)
        except FewshotSegError:
            raise
        except ValueError as error:  # how a method says what it cannot take
            raise TrainingError(f"{name} cannot be trained on these episodes: {error}") from error
        check_losses(self.method, output.losses)
        if not output.losses:
            raise TrainingError(f"{name} returned no losses; do the episodes have query labels?")
        taken = sorted(set(output.losses) & set(RESERVED))
        if taken:
            raise TrainingError(f"{name} may not call a loss '{taken[0]}': the log uses that name")
        total = output.loss
        if not total.requires_grad:
            raise TrainingError(f"the loss of {name} does not depend on its trainable parameters")
        return {**output.losses, "total": total, **_scalars(output.diagnostics)}


def _redrawn(episode: Episode) -> dict[str, Tensor]:
    """Draws thrown away for an episode of this step, in the mean; most sources count them."""
    count = episode.extras.get("redrawn")
    return {} if count is None else {f"{DIAGNOSTICS}redrawn": count.float().mean()}


def _scalars(diagnostics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Named for the log; a vector gives a number for each entry."""
    found: dict[str, Tensor] = {}
    for name, value in diagnostics.items():
        entries = value.detach().flatten().unbind()
        several = len(entries) > 1
        for index, entry in enumerate(entries):
            found[f"{DIAGNOSTICS}{name}/{index}" if several else f"{DIAGNOSTICS}{name}"] = entry
    return found


@contextmanager
def uncompilable(compiled: bool) -> Iterator[None]:
    """Say in a line that a method could not be compiled, and what to do."""
    if not compiled:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException  # takes a second

    try:
        yield
    except TorchDynamoException as error:
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"torch could not compile the method: {reason}; train with training.compile=false"
        ) from error


@dataclass(frozen=True)
class Engine:
    """A method and its optimizer on their device."""

    fabric: Fabric
    config: TrainConfig
    module: Any
    optimizer: Any
    raw_optimizer: torch.optim.Optimizer
    names: Sequence[str]
    on_device: OnDevice | None = None

    def gradients(self, step: int, episode: Episode) -> dict[str, Tensor]:
        """Fill the gradients of step `step` (from 0); losses, their total and the gradient norm."""
        seed_step(self.config.seed, step, self.fabric.global_rank)
        set_learning_rate(self.raw_optimizer, learning_rate(self.config, step))
        self.optimizer.zero_grad()
        episode = self._changed(episode.to(self.fabric.device))
        with uncompilable(self.config.compile):
            losses: dict[str, Tensor] = self.module(_Parcel(episode))
            self.fabric.backward(losses["total"])
        return {**losses, **_redrawn(episode), GRADIENT: self._clip()}

    def _changed(self, episode: Episode) -> Episode:
        if self.on_device is not None:
            return self.on_device(episode)
        if FIRST in episode.extras:
            raise TrainingError(
                "the episodes come with changes still to be made to their images; "
                "give train() on_device=BatchAugmentation(...)"
            )
        return episode

    def apply(self) -> None:
        """Move the weights by the gradients."""
        self.optimizer.step()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The optimizer's memory and the loss scaler's."""
        precision = self.fabric.strategy.precision
        return optimizer_tensors(self.raw_optimizer, self.names), precision.state_dict()

    def restore(self, optimizer: Mapping[str, Tensor], scaler: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        restore_optimizer(self.raw_optimizer, self.names, optimizer)
        if scaler:
            self.fabric.strategy.precision.load_state_dict(dict(scaler))

    def _clip(self) -> Tensor:
        """The norm of the gradient before clipping."""
        limit = self.config.clip_norm
        if limit:
            norm: Tensor = self.fabric.clip_gradients(
                self.module, self.optimizer, max_norm=limit, error_if_nonfinite=False
            )
            return norm
        self.fabric.strategy.precision.unscale_gradients(self.raw_optimizer)
        parameters = self.raw_optimizer.param_groups[0]["params"]
        gradients = [p.grad for p in parameters if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)


def make_engine(
    fabric: Fabric, method: nn.Module, config: TrainConfig, on_device: OnDevice | None = None
) -> Engine:
    """Moves `method` to the run's device and puts it under the run's precision."""
    parameters = trained_parameters(method)
    if config.channels_last:
        method.to(memory_format=torch.channels_last)
    if config.compile:
        method.compile()
    raw = make_optimizer(parameters.values(), config)
    module, optimizer = fabric.setup(_Losses(method), raw)
    return Engine(fabric, config, module, optimizer, raw, list(parameters), on_device)
