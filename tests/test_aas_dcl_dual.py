"""The dual contrastive losses as a part of any pipeline."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from aas_dcl_cases import close
from apscl_cases import TinyEncoder
from torch import Tensor

from fewshot_seg import build
from fewshot_seg.episode import Episode, Features, Support
from fewshot_seg.errors import EpisodeError, OptionError
from fewshot_seg.interfaces import Latent, Step
from fewshot_seg.testing import check_contrastive, make_episode, make_features
from fewshot_seg_aas_dcl.dual import DualContrast
from fewshot_seg_panet.cosine import Cosine


def dual_step(**axes: int) -> Step:
    episode, features = make_features(dim=8, needs=("auxiliary",), **axes)
    decoder = Cosine()
    state = decoder.describe(features.support, episode.support.masks)
    logits = decoder(features.query, state, episode.size)

    def encode(images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 8).repeat(1, 3, 1, 1)[:, :8]

    return Step(episode, features, features, Latent(), state, decoder, 1, logits, encode)


@pytest.mark.parametrize("options", [{}, {"prototype": "concat"}, {"query": "encoded"}], ids=str)
def test_the_part_keeps_the_contract(options: dict[str, Any]) -> None:
    check_contrastive(DualContrast(**options), Cosine(), dim=8)


def test_the_part_is_the_mean_over_ways_and_shots() -> None:
    step = dual_step(n_way=2, n_shot=2)
    found = []
    for way in range(2):
        for shot in range(2):
            task, features = step.episode, step.features
            one = Episode(
                Support(
                    task.support.images[:, [way], shot : shot + 1],
                    task.support.masks[:, [way], shot : shot + 1],
                ),
                task.query_images,
                (task.query_labels == way + 1).long(),
                extras=task.extras,
            )
            part = Features(
                features.support[:, [way], shot : shot + 1],
                features.support_masks[:, [way], shot : shot + 1],
                features.query,
            )
            single = Step(
                one, part, part, Latent(), None, step.decoder, 1, step.logits, step.encode
            )
            found.append(DualContrast(prototype="concat")(single)["dual"])
    close(DualContrast(prototype="concat")(step)["dual"], torch.stack(found).mean())


def test_the_part_encodes_once_for_all_samples() -> None:
    step = dual_step()
    sizes = []

    def encode(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return step.encode(images)

    twice = step.episode.map(lambda t: t.repeat(2, *[1] * (t.ndim - 1)))
    features = step.features.repeat(2)
    many = Step(twice, features, features, Latent(), None, step.decoder, 2, step.logits, encode)
    close(DualContrast()(many)["dual"], DualContrast()(step)["dual"])
    assert sizes == [4]


def test_a_pipeline_with_the_part_names_what_an_episode_lacks() -> None:
    model = build("panet", encoder=TinyEncoder(in_channels=3), contrastive=["dual"]).train()
    episode = make_episode(batch=1, needs=("auxiliary",))
    assert set(model(episode).losses) == {"ce", "dual"}
    with pytest.raises(EpisodeError, match=r"extras\['auxiliary_images'\].*WithAuxiliary"):
        model(make_episode(batch=1))
    step = dual_step()
    with pytest.raises(EpisodeError, match="'dual' needs extras\\['auxiliary_images'\\]"):
        DualContrast()(replace(step, episode=replace(step.episode, extras={})))


WRONG = [
    ({"query": "encode"}, "query='encode' .*did you mean 'encoded'"),
    ({"prototype": "mean"}, "prototype='mean'"),
    ({"cells": 0}, "cells=0"),
    ({"cells": [4, 4, 4]}, "cells="),
    ({"temperature": 0.0}, "temperature=0.0"),
    ({"factors": [0.4, 0.6]}, "three numbers"),
    ({"factors": [0.4, 0.6, -1.0]}, "three numbers"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        DualContrast(**options)
