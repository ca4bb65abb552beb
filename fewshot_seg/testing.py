"""The contract of methods and parts, for our tests and for those of plugin authors.

    from fewshot_seg import build
    from fewshot_seg.testing import check_method

    def test_contract():
        check_method(build("mine", encoder="resnet18"))

Each check raises AssertionError with a sentence that says what is wrong.
"""

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from fewshot_seg.episode import Episode, Features, Output, Support
from fewshot_seg.functional import area_average
from fewshot_seg.interfaces import (
    Contrastive,
    Decoder,
    Encoder,
    Enrichment,
    FeatureMaps,
    Images,
    Latent,
    Method,
    Prior,
    Privileged,
    Step,
)
from fewshot_seg.needs import needs_of

TOLERANCE = 1e-4


def make_episode(
    *,
    batch: int = 2,
    n_way: int = 1,
    n_shot: int = 1,
    n_query: int = 1,
    size: tuple[int, int] = (64, 64),
    channels: int = 3,
    seed: int = 0,
    needs: Collection[str] = (),
) -> Episode:
    """Noise images with a bright or dark disc for each way, whose place varies; labels included.

    needs: also give what a method needs of an episode, see `fewshot_seg.needs`.
    """
    generator = torch.Generator().manual_seed(seed)
    supports, masks = [], []
    for way in range(n_way):
        for _ in range(batch * n_shot):
            image, discs = _picture(size, channels, n_way, generator)
            supports.append(image)
            masks.append(discs[way])
    queries, labels = [], []
    for _ in range(batch * n_query):
        image, discs = _picture(size, channels, n_way, generator)
        queries.append(image)
        label = torch.zeros(size, dtype=torch.long)
        for way, disc in enumerate(discs):
            label[disc > 0] = way + 1
        labels.append(label)
    axes = {"w": n_way, "b": batch}
    episode = Episode(
        Support(
            rearrange(torch.stack(supports), "(w b s) c h x -> b w s c h x", **axes),
            rearrange(torch.stack(masks), "(w b s) h x -> b w s h x", **axes),
        ),
        rearrange(torch.stack(queries), "(b q) c h x -> b q c h x", b=batch),
        rearrange(torch.stack(labels), "(b q) h x -> b q h x", b=batch),
        classes=torch.arange(1, batch * n_way + 1).view(batch, n_way),
    )
    return _with_needs(episode, needs, generator)


def _with_needs(episode: Episode, needs: Collection[str], generator: torch.Generator) -> Episode:
    """Two unlabelled images, two auxiliary ones with four quarters as superpixels, and each image
    mirrored as its second view."""
    support, extras = episode.support, dict(episode.extras)
    batch, channels = episode.query_images.shape[0], episode.query_images.shape[2]
    height, width = episode.size
    further = torch.randn(2, batch, 2, channels, height, width, generator=generator)
    if "unlabelled" in needs:
        support = replace(support, unlabelled=further[0])
    if "auxiliary" in needs:
        rows = (torch.arange(height) >= height // 2).long()
        cols = (torch.arange(width) >= width // 2).long()
        quarters = 1 + rows[:, None] + 2 * cols[None]
        extras["auxiliary_images"] = further[1]
        extras["auxiliary_masks"] = quarters.expand(batch, 2, height, width).clone()
        extras["auxiliary_ids"] = torch.randint(1, 5, (batch, 2), generator=generator)
    if "second_view" in needs:
        images = torch.cat([support.images.flatten(1, 2), episode.query_images], 1)
        extras["second_view_images"] = images.flip(-1)
        mirror = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])[None]
        grid = F.affine_grid(mirror, [1, 1, height, width], align_corners=False)
        extras["second_view_grid"] = grid.expand(*images.shape[:2], height, width, 2).clone()
    return replace(episode, support=support, extras=extras)


def _picture(
    size: tuple[int, int], channels: int, n_way: int, generator: torch.Generator
) -> tuple[Tensor, list[Tensor]]:
    height, width = size
    rows = torch.arange(height)[:, None]
    cols = torch.arange(width)[None]
    image = 0.3 * torch.randn(channels, height, width, generator=generator)
    discs = []
    for way in range(n_way):
        jitter = torch.rand(2, generator=generator)
        row = height * (way + 0.3 + 0.4 * jitter[0]) / n_way
        col = width * (0.3 + 0.4 * jitter[1])
        radius = 0.22 * min(height / n_way, width)
        disc = ((rows - row) ** 2 + (cols - col) ** 2 < radius**2).float()
        image = image + disc * (2.0 if way % 2 == 0 else -2.0)
        discs.append(disc)
    return image, discs


def check_method(
    method: nn.Module, *, size: tuple[int, int] = (64, 64), channels: int = 3, grey: bool = True
) -> None:
    """A whole method: shapes, finiteness, gradients, repeatability, and the two laws of the test
    path (`forward` equals `segment(encode_support(...))`; query labels are never read).

    size, channels: of images that the method must take. Other sizes, several ways, shots and
        queries must work too, or raise a ValueError that says what the limit is.
    The method is left in eval mode with its weights unchanged.
    """
    assert isinstance(method, Method), (
        f"{type(method).__name__} lacks forward, encode_support or segment"
    )
    _check_state(method)
    episode = make_episode(size=size, channels=channels, needs=needs_of(method))
    _check_training(method, episode)
    _check_test_path(method, episode)
    _check_repeatable(method, episode)
    _check_masks(method, episode)
    _check_shapes(method, size, channels)
    method.eval()


def _check_state(module: nn.Module) -> None:
    """Tensors live in parameters and buffers, or `.to()` and checkpoints forget them."""
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            assert not isinstance(value, Tensor), (
                f"'{name or 'the module'}' keeps the tensor '{key}' as a plain attribute; "
                "register it as a buffer"
            )
    before = module.state_dict()
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    twin.load_state_dict(before)
    for key, value in twin.state_dict().items():
        assert torch.equal(value, before[key]), f"'{key}' does not survive a checkpoint"


def _check_training(method: nn.Module, episode: Episode) -> None:
    twin = copy.deepcopy(method).train()
    output = twin(episode)
    _check_output(output, episode)
    assert output.losses, "in training mode, with labels, there must be losses"
    _check_losses(output.losses)
    trained = [(name, p) for name, p in twin.named_parameters() if p.requires_grad]
    if trained:
        output.loss.backward()
    for name, parameter in trained:
        assert parameter.grad is not None, f"no gradient reaches the parameter '{name}'"
        assert torch.isfinite(parameter.grad).all(), f"the gradient of '{name}' is not finite"
    assert not twin(episode.without_labels()).losses, "without labels there can be no losses"


def _check_output(output: Output, episode: Episode) -> None:
    batch, queries = episode.query_images.shape[:2]
    expected = (batch, queries, 1 + episode.support.n_way, *episode.size)
    got = tuple(output.logits.shape)
    assert got == expected, f"logits have shape {got}; they should have {expected}"
    assert torch.isfinite(output.logits).all(), "logits are not finite"


def _check_losses(losses: Mapping[str, Tensor]) -> None:
    for name, value in losses.items():
        assert value.ndim == 0, f"loss '{name}' has shape {tuple(value.shape)}; it must be a scalar"
        assert torch.isfinite(value), f"loss '{name}' is {value.item()}"


@torch.no_grad()
def _check_test_path(method: nn.Module, episode: Episode) -> None:
    method.eval()
    output = method(episode)
    _check_output(output, episode)
    assert not output.losses, "in eval mode there must be no losses"
    segment: Callable[..., Tensor] = method.segment  # type: ignore[assignment]
    encode: Callable[[Support], Any] = method.encode_support  # type: ignore[assignment]
    state = encode(episode.support)
    _same(segment(state, episode.query_images), output.logits, "segment(encode_support(...))")
    _same(segment(state, episode.query_images), output.logits, "segment called a second time")
    blind = method(episode.without_labels()).logits
    _same(blind, output.logits, "forward without query labels")
    assert episode.query_labels is not None
    wrong = Episode(
        episode.support,
        episode.query_images,
        torch.flip(episode.query_labels, (-1,)),
        episode.classes,
        episode.extras,
    )
    _same(method(wrong).logits, output.logits, "forward with other query labels")


def _check_repeatable(method: nn.Module, episode: Episode) -> None:
    twin = copy.deepcopy(method).train()
    torch_state = torch.get_rng_state()
    results = []
    for _ in range(2):
        again = copy.deepcopy(twin)
        torch.manual_seed(7)
        results.append(again(episode).logits.detach())
    _same(results[0], results[1], "the same call with the same seed")
    torch.set_rng_state(torch_state)
    method.eval()
    with torch.no_grad():
        first = method(episode).logits
        size, channels = episode.size, episode.query_images.shape[2]
        method(make_episode(size=size, channels=channels, seed=1, needs=needs_of(method)))
        _same(method(episode).logits, first, "forward after another episode in eval mode")


@torch.no_grad()
def _check_masks(method: nn.Module, episode: Episode) -> None:
    method.eval()
    support = episode.support
    for name, value in (("an empty", 0.0), ("a full", 1.0)):
        masks = torch.full_like(support.masks, value)
        bare = Support(support.images, masks, unlabelled=support.unlabelled)
        task = Episode(bare, episode.query_images, extras=episode.extras)
        output = method(task)
        assert torch.isfinite(output.logits).all(), (
            f"{name} support mask gives logits that are not finite"
        )
        if value == 0:
            assert (output.logits.argmax(2) == 0).all(), (
                "an empty support mask must give background"
            )


def _check_shapes(method: nn.Module, size: tuple[int, int], channels: int) -> None:
    other = (size[0], size[1] + size[1] // 2)
    cases: list[dict[str, Any]] = [
        {"n_shot": 3},
        {"n_query": 2},
        {"n_way": 2},
        {"n_way": 3, "n_shot": 2, "n_query": 2},
        {"size": other},
    ]
    for case in cases:
        wanted = needs_of(method)
        episode = make_episode(channels=channels, needs=wanted, **{"size": size, **case})
        for training in (True, False):
            twin = copy.deepcopy(method).train(training)
            try:
                with torch.set_grad_enabled(training):
                    output = twin(episode)
            except ValueError as error:
                _check_refusal(error, case)
                continue
            _check_output(output, episode)
            _check_losses(output.losses)


def _check_refusal(error: ValueError, case: Mapping[str, Any]) -> None:
    """A limit is a part's right, as long as it says what it is."""
    assert len(str(error)) > 20, f"{dict(case)}: refused with the bare message '{error}'"


def _same(got: Tensor, wanted: Tensor, what: str) -> None:
    difference = (got - wanted).abs().max().item()
    scale = max(1.0, wanted.abs().clamp(max=1e3).max().item())
    assert difference <= TOLERANCE * scale, f"{what} differs from forward by {difference:.2g}"


def check_encoder(encoder: nn.Module, *, channels: int = 3) -> None:
    """Shapes by `dim` and `stride`, several sizes, and a gradient for every parameter."""
    assert isinstance(encoder, Encoder), f"{type(encoder).__name__} lacks dim, stride or forward"
    _check_state(encoder)
    for height, width in ((32, 32), (32, 64)):
        maps = encoder(torch.randn(2, channels, height, width))
        expected = (2, encoder.dim, -(-height // encoder.stride), -(-width // encoder.stride))
        assert tuple(maps.shape) == expected, (
            f"maps of a {height}x{width} image have shape {tuple(maps.shape)}; with dim "
            f"{encoder.dim} and stride {encoder.stride} they should have {expected}"
        )
    _check_gradient(encoder, maps.square().mean())


def make_features(
    *,
    dim: int,
    n_way: int = 1,
    n_shot: int = 1,
    batch: int = 2,
    seed: int = 0,
    needs: Collection[str] = (),
) -> tuple[Episode, Features]:
    """An episode of 64x64 pixels with random features on an 8x8 grid, for checks of parts."""
    episode = make_episode(batch=batch, n_way=n_way, n_shot=n_shot, seed=seed, needs=needs)
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, n_way, n_shot, dim, 8, 8)
    support = torch.randn(shape, generator=generator)
    query = torch.randn(batch, 1, dim, 8, 8, generator=generator)
    return episode, Features(support, area_average(episode.support.masks, (8, 8)), query)


def check_prior(prior: nn.Module, *, dim: int) -> None:
    """A latent for every image, with and without privileged masks; losses only with them."""
    assert isinstance(prior, Prior), f"{type(prior).__name__} lacks latent, samples or forward"
    _check_state(prior)
    episode, features = make_features(dim=dim)
    assert episode.query_labels is not None
    images = torch.cat([episode.support.images.flatten(0, 2), episode.query_images.flatten(0, 1)])
    masks = torch.cat(
        [episode.support.masks.flatten(0, 2), (episode.query_labels > 0).float().flatten(0, 1)]
    )
    prior.train()
    known: Latent = prior(features, Privileged(images, masks))
    _check_losses(known.losses)
    _check_latent(prior, known, images.shape[0])
    assert known.z is not None
    _check_gradient(prior, sum(known.losses.values()) + known.z.square().mean())
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
    _check_state(enrichment)
    for n_way, n_shot in ((1, 1), (2, 3)):
        _, features = make_features(dim=dim, n_way=n_way, n_shot=n_shot)
        z = torch.randn(features.maps().shape[0], latent)
        richer = enrichment(features, Latent(z))
        for name in ("support", "support_masks", "query"):
            got, wanted = getattr(richer, name).shape, getattr(features, name).shape
            assert got == wanted, f"{name} came back as {tuple(got)}; it was {tuple(wanted)}"
        assert torch.isfinite(richer.maps()).all(), "the enriched features are not finite"
    _check_gradient(enrichment, richer.maps().square().mean())


def check_decoder(decoder: nn.Module, *, dim: int) -> None:
    """Logits at any size, support and query in either role, and a gradient for every parameter."""
    assert isinstance(decoder, Decoder), f"{type(decoder).__name__} lacks describe or forward"
    _check_state(decoder)
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
    _check_gradient(decoder, logits.square().mean())


def check_contrastive(contrastive: nn.Module, decoder: nn.Module, *, dim: int) -> None:
    """Finite scalar losses for several ways and shots, and a gradient for every parameter."""
    assert isinstance(contrastive, Contrastive), f"{type(contrastive).__name__} lacks forward"
    assert isinstance(decoder, Decoder), f"{type(decoder).__name__} is no decoder"
    _check_state(contrastive)
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
            _check_refusal(error, {"n_way": n_way})
            continue
        _check_losses(losses)
        if n_way == 1:
            _check_gradient(contrastive, sum(losses.values(), torch.zeros(())))


class _Averages:
    """Stands for an encoder of stride 8: fixed mixtures of the channels' local means."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def __call__(self, images: Images) -> FeatureMaps:
        channels = images.shape[1]
        mix = torch.linspace(-1.0, 1.0, self.dim * channels).reshape(self.dim, channels, 1, 1)
        return F.conv2d(F.avg_pool2d(images, 8), mix)


def _check_gradient(module: nn.Module, value: Any) -> None:
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not trained:
        return
    module.zero_grad()
    value.backward()
    for name, parameter in trained:
        assert parameter.grad is not None, f"no gradient reaches the parameter '{name}'"
    module.zero_grad()
