"""Changes of images that are drawn with an episode, as numbers, and applied later on its device."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.episodes import EpisodeSource
from fewshot_seg.data.recolour import KNOTS, Colours
from fewshot_seg.data.selfsupervised import strengths
from fewshot_seg.data.warp import Affine, reading
from fewshot_seg.episode import Episode

FIRST, SECOND = "augment", "augment_second"
"""Names in `extras`, of the changes of the episode's own images and of their second views."""
STREAMS = {FIRST: 14, SECOND: 15}
"""Keep these draws apart from those of the source inside, which has the same seed."""
DIAGONAL = [knot / KNOTS for knot in range(KNOTS + 1)]
WIDTHS = [6, 1, 1, KNOTS + 1, 1, 1, 1, 1, 1]


@dataclass(frozen=True)
class Drawn:
    """The changes of several images.

    affine: see `warp.reading`.   elastic: 1 where the elastic change is on, else 0.
    colours: changes of intensity.
    least: a geometry that leaves fewer pixels of a mask is not applied.
    """

    affine: Float[Tensor, "*image 2 3"]
    elastic: Float[Tensor, "*image 1"]
    colours: Colours
    least: Float[Tensor, "*image 1"]

    @classmethod
    def unpack(cls, numbers: Float[Tensor, "*image number"]) -> "Drawn":
        """Colours are for images on one axis: "image 1 1 1"."""
        affine, elastic, exponent, curve, *rest, least = torch.split(numbers, WIDTHS, -1)
        exponent, factor, offset, sigma, std = (
            one.reshape(-1, 1, 1, 1) for one in (exponent, *rest)
        )
        colours = Colours(exponent, curve.reshape(-1, KNOTS + 1), factor, offset, sigma, std)
        return cls(affine.reshape(*affine.shape[:-1], 2, 3), elastic, colours, least)


class WithDrawnChanges:
    """Adds `extras["augment"]` (or "augment_second"): for each image of an episode, in the order
    support (way shot), query, how `BatchAugmentation` changes it.

    source: gives the episodes, their images unchanged.
    one_side: change the intensities of either the support or the query, and the geometry of either
        (ADNet); else each image on its own.
    shared: all ways lie on the same slices, which get the same change.
    least: see `Drawn`.
    """

    def __init__(
        self,
        source: EpisodeSource,
        augmentation: Augmentation,
        *,
        seed: int,
        name: str = FIRST,
        one_side: bool = False,
        shared: bool = False,
        least: int = 1,
    ) -> None:
        self.source, self.augmentation, self.seed, self.name = source, augmentation, seed, name
        self.one_side, self.shared, self.least = one_side, shared, least

    def episode(self, index: int) -> Episode:
        """Episode number `index` of the source, with its changes."""
        episode = self.source.episode(index)
        generator = np.random.default_rng([self.seed, index, STREAMS[self.name]])
        _, n_way, n_shot = episode.support.images.shape[:3]
        n_support = n_shot if self.shared else n_way * n_shot
        rows = self._rows(n_support, episode.query_images.shape[1], episode.size, generator)
        if self.shared:
            rows = rows[:n_support] * n_way + rows[n_support:]
        return replace(episode, extras={**episode.extras, self.name: torch.tensor([rows])})

    def _rows(
        self, n_support: int, n_query: int, size: tuple[int, int], generator: np.random.Generator
    ) -> list[list[float]]:
        of_support = [True] * n_support + [False] * n_query
        drawn = [
            (self.augmentation.affine(size, generator), self.augmentation.colours(size, generator))
            for _ in of_support
        ]
        if not self.one_side:
            return [_row(size, affine, True, colours, self.least) for affine, colours in drawn]
        moved, coloured = (bool(generator.random() < 0.5) for _ in range(2))  # True: the support
        return [
            _row(
                size,
                affine if side == moved else Affine(),
                side == moved,
                colours if side == coloured else Colours(),
                self.least,
            )
            for side, (affine, colours) in zip(of_support, drawn)
        ]

    def describe(self) -> dict[str, Any]:
        """What the source says of itself, and that its images change on the device."""
        told = {
            "seed": self.seed,
            "one_side": self.one_side,
            "least": self.least,
            "augmentation": strengths(self.augmentation),
        }
        return {**self.source.describe(), f"{self.name}_on_device": told}


def _row(
    size: tuple[int, int], affine: Affine, elastic: bool, colours: Colours, least: int
) -> list[float]:
    """As `Drawn.unpack` reads it."""
    curve = DIAGONAL if colours.curve is None else colours.curve[0].tolist()
    numbers = (colours.factor, colours.offset, colours.sigma, colours.std)
    return [
        *reading(size, affine).flatten().tolist(),
        float(elastic),
        float(colours.exponent),
        *curve,
        *(float(one) for one in numbers),
        float(least),
    ]
