"""Similarity prior and constrained iterative prediction: official arrays and laws."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from aas_dcl_cases import Golden, arrays, close, official_network, small
from torch import Tensor, nn

from fewshot_seg.errors import OptionError
from fewshot_seg.testing import make_episode
from fewshot_seg_aas_dcl.iterative import (
    ConstrainedIteration,
    Iterates,
    mask_similarity,
    score,
    target_similarity,
)
from fewshot_seg_aas_dcl.similarity import SimPrior, class_prototypes, min_max


def test_official_similarity_prior(golden: Golden) -> None:
    data = arrays(golden("aas_dcl"), "similarity_prior")
    maps, masks = data["support_features"], data["support_masks"]
    prior = SimPrior(minmax="per_column")
    for key, mask in (("prior", masks), ("prior_empty_mask", torch.zeros_like(masks))):
        close(prior(prior.describe(maps, mask), data["query_features"]), data[key])
    both = class_prototypes(maps, masks, 1 - masks, "concat")
    close(both, torch.cat([data["prototype_fg"], data["prototype_bg"]], 1))
    close(class_prototypes(maps, masks, 1 - masks), data["prototype_sum"])


def test_official_iterates(golden: Golden) -> None:
    data = arrays(golden("aas_dcl"), "network")
    model = official_network(data)
    with torch.no_grad():
        first = model.network.first(data["query_image"])
        support = model.network.support(data["support_image"], data["support_masks"])
        query = model.network.query(first, support)
        target = target_similarity(support.levels, query.levels, "per_column")
        close(target, data["target_similarity"], atol=1e-4)
        found = model.refine(
            query.decoded, support.decoded, data["support_masks"], target, model.head
        )
    close(found.logits.softmax(2), data["iterate_probabilities"], atol=1e-4)
    close(found.scores[:, 0].double(), data["iterate_scores"])
    assert found.selected.tolist() == [int(data["iterate_selected"])]
    close(found.best().softmax(1), data["probabilities"], atol=1e-4)
    close(found.scores[-1, 0], data["score_last"])
    first_map = mask_similarity(found.logits[0], data["support_masks"], "per_column")
    close(first_map, data["support_similarity_first"], atol=1e-4)


def test_min_max_over_the_map_or_each_column() -> None:
    maps = torch.tensor([[[0.0, 4.0], [1.0, 2.0], [2.0, 3.0]]])
    close(min_max(maps), maps / 4)
    columns = torch.tensor([[[0.0, 1.0], [0.5, 0.0], [1.0, 0.5]]])
    close(min_max(maps, "per_column"), columns)
    assert min_max(torch.ones(1, 3, 3)).eq(0).all()
    for kind in ("global", "per_column"):
        both = min_max(torch.cat([maps, 5 - 3 * maps]), kind)
        close(both, torch.cat([min_max(maps, kind), min_max(5 - 3 * maps, kind)]))


def test_concat_keeps_the_classes_apart() -> None:
    torch.manual_seed(0)
    maps, query, masks = torch.randn(2, 5, 4, 4), torch.randn(2, 5, 4, 4), torch.zeros(2, 16, 16)
    masks[:, :8] = 1
    prior = SimPrior(prototype="concat")
    both = prior(prior.describe(maps, masks), query)
    assert both.shape[1] == prior.channels(5) == 11
    plain = SimPrior()
    close(both[:, 1:6] + both[:, 6:], plain(plain.describe(maps, masks), query)[:, 1:])


def test_the_prior_is_the_cosine_at_equal_places() -> None:
    torch.manual_seed(0)
    maps, query = torch.randn(1, 3, 2, 2), torch.randn(1, 3, 2, 2)
    masks = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    prior = SimPrior()
    got = prior(prior.describe(maps, masks), query)[0, 0]
    raw = torch.zeros(2, 2)
    for r, c in ((0, 0), (1, 0), (1, 1)):
        raw[r, c] = F.cosine_similarity(maps[0, :, r, c], query[0, :, r, c], dim=0)
    close(got, (raw - raw.min()) / (raw.max() - raw.min() + 1e-7))


def iteration(**options: Any) -> ConstrainedIteration:
    torch.manual_seed(0)
    return ConstrainedIteration(**{"width": 3, **options}).eval()


def inputs(images: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor, nn.Module]:
    rng = torch.Generator().manual_seed(1)
    query, support = torch.randn(2, images, 3, 12, 12, generator=rng)
    masks, target = torch.rand(2, images, 12, 12, generator=rng)
    return query, support, (masks > 0.5).float(), target, nn.Conv2d(3, 2, 1)


def test_no_iteration_is_the_plain_network() -> None:
    query, *rest, head = inputs()
    plain = iteration(iterations=0)
    assert not list(plain.parameters())
    found = plain(query, *rest, head)
    assert torch.equal(found.best(), head(query))
    assert found.logits.shape[0] == found.scores.shape[0] == 1


def test_no_iteration_of_the_whole_network_is_its_first_iterate() -> None:
    with_cip, without = small().eval(), small(iterations=0).eval()
    shared = {k: v for k, v in with_cip.state_dict().items() if not k.startswith("refine.")}
    without.load_state_dict(shared)
    episode = make_episode(batch=1)
    state = with_cip.encode_support(episode.support)
    first = with_cip._answer(state, episode.query_images).iterates.logits[0]
    odds = (first[:, 1] - first[:, 0])[:, None]
    close(without(episode).logits[:, :, 1], odds)


def test_each_image_keeps_its_own_best() -> None:
    scores = torch.tensor([[0.3, 0.1, 0.2], [0.1, 0.2, 0.3], [0.2, 0.3, 0.1]])
    logits = torch.randn(3, 3, 2, 4, 4)
    best = Iterates(logits, scores).best()
    assert torch.equal(best, torch.stack([logits[1, 0], logits[0, 1], logits[2, 2]]))


def test_images_do_not_touch_each_other() -> None:
    module = iteration(iterations=3)
    query, support, masks, target, head = inputs()
    together = module(query, support, masks, target, head).best()
    alone = module(query[2:3], support[2:3], masks[2:3], target[2:3], head).best()
    close(together[2:3], alone)


def test_of_equal_scores_the_last_is_kept() -> None:
    scores = torch.tensor([[0.2, 0.1], [0.1, 0.3], [0.1, 0.1]])
    found = Iterates(torch.arange(24.0).reshape(3, 2, 2, 1, 2), scores)
    assert found.selected.tolist() == [2, 2]
    assert torch.equal(found.best(), found.logits[2])


def test_the_score_is_zero_where_answer_and_mask_agree_as_the_features_do() -> None:
    masks = torch.zeros(1, 8, 8)
    masks[:, :4] = 1
    agrees = torch.zeros(1, 8, 8)
    agrees[:, :, :5] = 1
    answer = torch.where(agrees.bool(), masks, 1 - masks)
    logits = 60 * torch.stack([1 - answer, answer], 1)
    close(score(logits, masks, agrees), torch.zeros(1))
    close(score(logits, masks, 1 - agrees), torch.ones(1))


def test_the_target_replicates_coarse_levels_and_is_their_mean() -> None:
    torch.manual_seed(0)
    fine, coarse = torch.randn(2, 1, 4, 8, 8), torch.randn(2, 1, 6, 4, 4)
    got = target_similarity((fine[0], coarse[0]), (fine[1], coarse[1]))
    small_cosine = F.cosine_similarity(coarse[0], coarse[1], dim=1)
    blocks = small_cosine.repeat_interleave(2, 1).repeat_interleave(2, 2)
    close(got, min_max((F.cosine_similarity(fine[0], fine[1], dim=1) + blocks) / 2))


def test_a_gradient_at_empty_masks_is_finite() -> None:
    query, support, masks, target, head = inputs()
    module = iteration(iterations=2)
    support.requires_grad_()
    module(query, support, torch.zeros_like(masks), target, head).scores.sum().backward()
    assert support.grad is not None
    assert torch.isfinite(support.grad).all()


WRONG = [
    ({"iterations": -1}, "iterations=-1"),
    ({"minmax": "column"}, "minmax='column'"),
    ({"prototype": "concatenate"}, "prototype='concatenate' .*did you mean 'concat'"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        iteration(**options)
