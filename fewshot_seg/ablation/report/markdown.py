"""Tables as GitHub's Markdown."""

import re

from fewshot_seg.ablation.report.tables.data import Cell, Number, TableData, shown

_SPECIAL = re.compile(r"([\\`*_|\[\]<>~])")


def to_markdown(table: TableData) -> str:
    """A heading, the table and its note; best values are bold."""
    lines = [
        _row([escape(column.heading) for column in table.columns]),
        _row(["--:" if column.numeric else ":--" for column in table.columns]),
        *(_row([_cell(cell) for cell in row]) for row in table.rows),
    ]
    note = "  \n".join(escape(line) for line in table.note.splitlines())
    return f"### {escape(table.title)}\n\n" + "\n".join(lines) + f"\n\n{note}\n"


def escape(words: str) -> str:
    """Words that Markdown and HTML take literally, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(words.split())).replace("\\<", "&lt;")


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    if isinstance(cell, Number) and cell.best:
        value, _, rest = shown(cell).partition(" ")
        return f"**{value}** {escape(rest)}".rstrip()
    return escape(shown(cell))
