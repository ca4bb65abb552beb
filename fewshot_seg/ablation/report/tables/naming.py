"""Titles, file names and notes of a group's tables, the same for all of them."""

from collections.abc import Iterable, Sequence

from fewshot_seg.ablation.report.groups import Group
from fewshot_seg.ablation.report.tables.data import Cell, Column, TableData


def named(
    group: Group,
    name: str,
    title: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
    note: str,
) -> TableData:
    """A table of `group`, which says under which protocol its numbers were obtained."""
    return TableData(
        name="-".join(filter(None, [name, group.slug])),
        title=f"{title} ({group.words})" if group.words else title,
        columns=tuple(columns),
        rows=tuple(tuple(row) for row in rows),
        note="\n".join([note, *group.gaps, group.note]),
        origin=group.origin,
    )
