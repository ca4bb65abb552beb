"""Files that appear whole or not at all."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from fewshot_seg.errors import DataError


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` under `path`, making its folder; a reader sees the old file or the new one.

    Raises DataError when the system refuses; the old file, if any, is then untouched.
    """
    # In the same folder, because only there is the final rename one step.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # what could not be written cannot be cleared away either
            draft.unlink()
