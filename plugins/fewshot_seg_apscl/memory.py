"""Samples of earlier steps, kept as further negatives of the spatial contrastive loss."""

import torch
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fewshot_seg_apscl.attention import Projected
from fewshot_seg_apscl.samples import BACKGROUND, Samples

EMPTY_SLOT = -1


class Memory(nn.Module):
    """A ring of detached foreground samples (Q, K, V, mask, class); negatives of other classes.

    Q is kept too, as the relevance of Eq. 6 looks in both directions. Backgrounds are not kept:
    they may show any organ. All of it are buffers, so a resumed run goes on exactly.
    """

    def __init__(self, *, size: int, sim_dim: int, positions: int) -> None:
        super().__init__()
        self.size = size
        self.query: Tensor
        self.key: Tensor
        self.value: Tensor
        self.masks: Tensor
        self.classes: Tensor
        self.cursor: Tensor
        for name in ("query", "key", "value"):
            self.register_buffer(name, torch.zeros(size, positions, sim_dim))
        self.register_buffer("masks", torch.zeros(size, positions))
        self.register_buffer("classes", torch.full((size,), EMPTY_SLOT))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.long))

    def recall(
        self, like: Float[Tensor, "group image position sim_dim"], groups: int
    ) -> tuple[Projected, Tensor]:
        """What is kept, and its masks, for each group; empty slots have empty masks.

        like: this step's queries, for their number of positions and their precision.
        Copies, as the buffers are written to before the backward pass reads what was used.
        Raises ValueError when the feature grid is another than at construction.
        """
        positions = like.shape[-2]
        if positions != self.masks.shape[1]:
            raise ValueError(
                f"the memory was built for {self.masks.shape[1]} feature cells but the images "
                f"give {positions}: set image_size to the size of your images"
            )
        kept = (item.to(like.dtype, copy=True) for item in (self.query, self.key, self.value))
        return (
            Projected(*(repeat(item, "n l e -> g n l e", g=groups) for item in kept)),
            repeat(self.masks.clone(), "n l -> g n l", g=groups),
        )

    def comparable(self, samples: Samples) -> Bool[Tensor, "group sample kept"]:
        """Kept samples of another class are negatives of every foreground sample."""
        foreign = (samples.classes[:, :, None] != self.classes) & (self.classes != EMPTY_SLOT)
        return foreign & (samples.classes != BACKGROUND)[:, :, None]

    @torch.no_grad()
    def store(self, images: Projected, samples: Samples) -> None:
        """Remember this step's foreground samples, the oldest giving way."""
        picked = images.pick(samples.image_of)
        flat = [item.flatten(0, 1) for item in (*picked, samples.masks, samples.classes)]
        usable = flat[-1] != BACKGROUND
        # static shapes: foreground first, in order, then whatever does not fit is dropped
        order = torch.argsort((~usable).int(), stable=True)[: self.size]
        slots = (self.cursor + torch.arange(order.shape[0], device=order.device)) % self.size
        keep = usable[order]
        for buffer, value in zip(
            (self.query, self.key, self.value, self.masks, self.classes), flat, strict=True
        ):
            new = value[order].to(buffer.dtype)
            shape = (-1, *[1] * (new.ndim - 1))
            buffer[slots] = torch.where(keep.view(shape), new, buffer[slots])
        self.cursor.copy_((self.cursor + keep.sum()) % self.size)
