"""Tables as LaTeX with booktabs."""

import re
import unicodedata

from fewshot_seg.ablation.report.tables.data import (
    UNKNOWN,
    Cell,
    Number,
    PValue,
    TableData,
    Text,
    Tick,
)

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"${sign}$" for sign in "<>|"},
    **{sign: f"{{{sign}}}" for sign in "[]"},  # a bracket after \\ would be read as its option
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "✓": r"$\bullet$",
    "\N{MINUS SIGN}": "$-$",
}
_GREEK = re.compile("GREEK SMALL LETTER (?!FINAL|OMICRON)([A-Z]+)")


def to_latex(table: TableData) -> str:
    """A `table` environment with its caption above and its note below."""
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    heads = [escape(column.heading) for column in table.columns]
    note = "\n".join(f"  {escape(line)} \\\\" for line in table.note.splitlines())
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{escape(table.title)}}}",
            f"  \\begin{{tabular}}{{{align}}}",
            r"    \toprule",
            _row(heads),
            r"    \midrule",
            *(_row([_cell(cell) for cell in row]) for row in table.rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            "",
            r"  \medskip",
            r"  \parbox{\linewidth}{\footnotesize\raggedright",
            f"{note}}}",
            r"\end{table}",
            "",
        ]
    )


def escape(words: str) -> str:
    """Words that LaTeX sets as they are, on one line."""
    return "".join(_escaped(sign) for sign in " ".join(words.split()))


def _escaped(sign: str) -> str:
    if sign.isascii() or sign in _ESCAPES:
        return _ESCAPES.get(sign, sign)
    greek = _GREEK.fullmatch(unicodedata.name(sign, ""))
    if greek is None:
        return sign
    return f"$\\{'lambda' if greek[1] == 'LAMDA' else greek[1].lower()}$"


def _row(cells: list[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _cell(cell: Cell) -> str:
    match cell:
        case Text():
            return escape(cell.words or UNKNOWN)
        case Number():
            return _number(cell)
        case PValue():
            return escape(cell.words)
        case Tick():
            return r"$\bullet$" if cell.on else ""


def _number(cell: Number) -> str:
    value = _figures(cell.value_words)
    parts = [f"\\textbf{{{value}}}" if cell.best else value]
    if cell.spread_words:
        parts.append(f"$\\pm$ {cell.spread_words}")
    if cell.interval_words:
        low, high = cell.interval_words.strip("[]").split(", ")
        parts.append(f"{{[}}{_figures(low)}, {_figures(high)}{{]}}")
    return " ".join(parts)


def _figures(words: str) -> str:
    """A number; signs become mathematical ones, not hyphens."""
    return f"${words[0]}${words[1:]}" if words[:1] in ("+", "-") and words != UNKNOWN else words
