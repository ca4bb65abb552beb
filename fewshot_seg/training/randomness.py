"""The global generator of torch, which layers draw from, as a function of the step."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_step(seed: int, step: int, rank: int) -> None:
    """Set torch's global generators by (run seed, step, rank): a resumed run draws the same."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0]))


@contextmanager
def callers_randomness(device: torch.device) -> Iterator[None]:
    """Give torch's generators (CPU, and `device`'s) back as they were, also after an error."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
