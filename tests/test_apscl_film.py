"""FEM: the latent scales and shifts channels."""

import pytest
import torch
from apscl_cases import close, episode, features_of, generator

from fewshot_seg.errors import OptionError
from fewshot_seg.interfaces import Latent
from fewshot_seg_apscl.film import FiLM


def randomised(film: FiLM, seed: int = 0) -> FiLM:
    """All weights random, the zero-initialised ones too."""
    for parameter in film.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator(seed)))
    return film


def test_residual_starts_as_the_identity() -> None:
    features = features_of(episode(batch=2, shot=2, query=2))
    z = torch.randn(2 * 2 + 2 * 2, 4)
    out = FiLM(dim=8, latent=4)(features, Latent(z))
    assert torch.equal(out.support, features.support)
    assert torch.equal(out.query, features.query)
    assert torch.equal(out.support_masks, features.support_masks)


def test_literal_starts_by_erasing_the_features() -> None:
    """Section 7(j): the scale starts near zero, so positions of a channel become nearly equal."""
    features = features_of(episode())
    out = FiLM(dim=8, latent=4, film="literal")(features, Latent(torch.randn(2, 4)))
    assert not torch.equal(out.query, features.query)
    assert out.query.std((-2, -1)).mean() < 0.3 * features.query.std((-2, -1)).mean()


@pytest.mark.parametrize("kind", ["residual", "literal"])
def test_each_channel_is_scaled_and_shifted_by_its_own_image(kind: str) -> None:
    features = features_of(episode(way=2, shot=2, query=3))
    film = randomised(FiLM(dim=8, latent=4, hidden=6, film=kind))
    z = torch.randn(7, 4)
    got = film(features, Latent(z)).maps()
    for image, maps in enumerate(features.maps()):
        hidden = z[image]
        numbers = []
        for net in (film.scale, film.shift):
            layers = [layer for layer in net if isinstance(layer, torch.nn.Linear)]
            h = torch.relu(layers[0].weight @ hidden + layers[0].bias)
            h = torch.relu(layers[1].weight @ h + layers[1].bias)
            numbers.append(layers[2].weight @ h + layers[2].bias)
        scale = numbers[0] + (1 if kind == "residual" else 0)
        for channel in range(8):
            expected = scale[channel] * maps[channel] + numbers[1][channel]
            torch.testing.assert_close(got[image, channel], expected, atol=1e-4, rtol=1e-4)


def test_size_of_the_papers_module() -> None:
    """Section 8: two MLPs 32-256-256-256 are 0.28 M parameters."""
    count = sum(p.numel() for p in FiLM(dim=256, latent=32).parameters())
    assert count == 2 * (32 * 256 + 256 + 2 * (256 * 256 + 256))


def test_gradient_reaches_latent_and_both_perceptrons() -> None:
    features = features_of(episode())
    film = randomised(FiLM(dim=8, latent=4, hidden=6))
    z = torch.randn(2, 4, requires_grad=True)
    film(features, Latent(z)).maps().square().sum().backward()
    assert z.grad is not None
    assert z.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in film.parameters())


def test_wrong_inputs() -> None:
    with pytest.raises(OptionError, match=r"film='literall' .*literal"):
        FiLM(dim=8, latent=4, film="literall")
    with pytest.raises(ValueError, match="needs the latent vector of a prior"):
        FiLM(dim=8, latent=4)(features_of(episode()), Latent())


def test_half_precision_maps_stay_in_their_precision() -> None:
    features = features_of(episode())
    film = randomised(FiLM(dim=8, latent=4, hidden=6))
    z = torch.randn(2, 4)
    exact = film(features, Latent(z)).maps()
    half = film(features.with_maps(features.maps().bfloat16()), Latent(z)).maps()
    assert half.dtype == torch.bfloat16
    close(half.float() / exact.abs().max(), exact / exact.abs().max(), atol=0.03)
