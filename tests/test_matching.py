"""Slice matching: against the official code's tables, by hand, and by laws."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_seg.errors import UnknownNameError
from fewshot_seg.evaluation.matching import (
    NAMES,
    Chunks,
    Groups,
    Matching,
    Part,
    Parts,
    get_matching,
    scored_slices,
    support_position,
)

Golden = Callable[[str], Path]
slices = st.sets(st.integers(0, 45), min_size=1).map(sorted)


@pytest.mark.parametrize("n", [1, 3, 5])
def test_parts_agree_with_the_official_code(golden: Golden, n: int) -> None:
    table = np.load(golden("alpnet") / "protocol_parts.npz")
    for count, expected in zip(table["support_num_slices"], table[f"support_index_parts{n}"]):
        assert [support_position(int(count), p, n) for p in range(n)] == expected.tolist()
    rows = zip(table["query_z_min_max_num"].tolist(), table[f"query_part_of_z_parts{n}"])
    for (first, last, n_slices), expected in rows:
        # One support slice for each part, so that its index names the part.
        parts = Parts(n).match([range(n)], [first, last], n_slices)
        found = {index: part.support[0] for part in parts for index in part.query}
        assert found == {z: int(expected[z]) for z in range(first, last + 1)}


def test_parts_take_one_slice_of_each_support_scan(golden: Golden) -> None:
    table = np.load(golden("alpnet") / "protocol_parts.npz")
    scans = [
        table["support_z_list_with_holes"].tolist(),
        table["support_z_list_second_scan"].tolist(),
    ]
    parts = Parts(3).match(scans, [2, 20], 30)
    assert [list(part.support) for part in parts] == table["support_z_parts3_two_scans"].tolist()


@pytest.mark.parametrize("n", [1, 3, 5])
def test_chunks_agree_with_the_official_code(golden: Golden, n: int) -> None:
    table = np.load(golden("adnet") / "protocol_chunks.npz")
    for row, count in enumerate(table["num_slices"].tolist()):
        support = [support_position(count, p, n) for p in range(n)]
        assert support == table[f"support_index_n{n}"][row].tolist()
        borders = table[f"query_chunk_borders_n{n}"][row].tolist()
        expected = [list(range(*pair)) for pair in pairwise(borders)]
        found = {p.support[0]: list(p.query) for p in Chunks(n).match([range(n)], range(count), 99)}
        assert [found.get(chunk, []) for chunk in range(n)] == expected


@pytest.mark.parametrize("n", [5, 10])
def test_groups_follow_the_paper_and_lie_near_the_official_code(golden: Golden, n: int) -> None:
    table = np.load(golden("senet") / "protocol_groups.npz")
    for row, count in enumerate(table["num_slices"].tolist()):
        parts = Groups(n).match([range(count)], range(count), count)
        sizes = [len(part.query) for part in parts]
        assert len(parts) == n
        assert max(sizes) - min(sizes) <= 1
        ours = np.array([part.support[0] for part in parts])
        assert np.abs(ours - table[f"official_support_index_k{n}"][row]).max() <= 2
        # The official last group is one slice, which the paper does not say and we do not follow.
        assert table[f"official_query_group_start_k{n}"][row][-1] == count - 1


def test_a_hole_in_the_organ_is_scored_by_parts_and_groups_only() -> None:
    support, query = [[4, 5, 6]], [10, 11, 13, 14]
    assert get_matching("parts-3").match(support, query, 20) == (
        Part((4,), (10, 11)),
        Part((5,), (12,)),
        Part((6,), (13, 14)),
    )
    assert scored_slices(get_matching("chunks-3").match(support, query, 20)) == (10, 11, 13, 14)
    assert scored_slices(get_matching("groups-2").match(support, query, 20)) == (10, 11, 12, 13, 14)


def test_middle_knows_nothing_of_the_query() -> None:
    middle = get_matching("middle")
    assert not middle.uses_query_range
    assert middle.match([[1, 2, 7, 9], [3]], [5], 6) == (Part((7, 3), (0, 1, 2, 3, 4, 5)),)
    assert middle.match([[1, 2, 7, 9], [3]], [], 6) == middle.match([[1, 2, 7, 9], [3]], [5], 6)
    assert get_matching("middle-range").match([[1, 2, 7]], [2, 4], 6) == (Part((2,), (2, 3, 4)),)


@pytest.mark.parametrize("name", [*NAMES, "parts-1", "chunks-7", "groups-12"])
@settings(deadline=None, max_examples=25)
@given(support=st.lists(slices, min_size=1, max_size=3), query=slices)
def test_laws_of_every_protocol(name: str, support: list[list[int]], query: list[int]) -> None:
    matching = get_matching(name)
    assert isinstance(matching, Matching)
    assert matching.name == name
    parts = matching.match(support, query, 46)
    scored = scored_slices(parts)
    assert len(set(scored)) == len(scored)  # no slice twice
    assert set(query) <= set(scored)
    assert all(part.query for part in parts)
    assert [z for part in parts for z in part.query] == list(scored)  # parts go upwards
    for part in parts:
        assert len(part.support) == len(support)
        assert all(z in own for z, own in zip(part.support, support))
    if matching.uses_query_range:
        assert min(scored) == min(query)
        assert max(scored) == max(query)


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
        Parts().match([], [1], 3)
    with pytest.raises(ValueError, match="support scan 2 of 2 shows the class in no slice"):
        get_matching("middle").match([[1], []], [1], 3)
    with pytest.raises(ValueError, match="query scan shows the class in no slice"):
        Parts().match([[1]], [], 3)
    with pytest.raises(ValueError, match="at least 1 part; got 0"):
        Chunks(0)
