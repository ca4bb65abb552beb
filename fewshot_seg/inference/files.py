"""Scans in and label files out, volumes and pictures alike."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from fewshot_seg.data.nifti import read_scan, stem, write_labels
from fewshot_seg.data.orientation import reorient, restore, same_slicing
from fewshot_seg.data.pictures import is_picture, read_picture, write_picture_labels
from fewshot_seg.data.scan import Scan
from fewshot_seg.data.volume import THICK
from fewshot_seg.errors import DataError, OptionError

ENDING = "_seg"
"""Stands behind a scan's name in its label file's, so that the one can never replace the other."""

Labels = Integer[np.ndarray, "slice height width"]


def read(image: Path, labels: Path | None = None) -> Scan:
    """A volume or a picture. Raises DataError, naming the file."""
    return read_picture(image, labels) if is_picture(image) else read_scan(image, labels)


def output_path(query: Path, out: Path, name: str | None = None) -> Path:
    """The file that a scan's labels go to: `<name>_seg.nii.gz`, or `.png` for a picture.

    name: the file's own, without its ending, unless given.
    """
    ending = ".png" if is_picture(query) else ".nii.gz"
    return out / f"{stem(query) if name is None else name}{ENDING}{ending}"


def output_paths(queries: Sequence[Path] | Mapping[str, Path], out: Path) -> dict[Path, Path]:
    """Scan to the file of its labels, see `output_path`; the names are those of a mapping.

    Raises OptionError when there is no scan, or when two would write the same file.
    """
    if not queries:
        raise OptionError("no scan to segment was given")
    if isinstance(queries, Mapping):
        return {query: output_path(query, out, name) for name, query in queries.items()}
    counts = Counter(output_path(query, out) for query in queries)
    twice = [path for path, count in counts.items() if count > 1]
    if twice:
        both = [str(query) for query in queries if output_path(query, out) == twice[0]]
        raise OptionError(
            f"{' and '.join(both)} would both be written to {twice[0]}; "
            "segment them into different folders"
        )
    return {query: output_path(query, out) for query in queries}


def seen_like(query: Scan, support: Scan) -> tuple[Scan, tuple[str, ...]]:
    """The query cut and turned as the labelled scan is, and notes about it.

    It is cut anew where the two are cut along different axes, except a stack of thick slices:
    that is only turned, as cutting it across would leave stripes for images.
    Raises DataError when one is a volume and the other a picture.
    """
    if (query.geometry is None) != (support.geometry is None):
        kinds = ["picture" if one.geometry is None else "volume" for one in (query, support)]
        raise DataError(
            f"scan {query.id} is a {kinds[0]} but the labelled scan {support.id} is a {kinds[1]}; "
            "label one of the same kind"
        )
    if query.geometry is None or support.geometry is None:
        return query, ()
    if same_slicing(query.geometry, support.geometry):
        return reorient(query, support.geometry), ()
    thick, height, width = query.geometry.spacing
    if query.geometry.shape[query.geometry.slice_axis] == 1 or thick > THICK * max(height, width):
        note = "its slices run in another direction than the labelled scan's, and were kept"
        return reorient(query, support.geometry, keep_slices=True), (note,)
    return reorient(query, support.geometry), ("was cut anew in the labelled scan's direction",)


def write(path: Path, labels: Labels, *, seen: Scan, original: Scan, source: Path) -> None:
    """Write the labels of `seen` on the grid of `original`, which was read from `source`."""
    if original.geometry is None:
        write_picture_labels(path, labels)
        return
    own = restore(labels, seen=seen, original=original)
    write_labels(path, own, original.geometry, header_from=source)
