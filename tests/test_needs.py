"""What methods need of an episode: asked for, provided, and missed by name."""

from dataclasses import replace

import jaxtyping
import pytest
import torch
from apscl_cases import TinyEncoder
from torch import nn

from fewshot_seg import build
from fewshot_seg.binary import (
    NEVER,
    empty_ways,
    label_logits,
    silence_empty,
    way_labels,
)
from fewshot_seg.episode import Episode, Support, collate
from fewshot_seg.errors import EpisodeError, PluginError, RecipeError
from fewshot_seg.needs import NEEDS, needs_of, require
from fewshot_seg.testing import make_episode


class Wants(nn.Module):
    def __init__(self, *needs: str) -> None:
        super().__init__()
        self.needs = needs


def test_the_needs_of_all_parts_are_found() -> None:
    method = nn.Sequential(Wants("auxiliary"), nn.Sequential(Wants("unlabelled", "auxiliary")))
    assert needs_of(method) == ("auxiliary", "unlabelled")
    assert needs_of(nn.Linear(1, 1)) == ()


def test_a_need_that_nobody_provides_is_refused_when_built() -> None:
    with pytest.raises(PluginError, match="Wants needs 'auxilary'.*did you mean 'auxiliary'"):
        needs_of(Wants("auxilary"))


@pytest.mark.parametrize("need", NEEDS)
def test_a_missing_field_is_named_with_its_provider(need: str) -> None:
    full = make_episode(needs=[need])
    require(full, need, by="mine")
    for field in NEEDS[need].fields:
        if field == "unlabelled":
            lacking = replace(full, support=replace(full.support, unlabelled=None))
        else:
            extras = {name: value for name, value in full.extras.items() if name != field}
            lacking = replace(full, extras=extras)
        with pytest.raises(EpisodeError, match=f"mine needs .*{field}.*{NEEDS[need].source}"):
            require(lacking, need, by="mine")


def test_unlabelled_images_travel_with_the_episode() -> None:
    episode = make_episode(needs=["unlabelled"])
    doubled = collate([episode, episode])
    assert doubled.support.unlabelled is not None
    assert doubled.support.unlabelled.shape[0] == 2 * episode.query_images.shape[0]
    twice = episode.map(lambda tensor: tensor * 2)
    assert episode.support.unlabelled is not None
    assert twice.support.unlabelled is not None
    torch.testing.assert_close(twice.support.unlabelled, episode.support.unlabelled * 2)
    with pytest.raises(ValueError, match="unlabelled"):
        collate([episode, make_episode()])


@pytest.mark.parametrize("shape", [(2, 3, 3, 32, 32), (1, 3, 3, 64, 64), (2, 3, 1, 64, 64)])
def test_unlabelled_images_must_fit_the_support(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    support = make_episode().support
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    with pytest.raises(ValueError, match="unlabelled images have shape"):
        Support(support.images, support.masks, None, torch.zeros(shape))


def test_poissonseg_without_unlabelled_images_says_what_is_missing() -> None:
    method = build("poissonseg", encoder=TinyEncoder(in_channels=3))
    with pytest.raises(EpisodeError, match=r"Poisson needs support\.unlabelled.*WithUnlabelled"):
        method(make_episode(needs=["second_view"]))
    with pytest.raises(EpisodeError, match=r"Consistency needs extras\['second_view_images'\]"):
        method(make_episode(needs=["unlabelled"]))
    method.eval()
    with pytest.raises(EpisodeError, match="WithUnlabelled"):
        method.encode_support(make_episode().support)  # type: ignore[operator]


def test_the_encoder_learns_nothing_from_unlabelled_images() -> None:
    """No gradient, and batch norm keeps the statistics of labelled images."""
    encoder = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.BatchNorm2d(8))
    encoder.dim, encoder.stride = 8, 8  # type: ignore[assignment]
    method = build("poissonseg", encoder=encoder, contrastive=None)
    episode = make_episode(needs=["unlabelled"])
    assert episode.support.unlabelled is not None
    loud = replace(
        episode, support=replace(episode.support, unlabelled=1e3 * episode.support.unlabelled)
    )
    method.train()
    output = method(loud)
    output.loss.backward()
    assert encoder[1].training
    assert encoder[1].running_mean.abs().max() < 10  # type: ignore[union-attr]


# --- several ways by a binary network -------------------------------------------------------------


def test_way_labels_by_hand() -> None:
    labels = torch.tensor([[[[0, 1], [2, 255]]]])
    expected = torch.tensor([[0, 1, 0, 255], [0, 0, 1, 255]]).reshape(1, 2, 1, 2, 2)
    assert torch.equal(way_labels(labels, 2), expected)


def test_a_pixel_goes_to_the_most_probable_way_above_one_half() -> None:
    probabilities = torch.tensor([[0.4, 0.3], [0.7, 0.8], [0.6, 0.2]])  # pixel way
    odds = probabilities.logit().T.reshape(1, 1, 2, 3, 1)
    assert label_logits(odds).argmax(2).flatten().tolist() == [0, 2, 1]
    one = label_logits(odds[:, :, :1]).softmax(2)[:, :, 1]
    torch.testing.assert_close(one.flatten(), probabilities[:, 0])


def test_a_way_without_support_gets_no_pixel() -> None:
    masks = torch.zeros(1, 2, 1, 4, 4)
    masks[0, 1, 0, 2, 2] = 1
    empty = empty_ways(masks)
    assert empty.tolist() == [[True, False]]
    silent = silence_empty(torch.ones(1, 1, 3, 4, 4), empty)
    assert (silent[:, :, 1] == NEVER).all()
    assert (silent[:, :, [0, 2]] == 1).all()


def test_the_refusal_of_unlabelled_images_names_the_slot() -> None:
    with pytest.raises(RecipeError, match="enrichment 'sse'"):
        build("poissonseg", encoder=TinyEncoder(in_channels=3), enrichment="sse")


def test_an_episode_without_extras_is_what_most_methods_get() -> None:
    episode = make_episode()
    assert isinstance(episode, Episode)
    assert not episode.extras
    assert episode.support.unlabelled is None
