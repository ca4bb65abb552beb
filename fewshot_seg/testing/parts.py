"""The contracts of the five kinds of parts."""

import torch
import torch.nn.functional as F
from torch import nn

from fewshot_seg.interfaces import (
    Contrastive,
    Decoder,
    Encoder,
    Enrichment,
    FeatureMaps,
    Images,
    Latent,
    Prior,
    Privileged,
    Step,
)
from fewshot_seg.needs import needs_of
from fewshot_seg.testing.asserts import check_gradient, check_losses, check_refusal, check_state
from fewshot_seg.testing.episodes import make_features


def check_encoder(encoder: nn.Module, *, channels: int = 3) -> None:
    """Shapes by `dim` and `stride`, several sizes, and a gradient for every parameter."""
    assert isinstance(encoder, Encoder), f"{type(encoder).__name__} lacks dim, stride or forward"
    check_state(encoder)
    for height, width in ((32, 32), (32, 64)):
        maps = encoder(torch.randn(2, channels, height, width))
        expected = (2, encoder.dim, -(-height // encoder.stride), -(-width // encoder.stride))
        assert tuple(maps.shape) == expected, (
            f"maps of a {height}x{width} image have shape {tuple(maps.shape)}; with dim "
            f"{encoder.dim} and stride {encoder.stride} they should have {expected}"
        )
    check_gradient(encoder, maps.square().mean())


def check_prior(prior: nn.Module, *, dim: int) -> None:
    """A latent for every image, with and without privileged masks; losses only with them."""
    assert isinstance(prior, Prior), f"{type(prior).__name__} lacks latent, samples or forward"
    check_state(prior)
    episode, features = make_features(dim=dim)
    assert episode.query_labels is not None
    images = torch.cat([episode.support.images.flatten(0, 2), episode.query_images.flatten(0, 1)])
    masks = torch.cat(
        [episode.support.masks.flatten(0, 2), (episode.query_labels > 0).float().flatten(0, 1)]
    )
    prior.train()
    known: Latent = prior(features, Privileged(images, masks))
    check_losses(known.losses)
    _check_latent(prior, known, images.shape[0])
    assert known.z is not None
    check_gradient(prior, sum(known.losses.values()) + known.z.square().mean())
    prior.eval()
    blind: Latent = prior(features.repeat(prior.samples), None)
    assert not blind.losses, "a prior can have no losses without privileged masks"
    _check_latent(prior, blind, images.shape[0] * prior.samples)


def _check_latent(prior: Prior, latent: Latent, images: int) -> None:
    if latent.z is None:
        return
    got, wanted = tuple(latent.z.shape), (images, prior.latent)
    assert got == wanted, f"z has shape {got}; it should have {wanted}"
    assert torch.isfinite(latent.z).all(), "z is not finite"


def check_enrichment(enrichment: nn.Module, *, dim: int, latent: int) -> None:
    """Features of the same shapes, for several ways and shots."""
    assert isinstance(enrichment, Enrichment), f"{type(enrichment).__name__} lacks forward"
    check_state(enrichment)
    for n_way, n_shot in ((1, 1), (2, 3)):
        _, features = make_features(dim=dim, n_way=n_way, n_shot=n_shot)
        z = torch.randn(features.maps().shape[0], latent)
        richer = enrichment(features, Latent(z))
        for name in ("support", "support_masks", "query"):
            got, wanted = getattr(richer, name).shape, getattr(features, name).shape
            assert got == wanted, f"{name} came back as {tuple(got)}; it was {tuple(wanted)}"
        assert torch.isfinite(richer.maps()).all(), "the enriched features are not finite"
    check_gradient(enrichment, richer.maps().square().mean())


def check_decoder(decoder: nn.Module, *, dim: int) -> None:
    """Logits at any size, support and query in either role, and a gradient for every parameter."""
    assert isinstance(decoder, Decoder), f"{type(decoder).__name__} lacks describe or forward"
    check_state(decoder)
    for n_way, n_shot in ((1, 1), (2, 3)):
        episode, features = make_features(dim=dim, n_way=n_way, n_shot=n_shot)
        support = episode.support
        for masks in (support.masks, features.support_masks):
            more = {"unlabelled": features.query} if "unlabelled" in needs_of(decoder) else {}
            state = decoder.describe(features.support, masks, 1 - masks, **more)
            for size in ((64, 64), (8, 8)):
                logits = decoder(features.query, state, size)
                expected = (2, 1, 1 + n_way, *size)
                assert tuple(logits.shape) == expected, (
                    f"logits have shape {tuple(logits.shape)}; they should have {expected}"
                )
                assert torch.isfinite(logits).all(), "logits are not finite"
    check_gradient(decoder, logits.square().mean())


def check_contrastive(contrastive: nn.Module, decoder: nn.Module, *, dim: int) -> None:
    """Finite scalar losses for several ways and shots, and a gradient for every parameter."""
    assert isinstance(contrastive, Contrastive), f"{type(contrastive).__name__} lacks forward"
    assert isinstance(decoder, Decoder), f"{type(decoder).__name__} is no decoder"
    check_state(contrastive)
    contrastive.train()
    for n_way, n_shot in ((1, 1), (2, 2)):
        wanted = needs_of(contrastive)
        episode, features = make_features(dim=dim, n_way=n_way, n_shot=n_shot, needs=wanted)
        features = features.with_maps(features.maps().requires_grad_())
        state = decoder.describe(features.support, episode.support.masks, None)
        logits = decoder(features.query, state, episode.size)
        step = Step(
            episode, features, features, Latent(), state, decoder, 1, logits, _Averages(dim)
        )
        try:
            losses = contrastive(step)
        except ValueError as error:
            if n_way == 1:
                raise
            check_refusal(error, {"n_way": n_way})
            continue
        check_losses(losses)
        if n_way == 1:
            check_gradient(contrastive, sum(losses.values(), torch.zeros(())))


class _Averages:
    """Stands for an encoder of stride 8: fixed mixtures of the channels' local means."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def __call__(self, images: Images) -> FeatureMaps:
        channels = images.shape[1]
        mix = torch.linspace(-1.0, 1.0, self.dim * channels).reshape(self.dim, channels, 1, 1)
        return F.conv2d(F.avg_pool2d(images, 8), mix)
