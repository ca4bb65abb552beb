"""What training episodes look like: settings as data, and the source they describe."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.batch_augment import BatchAugmentation
from fewshot_seg.data.drawn import SECOND, WithDrawnChanges
from fewshot_seg.data.episodes import EpisodeSource, SupervisedSource
from fewshot_seg.data.extras import WithAuxiliary, WithSecondView, WithUnlabelled
from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.data.pseudo_cache import AUTO, PseudoCache
from fewshot_seg.data.registered import Registered
from fewshot_seg.data.selfsupervised import MixedSource, SuperpixelSource
from fewshot_seg.data.superpixels import pseudo_superpixels
from fewshot_seg.data.supervoxel_source import SupervoxelSource
from fewshot_seg.errors import OptionError, check_choice, did_you_mean
from fewshot_seg.typed import make

SOURCES = ("supervised", "superpixel", "supervoxel")
SELF_SUPERVISED = ("superpixel", "supervoxel")
WORDS = {"superpixel": "superpixels", "supervoxel": "supervoxels"}
COUNTS = (
    "n_way", "n_shot", "n_query", "min_pixels", "superpixel_size", "supervoxel_size",
    "unlabelled", "auxiliary",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EpisodeSettings:
    """How episodes are drawn; the schema of `Recipe.episodes`.

    source: "supervised" (labels of the base classes), "superpixel" (ALPNet: one slice twice) or
        "supervoxel" (ADNet: neighbouring slices); the last two read no label.
    pseudo: share of episodes, from 0 to below 1, that come from `pseudo_source` instead.
    pairing, same_scan, n_way, n_shot, n_query, min_pixels, shared: see `SupervisedSource`; the
        self-supervised sources are of one way and take `n_shot`, `n_query` and `min_pixels`.
    superpixel_size, supervoxel_size: pixels and voxels of the smallest, for slices of 256x256 (400;
        5000 for abdomen, 1000 for heart).
    unlabelled, auxiliary: images added to each episode for methods that need them, see
        `WithUnlabelled` and `WithAuxiliary`.
    registered: register support and query slices with the episodes (in the workers, where there
        are some) and not in the method; see `Registered`. Only rpnet makes use of it.
    augment_on: "workers" (one image after the other, where the episodes are made) or "device" (all
        images of a step at once, where the method trains; see `BatchAugmentation`).
    Raises OptionError for a value or combination that cannot work.
    """

    source: str = "supervised"
    pseudo: float = 0.0
    pseudo_source: str = "superpixel"
    pairing: str = "matched"
    same_scan: str = "forbid"
    n_way: int = 1
    n_shot: int = 1
    n_query: int = 1
    min_pixels: int = 1
    shared: bool = False
    superpixel_size: int = 400
    supervoxel_size: int = 5000
    unlabelled: int = 4
    auxiliary: int = 3
    registered: bool = False
    augment_on: str = "workers"

    def __post_init__(self) -> None:
        check_choice("source", self.source, SOURCES)
        check_choice("pseudo_source", self.pseudo_source, SELF_SUPERVISED)
        check_choice("augment_on", self.augment_on, ("workers", "device"))
        if self.registered and self.augment_on == "device":
            raise OptionError(
                "registered=true needs the changed slices where episodes are made, but "
                "augment_on='device' changes them later; leave one of the two out"
            )
        if not 0 <= self.pseudo < 1:
            raise OptionError(
                f"pseudo is a share of episodes, from 0 to below 1; got {self.pseudo}"
            )
        if self.pseudo and self.source != "supervised":
            raise OptionError(
                f"pseudo={self.pseudo} mixes episodes without labels into supervised ones, but the "
                f"source is '{self.source}', which has no labelled ones; leave pseudo out"
            )
        for name in COUNTS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise OptionError(f"{name} must be a whole number of 1 or more; got {value!r}")
        if self.n_way > 1 and (self.pseudo or self.source != "supervised"):
            raise OptionError(
                f"superpixel and supervoxel episodes have one way; they cannot be of {self.n_way}"
            )

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "EpisodeSettings":
        """Settings by name, the rest at their defaults. Raises OptionError for an unknown name
        or a value of another type."""
        known = [one.name for one in fields(cls)]
        for name in table:
            if name not in known:
                raise OptionError(
                    f"episodes have no setting '{name}'{did_you_mean(name, known)} "
                    f"They take: {', '.join(known)}."
                )
        try:
            return make(cls, table)
        except OptionError:  # which is a TypeError too
            raise
        except TypeError as error:
            raise OptionError(f"the episodes' setting {error}") from error

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def reads_labels(self) -> bool:
        """Whether any class id of the data set is trained on."""
        return self.source == "supervised"

    @property
    def words(self) -> str:
        """Where the classes of episodes come from, for a protocol; empty for labels alone."""
        if self.source != "supervised":
            return f"trained on {WORDS[self.source]} without labels"
        if self.pseudo:
            return f"{self.pseudo:.0%} of training episodes from {WORDS[self.pseudo_source]}"
        return ""


def make_source(
    scans: Sequence[PreparedScan],
    settings: EpisodeSettings,
    *,
    base: Sequence[int],
    novel: Sequence[int],
    setting: str,
    needs: Sequence[str] = (),
    seed: int = 0,
    augmentation: Augmentation | None = None,
    distinct: int = 1,
    cache: str | Path | None = AUTO,
) -> EpisodeSource:
    """The source that `settings` describe, with what the method needs of each episode.

    base, novel, setting: classes trained on and held out, and which slices that costs.
    needs: of the method, see `fewshot_seg.needs`.   distinct: see `SupervisedSource`.
    With `augment_on="device"` the images come as they are, with the changes that `on_device` makes.
    cache: folder for pseudo-labels, see `fewshot_seg.data.pseudo_cache`.
    """
    later = settings.augment_on == "device"
    wanted = Augmentation() if augmentation is None else augmentation
    chosen = Augmentation.none() if later else wanted
    held_out: dict[str, Any] = {"exclude": novel, "setting": setting}

    def drawn(inner: EpisodeSource, **rules: Any) -> EpisodeSource:
        return WithDrawnChanges(inner, wanted, seed=seed, **rules) if later else inner

    def invented(kind: str) -> EpisodeSource:
        common: dict[str, Any] = {
            "seed": seed, "augmentation": chosen, "cache": cache, **held_out,
            "n_shot": settings.n_shot, "n_query": settings.n_query,
        }  # fmt: skip
        if kind == "supervoxel":
            voxels = SupervoxelSource(scans, min_size=settings.supervoxel_size, **common)
            return drawn(voxels, one_side=voxels.augment == "one")
        size, least = settings.superpixel_size, settings.min_pixels
        pixels = SuperpixelSource(scans, min_pixels=least, min_size=size, **common)
        return drawn(pixels, least=least)

    source: EpisodeSource
    if settings.source != "supervised":
        source = invented(settings.source)
    else:
        source = SupervisedSource(
            scans,
            classes=base,
            n_way=settings.n_way,
            n_shot=settings.n_shot,
            n_query=settings.n_query,
            seed=seed,
            augmentation=chosen,
            same_scan=settings.same_scan,
            pairing=settings.pairing,
            min_pixels=settings.min_pixels,
            distinct=1 if settings.shared else distinct,
            shared=settings.shared,
            **held_out,
        )
        source = drawn(source, shared=settings.shared)
    if settings.pseudo:
        other = invented(settings.pseudo_source)
        source = MixedSource([(source, 1 - settings.pseudo), (other, settings.pseudo)], seed=seed)
    if "unlabelled" in needs:
        source = WithUnlabelled(source, scans, count=settings.unlabelled, seed=seed, **held_out)
    if "auxiliary" in needs:
        segments = pseudo_superpixels(scans, min_size=settings.superpixel_size, cache=cache)
        source = WithAuxiliary(
            source, scans, segments, count=settings.auxiliary, seed=seed, **held_out
        )
    if "second_view" in needs:
        again = second_view_of(wanted)
        if later:
            source = WithDrawnChanges(source, again, seed=seed, name=SECOND)
        else:
            source = WithSecondView(source, seed=seed, augmentation=again)
    if settings.registered:
        # slices that augmentation changes never come again, so keeping them would fill the disk
        kept = PseudoCache(cache).folder if wanted == Augmentation.none() else None
        source = Registered(source, cache=None if kept is None else kept / "registration")
    return source


def on_device(
    settings: EpisodeSettings, augmentation: Augmentation | None, needs: Sequence[str] = ()
) -> BatchAugmentation | None:
    """What `train` does to the episodes of a `make_source` of the same arguments; None: nothing."""
    if settings.augment_on != "device":
        return None
    wanted = Augmentation() if augmentation is None else augmentation
    second = second_view_of(wanted) if "second_view" in needs else None
    return BatchAugmentation(wanted, second=second, shared=settings.shared)


def second_view_of(augmentation: Augmentation) -> Augmentation:
    """How second views change: as the first, or the field's way where those do not change."""
    return augmentation if augmentation != Augmentation.none() else Augmentation()
