"""Tables of differences: against the reference, and against the paper."""

import math

from fewshot_seg.ablation.report.groups import MEAN, Group
from fewshot_seg.ablation.report.tables.data import Cell, Column, Number, PValue, TableData, Text
from fewshot_seg.ablation.report.tables.naming import named


def significance(group: Group) -> TableData | None:
    """Each variant against the reference, scan by scan; None without a reference."""
    if group.paired is None:
        return None
    columns = [
        Column("variant", "variant", numeric=False),
        Column("difference", "difference (points)"),
        Column("p", "p"),
        Column("p_holm", "p after Holm"),
        Column("n_pairs", "scans"),
    ]
    rows: list[list[Cell]] = []
    for variant in group.variants:
        if variant == group.reference:
            continue
        row = group.paired.loc[variant]
        rows.append(
            [
                Text(variant),
                _points(row["difference"], row["low"], row["high"]),
                PValue(float(row["p"])),
                PValue(float(row["p_holm"])),
                Number(value=float(row["n_pairs"]), digits=0),
            ]
        )
    note = (
        f"Mean Dice minus that of {group.reference}, in points of per cent, with its 95 % "
        "bootstrap interval. p: Wilcoxon's signed-rank test over the scans that both have, "
        "classes and seeds averaged."
    )
    title = f"Differences from {group.reference}"
    return named(group, "significance", title, columns, rows, note)


def beside_paper(group: Group) -> TableData | None:
    """Ours and the published Dice by variant and class; None without published numbers."""
    names = (*group.classes, MEAN)
    rows: list[list[Cell]] = []
    for variant in group.variants:
        published = group.study.paper.get(variant, {})
        for name in names:
            comparable = name != MEAN or variant in group.complete
            if name not in published or (variant, name) not in group.summary.index:
                continue
            ours = group.summary.loc[(variant, name), ["mean", "sd", "low", "high"]] * 100
            mean, sd, low, high = map(float, ours)
            paper = float(published[name])
            rows.append(
                [
                    Text(variant),
                    Text(name),
                    Number(value=mean, sd=sd, low=low, high=high),
                    Number(value=paper),
                    Number(value=mean - paper if comparable else math.nan, signed=True),
                ]
            )
    if not rows:
        return None
    columns = [
        Column("variant", "variant", numeric=False),
        Column("class_name", "class", numeric=False),
        Column("ours", "ours %"),
        Column("paper", "paper %"),
        Column("minus_paper", "ours − paper"),
    ]
    note = "Dice in per cent, ours with standard deviation over folds and seeds and 95 % interval."
    return named(group, "paper", "Beside the paper's numbers", columns, rows, note)


def _points(difference: float, low: float, high: float) -> Number:
    """A difference of Dice in points of per cent."""
    return Number(value=100 * difference, low=100 * low, high=100 * high, signed=True)


def signs_table(group: Group) -> TableData | None:
    """Do the differences that the paper published reproduce? None where it published none."""
    if group.signs is None or group.signs.empty:
        return None
    columns = [
        Column("variant", "variant", numeric=False),
        Column("against", "against", numeric=False),
        Column("class_name", "class", numeric=False),
        Column("paper", "paper (points)"),
        Column("ours", "ours (points)"),
        Column("n_pairs", "pairs"),
        Column("verdict", "verdict", numeric=False),
    ]
    rows: list[list[Cell]] = [
        [
            Text(row["variant"]),
            Text(row["against"]),
            Text(row["class_name"]),
            Number(value=100 * float(row["paper"]), signed=True),
            _points(row["difference"], row["low"], row["high"]),
            Number(value=float(row["n_pairs"]), digits=0),
            Text(row["verdict"]),
        ]
        for _, row in group.signs.iterrows()
    ]
    counts = group.signs["verdict"].value_counts()
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    note = (
        f"{told} (of {len(rows)}). Differences of Dice in points of per cent, ours with a 95 % "
        "bootstrap interval. Reproduced: the paper's sign, and the interval excludes 0; "
        "contradicted: the other sign, and the interval excludes 0."
    )
    return named(group, "signs", "Do the paper's differences reproduce?", columns, rows, note)
