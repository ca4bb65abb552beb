"""A made-up study for the report's tests, whose means are known."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fewshot_seg.ablation.artefacts import PredictionWriter
from fewshot_seg.ablation.folder import StudyFolder
from fewshot_seg.ablation.study import Study
from fewshot_seg.data.prepared import PreparedScan
from fewshot_seg.evaluation import ScanScore
from fewshot_seg.evaluation.protocol import Protocol
from fewshot_seg.evaluation.segmented import Segmented

PARTS = Protocol(
    dataset="chaos",
    matching="parts-3",
    uses_query_range=True,
    setting="leave_one_organ",
    n_shot=1,
    size=(128, 128),
    intensity="z-score of each scan",
    n_folds=5,
    folds=(0, 1),
)
COSTS = ("train_seconds", "train_cpu_seconds", "test_seconds", "steps", "parameters", "gflops",
         "slice_ms", "peak_mib")  # fmt: skip


def score_rows(
    variant: str,
    dice: Mapping[str, float],
    *,
    labels: Mapping[str, str],
    folds: Sequence[int] = (0, 1),
    scans: int = 4,
    protocol: str = "aaaa1111",
    data_version: str = "v1",
    status: str = "",
) -> list[dict[str, object]]:
    """Scores around `dice` (a fraction for each class), whose mean over scans and folds it is."""
    rows: list[dict[str, object]] = []
    for fold in folds:
        for class_name, middle in dice.items():
            for index in range(scans):
                # symmetric about the middle within a fold, and so are the two folds
                around = 0.02 * (index - (scans - 1) / 2) + 0.01 * (fold - np.mean(folds))
                rows.append(
                    {
                        "variant": variant,
                        **labels,
                        "method": "apscl",
                        "dataset": "chaos",
                        "data_version": data_version,
                        "protocol": protocol,
                        "fold": fold,
                        "seed": 0,
                        "class_name": class_name,
                        "scan_id": f"scan{10 * fold + index}",
                        "dice": middle + around,
                        "slice_dice": np.nan,
                        "hd95": np.nan,
                        "assd": np.nan,
                        "unit": "mm",
                        "n_slices": 12,
                        "cell": f"{variant}-{class_name}-{fold}",
                        "status": status,
                    }
                )
    return rows


def cell_rows(scores: pd.DataFrame, axes: Sequence[str], **known: object) -> pd.DataFrame:
    """A finished cell for each of the scores' cells. known: costs, or anything else to set."""
    columns = [
        "cell",
        "variant",
        *axes,
        "method",
        "dataset",
        "data_version",
        "protocol",
        "fold",
        "seed",
    ]
    cells = scores[[*dict.fromkeys(columns)]].drop_duplicates("cell").reset_index(drop=True)
    return cells.assign(
        novel=scores.drop_duplicates("cell")["class_name"].to_numpy(),
        state="done",
        training=["t-" + cell for cell in cells["cell"]],
        **dict.fromkeys(COSTS, np.nan),
        device="cpu",
        date="2026-01-02T03:04:05+00:00",
        commit="abc123",
        error="",
        traceback="",
    ).assign(**known)


def make_study(
    folder: Path,
    rows: Sequence[Mapping[str, object]],
    *,
    axes: Sequence[str] = (),
    reference: str | None = None,
    paper: Mapping[str, Mapping[str, float]] | None = None,
    protocols: Mapping[str, Protocol] | None = None,
    cells: pd.DataFrame | None = None,
) -> Study:
    """A study of these score rows, every cell done unless `cells` says otherwise."""
    scores = pd.DataFrame(rows)
    found = cell_rows(scores, axes) if cells is None else cells
    return Study(
        folder=folder,
        name="made-up",
        title="A made-up study",
        axes=tuple(axes),
        variants=tuple(dict.fromkeys(found["variant"])),
        reference=reference,
        paper=paper or {},
        scores=scores,
        cells=found,
        protocols=protocols or {"aaaa1111": PARTS},
    )


def modules_study(folder: Path) -> Study:
    """FEM and SCL on and off over liver and spleen, with the paper's numbers."""
    dice = {
        "none": {"liver": 0.50, "spleen": 0.40},
        "FEM": {"liver": 0.60, "spleen": 0.50},
        "SCL": {"liver": 0.70, "spleen": 0.30},
        "FEM+SCL": {"liver": 0.80, "spleen": 0.60},
    }
    rows = [
        row
        for variant, values in dice.items()
        for row in score_rows(
            variant,
            values,
            labels={axis: "on" if axis in variant else "off" for axis in ("FEM", "SCL")},
            status="RECONSTRUCTED, no reproduction of the paper" if variant == "SCL" else "",
        )
    ]
    paper = {"none": {"mean": 49.5}, "FEM": {"mean": 62.2}, "SCL": {"mean": 66.7}}
    return make_study(folder, rows, axes=("FEM", "SCL"), reference="none", paper=paper)


def write_log(folder: Path, training: str, lines: Sequence[Mapping[str, float | None]]) -> None:
    """The log of a training, as a run folder has it."""
    path = folder / "trainings" / training / "run" / "log.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def prepared(scan_id: str, *, slices: int = 5, side: int = 40) -> PreparedScan:
    """A noisy scan as a method sees it."""
    rng = np.random.default_rng(len(scan_id))
    images = torch.from_numpy(rng.random((slices, 1, side, side), dtype=np.float32))
    return PreparedScan(
        id=scan_id,
        images=images,
        labels=None,
        original_labels=None,
        original_size=(side, side),
        spacing=(5.0, 2.0, 1.0),
        class_slices={},
    )


def square(slices: int, side: int, at: int, size: int) -> np.ndarray:
    """A square in every slice but the first and the last, largest in the middle one."""
    mask = np.zeros((slices, side, side), bool)
    for index in range(1, slices - 1):
        half = size // 2 - abs(index - slices // 2)
        mask[index, at - half : at + half, at - half : at + half] = True
    return mask


def keep_predictions(study: Study, *, shift: Mapping[str, int]) -> None:
    """Masks for every finished cell of the variants in `shift`, moved by so many pixels."""
    for cell, rows in study.scores.groupby("cell", sort=False):
        variant = rows["variant"].iloc[0]
        if variant not in shift:
            continue
        place = StudyFolder(study.folder).cell(str(cell)) / "predictions.safetensors"
        writer = PredictionWriter(place, scans=study.folder / "scans", data_version="v1")
        for row in rows.itertuples():
            query = prepared(row.scan_id)
            writer(
                Segmented(
                    score=ScanScore(
                        fold=row.fold, class_name=row.class_name, scan_id=row.scan_id,
                        dice=row.dice, hd95=None, assd=None, unit="mm", n_slices=5,
                        n_predicted=1, n_truth=1,
                    ),
                    query=query,
                    slices=(0, 1, 2, 3, 4),
                    prediction=square(5, 40, 20 + shift[variant], 12),
                    truth=square(5, 40, 20, 12),
                )
            )  # fmt: skip
        writer.write()
