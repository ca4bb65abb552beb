"""Prototype alignment against a slow loop, for PANet's decoder and for APSCL's."""

from typing import Any

import numpy as np
import pytest
import torch
from apscl_cases import close, episode, features_of, small_apscl, step_of
from torch import Tensor

from fewshot_seg.episode import Episode, Features
from fewshot_seg_apscl.guidance import MutualGuidance
from fewshot_seg_panet.align import Align
from fewshot_seg_panet.cosine import Cosine


def slow_align(task: Episode, features: Features, scale: float, skip: bool) -> float:
    """PAR with masks as large as the grid, so that nothing is resized (panet.md section 3)."""
    support, masks = features.support.double().numpy(), task.support.masks.numpy()
    rest = task.support.backgrounds.numpy()
    decoder = Cosine(scale=scale)
    state = decoder.describe(features.support, task.support.masks, task.support.backgrounds)
    scores = decoder(features.query, state, features.grid).detach().numpy()
    total = 0.0
    n_batch, n_way, n_shot = masks.shape[:3]
    for b in range(n_batch):
        predicted = scores[b].argmax(1)
        query = features.query[b].double().numpy()

        def prototype(label: int, predicted: Any = predicted, query: Any = query) -> np.ndarray:
            chosen = predicted == label
            return (query * chosen[:, None]).sum((0, 2, 3)) / (chosen.sum() + 1e-5)

        for w in range(n_way):
            if skip and not (predicted == w + 1).any():
                continue
            pair = [prototype(0), prototype(w + 1)]
            for s in range(n_shot):
                losses = []
                for r, c in np.ndindex(masks.shape[-2:]):
                    if not masks[b, w, s, r, c] and not rest[b, w, s, r, c]:
                        continue
                    pixel = support[b, w, s, :, r, c]
                    lengths = [max(np.linalg.norm(p), 1e-8) for p in pair]
                    cosines = [
                        scale * pixel @ p / (np.linalg.norm(pixel) * n)
                        for p, n in zip(pair, lengths, strict=True)
                    ]
                    target = int(masks[b, w, s, r, c])
                    losses.append(np.log(np.exp(cosines).sum()) - cosines[target])
                total += np.mean(losses) / (n_way * n_shot)
    return total / n_batch


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("shape", [{}, {"way": 2, "shot": 2, "query": 2, "batch": 2}], ids=str)
def test_against_a_loop(shape: dict[str, int], skip: bool) -> None:
    task = episode(size=6, **shape)
    features = features_of(task, grid=6, dim=5)
    got = Align(skip_empty=skip)(step_of(task, features, Cosine(scale=3.0)))["align"]
    assert got.item() == pytest.approx(slow_align(task, features, 3.0, skip), rel=1e-4)


def nothing_predicted() -> tuple[Episode, Features]:
    """The query points away from the way's prototype everywhere."""
    task = episode(size=6)
    features = features_of(task, grid=6, dim=2)
    masks = task.support.masks.unsqueeze(3)
    axis = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2, 1, 1)
    support = masks * axis + (1 - masks) * (1 - axis)
    query = torch.zeros_like(features.query)
    query[:, :, 1] = 1
    return task, Features(support, features.support_masks, query)


def test_a_way_that_is_not_predicted_is_skipped_or_kept() -> None:
    task, features = nothing_predicted()
    step = step_of(task, features)
    skipped = Align()(step)["align"]
    assert skipped.shape == ()
    assert skipped.item() == 0
    # the way's prototype is zero, so its pixels are undecided: log 2 each
    expected = np.log(2) * task.support.masks.mean().item()
    assert Align(skip_empty=False)(step)["align"].item() == pytest.approx(expected, rel=1e-4)


def test_a_skipped_way_has_a_finite_zero_gradient() -> None:
    task, features = nothing_predicted()
    maps = features.maps().requires_grad_()
    Align()(step_of(task, features.with_maps(maps)))["align"].backward()
    assert maps.grad is not None
    assert maps.grad.abs().max() == 0


def test_gradient_reaches_both_sides_and_no_argmax() -> None:
    task = episode(size=16)
    features = features_of(task, grid=4)
    support, query = (t.clone().requires_grad_() for t in (features.support, features.query))
    Align()(step_of(task, Features(support, features.support_masks, query)))["align"].backward()
    for tensor in (support, query):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_pixels_of_other_ways_are_ignored() -> None:
    task = episode(way=2, size=6)
    features = features_of(task, grid=6)
    neither = (task.support.masks == 0) & (task.support.backgrounds == 0)
    assert neither.any()

    def loss(support: Tensor) -> Tensor:
        decoder = Cosine()
        state = decoder.describe(features.support, task.support.masks, task.support.backgrounds)
        step = step_of(task, Features(support, features.support_masks, features.query))
        return Align()(type(step)(task, step.before, step.features, step.latent, state, decoder))[
            "align"
        ]

    changed = features.support + 5 * neither.unsqueeze(3)
    close(loss(changed), loss(features.support))


def test_it_works_with_any_decoder() -> None:
    """Mutual guidance compares equal positions, so it takes one query an episode."""
    torch.manual_seed(0)
    task = episode(way=2, shot=2, size=16)
    decoder = MutualGuidance(dim=8)
    loss = Align()(step_of(task, features_of(task), decoder))["align"]
    assert torch.isfinite(loss)
    loss.backward()
    assert decoder.query_head.weight.grad is not None
    both = episode(query=2, size=16)
    with pytest.raises(ValueError, match=r"Eq\. 9 correlates equal positions"):
        Align()(step_of(both, features_of(both), decoder))


def test_apscl_takes_it_as_a_second_term() -> None:
    model = small_apscl(contrastive=["spatial", "align"]).train()
    output = model(episode(channel=1))
    assert {"ce", "kl", "label_recon", "scl", "align"} == set(output.losses)
