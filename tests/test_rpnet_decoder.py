"""RP-Net's loop as a decoder of a pipeline."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from apscl_cases import TinyEncoder, close, episode, features_of

from fewshot_seg import build
from fewshot_seg.errors import OptionError
from fewshot_seg.functional import resize, segmentation_loss
from fewshot_seg.registry import Registry
from fewshot_seg.testing import check_contrastive, check_decoder, check_method
from fewshot_seg_rpnet.decoder import Refine
from fewshot_seg_rpnet.losses import dice_loss


def test_refine_keeps_the_contract() -> None:
    check_decoder(Refine(dim=8, train_steps=2, radius=2), dim=8)
    check_decoder(Refine(dim=8, start="copy", train_steps=2, radius=2), dim=8)
    align = Registry("contrastive").build("align")
    check_contrastive(align, Refine(dim=8, train_steps=2, radius=2), dim=8)


@pytest.mark.parametrize("start", ["prototype", "copy"])
def test_refine_in_a_pipeline(start: str) -> None:
    torch.manual_seed(0)
    model = build(
        "panet",
        encoder=TinyEncoder(),
        decoder={"name": "refine", "start": start, "train_steps": 3, "test_steps": 2},
        **{"weights.ce": 0.0},
    )
    assert model.decoder.stride == 8
    task = episode(batch=2, way=2, shot=2, size=64)
    output = model(task)
    assert set(output.losses) == {"ce", "refine", "align"}
    close(output.loss, output.losses["refine"] + output.losses["align"])
    check_method(model, channels=1)


def test_refine_starts_from_the_cosine_of_plain_features() -> None:
    torch.manual_seed(0)
    task = episode(batch=2, shot=2)
    features = features_of(task, grid=8)
    decoder = Refine(dim=8, test_steps=2).eval()
    state = decoder.describe(features.support, task.support.masks)
    cosine = Registry("decoder").build("cosine", pool_at="feature")
    logits = cosine(features.query, cosine.describe(features.support, task.support.masks), (32, 32))
    marks = (logits.softmax(2)[:, :, 1:] > 0.5).float()
    first = F.avg_pool2d(marks.flatten(0, 2)[:, None], 4).reshape(2, 1, 1, 8, 8)
    wanted = decoder.refinement(
        features.query, state.prototypes, first, steps=2, size=(32, 32)
    ).scores[-1]
    close(decoder(features.query, state, (8, 8)), wanted)


def test_the_answer_does_not_depend_on_the_size_asked_for() -> None:
    task = episode(batch=2)
    features = features_of(task, grid=8)
    decoder = Refine(dim=8).eval()
    state = decoder.describe(features.support, task.support.masks)
    small = decoder(features.query, state, (8, 8))
    close(decoder(features.query, state, (64, 64)), resize(small, (64, 64)))


def test_refine_learns_what_it_answers() -> None:
    task = episode(batch=2)
    assert task.query_labels is not None
    features = features_of(task, grid=8)
    decoder = Refine(dim=8, train_steps=1)
    state = decoder.describe(features.support, task.support.masks)
    logits, losses = decoder.learn(features, state, task)
    close(logits, decoder(features.query, state, task.size))
    wanted = segmentation_loss(logits, task.query_labels) + dice_loss(logits, task.query_labels)
    close(losses["refine"], wanted)


WRONG_PARTS = [
    ({"start": "register"}, "start='register'"),
    ({"stride": 0}, "stride=0"),
    ({"test_steps": 0}, "test_steps=0"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_PARTS, ids=[str(w[0]) for w in WRONG_PARTS])
def test_wrong_options_of_refine(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Refine(dim=8, **options)


def test_copy_needs_one_grid() -> None:
    task = episode()
    state = Refine(dim=8).describe(features_of(task, grid=8).support, task.support.masks)
    with pytest.raises(ValueError, match=r"\(8, 8\) feature grid and the query \(4, 4\)"):
        Refine(dim=8, start="copy")(features_of(task, grid=4).query, state, (32, 32))
