"""The logs of trainings as frames: a row a line, a column a number."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from fewshot_seg.ablation.folder import DONE, StudyFolder
from fewshot_seg.training.log import read_log
from fewshot_seg.training.window import DIAGNOSTICS

NO_LOSS = ("step", "lr", "seconds", "grad_norm")
"""Numbers of the log that are neither losses nor diagnostics."""
MOST_LOGS = 10
"""Trainings of a variant that are read: a large study has thousands."""

MOST_VARIANTS = 12
"""Variants whose logs are read."""

Logs = dict[str, list[pd.DataFrame]]
"""variant -> a frame for each of its trainings, by step."""


def training_logs(folder: Path, cells: pd.DataFrame, variants: Iterable[str]) -> Logs:
    """The logs of the first MOST_VARIANTS that have any, and of MOST_LOGS trainings of each.

    folder, cells: of the study.   Numbers that were not finite are NaN.
    """
    place = StudyFolder(folder)
    trainings = cells[cells["state"] == DONE].drop_duplicates(["variant", "training"])
    by_variant = dict(list(trainings.groupby("variant")["training"]))
    found: Logs = {}
    for variant in variants:
        addresses = by_variant.get(variant, pd.Series(dtype=str)).head(MOST_LOGS)
        paths = [place.training(address) / "run" / "log.jsonl" for address in addresses]
        logs = [pd.DataFrame(lines) for lines in map(read_log, paths) if lines]
        if logs:
            found[variant] = [log.set_index("step").astype(float) for log in logs]
        if len(found) == MOST_VARIANTS:
            break
    return found


def loss_names(logs: Logs) -> tuple[str, ...]:
    """What the log says of losses: the total first, then its terms."""
    names = dict.fromkeys(name for several in logs.values() for log in several for name in log)
    terms = [n for n in names if n not in NO_LOSS and not n.startswith(DIAGNOSTICS)]
    return tuple(sorted(terms, key=lambda name: name != "total"))


def joined(logs: Sequence[pd.DataFrame], name: str) -> pd.DataFrame:
    """`low`, `mean`, `high` over the trainings by step, smoothed a little; empty without values."""
    columns = [log[name] for log in logs if name in log]
    if not columns:
        return pd.DataFrame(columns=["low", "mean", "high"], dtype=float)
    table = pd.concat(columns, axis=1).sort_index()
    smooth = table.rolling(max(1, len(table) // 40), min_periods=1).mean()
    return pd.DataFrame(
        {"low": smooth.min(axis=1), "mean": smooth.mean(axis=1), "high": smooth.max(axis=1)}
    )
