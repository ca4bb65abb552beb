"""The parts of a study whose scores may stand in one table, each with its statistics."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import pandas as pd

from fewshot_seg.ablation.report.logs import Logs, training_logs
from fewshot_seg.ablation.statistics import paired, ranks, signs, summary
from fewshot_seg.ablation.study import Study
from fewshot_seg.evaluation.protocol import Protocol

MEAN = "mean"
"""Stands for all classes where a class name is asked for."""
NAMED = 10
"""Variants that a line names, before it only counts them."""


@dataclass(frozen=True, eq=False)
class Group:
    """Scores under one protocol and one version of the data.

    key: short hash of the protocol.   words: how it differs from the study's other groups, empty
    for the only one.   scores, cells: see `Study`; those of this group.
    """

    study: Study
    key: str
    data_version: str
    words: str
    scores: pd.DataFrame
    cells: pd.DataFrame

    @property
    def protocol(self) -> Protocol:
        return self.study.protocols[self.key]

    @property
    def slug(self) -> str:
        """For file names; empty for the only group."""
        return file_name(f"{self.key}-{self.data_version}") if self.words else ""

    @property
    def note(self) -> str:
        """The protocol and the data's version, for under a table or figure."""
        return f"{self.protocol.describe()}\nData version {self.data_version}."

    @property
    def origin(self) -> Mapping[str, str]:
        """For the lines of CSV files."""
        return {"protocol": self.key, "data_version": self.data_version}

    @cached_property
    def variants(self) -> tuple[str, ...]:
        """Those with scores, in the grid's order."""
        scored = set(self.scores["variant"])
        return tuple(name for name in self.study.variants if name in scored)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.scores["class_name"].unique())

    @property
    def reference(self) -> str | None:
        """The variant that others are compared with; None when it has no scores."""
        return self.study.reference if self.study.reference in self.variants else None

    @property
    def reconstructed(self) -> frozenset[str]:
        """Variants whose method is no reproduction of its paper."""
        marked = self.scores["status"].astype(str).str.startswith("RECONSTRUCTED")
        return frozenset(self.scores.loc[marked, "variant"])

    @cached_property
    def labels(self) -> pd.DataFrame:
        """variant x axis -> label, for axes that give every variant one label."""
        axes = [axis for axis in self.study.axes if axis != "variant"]
        by_variant = self.scores[["variant", *axes]].drop_duplicates().groupby("variant")
        single = [axis for axis in axes if (by_variant[axis].nunique() == 1).all()]
        return by_variant[single].first().reindex(list(self.variants))

    @cached_property
    def summary(self) -> pd.DataFrame:
        """`statistics.summary`, a row for each (variant, class name or "mean")."""
        return summary(self.scores).set_index(["variant", "class_name"])

    @cached_property
    def means(self) -> pd.DataFrame:
        """The rows of `summary` for all classes together, by variant in the grid's order."""
        return self.summary.xs(MEAN, level="class_name").reindex(list(self.variants))

    @cached_property
    def complete(self) -> frozenset[str]:
        """Variants with as many classes and runs as any other: whose means can be compared."""
        counts = self.means[["n_classes", "n_runs"]]
        return frozenset(self.means.index[(counts == counts.max()).all(axis=1)])

    @cached_property
    def ranking(self) -> tuple[str, ...]:
        """Variants by their mean Dice, best first; those that are not `complete` come last."""
        ordered = self.means.sort_values("mean", ascending=False, kind="stable").index
        return tuple(sorted(ordered, key=lambda name: name not in self.complete))

    @property
    def gaps(self) -> tuple[str, ...]:
        """Lines that name the variants whose means cannot be compared with the others'."""
        lines = []
        for key, what in (("n_classes", "classes"), ("n_runs", "runs")):
            counts = self.means[key]
            short = [name for name in self.variants if counts[name] < counts.max()]
            if short:
                told = [f"{name} ({int(counts[name])})" for name in short[:NAMED]]
                more = [f"{len(short) - NAMED} more"] if len(short) > NAMED else []
                lines.append(
                    f"Means not comparable with the rest, which have {int(counts.max())} {what}: "
                    f"{', '.join([*told, *more])}."
                )
        return tuple(lines)

    @cached_property
    def paired(self) -> pd.DataFrame | None:
        """`statistics.paired` by variant; None without a reference."""
        if self.reference is None:
            return None
        return paired(self.scores, self.reference).set_index("variant")

    @cached_property
    def ranks(self) -> pd.DataFrame:
        """`statistics.ranks`: mean rank and critical difference by variant."""
        return ranks(self.scores)

    @cached_property
    def signs(self) -> pd.DataFrame | None:
        """`statistics.signs`; None when the paper has no number for the reference."""
        if self.study.reference not in self.study.paper:
            return None
        return signs(self.scores, self.study.paper, self.study.reference)

    @cached_property
    def logs(self) -> Logs:
        """`training_logs` of the best variants, in the grid's order."""
        found = training_logs(self.study.folder, self.cells, self.ranking)
        return {variant: found[variant] for variant in self.variants if variant in found}


def file_name(words: str) -> str:
    """Words as a part of a file's name that leads to no other folder."""
    return re.sub(r"[^\w-]+", "_", words)


def groups(study: Study) -> tuple[Group, ...]:
    """A group for each protocol and data version that has scores, in the order of the scores."""
    keys = study.scores[["protocol", "data_version"]].drop_duplicates()
    pairs = list(keys.itertuples(index=False, name=None))
    return tuple(
        Group(
            study=study,
            key=protocol,
            data_version=version,
            words=_words(study, protocol, version, pairs),
            scores=_of(study.scores, protocol, version),
            cells=_of(study.cells, protocol, version),
        )
        for protocol, version in pairs
    )


def _of(frame: pd.DataFrame, protocol: str, version: str) -> pd.DataFrame:
    return frame[(frame["protocol"] == protocol) & (frame["data_version"] == version)]


def _words(study: Study, protocol: str, version: str, pairs: list[tuple[str, str]]) -> str:
    """The rules in which this group differs from any other: `dataset chaos, matching parts-3`."""
    if len(pairs) == 1:
        return ""
    own = study.protocols[protocol]
    others = [study.protocols[key] for key, _ in pairs]
    differ = {name for other in others for name in own.differences(other)}
    told = [
        f"{field.name.replace('_', ' ')} {_plain(getattr(own, field.name))}"
        for field in fields(own)
        if field.name in differ
    ]
    if len({one for key, one in pairs if key == protocol}) > 1:
        told.append(f"data version {version}")
    return ", ".join(told)


def _plain(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
