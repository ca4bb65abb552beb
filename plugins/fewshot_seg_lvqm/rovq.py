"""ROVQ: prototypes drawn towards their class and away from the other."""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.prototype_sets import PrototypeSets
from fewshot_seg_lvqm import glvq
from fewshot_seg_lvqm.glvq import Points

SOLVERS = {"gradient": glvq.fit_gradient, "lbfgs": glvq.fit_lbfgs}


@final
class GLVQ(nn.Module):
    """A few further vectors for each class, without gradient. Options: see `VQ`."""

    def __init__(
        self,
        *,
        rovq_solver: str = "gradient",
        lvq_vectors: int = 2,
        lvq_iterations: int = 10,
        beta: float = 2.0,
    ) -> None:
        super().__init__()
        check_choice("rovq_solver", rovq_solver, SOLVERS)
        numbers = {"lvq_vectors": lvq_vectors, "lvq_iterations": lvq_iterations, "beta": beta}
        for name, value in numbers.items():
            if value <= 0:
                raise OptionError(f"{name}={value} must be positive")
        self.solver, self.vectors = rovq_solver, lvq_vectors
        self.iterations, self.beta = lvq_iterations, beta

    def forward(
        self,
        points: Points,
        initial: Float[Tensor, "batch way vector dim"],
        where: Bool[Tensor, "batch way"],
    ) -> tuple[PrototypeSets, PrototypeSets]:
        """Foreground's and background's vectors (labels are ways), present `where` true."""
        fit = SOLVERS[self.solver]
        fitted = fit(points, initial, beta=self.beta, iterations=self.iterations)
        background, foreground = fitted.chunk(2, dim=2)
        present = where.unsqueeze(-1).expand(background.shape[:3])
        return PrototypeSets(foreground, present), PrototypeSets(background, present)


def points_of(foreground: PrototypeSets, background: PrototypeSets) -> Points:
    """Both sets as labelled points."""
    return Points(
        torch.cat([background.vectors, foreground.vectors], 2),
        torch.cat([background.present, torch.zeros_like(foreground.present)], 2),
        torch.cat([torch.zeros_like(background.present), foreground.present], 2),
    )
