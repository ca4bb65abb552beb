"""What people and the library itself write as JSON and TOML."""

import io
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from fuzz_scans import nifti
from rich.console import Console

from fewshot_seg import Recipe, build
from fewshot_seg.ablation.grid import Grid
from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.raw.record import read_cases
from fewshot_seg.data.raw.sets import raw_set
from fewshot_seg.evaluation import FoldScores, Protocol, Results, ScanScore
from fewshot_seg.evaluation.scores import Unscored
from fewshot_seg.experiment.episodes import EpisodeSettings
from fewshot_seg.experiment.oneshot.done import Done
from fewshot_seg.experiment.oneshot.plan import Plan, settle
from fewshot_seg.training import TrainConfig
from fewshot_seg.training.run import Request, RunFolder
from fewshot_seg.training.snapshots import newest_snapshot

ROOT = Path(__file__).resolve().parents[2]

TINY = b"""method = "panet"
[encoder]
name = "timm"
backbone = "test_resnet.r160_in1k"
pretrained = "none"
dim = 8
[decoder]
name = "cosine"
scale = 20.0
[[contrastive]]
name = "align"
[options]
image_size = [64, 64]
ce_weights = [0.5, 1.0]
[weights]
align = 1.0
[training]
steps = 10
lr = 0.01
schedule = "one_cycle"
[episodes]
pseudo = 0.5
n_shot = 1
pairing = "matched"
"""

DECATHLON = {
    "name": "x",
    "modality": {"0": "MRI"},
    "labels": {"0": "background", **{str(one): f"organ {one}" for one in range(1, 5)}},
    "training": [{"image": "./image_1.nii", "label": "./label_1.nii"}],
}

NNUNET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, **{f"organ {one}": one for one in range(1, 5)}},
}

CASES = {
    "name": "CHAOS",
    "modality": "MR T2-SPIR",
    "labels": {"0": "background", "1": "liver"},
    "preparation": {"set": "chaos-t2", "version": raw_set("chaos-t2").version},
    "cases": [
        {
            "id": "1",
            "image": "image_1.nii.gz",
            "label": "label_1.nii.gz",
            "shape": [6, 5, 4],
            "voxels": {"1": 20},
            "notes": ["turned"],
            "sha256": {"source": "a", "image": "b", "label": "c"},
        }
    ],
}

RUN = b"""[training]
steps = 8
lr = 0.01
[notes]
fold = 0
classes = { 1 = "liver" }
[source]
seed = 0
[[sessions]]
started = "2026-01-01T00:00:00+00:00"
from_step = 0
"""

STATE = b'step = 3\nseconds = 0.5\nmodel = "abc"\noptimizer = "def"\n[scaler]\n'

LOG = b'{"step": 2, "ce": 0.5, "seconds": 1.5}\n{"step": 4, "ce": null, "seconds": 2.5}\n'

PLAN = Plan(
    scans="scans", recipe=TINY.decode(), size=64, steps=5, seed=0, modality="mr", window=(0.0, 9.0),
    train=("1", "2"),
)  # fmt: skip


def read_folder(path: Path) -> None:
    """`dataset.json` beside a scan and its labels."""
    for name in ("image_1.nii", "label_1.nii"):
        (path.parent / name).write_bytes(nifti()[0])
    dataset = open_folder(root=path.parent)
    dataset.load(dataset.ids[0])


def read_recipe(path: Path) -> None:
    recipe = Recipe.load(path)
    TrainConfig.from_dict(recipe.training)
    EpisodeSettings.from_dict(recipe.episodes)
    build(recipe).recipe.to_toml()


def read_results(path: Path) -> None:
    """All that is done with results, also together with whole ones."""
    found = Results.from_json(path)
    Console(file=io.StringIO()).print(found.table())
    found.to_json(path.parent / "again.json")
    found.to_csv(path.parent / "again.csv")
    assert Results.from_json(path.parent / "again.json").mean() is not None


def read_run(path: Path) -> None:
    request = Request(
        None,
        TrainConfig.from_dict({"steps": 8, "lr": 0.01}),
        {"fold": 0, "classes": {"1": "liver"}},
        {"seed": 0},
    )
    folder = RunFolder(path.parent)
    folder.claim(request)
    folder.add_session({"from_step": 3})


def read_state(path: Path) -> None:
    """A checkpoint that cannot be used is passed over, with a complaint."""
    folder = path.parent / "checkpoints" / "step_00000003"
    folder.mkdir(parents=True)
    shutil.copy(path, folder / "state.toml")
    found, complaints = newest_snapshot(folder.parent)
    assert found is None
    assert len(complaints) == 1


def read_plan(path: Path) -> None:
    settle(PLAN, path.parent)


def read_done(path: Path) -> None:
    """A damaged record is begun anew."""
    target = path.parent / "1_seg.nii.gz"
    target.write_bytes(b"answer")
    Done(path, {"settings": 1}).find(path, target)


def read_record(path: Path) -> None:
    read_cases(path.parent, raw_set("chaos-t2"))


def decathlon() -> list[bytes]:
    return [json.dumps(DECATHLON).encode()]


def nnunet() -> list[bytes]:
    return [json.dumps(NNUNET).encode()]


def prepared() -> list[bytes]:
    return [json.dumps(CASES).encode()]


def recipes() -> list[bytes]:
    return [TINY]


def runs() -> list[bytes]:
    return [RUN]


def states() -> list[bytes]:
    return [STATE]


def logs() -> list[bytes]:
    return [LOG]


@cache
def results() -> list[bytes]:
    protocol = Protocol(
        dataset="d", matching="parts-3", uses_query_range=True, setting="setting1", n_shot=1,
        size=(8, 8), intensity="z", n_folds=5, folds=(0,),
    )  # fmt: skip
    row = ScanScore(
        fold=0, class_name="liver", scan_id="1", dice=0.5, hd95=float("nan"), assd=None, unit="mm",
        n_slices=3, n_predicted=4, n_truth=5, slice_dice=0.4, notes=("a",),
    )  # fmt: skip
    lost = Unscored(fold=0, class_name="liver", scan_id="2", reason="x")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.json")
        Results(protocol, FoldScores((row,), (lost,), (lost,)), "m", {"date": "x"}).to_json(path)
        return [path.read_bytes()]


@cache
def plans() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        settle(PLAN, Path(folder))
        return [Path(folder, "oneshot.json").read_bytes()]


def done() -> list[bytes]:
    entry = {"scan": [1, 2], "written": [6, 3], "voxels": {"1": 5}, "notes": ["x"]}
    table: dict[str, Any] = {"made_from": {"settings": 1}, "scans": {"1_seg.nii.gz": entry}}
    return [json.dumps(table).encode()]


def grids() -> list[bytes]:
    """Those of the benchmarks."""
    return [path.read_bytes() for path in sorted((ROOT / "benchmarks").glob("table*.toml"))]


def read_grid(path: Path) -> None:
    grid = Grid.load(path)
    assert grid.name
