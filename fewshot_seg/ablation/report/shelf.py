"""Predictions and pictures of a study as few bytes, each file read once."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fewshot_seg.ablation.artefacts.pictures import Pictures, read_pictures
from fewshot_seg.ablation.artefacts.predictions import Masks, Prediction, read_predictions
from fewshot_seg.ablation.artefacts.squeezed import squeeze_mask
from fewshot_seg.ablation.report.blocks import data_address
from fewshot_seg.ablation.report.groups import Group
from fewshot_seg.ablation.report.kept import predictions_file, scans_folder
from fewshot_seg.errors import DataError

MOST_SLICES = 40
"""Of a scan; of thinner ones every second, third, ... is shown."""

Key = tuple[str, str]
"""Class name and scan id."""


@dataclass(frozen=True)
class Drawn:
    """A prediction for the page.

    shape: slices, height, width of the masks.   aspect: height of a pixel over its width.
    upright: rows run from the back of the patient to the front, and are shown the other way.
    pictures: name of the scan's pictures.   fullest: where the truth is largest.
    prediction, truth: bits of the masks, most significant first, deflated, in base64.
    """

    slices: tuple[int, ...]
    shape: tuple[int, ...]
    aspect: float
    upright: bool
    pictures: str
    dice: float
    fullest: int
    prediction: str
    truth: str


class Shelf:
    """Hands out predictions and pictures; what cannot be read is kept in `problems`."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.problems: list[str] = []
        self._cells: dict[str, Mapping[Key, Drawn]] = {}
        self._pictures: dict[str, Pictures | None] = {}

    def has(self, cell: str) -> bool:
        """Whether the cell's predictions were kept."""
        return predictions_file(self.group, cell).exists()

    def prediction(self, cell: str, key: Key) -> Drawn | None:
        """None when the cell's file does not have it, or cannot be read."""
        if cell not in self._cells:
            self._cells[cell] = self._read(cell)
        return self._cells[cell].get(key)

    def picture(self, name: str, index: int) -> str | None:
        """A slice of a scan as a data address; None when it cannot be read."""
        if name not in self._pictures:
            self._pictures[name] = self._read_pictures(name)
        pictures = self._pictures[name]
        if pictures is None or index >= len(pictures):
            return None
        content = io.BytesIO()
        Image.fromarray(pictures[index]).save(content, "png", optimize=True)
        return data_address("image/png", content.getvalue())

    def _read(self, cell: str) -> Mapping[Key, Drawn]:
        try:
            found = read_predictions(predictions_file(self.group, cell))
        except DataError as error:
            self.problems.append(str(error))
            return {}
        return {(one.class_name, one.scan_id): _drawn(one) for one in found}

    def _read_pictures(self, name: str) -> Pictures | None:
        try:
            return read_pictures(scans_folder(self.group), name)
        except DataError as error:
            self.problems.append(str(error))
            return None


def _drawn(one: Prediction) -> Drawn:
    step = -(-len(one.slices) // MOST_SLICES)
    truth, prediction = one.truth[::step], one.prediction[::step]
    return Drawn(
        slices=one.slices[::step],
        shape=truth.shape,
        aspect=one.aspect,
        upright=one.slices != (0,),  # a scan of one slice is a photograph
        pictures=one.pictures,
        dice=one.dice,
        fullest=int(np.argmax(truth.sum(axis=(1, 2)))),
        prediction=_packed(prediction),
        truth=_packed(truth),
    )


def _packed(mask: Masks) -> str:
    return base64.b64encode(squeeze_mask(mask).tobytes()).decode("ascii")
