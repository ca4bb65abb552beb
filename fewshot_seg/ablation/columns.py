"""The columns of a study's tables, beside `variant` and one for each axis."""

SCORE_COLUMNS = (
    "method", "dataset", "data_version", "protocol", "fold", "seed", "class_name", "scan_id",
    "dice", "slice_dice", "hd95", "assd", "unit", "n_slices", "cell", "status",
)  # fmt: skip
CELL_COLUMNS = (
    "method", "dataset", "data_version", "protocol", "fold", "seed", "novel", "state", "training",
    "train_seconds", "train_cpu_seconds", "test_seconds", "steps", "parameters", "gflops",
    "slice_ms", "peak_mib", "device", "date", "commit", "error", "traceback",
)  # fmt: skip
COSTS = (
    "train_seconds", "train_cpu_seconds", "test_seconds", "steps", "parameters", "gflops",
    "slice_ms", "peak_mib",
)  # fmt: skip
SHARED = ("variant", "method")
"""Columns that an axis may be called as: its labels then stand there."""
RESERVED = frozenset({*SCORE_COLUMNS, *CELL_COLUMNS, "mean"} - {*SHARED})
"""What an axis cannot be called."""


def told(axes: tuple[str, ...]) -> list[str]:
    """The columns that say which row it is: `variant`, then the axes that have their own."""
    return ["variant", *(axis for axis in axes if axis not in SHARED)]
