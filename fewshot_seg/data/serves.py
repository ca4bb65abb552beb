"""Which experiments a data set can serve: folds, and slices left under each training setting."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fewshot_seg.data.facts import ScanRow
from fewshot_seg.data.folds import Fold, make_folds
from fewshot_seg.data.settings import SETTINGS, kept_slices

FOLDS = 5
"""The field's number of folds; a smaller set is cut in as many as it has scans."""
FEWEST = 3
"""Scans of a cross-validation: one to train on, one as the example, one to test."""


@dataclass(frozen=True)
class HeldOut:
    """What is left to train on when these classes are tested.

    classes: ids.   slices: setting -> training slices left, fold by fold; a setting that does not
        apply to so many classes is left out.
    untestable: folds whose support scan does not show all of the classes.
    """

    classes: tuple[int, ...]
    slices: Mapping[str, tuple[int, ...]]
    untestable: tuple[int, ...]


@dataclass(frozen=True)
class Serves:
    """The experiments that a data set can serve.

    folds: empty when there are too few scans.   held_out: one entry for each class or group.
    train_slices: of the training scans, fold by fold.
    pseudo: kinds of pseudo-label that training without labels can use.
    """

    folds: tuple[Fold, ...] = ()
    held_out: tuple[HeldOut, ...] = ()
    train_slices: tuple[int, ...] = ()
    pseudo: tuple[str, ...] = ()


def serves(
    rows: Sequence[ScanRow],
    classes: Mapping[int, str],
    groups: Sequence[tuple[int, ...]] = (),
) -> Serves:
    """The experiments for a data set of these scans, in its order.

    groups: classes that are tested together; each by itself unless given.
    """
    usable = {row.id: row for row in rows if row.error is None and row.shape is not None}
    if not usable:
        return Serves()
    stacks = any(row.shape is not None and row.shape[0] > 1 for row in usable.values())
    pseudo = ("superpixel", "supervoxel") if stacks else ("superpixel",)
    seen = {value for row in usable.values() for value in row.shown or ()}
    if len(rows) < FEWEST:
        return Serves(pseudo=pseudo)
    folds = make_folds([row.id for row in rows], n_folds=min(FOLDS, len(rows)))
    given = groups or [(value,) for value in classes if value in seen]
    return Serves(
        folds=folds,
        held_out=tuple(_held_out(group, folds, usable, len(seen)) for group in given),
        train_slices=tuple(sum(_depth(row) for row in _trained(fold, usable)) for fold in folds),
        pseudo=pseudo,
    )


def _held_out(
    group: tuple[int, ...], folds: Sequence[Fold], usable: Mapping[str, ScanRow], n_classes: int
) -> HeldOut:
    slices = {
        setting: tuple(_kept(group, fold, usable, setting) for fold in folds)
        for setting in SETTINGS
        # Leaving one organ out needs another to learn from.
        if setting != "leave_one_organ" or (len(group) == 1 and n_classes > 1)
    }
    untestable = tuple(
        fold.index
        for fold in folds
        for scan_id in fold.support
        if scan_id in usable and not set(group) <= set(usable[scan_id].shown or ())
    )
    return HeldOut(group, slices, untestable)


def _kept(group: tuple[int, ...], fold: Fold, usable: Mapping[str, ScanRow], setting: str) -> int:
    return sum(
        len(kept_slices(row.shown or {}, _depth(row), group, setting))
        for row in _trained(fold, usable)
    )


def _trained(fold: Fold, usable: Mapping[str, ScanRow]) -> Iterator[ScanRow]:
    return (usable[scan_id] for scan_id in fold.train if scan_id in usable)


def _depth(row: ScanRow) -> int:
    assert row.shape is not None
    return row.shape[0]
