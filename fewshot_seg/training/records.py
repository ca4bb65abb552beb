"""The file side of a run: where its steps start, its log, its checkpoints, its end."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewshot_seg.checkpoint import save_method
from fewshot_seg.lock import locked
from fewshot_seg.tensorfile import cannot_write
from fewshot_seg.training.log import Log, read_log
from fewshot_seg.training.provenance import commit, device_name, versions
from fewshot_seg.training.run import Request, RunFolder
from fewshot_seg.training.snapshots import Snapshot, write_snapshot


@dataclass(frozen=True)
class Start:
    """Where a run begins: at a snapshot, at nothing (None), or at its end already.

    final: the weights of a finished run.
    """

    snapshot: Snapshot | None = None
    final: Path | None = None

    @property
    def step(self) -> int:
        return 0 if self.snapshot is None else self.snapshot.step

    @property
    def seconds(self) -> float:
        return 0.0 if self.snapshot is None else self.snapshot.seconds


class Records:
    """A run's folder, held by one process. `open` first, `close` always."""

    def __init__(self, path: Path, request: Request) -> None:
        self.request = request
        with _writing(path):
            self.folder = RunFolder(path)
        self._held = ExitStack()
        self._log: Log | None = None

    def open(self) -> Start:
        """Lock the folder and find where to start. Raises CheckpointError."""
        path = self.folder.path
        with _writing(path):
            self._held.enter_context(locked(path / "lock", doing=f"training into {path}"))
        self.folder.claim(self.request)
        if self.folder.final.exists():
            return Start(final=self.folder.final)
        snapshot, complaints = self.folder.newest()
        for complaint in complaints:
            warnings.warn(complaint, stacklevel=2)
        return Start(snapshot)

    def begin(self, start: Start, session: Mapping[str, Any], device: torch.device) -> None:
        """Note the session and open the log, cut back to the start."""
        origin = {"device": device_name(device), "commit": commit(), "packages": versions()}
        self.folder.add_session({"from_step": start.step, **session, **origin})
        with _writing(self.folder.log):
            self._log = Log(self.folder.path, start.step)
        self._held.callback(self._log.close)

    def write_log(self, step: int, numbers: Mapping[str, float]) -> None:
        assert self._log is not None
        with _writing(self.folder.log):
            self._log.write(step, numbers)

    def save(
        self,
        method: nn.Module,
        state: tuple[Mapping[str, torch.Tensor], Mapping[str, Any]],
        *,
        step: int,
        seconds: float,
    ) -> None:
        """Write a checkpoint: the method, and the state of its optimizer and loss scaler."""
        optimizer, scaler = state
        with _writing(self.folder.checkpoints):
            write_snapshot(
                self.folder.checkpoints,
                method,
                optimizer,
                step=step,
                seconds=seconds,
                recipe=self.request.recipe,
                notes=self.request.notes,
                scaler=scaler,
            )

    def finish(self, method: nn.Module) -> None:
        """Write the trained method; from now on the run is finished."""
        save_method(method, self.folder.final, recipe=self.request.recipe, notes=self.request.notes)

    def last_numbers(self) -> dict[str, float]:
        """The last line of the log; what was not finite there is left out."""
        lines = read_log(self.folder.log)
        return {k: float(v) for k, v in lines[-1].items() if v is not None} if lines else {}

    def close(self) -> None:
        self._held.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
