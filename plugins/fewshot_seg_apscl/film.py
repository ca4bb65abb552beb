"""The feature enrichment module (FEM): the latent scales and shifts every channel (Eq. 2)."""

from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.episode import Features
from fewshot_seg.errors import check_choice
from fewshot_seg.interfaces import Latent


class FiLM(nn.Module):
    """F'_t = scale_t(z) F_t + shift_t(z) for each channel t, the same over all positions.

    Given by `build`: dim (channels), latent (size of z).   hidden: width of both perceptrons.
    film: "residual": scale = 1 + MLP(z) and last layers at zero, so the start is the identity;
        "literal": scale = MLP(z) as printed, which erases the features at the start.
    """

    def __init__(self, *, dim: int, latent: int, hidden: int = 256, film: str = "residual") -> None:
        super().__init__()
        check_choice("film", film, ("residual", "literal"))
        self.residual = film == "residual"
        self.scale = _perceptron(latent, hidden, dim, zero=self.residual)
        self.shift = _perceptron(latent, hidden, dim, zero=self.residual)

    def forward(self, features: Features, latent: Latent) -> Features:
        if latent.z is None:
            raise ValueError("FiLM needs the latent vector of a prior, and it was given none")
        return features.with_maps(self._modulate(features.maps(), latent.z))

    def _modulate(
        self,
        maps: Float[Tensor, "image dim rows cols"],
        z: Float[Tensor, "image latent"],
    ) -> Float[Tensor, "image dim rows cols"]:
        scale, shift = self.scale(z), self.shift(z)
        if self.residual:
            scale = 1 + scale
        return scale[:, :, None, None].to(maps.dtype) * maps + shift[:, :, None, None].to(
            maps.dtype
        )


def _perceptron(latent: int, hidden: int, dim: int, *, zero: bool) -> nn.Sequential:
    last = nn.Linear(hidden, dim)
    if zero:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last
    )
