"""The benchmarks that can be prepared from their download, and what preparing one takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePosixPath
from typing import Protocol, runtime_checkable

import SimpleITK as sitk

from fewshot_seg.data.raw.tree import RawTree
from fewshot_seg.errors import UnknownNameError, did_you_mean

RAW_SETS: Mapping[str, str] = {
    "chaos-t2": "fewshot_seg.data.raw.chaos:ChaosT2",
    "synapse": "fewshot_seg.data.raw.synapse:Synapse",
    "ms-cmrseg": "fewshot_seg.data.raw.cmr:MSCMRSeg",
}
"""Where each set's class is; it is imported when somebody asks for it."""


@dataclass(frozen=True)
class RawScan:
    """One scan's files in the tree, in the order in which `convert` reads them.

    id: of the prepared scan, as in `image_<id>.nii.gz`.
    """

    id: str
    image: tuple[PurePosixPath, ...]
    labels: tuple[PurePosixPath, ...]


@dataclass(frozen=True, eq=False)
class Converted:
    """A prepared scan on one grid, written as it is.

    image: in the pixel type to store.   labels: unsigned 8-bit class ids.
    notes: what a user should know about this scan, for the report and `dataset.json`.
    """

    image: sitk.Image
    labels: sitk.Image
    notes: tuple[str, ...] = ()


@runtime_checkable
class RawSet(Protocol):
    """A benchmark; its class takes no arguments and keeps no state (it is made in each process).

    name: as in RAW_SETS.   title: for people and `dataset.json`.
    folder: the name of the prepared folder, which is the field's own.
    modality: as `dataset.json` says it, "MR T2-SPIR" say; must tell "mr" from "ct" to
        `read_manifest`.   classes: id -> name, without background.
    version: to be raised whenever prepared voxels change.
    expected: the ids of all scans with labels, as RawScan has them.
    """

    name: str
    title: str
    folder: str
    modality: str
    classes: Mapping[int, str]
    version: int
    expected: tuple[str, ...]

    def find(self, tree: RawTree) -> list[RawScan]:
        """The scans of a download, in the order of `expected`.

        A scan that is damaged (a file too few, say) is listed all the same and refused by
        `convert`. Raises DataError, naming file and remedy, when this is another download.
        """
        ...

    def convert(self, tree: RawTree, scan: RawScan) -> Converted:
        """Prepare one scan. Raises DataError, naming file and remedy, when it cannot be used."""
        ...


def raw_set(name: str) -> RawSet:
    """The set of that name. Raises UnknownNameError."""
    if name not in RAW_SETS:
        raise UnknownNameError(
            f"unknown benchmark '{name}'{did_you_mean(name, RAW_SETS) or '.'} "
            f"It is one of: {', '.join(RAW_SETS)}"
        )
    module, _, attribute = RAW_SETS[name].partition(":")
    made: RawSet = getattr(import_module(module), attribute)()
    return made
