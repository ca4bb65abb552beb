"""GCN-DE's correlation and discriminative embedding as parts of other methods."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from gcn_de_cases import awake, close
from torch import Tensor

from fewshot_seg.episode import Features
from fewshot_seg.errors import OptionError
from fewshot_seg.interfaces import Latent, Step
from fewshot_seg.testing import check_contrastive, check_enrichment, make_features
from fewshot_seg_gcn_de.correlation import Residual
from fewshot_seg_gcn_de.discriminative import Discriminative
from fewshot_seg_gcn_de.enrichment import GlobalCorrelation
from fewshot_seg_panet.cosine import Cosine


@pytest.mark.parametrize("mask", ["channel", "keys", "none"])
@pytest.mark.parametrize("supports", ["joint", "average"])
def test_enrichment_contract(mask: str, supports: str) -> None:
    check_enrichment(GlobalCorrelation(dim=6, mask=mask, supports=supports), dim=6, latent=3)


def enriched(features: Features, **options: Any) -> Tensor:
    return awake(GlobalCorrelation(dim=6, **options))(features, Latent()).query


def test_enrichment_starts_as_the_identity() -> None:
    _, features = make_features(dim=6, n_way=2, n_shot=2)
    richer = GlobalCorrelation(dim=6)(features, Latent())
    assert torch.equal(richer.query, features.query)
    assert torch.equal(richer.support, features.support)


@pytest.mark.parametrize("supports", ["joint", "average"])
def test_enrichment_of_one_support_is_the_default_correlation(supports: str) -> None:
    _, features = make_features(dim=6)
    block = awake(GlobalCorrelation(dim=6, mask="none", supports=supports))
    site = Residual(dim=6, frame="query").eval()
    site.load_state_dict(block.state_dict())
    wanted = site(features.support[:, 0, 0], features.query[:, 0])
    close(block(features, Latent()).query[:, 0], wanted)


@pytest.mark.parametrize("mask", ["channel", "keys", "none"])
@pytest.mark.parametrize("supports", ["joint", "average"])
def test_enrichment_forgets_the_order_and_copies_of_shots(mask: str, supports: str) -> None:
    _, features = make_features(dim=6, n_way=2, n_shot=3)
    once = enriched(features, mask=mask, supports=supports)
    for order in ([2, 0, 1], [0, 1, 2, 0, 1, 2]):
        other = replace(
            features,
            support=features.support[:, :, order],
            support_masks=features.support_masks[:, :, order],
        )
        close(enriched(other, mask=mask, supports=supports), once)


@pytest.mark.parametrize("mask", ["channel", "keys"])
def test_enrichment_reads_the_mask(mask: str) -> None:
    _, features = make_features(dim=6)
    other = replace(features, support_masks=features.support_masks.flip(-1))
    assert not torch.allclose(enriched(other, mask=mask), enriched(features, mask=mask), atol=1e-3)


def test_an_empty_mask_leaves_all_keys() -> None:
    _, features = make_features(dim=6)
    empty = replace(features, support_masks=torch.zeros_like(features.support_masks))
    close(enriched(empty, mask="keys"), enriched(features, mask="none"))


def step_of(n_way: int, *, shot: int = 1) -> Step:
    episode, features = make_features(dim=6, n_way=n_way, n_shot=shot)
    features = features.with_maps(features.maps().requires_grad_())
    decoder = Cosine()
    state = decoder.describe(features.support, episode.support.masks, None)
    return Step(episode, features, features, Latent(), state, decoder)


@pytest.mark.parametrize("mean", ["spatial", "channel", "none"])
def test_contrastive_contract(mean: str) -> None:
    check_contrastive(Discriminative(mean=mean), Cosine(), dim=6)
    step = step_of(2, shot=2)
    loss = Discriminative(mean=mean)(step)["discriminative"]
    grads = torch.autograd.grad(loss, [step.features.support, step.features.query])
    assert all(grad.abs().sum() > 0 for grad in grads)


def test_one_way_gives_zero_with_a_graph() -> None:
    step = step_of(1)
    loss = Discriminative()(step)["discriminative"]
    (grad,) = torch.autograd.grad(loss, [step.features.query])
    assert loss == 0
    assert grad.abs().sum() == 0


def test_a_way_that_the_query_lacks_is_not_compared() -> None:
    step = step_of(3)
    labels = step.episode.query_labels
    assert labels is not None
    lacking = replace(step.episode, query_labels=labels.masked_fill(labels == 3, 0))
    two = Features(
        step.features.support[:, :2], step.features.support_masks[:, :2], step.features.query
    )
    wanted = Discriminative()(replace(step, episode=lacking, features=two))
    close(
        Discriminative()(replace(step, episode=lacking))["discriminative"],
        wanted["discriminative"],
    )


WRONG = [
    (lambda: GlobalCorrelation(dim=4, mask="key"), "did you mean 'keys'"),
    (lambda: GlobalCorrelation(dim=4, supports="mean"), "supports='mean'"),
    (lambda: Discriminative(mean="channels"), "did you mean 'channel'"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_options(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()


def test_a_grid_too_small_for_pooled_keys_is_refused() -> None:
    _, features = make_features(dim=6)
    thin = Features(
        features.support[..., :1, :], features.support_masks[..., :1, :], features.query[..., :1, :]
    )
    with pytest.raises(ValueError, match="2x2 or more; got 1x8"):
        GlobalCorrelation(dim=6)(thin, Latent())
