"""Data sets and methods from the words of a command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewshot_seg.building import recipe_of
from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.scan import Dataset
from fewshot_seg.errors import DataError, OptionError, UnknownNameError, did_you_mean
from fewshot_seg.overrides import apply
from fewshot_seg.recipe import Recipe
from fewshot_seg.registry import Registry


def open_dataset(source: str, **options: Any) -> Dataset:
    """A data set by its registered name, or the folder of that path.

    options: of the data set, for example `n_scans` of `phantom_abdomen`, `layout` of a folder.
    Raises DataError when it is neither; OptionError for options that it does not take.
    """
    registry = Registry("dataset")
    known = [name for name in registry.names() if name != "folder"]
    if source in known:
        name, given = source, options
    elif Path(source).exists():
        name, given = "folder", {"root": source, **options}
    else:
        raise DataError(
            f"'{source}' is neither a folder nor a data set{did_you_mean(source, known) or '.'} "
            f"Data sets by name: {', '.join(known)}."
        )
    try:
        dataset: Dataset = registry.build(name, **given)
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise OptionError(str(error)) from error
    return dataset


def resolve_recipe(method: str | Recipe | Path, changes: Mapping[str, Any]) -> Recipe:
    """A registered method, recipe or recipe file with `build`'s overrides applied to its data.

    Raises OptionError and UnknownNameError as `build` does.
    """
    return apply(recipe_of(method), changes).recipe


AUGMENTATIONS = ("field", "strong", "none")


def augmentation_named(name: str) -> Augmentation:
    """ "field" (Ouyang et al.), "strong" or "none". Raises UnknownNameError."""
    if name not in AUGMENTATIONS:
        hint = did_you_mean(name, AUGMENTATIONS) or "."
        raise UnknownNameError(
            f"unknown augmentation '{name}'{hint} Known: {', '.join(AUGMENTATIONS)}."
        )
    if name == "field":
        return Augmentation()
    return Augmentation.strong() if name == "strong" else Augmentation.none()
