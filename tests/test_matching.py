"""Slice matching: against the official code's tables, by hand, and by laws."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_seg.errors import UnknownNameError
from fewshot_seg.evaluation.matching import (
    NAMES,
    Chunks,
    Groups,
    Matching,
    Paired,
    Part,
    Parts,
    Stack,
    get_matching,
    support_position,
)

Golden = Callable[[str], Path]
slices = st.sets(st.integers(0, 45), min_size=1).map(sorted)
LOOKS = torch.randn(46, 1, 24, 24, generator=torch.Generator().manual_seed(0))


def match(
    rule: Matching, support: Sequence[Sequence[int]], query: Sequence[int], n_slices: int = 99
) -> Paired:
    """A rule on slice indices, all it is told."""
    return rule.match([Stack(99, tuple(own)) for own in support], Stack(n_slices, tuple(query)))


def parts_of(
    rule: Matching, support: Sequence[Sequence[int]], query: Sequence[int], n_slices: int = 99
) -> tuple[Part, ...]:
    return match(rule, support, query, n_slices).parts


@pytest.mark.parametrize("n", [1, 3, 5])
def test_parts_agree_with_the_official_code(golden: Golden, n: int) -> None:
    table = np.load(golden("alpnet") / "protocol_parts.npz")
    for count, expected in zip(table["support_num_slices"], table[f"support_index_parts{n}"]):
        assert [support_position(int(count), p, n) for p in range(n)] == expected.tolist()
    rows = zip(table["query_z_min_max_num"].tolist(), table[f"query_part_of_z_parts{n}"])
    for (first, last, n_slices), expected in rows:
        # One support slice for each part, so that its index names the part.
        parts = parts_of(Parts(n), [range(n)], [first, last], n_slices)
        found = {index: part.support[0] for part in parts for index in part.query}
        assert found == {z: int(expected[z]) for z in range(first, last + 1)}


def test_parts_take_one_slice_of_each_support_scan(golden: Golden) -> None:
    table = np.load(golden("alpnet") / "protocol_parts.npz")
    scans = [
        table["support_z_list_with_holes"].tolist(),
        table["support_z_list_second_scan"].tolist(),
    ]
    parts = parts_of(Parts(3), scans, [2, 20], 30)
    assert [list(part.support) for part in parts] == table["support_z_parts3_two_scans"].tolist()


@pytest.mark.parametrize("n", [1, 3, 5])
def test_chunks_agree_with_the_official_code(golden: Golden, n: int) -> None:
    table = np.load(golden("adnet") / "protocol_chunks.npz")
    for row, count in enumerate(table["num_slices"].tolist()):
        support = [support_position(count, p, n) for p in range(n)]
        assert support == table[f"support_index_n{n}"][row].tolist()
        borders = table[f"query_chunk_borders_n{n}"][row].tolist()
        expected = [list(range(*pair)) for pair in pairwise(borders)]
        parts = parts_of(Chunks(n), [range(n)], range(count))
        found = {part.support[0]: list(part.query) for part in parts}
        assert [found.get(chunk, []) for chunk in range(n)] == expected


@pytest.mark.parametrize("n", [5, 10])
def test_groups_follow_the_paper_and_lie_near_the_official_code(golden: Golden, n: int) -> None:
    table = np.load(golden("senet") / "protocol_groups.npz")
    for row, count in enumerate(table["num_slices"].tolist()):
        parts = parts_of(Groups(n), [range(count)], range(count), count)
        sizes = [len(part.query) for part in parts]
        assert len(parts) == n
        assert max(sizes) - min(sizes) <= 1
        ours = np.array([part.support[0] for part in parts])
        assert np.abs(ours - table[f"official_support_index_k{n}"][row]).max() <= 2
        # The official last group is one slice, which the paper does not say and we do not follow.
        assert table[f"official_query_group_start_k{n}"][row][-1] == count - 1


def test_a_hole_in_the_organ_is_scored_by_parts_and_groups_only() -> None:
    support, query = [[4, 5, 6]], [10, 11, 13, 14]
    assert parts_of(get_matching("parts-3"), support, query, 20) == (
        Part((4,), (10, 11)),
        Part((5,), (12,)),
        Part((6,), (13, 14)),
    )
    assert match(get_matching("chunks-3"), support, query, 20).scored == (10, 11, 13, 14)
    assert match(get_matching("groups-2"), support, query, 20).scored == (10, 11, 12, 13, 14)


def test_middle_knows_nothing_of_the_query() -> None:
    middle = get_matching("middle")
    assert not middle.uses_query_range
    support = [[1, 2, 7, 9], [3]]
    assert parts_of(middle, support, [5], 6) == (Part((7, 3), (0, 1, 2, 3, 4, 5)),)
    assert match(middle, support, [], 6) == match(middle, support, [5], 6)
    between = get_matching("middle-range")
    assert parts_of(between, [[1, 2, 7]], [2, 4], 6) == (Part((2,), (2, 3, 4)),)


@pytest.mark.parametrize(
    "name", [*NAMES, "parts-1", "chunks-7", "groups-12", "aligned-3", "similar-1"]
)
@settings(deadline=None, max_examples=25)
@given(support=st.lists(slices, min_size=1, max_size=3), query=slices)
def test_laws_of_every_protocol(name: str, support: list[list[int]], query: list[int]) -> None:
    matching = get_matching(name)
    assert isinstance(matching, Matching)
    assert matching.name == name
    stacks = [Stack.of(LOOKS.roll(k, 0), 5.0, own) for k, own in enumerate(support)]
    parts, scored, _ = matching.match(stacks, Stack.of(LOOKS, 5.0, query))
    assert scored == tuple(sorted(set(scored)))  # no slice twice
    assert set(query) <= set(scored)
    looked_at = [z for part in parts for z in part.query]
    assert set(looked_at) <= set(scored)
    for part in parts:
        assert part.query == tuple(sorted(set(part.query)))
        assert part.query
        assert len(part.support) == len(support)
        assert all(z in own for z, own in zip(part.support, support))
    if matching.uses_query_range:
        assert looked_at == list(scored)  # each slice once, parts go upwards
        assert scored[0] == query[0]
        assert scored[-1] == query[-1]
    else:
        assert scored == tuple(range(46))
        blind = matching.match(stacks, Stack.of(LOOKS, 5.0))
        assert (parts, scored) == (blind.parts, blind.scored)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("part-3", "did you mean 'parts-3'?"),
        ("midle", "did you mean 'middle'?"),
        ("parts-0", "unknown matching protocol 'parts-0'"),
        ("parts-", "unknown matching"),
        ("parts-x", "unknown matching"),
        ("parts-²", "unknown matching"),
        ("middle-3", "unknown matching"),
        ("xyz", r"'xyz'\. Known: parts-3"),
        ("", "unknown matching"),
    ],
)
def test_unknown_names(name: str, told: str) -> None:
    with pytest.raises(UnknownNameError, match=told.replace("?", r"\?")):
        get_matching(name)


def test_what_cannot_be_matched() -> None:
    with pytest.raises(ValueError, match="at least one support scan"):
        match(Parts(), [], [1])
    with pytest.raises(ValueError, match="support scan 2 of 2 shows the class in no slice"):
        match(get_matching("middle"), [[1], []], [1])
    with pytest.raises(ValueError, match="query scan shows the class in no slice"):
        match(Parts(), [[1]], [])
    with pytest.raises(ValueError, match="at least 1 part; got 0"):
        Chunks(0)
    with pytest.raises(ValueError, match="without images cannot be compared"):
        match(get_matching("similar-9"), [[1]], [])
