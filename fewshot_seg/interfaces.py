"""The roles of parts. A part is any `nn.Module` with the right `forward`, without a base.

Shapes are named as in `episode.py`. `forward` is what a module is held against, the identical
`__call__` types the call.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from fewshot_seg.episode import Episode, Features, Output, Support

Images = Float[Tensor, "image channel height width"]
FeatureMaps = Float[Tensor, "image dim rows cols"]
SupportMaps = Float[Tensor, "batch way shot dim rows cols"]
SupportMasks = Float[Tensor, "batch way shot height width"]
QueryMaps = Float[Tensor, "batch query dim rows cols"]
QueryLogits = Float[Tensor, "batch query label height width"]
Losses = Mapping[str, Float[Tensor, ""]]


@dataclass(frozen=True, eq=False)
class Latent:
    """What a prior knows of each image, in the order of `Features.maps()`; z is None without prior.

    diagnostics: numbers to log, never part of the loss.
    """

    z: Float[Tensor, "image latent"] | None = None
    losses: Losses = field(default_factory=dict)
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Privileged:
    """What only training knows: all images with their foreground, in `Features.maps()` order."""

    images: Images
    masks: Float[Tensor, "image height width"]


@dataclass(frozen=True, eq=False)
class Step:
    """What a contrastive term may look at, in training only.

    before, features: the encoded images before and after enrichment.
    state: what the decoder described of the support.
    decoder: to be called again, on the feature grid or with support and query in other roles.
    samples: how many copies of the step's episodes follow each other along the batch axis, one for
        each latent sample.
    logits: of the query at image size, averaged over the samples.
    encode: the encoder, for further images: second views, auxiliary ones.
    """

    episode: Episode
    before: Features
    features: Features
    latent: Latent
    state: Any
    decoder: "Decoder"
    samples: int = 1
    logits: Float[Tensor, "episode query label height width"] | None = None
    encode: Callable[[Images], FeatureMaps] | None = None


@runtime_checkable
class Encoder(Protocol):
    """Turn images into features of `dim` channels on a grid `stride` times coarser."""

    dim: int
    stride: int

    def forward(self, images: Images) -> FeatureMaps: ...
    def __call__(self, images: Images) -> FeatureMaps: ...


@runtime_checkable
class Prior(Protocol):
    """Infer a latent vector of `latent` numbers for each image.

    privileged: None at test.
    samples: how many times the episode is to be decoded (probabilities are averaged); the
        features then arrive with their batch axis repeated that often.
    """

    latent: int

    @property
    def samples(self) -> int: ...

    def forward(self, features: Features, privileged: Privileged | None) -> Latent: ...
    def __call__(self, features: Features, privileged: Privileged | None) -> Latent: ...


@runtime_checkable
class Enrichment(Protocol):
    """Make features richer; may look across support and query."""

    def forward(self, features: Features, latent: Latent) -> Features: ...
    def __call__(self, features: Features, latent: Latent) -> Features: ...


@runtime_checkable
class Decoder(Protocol):
    """Segment maps by what `describe` found in labelled maps.

    `describe` takes masks of any resolution (the decoder brings masks or maps to a common one)
    and works on support or query alike; `forward` returns logits at `size`, background first.
    The decoder owns scale, upsampling and background. With "unlabelled" among its `needs`,
    `describe` is also given `unlabelled`: maps of unlabelled images, or None.
    """

    def describe(
        self, maps: SupportMaps, masks: SupportMasks, backgrounds: SupportMasks | None = None
    ) -> Any: ...
    def forward(self, maps: QueryMaps, state: Any, size: tuple[int, int]) -> QueryLogits: ...
    def __call__(self, maps: QueryMaps, state: Any, size: tuple[int, int]) -> QueryLogits: ...


@runtime_checkable
class Learning(Protocol):
    """A decoder with losses of its own (a learned threshold, intermediate answers).

    In training `learn` is called in place of `forward`, and must give the same logits.
    """

    def learn(
        self, features: Features, state: Any, episode: Episode
    ) -> tuple[QueryLogits, Losses]: ...


@runtime_checkable
class Contrastive(Protocol):
    """A loss that looks at a whole training step; absent at test."""

    def forward(self, step: Step) -> Losses: ...
    def __call__(self, step: Step) -> Losses: ...


@runtime_checkable
class Method(Protocol):
    """A whole few-shot network.

    In eval mode `forward(episode).logits` equals `segment(encode_support(episode.support), ...)`
    and query labels are never read.
    """

    def forward(self, episode: Episode) -> Output: ...
    def __call__(self, episode: Episode) -> Output: ...
    def encode_support(self, support: Support) -> Any: ...
    def segment(
        self, state: Any, query_images: Float[Tensor, "batch query channel height width"]
    ) -> QueryLogits: ...


@runtime_checkable
class EncodesQueries(Protocol):
    """A method that encodes query slices without looking at the support, so that one encoding
    serves several supports.

    `segment(state, images)` equals `segment_encoded(state, encode_query(images), size)`.
    """

    def encode_query(
        self, query_images: Float[Tensor, "batch query channel height width"]
    ) -> QueryMaps: ...
    def segment_encoded(
        self, state: Any, query: QueryMaps, size: tuple[int, int]
    ) -> QueryLogits: ...
