"""Resampling and cropping as the field's shared preparation does it (Ouyang et al., ECCV 2020).

Published numbers rest on these rules, oddities included: the new size is floor(size * old / new)
+ 1, so the last plane of an axis may lie outside the scan and be zero.
"""

from collections.abc import Iterable, Sequence
from math import floor

import numpy as np
import SimpleITK as sitk

INT16 = np.iinfo(np.int16)

SLACK = 1e-6
"""Voxels by which size * old / new may fall short of a whole number by rounding alone."""


def clip_brightest(image: sitk.Image, percent: float) -> sitk.Image:
    """The image with its brightest voxels cut to the value that `percent` of them exceed.

    Whole numbers that fit become 16-bit integers, others float32.
    """
    values = sitk.GetArrayFromImage(image)
    top = np.percentile(values, 100 - percent)
    whole = values.dtype.kind in "iu" or bool((values == np.rint(values)).all())
    fits = INT16.min <= values.min() and top <= INT16.max
    values = np.minimum(values, top).astype(np.int16 if whole and fits else np.float32)
    found = sitk.GetImageFromArray(values)
    found.CopyInformation(image)
    return found


def new_size(
    size: Sequence[int], old: Sequence[float], new: Sequence[float]
) -> tuple[int, int, int]:
    """floor(size * old / new) + 1 along (x, y, z); old, new: millimetres between voxels."""
    x, y, z = (floor(n * before / after + SLACK) + 1 for n, before, after in zip(size, old, new))
    return x, y, z


def resample(
    image: sitk.Image, labels: sitk.Image, spacing: tuple[float, float, float]
) -> tuple[sitk.Image, sitk.Image]:
    """Both on voxels of `spacing` millimetres along (x, y, z), origin and direction kept.

    Of the image see `resample_image`, of labels `resample_labels`.
    """
    return resample_image(image, spacing), resample_labels(labels, spacing)


def resample_image(image: sitk.Image, spacing: tuple[float, float, float]) -> sitk.Image:
    """Linear interpolation in the image's own pixel type, 0 outside.

    Whole numbers lose their fractions, as they did in every published copy.
    """
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(new_size(image.GetSize(), image.GetSpacing(), spacing))
    resampler.SetOutputSpacing(spacing)
    resampler.SetOutputOrigin(image.GetOrigin())
    resampler.SetOutputDirection(image.GetDirection())
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetNumberOfThreads(1)  # scans are prepared side by side already
    return resampler.Execute(image)


def resample_labels(labels: sitk.Image, spacing: tuple[float, float, float]) -> sitk.Image:
    """Each class mask linear and kept above 0.5, written in increasing order of ids; 8 bits."""
    ids = sitk.GetArrayFromImage(labels)
    result = None
    for value in np.unique(ids):
        mask = sitk.GetImageFromArray((ids == value).astype(np.float32))
        mask.CopyInformation(labels)
        resampled = resample_image(mask, spacing)
        if result is None:
            result = np.zeros(resampled.GetSize()[::-1], np.uint8)
        result[sitk.GetArrayViewFromImage(resampled) > 0.5] = value
    found = sitk.GetImageFromArray(result)
    found.CopyInformation(resampled)
    return found


def centre_crop_pad(image: sitk.Image, size: tuple[int, int], value: int | float) -> sitk.Image:
    """`size` (x, y) pixels in plane, with pixel dim // 2 of each axis at size // 2.

    value: of padded pixels. The origin moves along, so every voxel keeps its place.
    """
    starts = [old // 2 - new // 2 for old, new in zip(image.GetSize(), size)]
    ends = [old - start - new for old, new, start in zip(image.GetSize(), size, starts)]
    padded = sitk.ConstantPad(
        image, [*_above(-start for start in starts), 0], [*_above(-end for end in ends), 0], value
    )
    return sitk.Crop(padded, [*_above(starts), 0], [*_above(ends), 0])


def _above(numbers: Iterable[int]) -> list[int]:
    return [max(number, 0) for number in numbers]
