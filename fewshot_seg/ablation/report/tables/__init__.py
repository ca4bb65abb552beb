"""The report's tables, and writing all of them to a folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fewshot_seg.ablation.report.groups import Group, groups
from fewshot_seg.ablation.report.tables.compare import beside_paper, significance, signs_table
from fewshot_seg.ablation.report.tables.cost import cost_table
from fewshot_seg.ablation.report.tables.data import TableData, shown, sort_value
from fewshot_seg.ablation.report.tables.leaderboard import leaderboard
from fewshot_seg.ablation.report.tables.matrix import ablation_matrix
from fewshot_seg.ablation.report.tables.origin import provenance, unfinished
from fewshot_seg.ablation.study import Study
from fewshot_seg.data.atomic import write_bytes

OF_GROUP = (
    leaderboard, ablation_matrix, significance, signs_table, beside_paper, cost_table,
)  # fmt: skip
OF_STUDY = (unfinished, provenance)

__all__ = [
    "TableData",
    "ablation_matrix",
    "beside_paper",
    "cost_table",
    "group_tables",
    "leaderboard",
    "provenance",
    "shown",
    "significance",
    "signs_table",
    "sort_value",
    "study_tables",
    "unfinished",
    "write_tables",
]


def group_tables(group: Group) -> Iterator[TableData]:
    """All that can be said of one protocol and data version."""
    return (table for make in OF_GROUP if (table := make(group)) is not None)


def study_tables(study: Study) -> Iterator[TableData]:
    """What is said of a study as a whole: its gaps and its origin."""
    return (table for make in OF_STUDY if (table := make(study)) is not None)


def write_tables(study: Study, out: Path, *, found: Sequence[Group] | None = None) -> list[Path]:
    """Every table as Markdown, LaTeX and CSV in `out`/tables; the files that were written.

    found: the study's `groups`, to use the statistics that they have already; made unless given.
    Raises DataError when a file cannot be written.
    """
    from fewshot_seg.ablation.report.csv_out import to_csv  # formats know the tables' data
    from fewshot_seg.ablation.report.latex import to_latex
    from fewshot_seg.ablation.report.markdown import to_markdown

    formats = {"md": to_markdown, "tex": to_latex, "csv": to_csv}
    tables = [
        table
        for group in (groups(study) if found is None else found)
        for table in group_tables(group)
    ]
    written = []
    for table in (*tables, *study_tables(study)):
        for ending, convert in formats.items():
            path = out / "tables" / f"{table.name}.{ending}"
            write_bytes(path, convert(table).encode())
            written.append(path)
    return written
