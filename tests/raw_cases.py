"""Raw downloads that are made up, with known truth: CHAOS as DICOM series and PNG masks."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image

GREY = {0: 0, 1: 63, 2: 126, 3: 189, 4: 252}
LIVER, RIGHT, LEFT, SPLEEN = 1, 2, 3, 4
TILT = 0.06  # radians about the patient's left-right axis
AXES = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}

ORGANS = {  # centre and half axes, millimetres towards left, back and head
    LIVER: ((-34.0, -8.0, 14.0), (26.0, 26.0, 24.0)),
    RIGHT: ((-28.0, 22.0, -22.0), (10.0, 9.0, 14.0)),
    LEFT: ((28.0, 22.0, -20.0), (10.0, 9.0, 14.0)),
    SPLEEN: ((44.0, 8.0, 14.0), (13.0, 15.0, 16.0)),
}
BRIGHTNESS = {0: 300, LIVER: 120, RIGHT: 700, LEFT: 720, SPLEEN: 560}


@dataclass(frozen=True)
class Patient:
    """One synthetic scan as it lies in its files: slices by place, from the first voxel on."""

    image: np.ndarray
    labels: np.ndarray
    grid: sitk.Image
    folder: Path

    @property
    def dicom(self) -> list[Path]:
        return sorted((self.folder / "DICOM_anon").iterdir())

    @property
    def masks(self) -> list[Path]:
        return sorted((self.folder / "Ground").iterdir())


def direction(lies: str, tilt: float = 0.0) -> np.ndarray:
    """Columns: where the axes of that code run to in LPS, tilted a little."""
    upright = np.zeros((3, 3))
    for column, letter in enumerate(lies):
        row, sign = AXES[letter]
        upright[row, column] = sign
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return turn @ upright


def body(points: np.ndarray, lacking: tuple[int, ...] = ()) -> np.ndarray:
    """Class ids at places (millimetres, last axis left, back, head)."""
    ids = np.zeros(points.shape[:-1], np.uint8)
    for value, (centre, radii) in ORGANS.items():
        if value not in lacking:
            ids[(((points - centre) / radii) ** 2).sum(-1) <= 1] = value
    return ids


def patient(
    root: Path,
    number: int = 1,
    *,
    lies: str = "LPS",
    tilt: float = TILT,
    spacing: tuple[float, float, float] = (2.91, 2.31, 7.7),
    size: tuple[int, int, int] = (46, 42, 11),
    lacking: tuple[int, ...] = (),
    masks: Callable[[np.ndarray], np.ndarray] = lambda labels: labels,
    series: Callable[[int], str] = lambda index: "1.2.3",
    scanner_spacing: float | None = None,
) -> Patient:
    """Write `root/Train_Sets/MR/<number>/T2SPIR`.

    lies, tilt, spacing, size: of the stored grid; no new sample lies halfway between two old ones,
    where the last bit decides a label.   masks: what is done to the labels (slices by
    place) before they are written, to do wrong.   series: identifier of
    the series of each slice.   scanner_spacing: what the header notes.
    """
    axes = direction(lies, tilt)
    middle = axes @ (np.array(spacing) * (np.array(size) - 1) / 2)
    grid = sitk.Image(list(size), sitk.sitkInt16)
    grid.SetSpacing(spacing)
    grid.SetDirection(axes.ravel().tolist())
    grid.SetOrigin((np.array([2.0, -3.0, 5.0]) - middle).tolist())
    labels = body(places(grid), lacking)
    noise = np.random.default_rng(number).normal(0, 12, labels.shape)
    bright = np.vectorize(BRIGHTNESS.get)(labels) * 1.0
    inside = (places(grid) ** 2 / np.array([75.0, 50.0, 1e9]) ** 2).sum(-1) <= 1
    image = np.where(inside, bright, 20) + noise
    image[labels.shape[0] // 2, 3, 3:9] = 3000  # a bright artefact, for the percentile
    image = image.clip(0).astype(np.int16)
    folder = root / "Train_Sets" / "MR" / str(number) / "T2SPIR"
    numbers = list(range(1, size[2] + 1))
    write_dicom(folder / "DICOM_anon", image, grid, numbers, series, scanner_spacing)
    write_masks(folder / "Ground", masks(labels), numbers)
    return Patient(image, labels, grid, folder)


def places(grid: sitk.Image) -> np.ndarray:
    """Where each voxel lies in LPS, as an array (slice, row, column, 3)."""
    indices = np.stack(np.meshgrid(*map(np.arange, grid.GetSize()), indexing="ij"), -1)
    axes = np.array(grid.GetDirection()).reshape(3, 3) * grid.GetSpacing()
    return (indices @ axes.T + grid.GetOrigin()).transpose(2, 1, 0, 3)


def write_dicom(
    folder: Path,
    image: np.ndarray,
    grid: sitk.Image,
    numbers: list[int],
    series: Callable[[int], str] = lambda index: "1.2.3",
    scanner_spacing: float | None = None,
) -> None:
    folder.mkdir(parents=True)
    volume = sitk.GetImageFromArray(image)
    volume.CopyInformation(grid)
    axes = np.array(grid.GetDirection()).reshape(3, 3)
    across, down = axes[:, 0], axes[:, 1]
    for index, number in enumerate(numbers):
        plane = volume[:, :, index : index + 1]  # in three dimensions, for its spacing is noted
        plane.SetSpacing((*grid.GetSpacing()[:2], scanner_spacing or grid.GetSpacing()[2]))
        position = volume.TransformIndexToPhysicalPoint((0, 0, index))
        tags = {
            "0008|0060": "MR",
            "0020|000d": "1.2",
            "0020|000e": series(index),
            "0020|0013": str(number),
            "0020|0032": "\\".join(f"{value:.8f}" for value in position),
            "0020|0037": "\\".join(f"{value:.10f}" for value in (*across, *down)),
            "0018|0050": f"{grid.GetSpacing()[2]:g}",
        }
        for key, value in tags.items():
            plane.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"IMG-0002-{number:05d}.dcm"))
        writer.Execute(plane)


def write_masks(folder: Path, labels: np.ndarray, numbers: list[int]) -> None:
    folder.mkdir(parents=True)
    greys = np.array([GREY[value] for value in range(5)], np.uint8)
    for plane, number in zip(labels, numbers):
        Image.fromarray(greys[plane]).save(folder / f"IMG-0002-{number:05d}.png")


def zipped(folder: Path, archive: Path) -> Path:
    """The folder, by its own name, as a zip."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as sink:
        for file in sorted(folder.rglob("*")):
            sink.write(file, file.relative_to(folder.parent))
    return archive
