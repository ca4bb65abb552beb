"""The vector quantisation decoder: grid, map and LVQ prototypes in one codebook per class."""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import full_precision, normalise
from fewshot_seg.prototype_sets import NORM_FLOOR, PrototypeSets, set_similarity
from fewshot_seg_lvqm.draws import Draws, draw
from fewshot_seg_lvqm.glvq import Points
from fewshot_seg_lvqm.grid import Grid, GridPrototypes, fit, over_supports
from fewshot_seg_lvqm.neurons import SOVQ
from fewshot_seg_lvqm.residual import refine
from fewshot_seg_lvqm.rovq import GLVQ, points_of
from fewshot_seg_lvqm.scene import Scene

ROVQS = ("glvq", "lvq_residual", "none")
BGMODES = ("preprocessed", "origin")


class Codebooks(NamedTuple):
    """Prototypes: one background set for the episode, one foreground set for each way."""

    background: PrototypeSets
    foreground: PrototypeSets


@final
class VQ(nn.Module):
    """Scaled cosine with three kinds of prototypes, fused by a softmax-weighted sum.

    Grid cells (GFVQ), neurons of a self-organising map re-expressed by the cells next to them
    (SOVQ), and a few vectors that learning vector quantisation fits to the neurons (ROVQ). A way
    too small for a grid cell keeps its masked mean alone.

    scale: factor on the cosine.   fg_threshold, bg_threshold, window, eval_window: see `Grid`.
    align_corners: of the bilinear resizing of masks and logits (ALPNet: False).
    sovq: whether to use the map.   som: "batch" (a few sweeps of matrix products), or "online" (the
        official sequential steps, on the host: seconds per image, and a GPU waits).
    som_size: rows and columns of the map.   neighbourhood: "winner" (what the official settings
        amount to), "bubble" or "gaussian", of radius `sigma` in neurons; it shrinks to a third.
    sweeps: of "batch".   som_steps: of "online".
    detach: neurons as trained, without gradient, instead of the means of their pixels.
    keep_empty: neurons without pixels count as background (official) instead of not at all.
    lm: weights of the local mapping, "inverse", "gaussian", "subtra" or "none".
    neighbours: grid prototypes that express a neuron.
    rovq: "glvq" (further vectors, code), "lvq_residual" (the others fine-tuned, paper) or "none".
        Without `sovq`, "glvq" learns from the grid's prototypes.
    rovq_solver: "gradient", or "lbfgs" (SciPy, on the host: a GPU waits).
    lvq_vectors: number per class.   lvq_iterations, beta: of "glvq".
    normalize_before_vq: whether the quantisers see vectors of length 1.
    bgmode: the background's score, by all prototypes ("preprocessed") or the grid's ("origin").
    seed: of the drawn start pixels in eval mode; training draws from torch's global generator.
    """

    def __init__(
        self,
        *,
        scale: float = 20.0,
        fg_threshold: float = 0.55,
        bg_threshold: float = 0.95,
        window: int = 4,
        eval_window: int = 2,
        align_corners: bool = True,
        sovq: bool = True,
        som: str = "batch",
        som_size: Sequence[int] = (7, 7),
        neighbourhood: str = "winner",
        sigma: float = 1.5,
        sweeps: int = 20,
        som_steps: int = 10_000,
        detach: bool = False,
        keep_empty: bool = False,
        lm: str = "inverse",
        neighbours: int = 3,
        rovq: str = "glvq",
        rovq_solver: str = "gradient",
        lvq_vectors: int = 2,
        lvq_iterations: int = 10,
        beta: float = 2.0,
        normalize_before_vq: bool = False,
        bgmode: str = "preprocessed",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("rovq", rovq, ROVQS)
        check_choice("bgmode", bgmode, BGMODES)
        if scale <= 0:
            raise OptionError(f"scale={scale} must be positive")
        self.grid = Grid(
            fg_threshold=fg_threshold,
            bg_threshold=bg_threshold,
            window=window,
            eval_window=eval_window,
        )
        self.map = SOVQ(
            som=som,
            som_size=som_size,
            neighbourhood=neighbourhood,
            sigma=sigma,
            sweeps=sweeps,
            som_steps=som_steps,
            detach=detach,
            keep_empty=keep_empty,
            lm=lm,
            neighbours=neighbours,
        )
        self.glvq = GLVQ(
            rovq_solver=rovq_solver,
            lvq_vectors=lvq_vectors,
            lvq_iterations=lvq_iterations,
            beta=beta,
        )
        self.scale, self.align_corners, self.bgmode, self.seed = scale, align_corners, bgmode, seed
        self.sovq, self.rovq, self.normalize_before_vq = sovq, rovq, normalize_before_vq

    def describe(
        self,
        maps: Float[Tensor, "batch way shot dim rows cols"],
        masks: Float[Tensor, "batch way shot height width"],
        backgrounds: Float[Tensor, "batch way shot height width"] | None = None,
        *,
        draws: Draws | None = None,
    ) -> Codebooks:
        """Codebooks of each way from its own shots, of the background from all of them.

        draws: what the quantisers start from; None draws it.
        """
        with full_precision(maps):
            maps, masks, backgrounds = self._prepared(maps, masks, backgrounds)
            grid = self.grid(maps, masks, backgrounds)
            if not self.sovq and self.rovq == "none":
                return _codebooks(grid, grid.foreground, grid.background)
            return self._quantise(grid, Scene.of(maps, masks, backgrounds), draws)

    def describe_grid(
        self,
        maps: Float[Tensor, "batch way shot dim rows cols"],
        masks: Float[Tensor, "batch way shot height width"],
        backgrounds: Float[Tensor, "batch way shot height width"] | None = None,
    ) -> Codebooks:
        """`describe` with the grid's prototypes alone."""
        with full_precision(maps):
            grid = self.grid(*self._prepared(maps, masks, backgrounds))
            return _codebooks(grid, grid.foreground, grid.background)

    def forward(
        self,
        maps: Float[Tensor, "batch query dim rows cols"],
        state: Codebooks,
        size: tuple[int, int],
    ) -> Float[Tensor, "batch query label height width"]:
        with full_precision(maps):
            query = maps.float()
            scores = [set_similarity(query, sets, scale=self.scale) for sets in state]
            return fit(torch.cat(scores, 2), size, self.align_corners)

    def _quantise(self, grid: GridPrototypes, scene: Scene, draws: Draws | None) -> Codebooks:
        if self.normalize_before_vq:
            # the grid's vectors too: the score looks at directions only
            grid = grid.normalised()
            pixels = normalise(scene.pixels, 3, NORM_FLOOR)
            scene = Scene(pixels, scene.masks, scene.backgrounds)
        foreground, background = grid.foreground, grid.background
        start = self._draw(scene) if draws is None else draws
        learnt = points_of(foreground, background)
        if self.sovq:
            neurons = self.map(scene, grid, start)
            learnt = Points(neurons.vectors, neurons.in_background, neurons.in_foreground)
            local = grid.local.unsqueeze(-1)
            foreground = foreground.joined(
                PrototypeSets(neurons.vectors, neurons.in_foreground & local)
            )
            background = background.joined(
                PrototypeSets(neurons.vectors, neurons.in_background & local)
            )
        if self.rovq == "glvq":
            fore, back = self.glvq(learnt, start.vectors, grid.local)
            foreground, background = foreground.joined(fore), background.joined(back)
        if self.rovq == "lvq_residual":
            foreground, background = refine(foreground, background, scene, grid.local)
        if self.bgmode == "origin":
            background = grid.background
        return _codebooks(grid, foreground, background)

    def _prepared(
        self, maps: Tensor, masks: Tensor, backgrounds: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Maps in full precision, and both masks on their grid."""
        others = 1 - masks if backgrounds is None else backgrounds
        shape = (maps.shape[-2], maps.shape[-1])
        small = [fit(mask, shape, self.align_corners) for mask in (masks, others)]
        return maps.float(), small[0], small[1]

    def _draw(self, scene: Scene) -> Draws:
        return draw(
            scene,
            neurons=self.map.shape[0] * self.map.shape[1],
            vectors=self.glvq.vectors,
            steps=self.map.steps,
            seed=None if self.training else self.seed,
        )


def _codebooks(
    grid: GridPrototypes, foreground: PrototypeSets, background: PrototypeSets
) -> Codebooks:
    return Codebooks(over_supports(background, grid.fallback), foreground)
