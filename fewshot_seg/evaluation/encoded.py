"""Slices of a query scan, encoded once for all classes and labelled slices that ask for them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.answers import check_shape
from fewshot_seg.batching import free_memory
from fewshot_seg.evaluation.pairs import Part
from fewshot_seg.interfaces import EncodesQueries, Method

SHARE = 0.25
"""Of free memory, at most this much holds encoded slices."""


class EncodedSlices:
    """A scan's slices in the encoder of one method, in one precision.

    images: of the scan.
    room: bytes of encoded slices to keep, a quarter of free memory unless given; those beyond are
        encoded whenever they are asked for.
    """

    def __init__(
        self, images: Float[Tensor, "slice channel height width"], *, room: int | None = None
    ) -> None:
        self.images, self.room = images, room
        self._kept: dict[int, Tensor] = {}

    def segment(
        self, method: Method, state: Any, indices: Sequence[int], device: torch.device
    ) -> Float[Tensor, "1 query label height width"]:
        """What `method.segment` says of these slices. A method that cannot encode slices apart from
        segmenting them (see `EncodesQueries`) is simply asked."""
        if not isinstance(method, EncodesQueries):
            return method.segment(state, self._on(device, indices))
        fresh = {}
        missing = [index for index in indices if index not in self._kept]
        if missing:
            maps = method.encode_query(self._on(device, missing))
            check_shape(method, "encoded slices", maps, (1, len(missing), *maps.shape[2:]))
            fresh = dict(zip(missing, maps[0], strict=True))
            self._keep(fresh, device)
        maps = torch.stack([fresh[one] if one in fresh else self._kept[one] for one in indices])
        size = (self.images.shape[-2], self.images.shape[-1])
        return method.segment_encoded(state, maps[None], size)

    def _on(self, device: torch.device, indices: Sequence[int]) -> Tensor:
        return self.images[list(indices)][None].to(device)

    def _keep(self, fresh: dict[int, Tensor], device: torch.device) -> None:
        if self.room is None:
            self.room = int(SHARE * free_memory(device))
        for index, maps in fresh.items():
            if maps.nbytes > self.room:
                return
            self.room -= maps.nbytes
            self._kept[index] = maps.clone()  # not the whole batch that it is a view of


def some_twice(parts: Sequence[Part]) -> bool:
    """Whether some slice is segmented by several labelled slices."""
    uses = Counter(index for part in parts for index in part.query)
    return any(count > 1 for count in uses.values())
