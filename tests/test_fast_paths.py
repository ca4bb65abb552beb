"""The fast ways to an answer give the plain one: whole scans at once, and bf16."""

import copy
import functools
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny_methods import methods, task, tiny
from torch import Tensor, nn
from typer.testing import CliRunner

from fewshot_seg.cli import app
from fewshot_seg.data.folds import make_folds
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.phantom.dataset import Phantom
from fewshot_seg.episode import Episode, Support
from fewshot_seg.errors import OptionError
from fewshot_seg.evaluation import Results, cross_validate, evaluate_fold, get_matching
from fewshot_seg.evaluation.pairs import Part
from fewshot_seg.evaluation.predict import log_odds
from fewshot_seg.experiment import (
    evaluate_runs,
    evaluate_unlearned,
    resolve_recipe,
    train_fold,
)
from fewshot_seg_copy import Copy

CPU = torch.device("cpu")
ENCODER = {"name": "timm", "backbone": "test_resnet", "dim": 16}
PARTS = (Part((0,), (0, 1, 2)), Part((1,), (3, 4)), Part((2,), (5, 6)), Part((0,), (7,)))
POINTS = 0.2
"""What bf16 may change of the mean Dice, in per cent."""
CHANGES: dict[str, dict[str, Any]] = {
    **{name: {"encoder": ENCODER} for name in methods(pipelines=True)},
    "copy": {},
    "rpnet": {"registration": False},  # its optimiser would multiply the rounding
}


# --- a whole scan at once -------------------------------------------------------------------------


def scan(method: nn.Module) -> tuple[list[Support], Tensor]:
    """Three labelled slices and eight query slices, with what the method needs."""
    tasks = [task(method, seed, n_query=8) for seed in range(3)]
    return [one.support for one in tasks], tasks[0].query_images[0]


@torch.no_grad()
def plainly(method: nn.Module, supports: list[Support], images: Tensor) -> dict[int, Tensor]:
    """One slice at a time, its support encoded again for each."""
    method.eval()
    found = {}
    for part in PARTS:
        for index in part.query:
            episode = Episode(supports[part.support[0]], images[None, index : index + 1])
            logits = method(episode).logits[0, 0]
            found[index] = logits[1] - logits[0]
    return found


@pytest.mark.filterwarnings("ignore:scl_mode 'image' with one episode")
@pytest.mark.parametrize("name", [*methods(pipelines=True), *methods(pipelines=False)])
def test_a_scan_at_once_is_slice_by_slice(name: str) -> None:
    method = tiny(name, **CHANGES.get(name, {}))
    supports, images = scan(method)
    wanted = plainly(copy.deepcopy(method), supports, images)
    method.to(memory_format=torch.channels_last)
    encoded: list[int] = []

    def encode(slices: tuple[int, ...], _: Any) -> object:
        encoded.append(slices[0])
        return method.encode_support(supports[slices[0]])  # type: ignore[operator]

    found = log_odds(method, encode, images, PARTS, batch=3, device=CPU)  # type: ignore[arg-type]
    assert encoded == [0, 1, 2]  # once each, though two parts share one
    assert found.keys() == wanted.keys()
    for index, odds in wanted.items():
        assert odds.std() > 0
        torch.testing.assert_close(found[index], odds, atol=1e-4, rtol=1e-5)


# --- bf16 -----------------------------------------------------------------------------------------


class Painted:
    """Phantom patients, each painted once."""

    def __init__(self, phantom: Phantom) -> None:
        self.name, self.modality = phantom.name, phantom.modality
        self.ids, self.classes = phantom.ids, phantom.classes
        self.load = functools.cache(phantom.load)


@pytest.fixture(scope="module")
def dataset() -> Painted:
    return Painted(abdomen(n_scans=8, size=64, n_slices=12))


def trained(dataset: Painted, name: str, out: Path) -> Path:
    training = {"steps": 50, "optimizer": "adamw", "lr": 2e-3, "episodes_per_step": 2}
    return train_fold(
        dataset, resolve_recipe(name, {"encoder": ENCODER}), novel="liver", out=out, size=64,
        n_folds=2, training=training, progress=False,
    )  # fmt: skip


def caption(results: Results) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(results.table())
    return console.export_text()


@pytest.mark.parametrize("name", ["panet", "apscl", "adnet"])
def test_bf16_keeps_the_dice_and_is_told(name: str, dataset: Painted, tmp_path: Path) -> None:
    run = trained(dataset, name, tmp_path / name)
    exact, half = (
        evaluate_runs(run, dataset, surface=False, precision=one) for one in ("32", "bf16")
    )
    assert len(exact.rows) == 4
    assert exact.mean() > 0.3
    assert half.rows != exact.rows  # it was computed in another way
    assert 100 * abs(exact.mean() - half.mean()) < POINTS
    assert (exact.provenance["precision"], half.provenance["precision"]) == ("32", "bf16")
    assert "precision" not in caption(exact)
    assert "precision bf16" in caption(half)


def test_the_command_passes_it_on(tmp_path: Path) -> None:
    words = ["evaluate", "--method", "copy", "--novel", "liver", "--data", "phantom_abdomen",
             "--size", 32, "--folds", 0, "--no-surface", "--out", tmp_path]  # fmt: skip
    for option in ("n_scans=5", "size=32", "n_slices=6"):
        words += ["--data-option", option]
    told = CliRunner().invoke(app, [*map(str, words), "--precision", "bf16"])
    assert told.exit_code == 0, told.output
    assert "precision bf16" in " ".join(told.output.split())
    assert Results.from_json(tmp_path / "results.json").provenance["precision"] == "bf16"
    wrong = CliRunner().invoke(app, [*map(str, words), "--precision", "half"])
    assert wrong.exit_code == 2
    assert "precision='half' is not one of auto, 32, bf16" in " ".join(wrong.output.split())


class Unread:
    """A data set whose scans are not to be read."""

    name, modality = "unread", "mr"
    classes = abdomen().classes
    ids = ("1", "2", "3", "4", "5", "6")

    def load(self, scan_id: str) -> None:
        raise AssertionError("a scan was read")


def test_another_precision_is_refused_before_any_scan_is_read() -> None:
    data: Any = Unread()
    fold = make_folds(data.ids, n_folds=2)[0]
    requests = [
        lambda: evaluate_unlearned("copy", data, precision="16"),
        lambda: cross_validate(data, lambda *_: Copy(), precision="16"),
        lambda: evaluate_fold(
            Copy(), data.load, fold, data.classes, matching=get_matching("middle"), precision="16"
        ),
    ]
    for request in requests:
        with pytest.raises(OptionError, match="precision='16' is not one of auto, 32, bf16"):
            request()
