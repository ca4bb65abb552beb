"""Five parts as a method: encoder -> prior -> enrichment -> decoder, and contrastive terms."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.answers import check_shape
from fewshot_seg.binary import silence_empty
from fewshot_seg.episode import Episode, Features, Output, Support
from fewshot_seg.functional import (
    EMPTY,
    area_average,
    foreground,
    mean_probability_logits,
    segmentation_loss,
    settled,
)
from fewshot_seg.interfaces import (
    Contrastive,
    Decoder,
    Encoder,
    Enrichment,
    FeatureMaps,
    Images,
    Latent,
    Learning,
    Losses,
    Prior,
    Privileged,
    QueryLogits,
    QueryMaps,
    Step,
)
from fewshot_seg.needs import needs_of, require


class SupportState(NamedTuple):
    """Encoded support: what `segment` needs, computed once per scan."""

    maps: Float[Tensor, "batch way shot dim rows cols"]
    grid_masks: Float[Tensor, "batch way shot rows cols"]
    masks: Float[Tensor, "batch way shot height width"]
    backgrounds: Float[Tensor, "batch way shot height width"]
    unlabelled: Float[Tensor, "batch unlabelled dim rows cols"] | None = None


class Pipeline(nn.Module):
    """A few-shot method made of parts.

    prior, enrichment: None leaves the step out.   contrastives: by registered name.
    weights: factor of each loss by name, 1 where not named.
    ce_weights: (background, foreground) weights of the query's cross-entropy; None is unweighted.

    Losses: "ce", and whatever prior, decoder and contrastive terms add.
    Diagnostics: the prior's, and "margin_spread", the standard deviation over pixels of a way's
        logit less the background's, over the decoder's `scale` (in a cosine decoder: of
        cos_fg - cos_bg; near 0 all pixels look alike).
    Raises ValueError when images do not have the channels of the encoder (one channel is repeated
    where the encoder wants three), EpisodeError when an episode lacks what a part needs.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        decoder: Decoder,
        prior: Prior | None = None,
        enrichment: Enrichment | None = None,
        contrastives: Mapping[str, Contrastive] | None = None,
        weights: Mapping[str, float] | None = None,
        ce_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.prior = prior
        self.enrichment = enrichment
        self.decoder = decoder
        self.contrastives = nn.ModuleDict(dict(contrastives or {}))  # type: ignore[arg-type]
        self.weights = dict(weights or {})
        self.ce_weights = None if ce_weights is None else tuple(ce_weights)

    def forward(self, episode: Episode) -> Output:
        """Segment the query; with labels and in training mode, give the losses too."""
        state, query = self._encode(episode)
        if self.training and episode.query_labels is not None:
            return self._train(episode, state, query)
        return Output(self._answer(state, query, episode.size), empty_support=_empty(state))

    def encode_support(self, support: Support) -> SupportState:
        """Encode the labelled examples once; `segment` may then be called many times."""
        images = rearrange(support.images, "b w s c h w2 -> (b w s) c h w2")
        return _state(support, self.encode(images), self._encode_unlabelled(support))

    def segment(
        self,
        state: SupportState,
        query_images: Float[Tensor, "batch query channel height width"],
    ) -> Float[Tensor, "batch query label height width"]:
        """Logits of the query images by the encoded support."""
        size = (query_images.shape[-2], query_images.shape[-1])
        return self.segment_encoded(state, self.encode_query(query_images), size)

    def encode_query(
        self, query_images: Float[Tensor, "batch query channel height width"]
    ) -> QueryMaps:
        """Encode query images once; `segment_encoded` may then be called with many supports."""
        maps = self.encode(rearrange(query_images, "b q c h w -> (b q) c h w"))
        return rearrange(maps, "(b q) d r c -> b q d r c", b=query_images.shape[0])

    def segment_encoded(
        self, state: SupportState, query: QueryMaps, size: tuple[int, int]
    ) -> QueryLogits:
        """Logits at `size` (height, width) of encoded query images by the encoded support."""
        return self._answer(state, query, size)

    def encode(self, images: Images) -> FeatureMaps:
        """Maps of any images, grey ones repeated to the channels of the encoder."""
        maps = self.encoder(self._channels(images))
        # the grid is the encoder's own affair
        check_shape(self.encoder, "maps", maps, (len(images), self.encoder.dim, *maps.shape[2:4]))
        return maps

    def _encode_unlabelled(self, support: Support) -> Tensor | None:
        """Unlabelled images serve the decoder only: without gradient, and batch statistics alone
        come from labelled ones."""
        if not self._wants_unlabelled():
            return None
        require(support, "unlabelled", by=type(self.decoder).__name__)
        assert support.unlabelled is not None
        with torch.no_grad(), settled(self.encoder):  # type: ignore[arg-type]
            maps = self.encode(rearrange(support.unlabelled, "b u c h w -> (b u) c h w"))
        return rearrange(maps, "(b u) d r c -> b u d r c", b=support.images.shape[0])

    def _wants_unlabelled(self) -> bool:
        return "unlabelled" in getattr(self.decoder, "needs", ())

    def _describe(self, features: Features, state: SupportState) -> Any:
        more = {"unlabelled": state.unlabelled} if self._wants_unlabelled() else {}
        return self.decoder.describe(features.support, state.masks, state.backgrounds, **more)

    def _encode(self, episode: Episode) -> tuple[SupportState, Tensor]:
        """Support and query in one pass through the encoder."""
        images = _all_images(episode)
        maps = self.encode(images)
        batch, n_query = episode.query_images.shape[:2]
        support, query = maps[: -batch * n_query], maps[-batch * n_query :]
        unlabelled = self._encode_unlabelled(episode.support)
        return _state(episode.support, support, unlabelled), rearrange(
            query, "(b q) d r c -> b q d r c", b=batch
        )

    def _channels(self, images: Images) -> Float[Tensor, "image wanted height width"]:
        wanted = getattr(self.encoder, "in_channels", images.shape[1])
        if images.shape[1] == wanted:
            return images
        if images.shape[1] == 1:
            return repeat(images, "i 1 h w -> i c h w", c=wanted)
        raise ValueError(
            f"the images have {images.shape[1]} channels but the encoder was built for {wanted}"
        )

    def _samples(self) -> int:
        return 1 if self.prior is None else self.prior.samples

    def _enrich(self, features: Features, privileged: Privileged | None) -> tuple[Features, Latent]:
        latent = Latent() if self.prior is None else self.prior(features, privileged)
        if self.enrichment is None:
            return features, latent
        enriched = self.enrichment(features, latent)
        for given, got in ((features.support, enriched.support), (features.query, enriched.query)):
            check_shape(self.enrichment, "features", got, tuple(given.shape))
        return enriched, latent

    def _answer(
        self, state: SupportState, query: Tensor, size: tuple[int, int]
    ) -> Float[Tensor, "batch query label height width"]:
        """The test path; it has no access to labels."""
        samples = self._samples()
        features = Features(state.maps, state.grid_masks, query).repeat(samples)
        enriched, _ = self._enrich(features, None)
        many = _repeat_state(state, samples)
        described = self._describe(enriched, many)
        answer = self.decoder(enriched.query, described, size)
        _check_logits(self.decoder, answer, enriched, size)
        return silence_empty(_join_samples(answer, samples), _empty(state))

    def _train(self, episode: Episode, state: SupportState, query: Tensor) -> Output:
        assert episode.query_labels is not None
        for need in needs_of(self):
            require(episode, need, by=_who_needs(self, need))
        samples = self._samples()
        many = _repeat_state(state, samples)
        task = episode if samples == 1 else episode.map(lambda t: t.repeat(_times(t, samples)))
        before = Features(state.maps, state.grid_masks, query).repeat(samples)
        features, latent = self._enrich(before, _privileged(task))
        described = self._describe(features, many)
        answer, own = self._learn(features, described, task)
        _check_logits(self.decoder, answer, features, task.size)
        logits = _join_samples(answer, samples)
        losses = {"ce": segmentation_loss(logits, episode.query_labels, self.ce_weights)}
        step = Step(
            task, before, features, latent, described, self.decoder, samples, logits, self.encode
        )
        _merge(losses, own, "the decoder")
        _merge(losses, latent.losses, "the prior")
        for name, term in self.contrastives.items():
            _merge(losses, term(step), f"contrastive '{name}'")
        diagnostics = {**latent.diagnostics, "margin_spread": _margin_spread(logits, self.decoder)}
        return Output(logits, losses, self.weights, _empty(state), diagnostics=diagnostics)

    def _learn(self, features: Features, described: Any, task: Episode) -> tuple[Tensor, Losses]:
        """The decoder's answer in training, with the losses that only some decoders have."""
        if isinstance(self.decoder, Learning):
            return self.decoder.learn(features, described, task)
        return self.decoder(features.query, described, task.size), {}


def _state(support: Support, maps: FeatureMaps, unlabelled: Tensor | None = None) -> SupportState:
    batch, way, shot = support.images.shape[:3]
    grid = (maps.shape[-2], maps.shape[-1])
    masks = support.masks.to(maps.device)
    return SupportState(
        rearrange(maps, "(b w s) d r c -> b w s d r c", b=batch, w=way, s=shot),
        area_average(masks, grid),
        masks,
        support.backgrounds,
        unlabelled,
    )


def _check_logits(
    decoder: Decoder, logits: Tensor, features: Features, size: tuple[int, int]
) -> None:
    """Raise PluginError for logits that are not those of every query, label and pixel."""
    batch, queries = features.query.shape[:2]
    labels = 1 + features.support.shape[1]
    check_shape(decoder, "logits", logits, (batch, queries, labels, *size))


def _who_needs(method: nn.Module, need: str) -> str:
    """The part's class, for a message."""
    parts = [part for part in method.modules() if need in getattr(part, "needs", ())]
    return type(parts[0]).__name__


def _repeat_state(state: SupportState, times: int) -> SupportState:
    if times == 1:
        return state
    maps, grid_masks, masks, backgrounds, unlabelled = state
    return SupportState(
        maps.repeat(_times(maps, times)),
        grid_masks.repeat(_times(grid_masks, times)),
        masks.repeat(_times(masks, times)),
        backgrounds.repeat(_times(backgrounds, times)),
        None if unlabelled is None else unlabelled.repeat(_times(unlabelled, times)),
    )


@torch.no_grad()
def _margin_spread(logits: QueryLogits, decoder: Decoder) -> Float[Tensor, ""]:
    """See `Pipeline`; the mean over images and ways."""
    margins = (logits[:, :, 1:] - logits[:, :, :1]).float().flatten(3)
    spread = margins.std(-1).mean()
    scale = getattr(decoder, "scale", 1.0)  # a learned one stays in
    return spread / abs(scale) if isinstance(scale, (int, float)) else spread


def _times(tensor: Tensor, times: int) -> tuple[int, ...]:
    """Arguments of `repeat` for the batch axis alone."""
    return (times, *[1] * (tensor.ndim - 1))


def _join_samples(logits: Tensor, samples: int) -> Tensor:
    """Average the probabilities over the latent samples of each episode."""
    if samples == 1:
        return logits
    split = rearrange(logits, "(n b) q l h w -> n b q l h w", n=samples)
    return mean_probability_logits(split, label_axis=3)


def _empty(state: SupportState) -> Tensor:
    """True for a way without a marked pixel in any of its shots."""
    return state.grid_masks.sum((2, 3, 4)) < EMPTY


def _all_images(episode: Episode) -> Images:
    support = rearrange(episode.support.images, "b w s c h w2 -> (b w s) c h w2")
    query = rearrange(episode.query_images, "b q c h w -> (b q) c h w")
    return torch.cat([support, query])


def _privileged(episode: Episode) -> Privileged:
    """Images with their foreground: the way's mask of a support, any way's mask of a query."""
    assert episode.query_labels is not None
    masks = rearrange(episode.support.masks, "b w s h w2 -> (b w s) h w2")
    labels = rearrange(episode.query_labels, "b q h w -> (b q) h w")
    return Privileged(_all_images(episode), torch.cat([masks, foreground(labels)]))


def _merge(losses: dict[str, Tensor], more: Mapping[str, Tensor], source: str) -> None:
    for name, value in more.items():
        if name in losses:
            raise ValueError(f"{source} adds a loss '{name}' that another part has already")
        losses[name] = value
