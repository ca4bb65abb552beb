"""Build networks without their pretrained weights, when a checkpoint is about to replace them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ONLY = ContextVar("architecture_only", default=False)


@contextmanager
def architecture_only() -> Iterator[None]:
    """Within, parts must not fetch or read pretrained weights; all else stays as asked for."""
    token = _ONLY.set(True)
    try:
        yield
    finally:
        _ONLY.reset(token)


def weights_wanted() -> bool:
    """For encoders: whether `pretrained` is to be acted on now."""
    return not _ONLY.get()
