"""A folder with the files of one DICOM series as a volume, checked slice by slice.

GDCM leaves out a file that it cannot read and only warns of a gap, and what comes back is a volume
that looks well. So every file must be accounted for and every slice must lie where it should.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float

from fewshot_seg.data.dicommeta import MAGIC, PREAMBLE, check_elements
from fewshot_seg.data.grid import MAX_COSINE, check_shape
from fewshot_seg.errors import DataError

SUFFIXES = (".dcm", ".dicom", ".ima")
DIRECTORY = "DICOMDIR"
"""A table of contents, which is written as DICOM too."""

SERIES = "0020|000e"
"""The key under which a file says which series it is of."""

UNEVEN = 0.05
"""How much farther apart two slices may lie than two others, as a part."""


@dataclass(frozen=True, eq=False)
class _Slice:
    """What the header of one file says.

    series: the identifier of its series, empty where it has none.
    position, direction: in LPS+ millimetres.
    """

    file: Path
    series: str
    size: tuple[int, ...]
    position: Float[np.ndarray, "3"]
    direction: Float[np.ndarray, "3 3"]


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its name or its first bytes."""
    if path.name.startswith(".") or path.name == DIRECTORY or not path.is_file():
        return False
    if path.name.lower().endswith(SUFFIXES):
        return True
    with path.open("rb") as file:
        return file.read(PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC


def read_series(folder: Path) -> sitk.Image:
    """The only DICOM series in a folder.

    Raises DataError for none or several, for a file that cannot be read, and for slices that do not
    make up one upright stack.
    """
    return read_stack(folder, stacked(folder, _only_series(folder)))


def stacked(folder: Path, files: Sequence[Path]) -> list[Path]:
    """The files of one stack, in the order of their places, which nothing else decides.

    folder: where they are, for messages. Raises DataError as `read_series` for such slices.
    """
    with _quiet():
        slices = [_header(file) for file in files]
    check_shape(folder, (*slices[0].size[:2], sum(one.size[2] for one in slices)))
    if len(slices) > 1:
        _check_stack(folder, slices)
    normal = slices[0].direction[:, 2]
    return [one.file for one in sorted(slices, key=lambda one: float(one.position @ normal))]


def read_stack(folder: Path, files: Sequence[Path]) -> sitk.Image:
    """The volume of the files that `stacked` returned. Raises DataError for damaged pixels."""
    with _quiet():
        return _pixels(folder, files)


def _only_series(folder: Path) -> list[Path]:
    for path in folder.iterdir():
        if path.is_file():  # GDCM looks into every file
            check_elements(path)
    try:
        with _quiet():
            series = {
                uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
                for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
            }
    except RuntimeError as error:
        raise DataError(_unreadable(folder, error)) from error
    listed = {Path(name).name for names in series.values() for name in names}
    lost = [path for path in sorted(folder.iterdir()) if path.name not in listed and is_dicom(path)]
    if lost:
        raise DataError(
            f"{lost[0]} cannot be read as DICOM ({len(lost)} of {len(listed) + len(lost)} files in "
            "its folder); it may be truncated. Copy or export the series again"
        )
    if not series:
        raise DataError(f"{folder} holds no DICOM series; a scan is one file, or such a folder")
    if len(series) > 1:
        told = "; ".join(f"{_described(names[0])}, {len(names)} files" for names in series.values())
        raise DataError(
            f"{folder} holds {len(series)} DICOM series, but a scan is one ({told}); "
            "move the files of each into a folder of its own"
        )
    (names,) = series.values()
    return [Path(name) for name in names]


def _header(file: Path) -> _Slice:
    check_elements(file)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError(_unreadable(file, error)) from error
    if reader.GetDimension() != 3:
        raise DataError(f"{file} has {reader.GetDimension()} axes, but a scan has three")
    return _Slice(
        file,
        reader.GetMetaData(SERIES).strip() if reader.HasMetaDataKey(SERIES) else "",
        reader.GetSize(),
        np.array(reader.GetOrigin()),
        np.array(reader.GetDirection()).reshape(3, 3),
    )


def _check_stack(folder: Path, slices: Sequence[_Slice]) -> None:
    """Raise DataError unless the slices are alike, parallel, evenly spaced and exactly stacked."""
    first = slices[0]
    # Some anonymisers give each file a series of its own, so only a few of them are too many.
    if 1 < len({one.series for one in slices}) < len(slices):
        other = next(one for one in slices if one.series != first.series)
        raise DataError(
            f"{folder}: {other.file.name} and {first.file.name} are of different DICOM series; "
            "keep the files of one series only"
        )
    for one in slices:
        if one.size != first.size:
            raise DataError(
                f"{folder}: {one.file.name} is {_size(one)} but {first.file.name} is "
                f"{_size(first)}; keep the slices of one series only"
            )
        if not np.allclose(one.direction, first.direction, rtol=0, atol=1e-2):
            raise DataError(
                f"{folder}: {one.file.name} is cut in another direction than {first.file.name}; "
                "keep the slices of one stack only (no scout, no second plane)"
            )
    normal = first.direction[:, 2]
    ordered = sorted(slices, key=lambda one: float(one.position @ normal))
    steps = np.diff([one.position for one in ordered], axis=0)
    gaps = steps @ normal
    low, high = int(gaps.argmin()), int(gaps.argmax())
    if gaps[low] < 1e-3:
        raise DataError(
            f"{folder}: {_pair(ordered, low)} lie at the same place; the series has several images "
            "of a slice (echoes, time points). Keep one of them each"
        )
    if gaps[high] > (1 + UNEVEN) * gaps[low]:
        raise DataError(
            f"{folder}: its slices are not evenly spaced; {_pair(ordered, high)} lie "
            f"{gaps[high]:.3g} mm apart, {_pair(ordered, low)} {gaps[low]:.3g} mm. A file of the "
            "series may be missing; copy or export it again"
        )
    drift = float(np.linalg.norm(steps.sum(0) - normal * gaps.sum()))
    if drift > MAX_COSINE * float(gaps.sum()):
        raise DataError(
            f"{folder}: its slices are stacked aslant ({drift:.3g} mm aside over {gaps.sum():.3g} "
            "mm), as under a tilted gantry; resample the series to an upright stack"
        )


def _pixels(folder: Path, files: Sequence[Path]) -> sitk.Image:
    try:
        if len(files) == 1:
            return sitk.ReadImage(str(files[0]))
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(file) for file in files])
        return reader.Execute()
    except RuntimeError as error:
        raise DataError(_unreadable(folder, error)) from error


def _described(name: str) -> str:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    with _quiet():
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return f"one with {Path(name).name}"
    keys = [key for key in ("0008|103e", "0008|0060") if reader.HasMetaDataKey(key)]
    words = Counter(reader.GetMetaData(key).strip() for key in keys)
    return " ".join([*words, f"with {Path(name).name}"])


def _unreadable(path: Path, error: Exception) -> str:
    return f"{path} cannot be read: {str(error).strip().splitlines()[-1].strip()}"


def _pair(ordered: Sequence[_Slice], index: int) -> str:
    return f"{ordered[index].file.name} and {ordered[index + 1].file.name}"


def _size(one: _Slice) -> str:
    return f"{one.size[1]}x{one.size[0]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without ITK's own warnings on the terminal; what they say is checked here."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
