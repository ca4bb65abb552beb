"""What travels through a method: Support, Episode, Features, Output.

Axes: `batch` episodes of one step, `way` foreground classes, `shot` labelled images of a way,
`query` images to segment, `label` = background + ways, `height width` pixels, `rows cols` the
feature grid. All are frozen: a part that changes something returns a new one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORE = 255
"""Label of a query pixel that is not scored."""


def _size(images: Tensor) -> str:
    return f"{images.shape[-2]}x{images.shape[-1]}"


@dataclass(frozen=True, eq=False)
class Support:
    """The labelled examples of some episodes.

    images: intensities, z-scored by scan (see data_protocols in the docs).
    masks: 1 on the way's class, 0 elsewhere; soft values are allowed.
    background_masks: 1 where none of the episode's classes is; None means `1 - masks`, which is
        right whenever only the way's own class is annotated in its image.
    unlabelled: further images without labels, for methods that learn from the task's own scans
        (transductive ones); None for all others.
    Raises ValueError when sizes disagree.
    """

    images: Float[Tensor, "batch way shot channel height width"]
    masks: Float[Tensor, "batch way shot height width"]
    background_masks: Float[Tensor, "batch way shot height width"] | None = None
    unlabelled: Float[Tensor, "batch unlabelled channel height width"] | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 6:
            raise ValueError(
                "support images need the axes (batch, way, shot, channel, height, width); "
                f"got {self.images.ndim} axes of shape {tuple(self.images.shape)}"
            )
        expected = (*self.images.shape[:3], *self.images.shape[-2:])
        for name, masks in (("masks", self.masks), ("background masks", self.background_masks)):
            if masks is not None and tuple(masks.shape) != expected:
                raise ValueError(
                    f"support {name} have shape {tuple(masks.shape)} "
                    f"but the support images ask for {expected}"
                )
        if self.unlabelled is not None:
            got, one = tuple(self.unlabelled.shape), tuple(self.images.shape[3:])
            if len(got) != 5 or got[0] != self.images.shape[0] or got[2:] != one:
                raise ValueError(
                    f"unlabelled images have shape {got} but the support images ask for "
                    f"{(self.images.shape[0], 'any number', *one)}"
                )

    @property
    def n_way(self) -> int:
        return self.images.shape[1]

    @property
    def n_shot(self) -> int:
        return self.images.shape[2]

    @property
    def backgrounds(self) -> Float[Tensor, "batch way shot height width"]:
        """The background masks, `1 - masks` unless given."""
        return 1 - self.masks if self.background_masks is None else self.background_masks


@dataclass(frozen=True, eq=False)
class Episode:
    """A step's tasks: labelled examples, images to segment and, in training, their labels.

    query_labels: 0 background, k the k-th way, 255 not scored; None at test.
    classes: the data set's class id of every way; None when unknown. Only contrastive terms that
        compare several episodes read it.
    extras: further named tensors that some methods need, each with a leading batch axis; see
        `fewshot_seg.needs` for their names and shapes.
    Raises ValueError when support and query disagree in batch, channels or size.
    """

    support: Support
    query_images: Float[Tensor, "batch query channel height width"]
    query_labels: Int[Tensor, "batch query height width"] | None = None
    classes: Int[Tensor, "batch way"] | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        images, query = self.support.images, self.query_images
        if query.ndim != 5:
            raise ValueError(
                "query images need the axes (batch, query, channel, height, width); "
                f"got shape {tuple(query.shape)}"
            )
        if images.shape[-2:] != query.shape[-2:]:
            raise ValueError(
                f"support images are {_size(images)} but query images are {_size(query)}"
            )
        if images.shape[-3] != query.shape[-3]:
            raise ValueError(
                f"support images have {images.shape[-3]} channels "
                f"but query images have {query.shape[-3]}"
            )
        if images.shape[0] != query.shape[0]:
            raise ValueError(
                f"support holds {images.shape[0]} episodes but the query holds {query.shape[0]}"
            )
        labels = self.query_labels
        expected = (*query.shape[:2], *query.shape[-2:])
        if labels is not None and tuple(labels.shape) != expected:
            raise ValueError(
                f"query labels have shape {tuple(labels.shape)} but the query images "
                f"ask for {expected}"
            )
        if self.classes is not None and tuple(self.classes.shape) != tuple(images.shape[:2]):
            raise ValueError(
                f"classes have shape {tuple(self.classes.shape)} but there are "
                f"{images.shape[0]} episodes of {images.shape[1]} ways"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.query_images.shape[-2], self.query_images.shape[-1]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Episode":
        """The episode with `function` applied to each of its tensors."""
        support = Support(
            function(self.support.images),
            function(self.support.masks),
            _maybe(function, self.support.background_masks),
            _maybe(function, self.support.unlabelled),
        )
        return Episode(
            support,
            function(self.query_images),
            _maybe(function, self.query_labels),
            _maybe(function, self.classes),
            {name: function(tensor) for name, tensor in self.extras.items()},
        )

    def to(self, device: torch.device | str) -> "Episode":
        """The episode on `device`."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Episode":
        """The episode in page-locked memory, from where a GPU fetches it without waiting; torch's
        DataLoader calls this."""
        return self.map(lambda tensor: tensor.pin_memory())

    def without_labels(self) -> "Episode":
        """The same task as it stands at test time."""
        return replace(self, query_labels=None)


def _maybe(function: Callable[[Tensor], Tensor], tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else function(tensor)


def collate(episodes: list[Episode]) -> Episode:
    """Join episodes of equal shape along the batch axis.

    Raises ValueError when some carry labels, classes, background masks, unlabelled images or extras
    and others not.
    """

    def join(tensors: list[Tensor | None], name: str) -> Tensor | None:
        given = [tensor for tensor in tensors if tensor is not None]
        if not given:
            return None
        if len(given) != len(tensors):
            raise ValueError(f"only some of the {len(tensors)} episodes have {name}")
        return torch.cat(given)

    def need(tensors: list[Tensor | None], name: str) -> Tensor:
        joined = join(tensors, name)
        assert joined is not None
        return joined

    if not episodes:
        raise ValueError("there is no episode to collate")
    supports = [episode.support for episode in episodes]
    names = sorted({name for episode in episodes for name in episode.extras})
    return Episode(
        Support(
            need([s.images for s in supports], "support images"),
            need([s.masks for s in supports], "support masks"),
            join([s.background_masks for s in supports], "background masks"),
            join([s.unlabelled for s in supports], "unlabelled images"),
        ),
        need([e.query_images for e in episodes], "query images"),
        join([e.query_labels for e in episodes], "query labels"),
        join([e.classes for e in episodes], "classes"),
        {name: need([e.extras.get(name) for e in episodes], name) for name in names},
    )


@dataclass(frozen=True, eq=False)
class Features:
    """Encoded images of an episode on the feature grid.

    support_masks: the support masks on that grid by area averaging, so soft, in [0, 1].
    """

    support: Float[Tensor, "batch way shot dim rows cols"]
    support_masks: Float[Tensor, "batch way shot rows cols"]
    query: Float[Tensor, "batch query dim rows cols"]

    @property
    def grid(self) -> tuple[int, int]:
        return self.query.shape[-2], self.query.shape[-1]

    @property
    def n_support(self) -> int:
        """Number of support images over all episodes, ways and shots."""
        batch, way, shot = self.support.shape[:3]
        return batch * way * shot

    def maps(self) -> Float[Tensor, "image dim rows cols"]:
        """All images in one row: support (batch way shot) first, then query (batch query)."""
        support = rearrange(self.support, "b w s d r c -> (b w s) d r c")
        query = rearrange(self.query, "b q d r c -> (b q) d r c")
        return torch.cat([support, query])

    def repeat(self, times: int) -> "Features":
        """The episodes `times` over, along the batch axis."""
        if times == 1:
            return self
        return replace(
            self,
            support=self.support.repeat(times, 1, 1, 1, 1, 1),
            support_masks=self.support_masks.repeat(times, 1, 1, 1, 1),
            query=self.query.repeat(times, 1, 1, 1, 1),
        )

    def with_maps(self, maps: Float[Tensor, "image dim rows cols"]) -> "Features":
        """The same episode with other maps, in the order of `maps()`."""
        support, query = maps[: self.n_support], maps[self.n_support :]
        return replace(
            self,
            support=support.reshape(*self.support.shape[:3], *support.shape[1:]),
            query=query.reshape(*self.query.shape[:2], *query.shape[1:]),
        )


@dataclass(frozen=True, eq=False)
class Output:
    """What a method answers.

    logits: ready for softmax over `label`, at image size.
    losses: scalars by name, before weighting; empty at test.
    weights: factor of each loss in the total; 1 where not named.
    empty_support: True for a way whose support mask is empty; no pixel is given to it.
    diagnostics: numbers to log in training, never part of the loss.
    """

    logits: Float[Tensor, "batch query label height width"]
    losses: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    empty_support: Bool[Tensor, "batch way"] | None = None
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def loss(self) -> Float[Tensor, ""]:
        """The weighted sum of the losses. Raises ValueError when there is none."""
        if not self.losses:
            raise ValueError(
                "this output has no losses: call the method in training mode with query labels"
            )
        terms = [self.weights.get(name, 1.0) * value for name, value in self.losses.items()]
        return torch.stack(terms).sum()
