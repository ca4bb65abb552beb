"""What was predicted for each test scan and class, beside what is right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from fewshot_seg.ablation.artefacts.datafile import read_data, unusable, write_data
from fewshot_seg.ablation.artefacts.pictures import Pictures, keep_pictures, read_pictures
from fewshot_seg.ablation.artefacts.squeezed import squeeze_mask, unsqueeze_mask, volume
from fewshot_seg.errors import DataError
from fewshot_seg.evaluation.segmented import Segmented

KIND = "predictions"

Masks = Bool[np.ndarray, "slice height width"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """One class in the scored slices of one test scan, at the scan's own resolution.

    slices: which slices of the scan were scored; those of both masks, in this order.
    dice: in [0, 1].   aspect: height of a pixel over its width.
    pictures: name of the scan's pictures in the study, see `image_of`.
    """

    scan_id: str
    class_name: str
    fold: int
    seed: int
    dice: float
    slices: tuple[int, ...]
    aspect: float
    pictures: str
    prediction: Masks
    truth: Masks


class PredictionWriter:
    """Collects what an evaluation predicts (its `on_prediction`); `write` makes one file of it.

    path: of that file.   scans: folder of the study for the pictures of test scans.
    data_version: of the data set, so that pictures of another version are not taken for these.
    """

    def __init__(self, path: Path, *, scans: Path, data_version: str) -> None:
        self.path, self.scans, self.data_version = path, scans, data_version
        self._arrays: dict[str, np.ndarray] = {}
        self._entries: list[dict[str, Any]] = []

    def __call__(self, one: Segmented) -> None:
        """Keep a scan's masks in memory, some kilobytes; its pictures are written now."""
        volume(one.truth.shape)
        number, spacing = len(self._entries), one.query.spacing
        self._arrays[f"{number}/prediction"] = squeeze_mask(one.prediction)
        self._arrays[f"{number}/truth"] = squeeze_mask(one.truth)
        self._entries.append(
            {
                "scan_id": one.score.scan_id,
                "class_name": one.score.class_name,
                "fold": one.score.fold,
                "seed": one.score.seed,
                "dice": float(one.score.dice),
                "slices": [int(index) for index in one.slices],
                "shape": list(one.truth.shape),
                "aspect": 1.0 if spacing is None else float(spacing[1] / spacing[2]),
                "pictures": keep_pictures(one.query, self.scans, self.data_version),
            }
        )

    def write(self) -> None:
        """Write the file, replacing an earlier one. Raises DataError when that is refused."""
        write_data(self.path, KIND, self._arrays, {"entries": self._entries})


def read_predictions(path: Path) -> list[Prediction]:
    """What a `PredictionWriter` wrote, in that order.

    Raises DataError for a file that is damaged, or whose sizes do not fit together.
    """
    arrays, table = read_data(path, KIND)
    try:
        return [_prediction(arrays, n, entry) for n, entry in enumerate(table["entries"])]
    except (KeyError, TypeError, ValueError) as error:
        raise unusable(path, KIND, error) from error


def image_of(prediction: Prediction, scans: Path) -> Pictures:
    """The pictures of the scored slices, for drawing masks on; from the study's folder `scans`.

    They are proportioned as the masks, but smaller where the scan is large.
    Raises DataError for pictures that are missing, damaged or of another scan.
    """
    pictures = read_pictures(scans, prediction.pictures)
    if prediction.slices[-1] >= len(pictures):
        raise DataError(
            f"the pictures {prediction.pictures} have {len(pictures)} slices, but scan "
            f"{prediction.scan_id} was scored in slice {prediction.slices[-1]}: they are of "
            "another scan"
        )
    return pictures[list(prediction.slices)]


def _prediction(
    arrays: Mapping[str, np.ndarray], number: int, entry: Mapping[str, Any]
) -> Prediction:
    """Raises KeyError, TypeError or ValueError for anything that does not fit."""
    shape = volume(entry["shape"])
    return Prediction(
        scan_id=_a(str, entry["scan_id"]),
        class_name=_a(str, entry["class_name"]),
        fold=_a(int, entry["fold"]),
        seed=_a(int, entry["seed"]),
        dice=_number(entry["dice"], below=1.0),
        slices=_slices(entry["slices"], shape[0]),
        aspect=_number(entry["aspect"], below=1e6),
        pictures=_a(str, entry["pictures"]),
        prediction=unsqueeze_mask(arrays[f"{number}/prediction"], shape),
        truth=unsqueeze_mask(arrays[f"{number}/truth"], shape),
    )


def _a(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{value!r} should be of type {kind.__name__}")
    return value


def _number(value: Any, *, below: float) -> float:
    if type(value) is not float or not 0 <= value <= below:
        raise ValueError(f"{value!r} should be a number from 0 to {below:g}")
    return value


def _slices(values: Sequence[Any], count: int) -> tuple[int, ...]:
    slices = tuple(_a(int, value) for value in values)
    if len(slices) != count or min(slices) < 0 or sorted(set(slices)) != list(slices):
        raise ValueError(f"{list(slices)} are not the {count} slices of its masks, in order")
    return slices
