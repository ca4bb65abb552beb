"""Matching by the looks of slices: on made-up bodies, and as evaluation and inference use it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_seg.data.folder import open_folder
from fewshot_seg.errors import UnknownNameError
from fewshot_seg.evaluation.blind import estimated_range
from fewshot_seg.evaluation.matching import BLIND, RANGED, Part, Stack, get_matching
from fewshot_seg.evaluation.stack import align, likeness
from fewshot_seg.experiment import evaluate_unlearned
from fewshot_seg.inference import DEFAULT, get_pairing


def walk(n: int, seed: int) -> Tensor:
    """Images that change smoothly from slice to slice."""
    noise = np.random.default_rng(seed).normal(size=(n, 1, 32, 32)).astype(np.float32)
    slow = np.cumsum(noise, axis=0)
    return torch.from_numpy(slow - slow.mean(0))


@pytest.mark.parametrize("shift", [-6, 0, 4])
def test_alignment_finds_how_far_a_scan_is_shifted(shift: int) -> None:
    body = walk(40, 1)
    support = Stack.of(body[10:30], 5.0, (4, 5, 6, 7, 8))
    found = align(Stack.of(body[10 + shift : 30 + shift], 5.0), support)
    assert found is not None
    assert found.slope == 1
    assert found.query_position(6) == pytest.approx(6 - shift, abs=0.5)


def test_alignment_counts_in_millimetres() -> None:
    body = walk(60, 7)
    support = Stack.of(body[:40], 5.0, tuple(range(10, 21)))
    found = align(Stack.of(body[::2], 10.0), support)  # every second slice, twice as thick
    assert found is not None
    assert found.query_position(20) == pytest.approx(10, abs=0.5)
    longer = align(Stack.of(body[::2], 5.0), support)  # as if the patient were half as long
    assert longer is None or longer.query_position(20) != pytest.approx(10, abs=0.5)


def slow_alignment(query: Stack, support: Stack, slope: float) -> tuple[float, float]:
    """Likeness and shift of the best alignment, slice by slice."""
    alike = likeness(query, support).numpy()
    best = (-2.0, 0.0)
    for half in range(-2 * int((query.n_slices - 1) * slope) - 2, 2 * support.n_slices):
        values = []
        for z in range(query.n_slices):
            at = z * slope + half / 2
            if 0 <= at <= support.n_slices - 1:
                low = int(at)
                high = min(low + 1, support.n_slices - 1)
                values.append(alike[z, low] * (1 - (at - low)) + alike[z, high] * (at - low))
        enough = 0.6 * min(query.n_slices * slope, support.n_slices)
        if values and len(values) * slope >= enough and np.mean(values) > best[0]:
            best = (float(np.mean(values)), half / 2)
    return best


def test_alignment_agrees_with_a_slow_loop() -> None:
    support = Stack.of(walk(17, 2), 5.0, (3,))
    query = Stack.of(walk(23, 3), 4.0)
    slow = {0.8 / s: slow_alignment(query, support, 0.8 / s) for s in (0.85, 0.925, 1, 1.075, 1.15)}
    slope = max(slow, key=lambda one: slow[one][0])
    found = align(query, support)
    if slow[slope][0] < 0.1:
        assert found is None
    else:
        assert found is not None
        assert found == pytest.approx((slope, slow[slope][1], slow[slope][0]), abs=1e-5)


def test_looks_know_neither_brightness_nor_where_the_body_lies() -> None:
    inner = walk(12, 4) / 10
    body = torch.full((12, 1, 80, 64), -3.0)
    body[:, :, 10:42, 8:40] = 2 + inner
    moved = torch.full((12, 1, 80, 64), -3.0)
    moved[:, :, 40:72, 30:62] = 2 + inner
    own, other, dim = (Stack.of(one, 5.0) for one in (body, moved, 0.5 * body + 9))
    assert torch.allclose(own.thumbnails, other.thumbnails, atol=1e-5)
    assert torch.allclose(own.thumbnails, dim.thumbnails, atol=1e-4)
    assert torch.allclose(likeness(own, own).diag(), torch.ones(12), atol=1e-5)


def test_flat_slices_are_like_nothing() -> None:
    flat = Stack.of(torch.zeros(5, 1, 32, 32), 5.0, (1, 2))
    assert not likeness(flat, Stack.of(walk(5, 0), 5.0)).any()
    assert align(flat, Stack.of(walk(5, 0), 5.0, (1,))) is None
    assert "spread-10" in get_matching("aligned-10").match([flat], flat).notes[0]


def test_alignment_looks_only_where_the_organ_can_be() -> None:
    body = walk(40, 2)
    support = Stack.of(body[10:30], 5.0, (8, 9, 10, 11))
    paired = get_matching("aligned-2").match([support], Stack.of(body[6:26], 5.0))
    asked = sorted(z for part in paired.parts for z in part.query)
    assert asked == list(range(11, 17))  # 12 to 15, and a slice beyond either end
    assert {part.support for part in paired.parts} == {(9,), (11,)}
    assert paired.scored == tuple(range(20))  # what is missed outside counts


def test_a_scan_that_ends_before_the_organ_is_said_to() -> None:
    body = walk(60, 6)
    support = Stack.of(body, 5.0, (55, 56, 57))
    query = Stack.of(body[:45], 5.0)
    assert estimated_range([support], query) == range(54, 45)
    paired = get_matching("aligned-3").match([support], query)
    assert paired.parts == ()
    assert paired.notes == ("by its looks the scan ends before the organ begins",)


def test_what_cannot_be_aligned_is_spread_and_noted() -> None:
    support = Stack.of(walk(8, 3), None, (2, 3, 4))
    query = Stack.of(walk(5, 4), 3.0)
    paired = get_matching("aligned-3").match([support], query)
    assert "could not be laid along" in paired.notes[0]
    assert paired.parts == get_matching("spread-3").match([support], query).parts
    assert all(part.query == (0, 1, 2, 3, 4) for part in paired.parts)


def test_several_examples_are_averaged() -> None:
    body = walk(40, 1)
    query = Stack.of(body[10:30], 5.0)
    one = Stack.of(body[8:28], 5.0, (10, 11, 12))  # lies at 8 to 10 of the query
    two = Stack.of(body[12:32], 5.0, (12, 13, 14))  # at 14 to 16
    assert estimated_range([one], query) == range(7, 12)
    assert estimated_range([two], query) == range(13, 18)
    assert estimated_range([one, two], query) == range(10, 15)
    unknown = Stack.of(body[12:32], None, (12, 13, 14))
    assert estimated_range([one, unknown], query) == range(7, 12)


def test_similar_takes_the_slice_that_looks_alike() -> None:
    body = walk(9, 5)
    support = Stack.of(body, 1.0, tuple(range(9)))
    parts = get_matching("similar-9").match([support], Stack.of(body, 1.0)).parts
    assert parts == tuple(Part((z,), (z,)) for z in range(9))


def test_inference_knows_the_rules_that_need_no_label_of_the_query() -> None:
    assert DEFAULT in BLIND
    for name in (*BLIND, "aligned-3"):
        assert get_pairing(name) == get_matching(name)
    for name in RANGED:
        with pytest.raises(UnknownNameError, match="needs the range of the organ"):
            get_pairing(name)
    with pytest.raises(UnknownNameError, match="did you mean 'aligned-10'"):
        get_pairing("alignd-10")


RANGE_FREE = {"aligned-10": 43.4, "aligned-3": 40.2, "middle": 25.4, "similar-9": 30.9}


@pytest.mark.parametrize(("matching", "dice"), RANGE_FREE.items())
def test_copy_on_chaos_without_the_range(
    shared_data: Callable[[str], Path], matching: str, dice: float
) -> None:
    """The figures of docs/evaluation.md; what the estimate of the range is worth."""
    dataset = open_folder(root=shared_data("chaos_MR_T2_normalized"))
    results = evaluate_unlearned("copy", dataset, matching=matching, size=256, surface=False)
    assert not results.protocol.uses_query_range
    assert len(results.rows) == 80
    assert 100 * results.mean() == pytest.approx(dice, abs=0.15)
