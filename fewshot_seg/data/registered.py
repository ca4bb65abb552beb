"""Episodes that carry the affine registration of each support slice to each query slice."""

import hashlib
import logging
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.data.episodes import EpisodeSource
from fewshot_seg.episode import Episode
from fewshot_seg.errors import DataError, OptionError
from fewshot_seg.registration import LEARNING_RATE, STEPS, register_slices

log = logging.getLogger(__name__)

EXTRA = "registration"
_NUMBERS = 6
_STORED = np.dtype("<f4")

Theta = Float[Tensor, "2 3"]


class Registered:
    """A source whose episodes have extras["registration"]: "batch way shot query 2 3".

    source: gives the episodes; nothing else in them changes.
    cache: a folder that keeps what was computed, also for other processes and later runs; None
        keeps it in this process only. It may be deleted at any time.
    steps, lr: see `fewshot_seg.registration.register_affine`.
    remembered: pairs kept in memory, the ones used longest ago are dropped first.

    A pair is known by the content of its two images, so slices that augmentation changes each time
    are registered each time. Pairs are registered one by one: what an episode holds then does not
    depend on what was asked for before, not even by rounding.
    A damaged file of the cache is made anew. Raises OptionError for numbers out of range, DataError
    for a cache that cannot be written.
    """

    def __init__(
        self,
        source: EpisodeSource,
        *,
        cache: Path | str | None = None,
        steps: int = STEPS,
        lr: float = LEARNING_RATE,
        remembered: int = 100_000,
    ) -> None:
        if steps < 0 or lr <= 0 or remembered < 0:
            raise OptionError(
                "registration takes steps >= 0, lr > 0 and remembered >= 0; "
                f"got {steps}, {lr} and {remembered}"
            )
        self.source, self.steps, self.lr = source, steps, lr
        self.cache = None if cache is None else Path(cache)
        self.remembered = remembered
        self._memory: OrderedDict[str, Theta] = OrderedDict()

    def episode(self, index: int) -> Episode:
        """The source's episode number `index`, with its registration."""
        episode = self.source.episode(index)
        theta = torch.stack([self._register(*pair) for pair in _pairs(episode)])
        batch, way, shot = episode.support.images.shape[:3]
        split = rearrange(theta, "(b w s q) i j -> b w s q i j", b=batch, w=way, s=shot)
        return replace(episode, extras={**episode.extras, EXTRA: split})

    def describe(self) -> dict[str, Any]:
        """What the source says of itself, and how slices were registered."""
        return {**self.source.describe(), EXTRA: {"steps": self.steps, "lr": self.lr}}

    def __getstate__(self) -> dict[str, Any]:
        """Without the memory, which a worker builds up anew."""
        return {**self.__dict__, "_memory": OrderedDict()}

    def _register(self, moving: Tensor, fixed: Tensor) -> Theta:
        key = self._key(moving, fixed)
        theta = self._memory.pop(key, None)
        if theta is None:
            theta = self._from_disk(key)
        if theta is None:
            theta = register_slices(moving[None], fixed[None], steps=self.steps, lr=self.lr)[0]
            self._to_disk(key, theta)
        self._memory[key] = theta
        while len(self._memory) > self.remembered:
            self._memory.popitem(last=False)
        return theta

    def _key(self, moving: Tensor, fixed: Tensor) -> str:
        digest = hashlib.blake2b(f"{self.steps} {self.lr!r}".encode(), digest_size=16)
        for image in (moving, fixed):
            # grey images repeat one channel, often in the same memory: reading it once is enough
            kept = image[:1] if image.stride(0) == 0 else image
            digest.update(f" {tuple(image.shape)} ".encode())
            digest.update(np.ascontiguousarray(kept.float().numpy()).data)
        return digest.hexdigest()

    def _path(self, key: str) -> Path | None:
        return None if self.cache is None else self.cache / key[:2] / f"{key}.theta"

    def _from_disk(self, key: str) -> Theta | None:
        path = self._path(key)
        if path is None:
            return None
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"cannot read the registration {path}: {error}") from error
        values = np.frombuffer(content, _STORED) if len(content) == _NUMBERS * 4 else None
        if values is None or not np.isfinite(values).all():
            log.info("%s is damaged and is made anew", path)
            return None
        return torch.from_numpy(values.astype(np.float32)).reshape(2, 3)

    def _to_disk(self, key: str, theta: Theta) -> None:
        path = self._path(key)
        if path is not None:
            write_bytes(path, theta.numpy().astype(_STORED).tobytes())


def _pairs(episode: Episode) -> list[tuple[Tensor, Tensor]]:
    """(support image, query image) in the order batch, way, shot, query."""
    return [
        (image, query)
        for supports, queries in zip(episode.support.images, episode.query_images, strict=True)
        for image in supports.flatten(0, 1)
        for query in queries
    ]
