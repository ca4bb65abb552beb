"""One cell of a grid: a method trained and tested once, addressed by all that decides its score."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from fewshot_seg.ablation.request import TEST_ONLY, Protocols
from fewshot_seg.recipe import Recipe

FORMAT = 1
KEPT = ("predictions", "features")
"""Settings that say what is kept beside the scores, and change none of them."""
HARMLESS = ("workers", "log_every", "checkpoint_every")
"""Training settings that do not touch the weights."""
ID_LETTERS = 16


@dataclass(frozen=True)
class Cell:
    """What is trained, on what, and how it is judged.

    variant: the row of a table.   labels: axis -> label.
    recipe: with all overrides applied.   test: further overrides at evaluation alone.
    protocol: of one fold, one seed and one group of classes.
    data: the grid's name of the data set.   data_version: hash of its files.
    """

    variant: str
    labels: Mapping[str, str]
    recipe: Recipe
    protocol: Protocols
    data: str
    data_version: str
    test: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fold(self) -> int:
        return self.protocol.folds[0]

    @property
    def seed(self) -> int:
        return self.protocol.seeds[0]

    @property
    def novel(self) -> tuple[str, ...]:
        return self.protocol.groups[0]

    @cached_property
    def training(self) -> str:
        """Address of the training, which cells that differ only at test share."""
        rules = {
            name: value for name, value in vars(self.protocol).items() if name not in TEST_ONLY
        }
        recipe = self.recipe.to_dict()
        settings = recipe.get("training", {})
        recipe["training"] = {k: v for k, v in settings.items() if k not in HARMLESS}
        return _hash({"recipe": recipe, "protocol": rules, "data": self.data_version})

    @cached_property
    def id(self) -> str:
        """Address of the cell, the same on every machine."""
        rules = {name: getattr(self.protocol, name) for name in TEST_ONLY if name not in KEPT}
        return _hash({"training": self.training, "test": dict(self.test), "protocol": rules})

    @property
    def words(self) -> str:
        """For people: `FEM+SCL, liver, fold 0, seed 0`."""
        data = f"{self.data}, " if self.data else ""
        return f"{self.variant}, {data}{'+'.join(self.novel)}, fold {self.fold}, seed {self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, the addresses with it."""
        return {
            "id": self.id,
            "training": self.training,
            "variant": self.variant,
            "labels": dict(self.labels),
            "method": self.recipe.method,
            "recipe": self.recipe.to_dict(),
            "test": dict(self.test),
            "data": self.data,
            "data_version": self.data_version,
            "fold": self.fold,
            "seed": self.seed,
            "novel": list(self.novel),
            "protocol": asdict(self.protocol),
        }


def _hash(what: Mapping[str, Any]) -> str:
    text = json.dumps({"format": FORMAT, **what}, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LETTERS]
