"""Scores with their protocol and provenance: summaries, files, and putting runs together."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.errors import DataError
from fewshot_seg.evaluation.files import json_bytes, plain, scan_score, unscored, write_csv
from fewshot_seg.evaluation.protocol import Protocol
from fewshot_seg.evaluation.scores import FoldScores, ScanScore, Unscored
from fewshot_seg.evaluation.summary import ClassSummary, Metric, fold_mean, summarise
from fewshot_seg.evaluation.table import results_table
from fewshot_seg.parsing import parse_json
from fewshot_seg.typed import make

FORMAT = 1


@dataclass(frozen=True)
class Results:
    """The scores of an evaluation, the rules they were obtained under, and their origin.

    name: of what was evaluated, for tables.   provenance: see `provenance.provenance`.
    """

    protocol: Protocol
    scores: FoldScores
    name: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[ScanScore, ...]:
        return self.scores.rows

    @property
    def failures(self) -> tuple[Unscored, ...]:
        return self.scores.failures

    @property
    def skipped(self) -> tuple[Unscored, ...]:
        return self.scores.skipped

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that were asked for, in the order of evaluation."""
        told: list[ScanScore | Unscored] = [*self.rows, *self.failures, *self.skipped]
        return tuple(dict.fromkeys(entry.class_name for entry in told))

    def summary(self) -> dict[str, ClassSummary]:
        """Mean, spread and counts of each class."""
        return {
            name: summarise(
                [row for row in self.rows if row.class_name == name],
                n_failed=sum(entry.class_name == name for entry in self.failures),
                n_skipped=sum(entry.class_name == name for entry in self.skipped),
            )
            for name in self.classes
        }

    def mean(
        self,
        class_name: str | None = None,
        *,
        metric: Metric = "dice",
        fold: int | None = None,
    ) -> float:
        """The mean over query scans, then folds (and seeds), then classes; NaN without any value.

        class_name, fold: restrict to one.
        Raises KeyError for a class that was not evaluated.
        """
        if class_name is not None and class_name not in self.classes:
            raise KeyError(f"no class '{class_name}' in these results: {', '.join(self.classes)}")
        names = self.classes if class_name is None else (class_name,)
        rows = [row for row in self.rows if fold is None or row.fold == fold]
        means = [fold_mean([row for row in rows if row.class_name == n], metric) for n in names]
        known = [value for value in means if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan

    def table(self) -> Table:
        """A rich table: a row for each class and one for their mean, the protocol under it."""
        return results_table(self.name, self.summary(), self.protocol, self.provenance)

    def merge(self, other: "Results") -> "Results":
        """Both results as one, for example folds that were run apart.

        Raises ValueError when the protocols differ in more than folds and seeds, when the names
        differ, or when a score stands in both.
        """
        if self.name != other.name:
            raise ValueError(f"results of '{self.name}' and '{other.name}' are different methods")
        protocol = self.protocol.joined(other.protocol)
        if double := {row.key for row in self.rows} & {row.key for row in other.rows}:
            seed, fold, class_name, scan = min(double)
            raise ValueError(
                f"{len(double)} scores stand in both results, for example "
                f"{class_name} of scan {scan} in fold {fold}, seed {seed}"
            )
        origin = _joined(self.provenance, other.provenance)
        return Results(protocol, self.scores + other.scores, self.name, origin)

    def to_json(self, path: Path | str) -> None:
        """Write a file that `from_json` reads; whole or not at all."""
        write_bytes(Path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """What `to_json` writes."""
        scores = {name: list(map(plain, entries)) for name, entries in vars(self.scores).items()}
        head = {"format": FORMAT, "name": self.name, "protocol": self.protocol.to_dict()}
        return json_bytes({**head, "provenance": dict(self.provenance), **scores})

    @classmethod
    def from_json(cls, path: Path | str) -> "Results":
        """Results that `to_json` wrote. Raises DataError when the file does not hold any."""
        path = Path(path)
        try:
            data = parse_json(path.read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']!r} instead of {FORMAT}")
            scores = FoldScores(
                tuple(scan_score(entry) for entry in data["rows"]),
                tuple(unscored(entry) for entry in data["failures"]),
                tuple(unscored(entry) for entry in data["skipped"]),
            )
            protocol = Protocol.from_dict(data["protocol"])
            head = {name: data[name] for name in ("name", "provenance")}
            return make(cls, {**head, "protocol": protocol, "scores": scores})
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is not a results file of this version ({error!r}); "
                "write it again with Results.to_json"
            ) from error

    def to_csv(self, path: Path | str) -> None:
        """Write one line a score, for spreadsheets; the protocol's matching stands in each."""
        write_csv(Path(path), self.rows, self.protocol.matching)


def _joined(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Both origins: where they differ, one after the other."""
    return {
        name: " | ".join(dict.fromkeys(own[name] for own in (first, second) if name in own))
        for name in dict.fromkeys((*first, *second))
    }
