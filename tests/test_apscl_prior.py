"""The anatomical prior: Gaussians, their divergence, the blocks and every option."""

import math
from typing import Any

import pytest
import torch
from apscl_cases import close, episode, features_of, generator
from torch import Tensor

from fewshot_seg.episode import Episode, Features
from fewshot_seg.errors import OptionError
from fewshot_seg.functional import area_average, foreground
from fewshot_seg.interfaces import Privileged
from fewshot_seg_apscl.gaussian import Gaussian, divergence
from fewshot_seg_apscl.label_encoder import LabelDecoder, LabelEncoder
from fewshot_seg_apscl.prior import AnatomicalPrior, GaussianBlock


def prior_of(**options: Any) -> AnatomicalPrior:
    torch.manual_seed(1)
    return AnatomicalPrior(
        **{"dim": 8, "grid": (4, 4), "latent": 3, "hidden": 6, "prior_pool": 2, **options}
    )


def case(**shape: Any) -> tuple[Features, Privileged]:
    task = episode(**shape)
    return features_of(task), privileged_of(task)


def privileged_of(task: Episode) -> Privileged:
    assert task.query_labels is not None
    images = [task.support.images.flatten(0, 2), task.query_images.flatten(0, 1)]
    masks = [task.support.masks.flatten(0, 2), foreground(task.query_labels).flatten(0, 1)]
    return Privileged(torch.cat(images), torch.cat(masks))


# --- Eq. 1 -------------------------------------------------------------------------------------


def both(prior: AnatomicalPrior, features: Features, known: Privileged) -> tuple[Gaussian, ...]:
    """Image and label Gaussians of each image."""
    image = prior.prior_block(prior._conditioned(features))
    return image, prior.posterior_block(prior.label_encoder(known))


KL = [
    {},
    {"kl_dir": "label_image"},
    {"kl_reduction": "mean"},
    {"free_bits": 0.05},
    {"free_bits": 0.05, "kl_reduction": "mean", "kl_dir": "label_image"},
]


@pytest.mark.parametrize("options", KL, ids=str)
def test_kl_is_the_supports_mean_plus_the_querys(options: dict[str, Any]) -> None:
    features, known = case(shot=3, query=2)
    prior = prior_of(**options)
    image, label = both(prior, features, known)
    if options.get("kl_dir") == "label_image":
        image, label = label, image
    kls = []
    for i in range(5):
        dims = []
        for d in range(3):
            lx, ly = image.log_variance[i, d].item(), label.log_variance[i, d].item()
            gap = image.mean[i, d].item() - label.mean[i, d].item()
            kl = 0.5 * (ly - lx + (math.exp(lx) + gap * gap) * math.exp(-ly) - 1)
            dims.append(max(kl, options.get("free_bits", 0)))
        kls.append(sum(dims) / (3 if options.get("kl_reduction") == "mean" else 1))
    expected = sum(kls[:3]) / 3 + sum(kls[3:]) / 2
    assert prior(features, known).losses["kl"].item() == pytest.approx(expected, rel=1e-5)


def test_free_bits_stop_the_gradient_of_what_is_cheap() -> None:
    features, known = case()
    prior = prior_of(free_bits=100.0, label_recon=0.0)
    loss = prior(features, known).losses["kl"]
    assert loss.item() == pytest.approx(2 * 3 * 100)
    loss.backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in prior.parameters())


def test_kl_balance_splits_between_the_two_blocks() -> None:
    features, known = case()
    grads = []
    for balance in (0.0, 0.8):
        prior = prior_of(kl_balance=balance)
        prior(features, known).losses["kl"].backward()
        grads.append(
            [block.layers[4].weight.grad for block in (prior.prior_block, prior.posterior_block)]
        )
    close(grads[1][0], 0.8 * grads[0][0])
    close(grads[1][1], 0.2 * grads[0][1])


# --- the latent ----------------------------------------------------------------------------------


def test_training_draws_around_the_images_mean() -> None:
    """One query image, many times over: each draw has its own noise."""
    features, known = case()
    many = Features(
        features.support, features.support_masks, features.query.expand(-1, 1000, -1, -1, -1)
    )
    repeated = Privileged(*(t[[0, *[1] * 1000]] for t in (known.images, known.masks)))
    prior = prior_of(label_recon=0.0)
    with torch.no_grad():
        draws = prior(many, repeated).z[1:]
        image = prior.prior_block(features.query[0])
    close(draws.mean(0), image.mean[0], atol=0.2)
    close(draws.std(0), torch.exp(image.log_variance[0] / 2), atol=0.15)


@pytest.mark.parametrize("source", ["prior", "posterior"])
def test_latent_source(source: str) -> None:
    """Almost without variance, z is the mean of the image's or of the mask's Gaussian."""
    features, known = case()
    prior = prior_of(latent_source=source)
    for block in (prior.prior_block, prior.posterior_block):
        block.layers[4].weight.data[3:] = 0
        block.layers[4].bias.data[3:] = -100
    image, label = both(prior, features, known)
    wanted = {"prior": image, "posterior": label}[source]
    z = prior(features, known).z
    assert z is not None
    close(z, wanted.mean, atol=0.12)
    other = label if source == "prior" else image
    assert not torch.allclose(z, other.mean, atol=0.12)
    # at test there is no mask, so both take the image's
    close(prior.eval()(features, None).z, image.mean)


def test_mean_and_samples_at_test() -> None:
    features, _ = case(shot=2, query=3)
    image = prior_of().prior_block(features.maps())
    mean = prior_of().eval()
    assert mean.samples == 1
    close(mean(features, None).z, image.mean)
    sample = prior_of(eval_latent="sample").eval()
    first, second = sample(features, None).z, sample(features, None).z
    assert torch.equal(first, second)
    assert not torch.allclose(first, image.mean, atol=0.05)
    noise = (first - image.mean) / torch.exp(image.log_variance / 2)
    close(noise[:2], noise[:1].expand(2, -1), atol=1e-4)
    close(noise[2:], noise[2:3].expand(3, -1), atol=1e-4)
    assert not torch.allclose(noise[0], noise[2], atol=0.01)
    reseeded = prior_of(eval_latent="sample", eval_seed=1).eval()(features, None).z
    assert not torch.allclose(first, reseeded, atol=0.01)


def test_every_test_sample_has_its_own_noise() -> None:
    features, _ = case(batch=2)
    prior = prior_of(eval_latent="sample", eval_samples=3).eval()
    assert prior.samples == 3
    assert prior.train().samples == 1
    z = prior.eval()(features.repeat(3), None).z
    image = prior.prior_block(features.repeat(3).maps())
    noise = (z - image.mean) / torch.exp(image.log_variance / 2)
    support, query = noise[:6].reshape(3, 2, 3), noise[6:].reshape(3, 2, 3)
    for half in (support, query):
        close(half[:, 0], half[:, 1], atol=1e-4)
        assert not torch.allclose(half[0], half[1], atol=0.01)
    assert prior_of(num_samples=4).samples == 4
    assert prior_of(num_samples=4).eval().samples == 1


def test_support_mask_conditions_the_support_alone() -> None:
    features, _ = case()
    plain, masked = prior_of(), prior_of(prior_condition="support_mask")
    outside = features.support_masks == 0
    assert outside.any()
    changed = Features(
        features.support + 3 * outside.unsqueeze(3), features.support_masks, features.query + 3
    )
    a, b = (masked.eval()(f, None).z for f in (features, changed))
    close(a[0], b[0])
    assert not torch.allclose(a[1], b[1], atol=1e-3)
    assert not torch.allclose(plain.eval()(features, None).z[0], a[0], atol=1e-3)


@pytest.mark.parametrize(
    ("pool", "cells"), [(4, 16), ("gap", 1), (8, 64), ("none", 16 * 12), (1, 1)]
)
def test_prior_pool(pool: int | str, cells: int) -> None:
    block = GaussianBlock(dim=5, latent=3, hidden=7, pool=pool, grid=(16, 12))
    assert block.layers[0].weight.shape == (7, 5 * cells)
    maps = torch.randn(2, 5, 16, 12, generator=generator(0))
    assert block(maps).mean.shape == (2, 3)
    shuffled = maps.flatten(2)[..., torch.randperm(192, generator=generator(1))].view_as(maps)
    loses_place = pool in ("gap", 1)
    assert torch.allclose(block(maps).mean, block(shuffled).mean, atol=1e-5) == loses_place


def test_flattening_all_needs_the_grid_it_was_built_for() -> None:
    block = GaussianBlock(dim=5, latent=3, hidden=7, pool="none", grid=(4, 4))
    with pytest.raises(ValueError, match="feature grid of 4x4 but the images give 5x4"):
        block(torch.zeros(1, 5, 5, 4))


def test_sizes_of_the_papers_blocks() -> None:
    """Sections 7(e), 7(f) and 8: 134.5 M literal, 2.39 M by default, 0.39 M label encoder."""
    with torch.device("meta"):
        literal = GaussianBlock(dim=256, latent=32, hidden=512, pool="none", grid=(32, 32))
        ours = GaussianBlock(dim=256, latent=32, hidden=512, pool=4, grid=(32, 32))
        light = LabelEncoder(dim=256, label_encoder="light", label_input="mask")
    sizes = [sum(p.numel() for p in m.parameters()) / 1e6 for m in (literal, ours, light)]
    assert sizes == pytest.approx([134.5, 2.39, 0.39], rel=0.01)


# --- the mask's side -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "label_input"),
    [
        ("light", "mask"),
        ("light", "mask+image"),
        ("resnet18", "mask+image"),
        ("resnet101", "mask"),
    ],
)
def test_label_encoders(kind: str, label_input: str) -> None:
    torch.manual_seed(0)
    encoder = LabelEncoder(dim=8, label_encoder=kind, label_input=label_input).eval()
    known = case(channel=3)[1]
    with torch.no_grad():
        maps = encoder(known)
        assert maps.shape == (2, 8, 4, 4)
        without = encoder(Privileged(torch.zeros_like(known.images), known.masks))
        flipped = encoder(Privileged(known.images, 1 - known.masks))
    assert torch.equal(maps, without) == (label_input == "mask")
    assert not torch.allclose(maps, flipped)


def test_an_encoder_of_another_stride() -> None:
    """The label encoder has stride 8; a grid of stride 16 still fits."""
    task = episode(size=32)
    features = features_of(task, grid=2)
    prior = prior_of(prior_pool="none", grid=(2, 2))
    assert torch.isfinite(prior(features, privileged_of(task)).losses["kl"])


def test_label_recon_is_weighted_cross_entropy_of_the_small_mask() -> None:
    decoder = LabelDecoder(latent=3)
    z = torch.randn(2, 3, generator=generator(0))
    masks = case(size=64)[1].masks
    target, p = area_average(masks, (32, 32)), torch.sigmoid(decoder(z))
    expected = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    close(decoder.loss(z, masks), expected)
    features, known = case()
    heavy, light = (prior_of(label_recon=w) for w in (0.4, 0.1))
    losses = []
    for prior in (heavy, light):
        torch.manual_seed(0)
        losses.append(prior(features, known).losses["label_recon"])
    close(losses[0], 4 * losses[1])
    assert "label_recon" not in prior_of(label_recon=0.0)(features, known).losses


def test_recon_and_kl_train_both_sides() -> None:
    features, known = case()
    prior = prior_of()
    torch.stack(list(prior(features, known).losses.values())).sum().backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
    assert prior.label_encoder.body[0].weight.grad.abs().sum() > 0


def test_an_empty_mask_is_allowed() -> None:
    features, known = case()
    empty = Privileged(known.images, torch.zeros_like(known.masks))
    assert all(torch.isfinite(v) for v in prior_of()(features, empty).losses.values())


def test_diagnostics_tell_of_collapse() -> None:
    features, known = case(query=4)
    latent = prior_of()(features, known)
    image, label = both(prior_of(), features, known)
    numbers = latent.diagnostics
    close(numbers["kl_per_dim"], divergence(image, label).mean(0))
    close(numbers["latent_std"], torch.exp(image.log_variance / 2).mean())
    centred = image.mean - image.mean.mean(0)
    close(numbers["latent_spread"], centred.square().mean())
    assert not any(value.requires_grad for value in numbers.values())
    same = features.with_maps(torch.ones_like(features.maps()))
    assert prior_of()(same, known).diagnostics["latent_spread"] < 1e-3


def test_labels_do_not_reach_the_latent_in_training() -> None:
    """With latent_source prior, z is a function of the image alone."""
    features, known = case()
    latents: list[Tensor | None] = []
    for masks in (known.masks, 1 - known.masks):
        prior = prior_of(label_recon=0.0)
        torch.manual_seed(0)
        prior.posterior_block = prior.posterior_block.eval()
        latents.append(prior(features, Privileged(known.images, masks)).z)
    assert latents[0] is not None
    assert torch.equal(latents[0], latents[1])


WRONG = [
    ({"latent_source": "label"}, "latent_source='label'"),
    ({"prior_condition": "mask"}, "prior_condition='mask'"),
    ({"kl_dir": "image-label"}, "did you mean 'image_label'"),
    ({"kl_reduction": "max"}, "kl_reduction='max'"),
    ({"eval_latent": "median"}, "eval_latent='median'"),
    ({"label_encoder": "resnet50"}, "label_encoder='resnet50'"),
    ({"label_input": "image"}, "label_input='image'"),
    ({"prior_pool": "all"}, "prior_pool='all'"),
    ({"prior_pool": 0}, "prior_pool=0"),
    ({"prior_pool": True}, "prior_pool=True"),
    ({"latent": 0}, "latent=0"),
    ({"hidden": 0}, "hidden=0"),
    ({"kl_balance": 1.0}, "kl_balance=1.0"),
    ({"free_bits": -0.1}, "free_bits=-0.1"),
    ({"label_recon": -1.0}, "label_recon=-1.0"),
    ({"num_samples": 0}, "num_samples=0"),
    ({"eval_samples": 2}, "eval_samples > 1 needs eval_latent='sample'"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        prior_of(**options)
