"""What a checkpoint must tell of its training, so that testing needs nothing else."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fewshot_seg.building import LARGEST_IMAGE
from fewshot_seg.checkpoint import read_header
from fewshot_seg.data.folds import Fold, make_folds
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.scan import Dataset
from fewshot_seg.errors import CheckpointError, OptionError
from fewshot_seg.typed import make

FINAL = "final.safetensors"


@dataclass(frozen=True, kw_only=True)
class RunNotes:
    """The protocol of a training run, written into its checkpoints.

    dataset, modality, classes, ids: what the data set said of itself.
    novel, base: ids of the classes held out and trained on.
    fold, n_folds, n_support, fold_rule: see `make_folds`.   setting: see `kept_slices`.
    size: height and width of the images.   intensity: their normalisation.
    window: within which intensities were fitted and clipped, None without.
    episodes: where the classes of training episodes came from, if not from labels alone.
    """

    dataset: str
    modality: str
    classes: Mapping[int, str]
    ids: tuple[str, ...]
    novel: tuple[int, ...]
    base: tuple[int, ...]
    fold: int
    n_folds: int
    n_support: int
    fold_rule: str
    setting: str
    size: tuple[int, int]
    channels: int
    intensity: Intensity
    window: tuple[float, float] | None
    seed: int
    episodes: str = ""

    @property
    def setting_rule(self) -> str:
        """What training was allowed to see, in words."""
        return f"{self.setting}, {self.episodes}" if self.episodes else self.setting

    @property
    def novel_names(self) -> tuple[str, ...]:
        return tuple(self.classes[value] for value in self.novel)

    @property
    def intensity_rule(self) -> str:
        """The normalisation in words: the same for every fold, though its numbers may differ."""
        words = "z-score of each scan"
        if self.intensity.mean is not None:
            words = "mean and standard deviation of the training scans"
        return (
            words
            if self.window is None
            else f"{words} within {self.window[0]:g} to {self.window[1]:g}"
        )

    def fold_of(self, dataset: Dataset) -> Fold:
        """The fold of `dataset` this run was trained on.

        Raises CheckpointError when the data set is not the one it was trained on.
        """
        differ = [
            name
            for name, own, given in (
                ("classes", dict(self.classes), dict(dataset.classes)),
                ("scans", self.ids, tuple(dataset.ids)),
                ("modality", self.modality, dataset.modality),
            )
            if own != given
        ]
        if differ:
            raise CheckpointError(
                f"the checkpoint was trained on '{self.dataset}' (scans {_short(self.ids)}; "
                f"classes {', '.join(self.classes.values())}), but '{dataset.name}' has other "
                f"{' and '.join(differ)} (scans {_short(dataset.ids)}; classes "
                f"{', '.join(dataset.classes.values())}), so its test scans are not those "
                "that training left out. Give the data set it was trained on"
            )
        folds = make_folds(
            dataset.ids, n_folds=self.n_folds, n_support=self.n_support, rule=self.fold_rule
        )
        return folds[self.fold]

    def to_dict(self) -> dict[str, Any]:
        """Plain tables, lists, words and numbers; None values are left out when written."""
        table = asdict(self)
        table["classes"] = {str(value): name for value, name in self.classes.items()}
        table["intensity"] = self.intensity.to_dict()
        return table

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], source: Path) -> "RunNotes":
        """The inverse. Raises CheckpointError for a checkpoint that `train_fold` did not write."""
        needed = [field.name for field in fields(cls) if field.name not in ("window", "episodes")]
        missing = [name for name in needed if name not in table]
        if missing:
            raise CheckpointError(
                f"{source} does not say how it was trained (its notes lack {', '.join(missing)}); "
                "only checkpoints of `fewshot-seg train` and train_fold can be tested this way"
            )
        values = {name: table[name] for name in needed}
        window = table.get("window")
        with understanding(source):
            notes = make(
                cls,
                {
                    **values,
                    **{name: tuple(table[name]) for name in ("ids", "novel", "base")},
                    "size": size_in(table),
                    "classes": classes_in(table),
                    "intensity": Intensity.from_dict(table["intensity"]),
                    "window": None if window is None else (float(window[0]), float(window[1])),
                    "episodes": str(table.get("episodes", "")),
                },
            )
            if not {*notes.novel, *notes.base} <= set(notes.classes):
                raise ValueError("classes that have no name")
            if not 0 <= notes.fold < notes.n_folds:
                raise ValueError(f"fold {notes.fold} of {notes.n_folds}")
        return notes


@contextmanager
def understanding(source: Path) -> Iterator[None]:
    """What goes wrong within is the fault of the notes in `source`: raises CheckpointError."""
    try:
        yield
    except (OptionError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(
            f"the notes in {source} are not what training wrote ({error}); take another checkpoint"
        ) from error


def size_in(table: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the images. Raises ValueError unless they are sizes of images."""
    height, width = table["size"]
    if not all(isinstance(one, int) and 1 <= one <= LARGEST_IMAGE for one in (height, width)):
        raise ValueError(f"images of {height!r:.20} x {width!r:.20} pixels")
    return height, width


def classes_in(table: Mapping[str, Any]) -> dict[int, str]:
    """Class id -> name."""
    return {int(value): str(name) for value, name in table["classes"].items()}


def checkpoint_path(path: Path) -> Path:
    """The checkpoint itself, also where its run folder was given.

    Raises CheckpointError for a run folder that holds no finished training.
    """
    if not path.is_dir():
        return path
    final = path / FINAL
    if final.is_file():
        return final
    if (path / "run.toml").is_file():
        raise CheckpointError(
            f"the training in {path} is not finished; start it again with the same settings to "
            "go on, or name one of its checkpoints"
        )
    raise CheckpointError(f"{path} holds no {FINAL}; give a run folder or a checkpoint file")


def read_notes(path: Path) -> RunNotes:
    """The notes of a checkpoint. Raises CheckpointError."""
    return RunNotes.from_dict(read_header(path).notes, path)


def find_runs(folder: Path) -> list[Path]:
    """The checkpoints of finished runs: of `folder` itself, or of the folders in it, sorted.

    Raises CheckpointError when there is none.
    """
    if not folder.is_dir() or (folder / FINAL).is_file() or (folder / "run.toml").is_file():
        return [checkpoint_path(folder)]
    found = sorted(folder.glob(f"*/{FINAL}"))
    if not found:
        raise CheckpointError(f"{folder} holds no finished run ({FINAL}), nor do its folders")
    return found


def _short(ids: tuple[str, ...]) -> str:
    return ", ".join(ids) if len(ids) <= 6 else f"{ids[0]} to {ids[-1]}, {len(ids)} of them"
