"""Latents of other images, to see at test what z carries when it is not the image's own."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.episode import Features

KEPT = 512


class SeenLatents(nn.Module):
    """mu_x of the last images of training, newest first; zeros where there were not as many yet.

    Buffers, so that every checkpoint has them, whichever latent is asked for at test.
    required: False where nothing reads them; weights that were saved without them then load too.
    """

    def __init__(self, *, latent: int, required: bool, size: int = KEPT) -> None:
        super().__init__()
        self.latents: Tensor
        self.count: Tensor
        self.register_buffer("latents", torch.zeros(size, latent))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.added_state = () if required else ("latents", "count")

    @torch.no_grad()
    def remember(self, means: Float[Tensor, "image latent"]) -> None:
        """Put the latents of a training step in front, the oldest giving way."""
        size = self.latents.shape[0]
        self.latents.copy_(torch.cat([means.to(self.latents.dtype), self.latents])[:size])
        self.count.copy_((self.count + means.shape[0]).clamp_max(size))

    def mean(self) -> Float[Tensor, "1 latent"]:
        """The mean over the training images; 0 before any training."""
        return self.latents.sum(0, keepdim=True) / self.count.clamp_min(1)

    def one(self, draw: float) -> Float[Tensor, "1 latent"]:
        """The latent of one training image; `draw`, from 0 to below 1, says which."""
        return self.latents.index_select(0, (draw * self.count).long().reshape(1))


def with_query_latent(
    means: Float[Tensor, "image latent"],
    query: Float[Tensor, "some_query latent"],
    features: Features,
) -> Float[Tensor, "image latent"]:
    """The support keeps its own; query: one for all query images, or one for each."""
    support = means[: features.n_support]
    return torch.cat([support, query.expand(means.shape[0] - features.n_support, -1)])


def support_latent(
    means: Float[Tensor, "image latent"], features: Features
) -> Float[Tensor, "query latent"]:
    """For each query image the mean over the support images of its episode."""
    batch, n_query = features.query.shape[:2]
    per_episode = means[: features.n_support].reshape(batch, -1, means.shape[1]).mean(1)
    return per_episode.repeat_interleave(n_query, dim=0)
