"""Sources of training episodes."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fewshot_seg.data.assemble import Slice, counted, episode_from_slices
from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.candidates import Candidates, Pick
from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.data.settings import kept_slices
from fewshot_seg.data.source_checks import (
    Task,
    check_candidates,
    check_scans,
    check_shared,
    is_enough,
)
from fewshot_seg.episode import Episode
from fewshot_seg.errors import DataError


@runtime_checkable
class EpisodeSource(Protocol):
    """Anything that training can draw episodes from."""

    def episode(self, index: int) -> Episode:
        """Episode number `index` (batch axis 1). Depends on nothing but the source's arguments
        and `index`: not on the order of calls, nor on the process that calls."""
        ...

    def describe(self) -> dict[str, Any]:
        """What was drawn from and how, in plain values for the run's record."""
        ...


class SupervisedSource:
    """Episodes of annotated base classes: PANet's sampling, with slices for images.

    scans: training scans, all annotated and of one size.   classes: ids of the base classes.
    n_way, n_shot, n_query: classes, labelled slices of each class, and slices to segment.
    seed: with the episode's index it decides everything.
    augmentation: applied to every slice on its own; None leaves slices as they are.
    same_scan: "forbid" takes support and query from different scans, as at test; "allow" is the
        rule of the official codes.
    pairing: "random", or "matched": support slices come from the same third of their organ's range
        as the (first) query slice, as the parts-3 protocol pairs them at test. A query scan that
        does not show a way leaves that way's support free.
    min_pixels: a slice counts for a class from so many pixels on the network's size.
    exclude, setting: the classes held out, and which slices that costs; see `kept_slices`. Their
        pixels are background in the slices that stay.
    distinct: so many consecutive episodes (from an index that it divides) have different classes;
        set it to the episodes of a step when a loss compares classes across a step.
    shared: all ways of a shot lie on the same slice, which shows them all, as does every query
        slice (multi-class episodes); ways are then drawn from the combinations that occur.
    max_draws: how often an episode is drawn anew when slices find no partner, or when augmentation
        leaves a support mask or a query without foreground.

    Ways are drawn uniformly; one of them, also drawn, is shown by every query slice. A slice is
    drawn by scan first, so each patient counts the same.
    `redrawn` counts the draws thrown away in this process, `extras["redrawn"]` those of an episode
    (the training log has them); they influence nothing.
    `extras["query_position"]` says where in its scan each query slice lies, from 0 to 1.

    Raises OptionError, UnknownNameError or DataError when no episode could ever be drawn.
    """

    def __init__(
        self,
        scans: Sequence[PreparedScan],
        *,
        classes: Sequence[int],
        n_way: int = 1,
        n_shot: int = 1,
        n_query: int = 1,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        same_scan: str = "forbid",
        pairing: str = "random",
        min_pixels: int = 1,
        exclude: Sequence[int] = (),
        setting: str = "setting2_any",
        distinct: int = 1,
        max_draws: int = 100,
        shared: bool = False,
    ) -> None:
        self.task = Task(
            tuple(classes), n_way, n_shot, n_query, seed, same_scan, pairing, min_pixels,
            tuple(exclude), setting, distinct, max_draws, shared,
        )  # fmt: skip
        check_scans(scans, self.task)
        self.scans = tuple(scans)
        self.augmentation = augmentation
        self.redrawn = 0
        kept = [
            set(kept_slices(scan.class_slices, scan.n_slices, self.task.exclude, setting))
            for scan in scans
        ]
        self._candidates = {
            value: Candidates.collect(scans, kept, value, min_pixels) for value in classes
        }
        for value in classes:
            check_candidates(value, self._candidates[value], scans, self.task)
        self._shared = self._combinations() if shared else {}
        if shared:
            check_shared(self._shared, self.task)

    def episode(self, index: int) -> Episode:
        """Episode number `index`. Raises DataError after `max_draws` failed draws."""
        if index < 0:
            raise ValueError(f"episodes are numbered from 0; got {index}")
        generator = np.random.default_rng([self.task.seed, index])
        ways = self._ways(index)
        unpaired = vanished = 0
        while unpaired + vanished < self.task.max_draws:
            picks = self._draw(ways, generator)
            if picks is None:
                unpaired += 1
                continue
            episode = self._assemble(ways, *picks, generator)
            if _is_complete(episode):
                self.redrawn += unpaired + vanished
                return counted(episode, unpaired + vanished)
            vanished += 1
        raise DataError(
            f"episode {index} (classes {list(ways)}) was drawn {self.task.max_draws} times without "
            f"success: {unpaired} times slices found no partner, {vanished} times augmentation "
            "left a mask empty. Add scans, ask for fewer shots or queries, raise min_pixels or "
            "weaken the augmentation."
        )

    def describe(self) -> dict[str, Any]:
        """The arguments, the scans used and how many slices each class can draw from."""
        slices = {str(value): one.total for value, one in self._candidates.items()}
        found = {
            "source": "supervised",
            **{name: _plain(value) for name, value in asdict(self.task).items()},
            "scans": [scan.id for scan in self.scans],
            "slices": slices,
        }
        if self.augmentation is not None:
            strengths = asdict(self.augmentation).items()
            found["augmentation"] = {name: _plain(value) for name, value in strengths}
        return found

    def _combinations(self) -> dict[tuple[int, ...], Candidates]:
        """The classes that slices show together, with those slices."""
        found = {}
        for ways in combinations(self.task.classes, self.task.n_way):
            first, *others = (self._candidates[way] for way in ways)
            joint = first.shared_with(others)
            if is_enough(joint, self.task):
                found[ways] = joint
        return found

    def _ways(self, index: int) -> tuple[int, ...]:
        """Classes of an episode: its part of a shuffle that the `distinct` episodes share."""
        if self.task.shared:
            known = list(self._shared)
            draw = np.random.default_rng([self.task.seed, index, 1])
            return known[int(draw.integers(len(known)))]
        group, place = divmod(index, self.task.distinct)
        # the third number keeps this stream apart from every episode's own
        shuffle = np.random.default_rng([self.task.seed, group, 1])
        order = shuffle.permutation(self.task.classes).tolist()
        return tuple(order[place * self.task.n_way : (place + 1) * self.task.n_way])

    def _draw(
        self, ways: tuple[int, ...], generator: np.random.Generator
    ) -> tuple[list[list[Pick]], list[Pick]] | None:
        """Support slices of each way and query slices; None when they do not go together."""
        task = self.task
        if task.shared:
            lead = self._shared[ways]
        else:
            lead = self._candidates[ways[int(generator.integers(len(ways)))]]
        query = lead.draw(1, generator)
        if query is None:
            return None
        matched = task.pairing == "matched"
        more = lead.draw(
            task.n_query - 1,
            generator,
            third=lead.third(query[0]) if matched else None,
            without=set(query),
        )
        if more is None:
            return None
        query += more
        forbidden = {scan for scan, _ in query} if task.same_scan == "forbid" else set()
        support: list[list[Pick]] = []
        for way in ways:
            if task.shared and support:
                support.append(support[0])
                continue
            own = lead if task.shared else self._candidates[way]
            third = own.third(query[0]) if matched else None
            shots = own.draw(
                task.n_shot, generator, third=third, without_scans=forbidden, without=set(query)
            )
            if shots is None:
                return None
            support.append(shots)
        return support, query

    def _assemble(
        self,
        ways: tuple[int, ...],
        support: list[list[Pick]],
        query: list[Pick],
        generator: np.random.Generator,
    ) -> Episode:
        if self.task.shared:  # one view of the slice for all its ways
            support = support[:1]
        return episode_from_slices(
            [[self._slice(pick) for pick in shots] for shots in support],
            [self._slice(pick) for pick in query],
            ways,
            augmentation=self.augmentation,
            generator=generator,
            shared=self.task.shared,
        )

    def _slice(self, pick: Pick) -> Slice:
        return Slice(self.scans[pick[0]], pick[1])


def _is_complete(episode: Episode) -> bool:
    """Whether every support mask and every query still shows foreground."""
    assert episode.query_labels is not None
    supports = episode.support.masks.amax((-2, -1)) > 0
    queries = episode.query_labels.amax((-2, -1)) > 0
    return bool(supports.all() & queries.all())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
