"""The numbers of a run over its steps: log.jsonl, one line each, and TensorBoard."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fewshot_seg.errors import CheckpointError
from fewshot_seg.parsing import parse_json
from fewshot_seg.tensorfile import replacing


class Log:
    """Writes `folder`/log.jsonl and `folder`/tb from the step after `resumed_step` on.

    Lines of later steps, left by a run that was killed after them, are removed.
    """

    def __init__(self, folder: Path, resumed_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        path = folder / "log.jsonl"
        if path.exists():
            _truncate(path, resumed_step)
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(
            folder / "tb", purge_step=resumed_step + 1 if resumed_step else None
        )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """One line: the step and the numbers by name; null for what is not finite."""
        line = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._file.write(json.dumps({"step": step, **line}) + "\n")
        self._file.flush()
        for name, value in numbers.items():
            self._board.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        # Each line is written out at once, so only what the disk refused before is left.
        for one in (self._file, self._board):
            with suppress(OSError):
                one.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; a last line that a kill cut off is left out.

    Raises CheckpointError, naming the line, for one that is damaged.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    return [_line(path, number, line) for number, line in enumerate(whole.splitlines(), 1)]


def _line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = parse_json(line)
        if not isinstance(found["step"], int):
            raise ValueError(f"the step {found['step']!r}")
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"line {number} of {path} is damaged ({error}); remove that line, as no weights "
            "depend on it"
        ) from error
    return dict(found)


def _truncate(path: Path, last_step: int) -> None:
    kept = [line for line in read_log(path) if line["step"] <= last_step]
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
