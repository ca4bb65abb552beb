"""Refusing, before training starts, what could never give an episode."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from fewshot_seg.data.candidates import Candidates
from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.data.settings import check_setting
from fewshot_seg.errors import DataError, OptionError, did_you_mean

CHOICES = {"same_scan": ("forbid", "allow"), "pairing": ("random", "matched")}


@dataclass(frozen=True)
class Task:
    """What a supervised episode is to look like; the meaning stands at `SupervisedSource`.

    Raises OptionError or UnknownNameError for values that no data could satisfy.
    """

    classes: tuple[int, ...]
    n_way: int
    n_shot: int
    n_query: int
    seed: int
    same_scan: str
    pairing: str
    min_pixels: int
    exclude: tuple[int, ...]
    setting: str
    distinct: int
    max_draws: int
    shared: bool = False

    def __post_init__(self) -> None:
        for name in ("n_way", "n_shot", "n_query", "min_pixels", "distinct", "max_draws"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.seed < 0:
            raise OptionError(f"seed must be 0 or more; got {self.seed}")
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                hint = did_you_mean(value, known) or "."
                raise OptionError(f"{name} '{value}' is unknown{hint} Known: {', '.join(known)}.")
        if self.shared and self.distinct > 1:
            raise OptionError(
                f"shared ways are drawn together, so distinct must be 1; got {self.distinct}"
            )
        check_setting(self.setting, self.exclude)
        self._check_classes()

    def _check_classes(self) -> None:
        if len(set(self.classes)) != len(self.classes) or any(one < 1 for one in self.classes):
            raise OptionError(
                "classes must be different ids of 1 or more (0 is background); "
                f"got {list(self.classes)}"
            )
        both = sorted(set(self.classes) & set(self.exclude))
        if both:
            raise OptionError(f"class ids {both} are both trained on and held out (exclude)")
        needed = self.n_way * self.distinct
        if needed > len(self.classes):
            raise OptionError(
                f"{self.n_way} way(s) in {self.distinct} episode(s) of different classes need "
                f"{needed} base classes; got {len(self.classes)}: {list(self.classes)}. Ask for "
                "fewer ways or a smaller `distinct`."
            )


def check_scans(scans: Sequence[PreparedScan], task: Task) -> None:
    """Raises DataError for scans that cannot train together."""
    if not scans:
        raise DataError("there is no training scan")
    ids = [scan.id for scan in scans]
    twice = sorted({one for one in ids if ids.count(one) > 1})
    if twice:
        raise DataError(f"training scans must differ; given twice: {', '.join(twice)}")
    first = scans[0]
    for scan in scans:
        if scan.labels is None:
            raise DataError(
                f"scan {scan.id} has no labels. Supervised episodes need them: leave it out."
            )
        if scan.images.shape[1:] != first.images.shape[1:]:
            raise DataError(
                f"scan {scan.id} is {tuple(scan.images.shape[1:])} (channel, height, width) but "
                f"scan {first.id} is {tuple(first.images.shape[1:])}. Prepare all scans with one "
                "size and number of channels."
            )
    unseen = sorted(set(task.exclude) - _shown(scans))
    if unseen:
        raise DataError(
            f"the held-out class ids {unseen} appear in none of the {len(scans)} training scans, "
            f"which show {sorted(_shown(scans))}. Correct the ids, or hold out nothing if that is "
            "what you want."
        )


def check_candidates(
    class_id: int, candidates: Candidates, scans: Sequence[PreparedScan], task: Task
) -> None:
    """Raises DataError when no episode with this class can be drawn."""
    if not candidates.total:
        raise DataError(_nothing(class_id, candidates, scans, task))
    if is_enough(candidates, task):
        return
    where = (
        ", always from the same third of its range (pairing 'matched')"
        if task.pairing == "matched"
        else ""
    )
    allowed = task.same_scan == "allow"
    raise DataError(
        f"class {class_id} is shown by {candidates.total} usable slice(s) of "
        f"{len(candidates.pool)} training scan(s). {task.n_shot} shot(s) and {task.n_query} "
        f"query slice(s){'' if allowed else ' from different scans'} cannot be drawn from "
        f"them{where}. Add scans, ask for fewer shots"
        + ("." if allowed else ", or set same_scan='allow'.")
    )


def is_enough(candidates: Candidates, task: Task) -> bool:
    """Whether support and query of an episode can be drawn from these slices."""
    pools = candidates.thirds if task.pairing == "matched" else [candidates.pool]
    return any(_enough(pool, task) for pool in pools)


def check_shared(combinations: Collection[object], task: Task) -> None:
    """Raises DataError when no slices show as many classes at once as episodes of shared ways."""
    if not combinations:
        raise DataError(
            f"no {task.n_way} of the base classes {list(task.classes)} are ever shown together by "
            "enough slices for an episode whose ways share their slices. Ask for fewer ways, set "
            "shared=False, or add scans."
        )


def _enough(pool: Mapping[int, Sequence[int]], task: Task) -> bool:
    """Whether some scans can give the queries while the rest can give the shots."""
    sizes = sorted(len(slices) for slices in pool.values())
    total = sum(sizes)
    if task.same_scan == "allow":
        return total >= task.n_query + task.n_shot
    if len(sizes) >= task.n_query + task.n_shot:
        return True
    reachable = {0}  # how many slices a group of scans can hold, over all groups
    for size in sizes:
        reachable |= {held + size for held in reachable}
    return any(held >= task.n_query and total - held >= task.n_shot for held in reachable)


def _nothing(
    class_id: int, candidates: Candidates, scans: Sequence[PreparedScan], task: Task
) -> str:
    if not candidates.ranges:
        return (
            f"class {class_id} appears in none of the {len(scans)} training scans, which show "
            f"{sorted(_shown(scans))}"
        )
    return (
        f"class {class_id} is shown by {len(candidates.ranges)} training scan(s), but no slice is "
        f"left: each has fewer than {task.min_pixels} pixel(s) of it on the network's size, or is "
        f"dropped because it shows a held-out class (exclude={list(task.exclude)}, setting "
        f"'{task.setting}'). Lower min_pixels, prepare at a larger size, or use another setting."
    )


def _shown(scans: Sequence[PreparedScan]) -> set[int]:
    return {value for scan in scans for value in scan.class_slices}
