"""The same seed gives the same numbers: whoever prepares the episodes, however many slices go
through at once, and whether or not the run was broken off."""

from pathlib import Path
from typing import Any

import pytest
import torch
from reliable_cases import LEARNING, METHODS, episode, small
from tiny_training import TinyRecipe, settings
from torch import Tensor, nn

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.loader import EpisodeLoader
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.prepare import PreparedScan, prepare
from fewshot_seg.episode import Episode
from fewshot_seg.evaluation.pairs import Part
from fewshot_seg.evaluation.predict import log_odds
from fewshot_seg.experiment.episodes import EpisodeSettings, make_source
from fewshot_seg.needs import needs_of
from fewshot_seg.testing import make_episode
from fewshot_seg.training import train

STEPS = 4
pytestmark = pytest.mark.filterwarnings("ignore:scl_mode 'image' with one episode")
"""apscl_literal says that one episode a step gives its contrast no negatives: here it may."""


class Discs:
    """Episodes by number, with what a method needs of them."""

    def __init__(self, needs: tuple[str, ...]) -> None:
        self.needs = needs

    def episode(self, index: int) -> Episode:
        return make_episode(batch=1, size=(32, 32), seed=index, needs=self.needs)

    def describe(self) -> dict[str, str]:
        return {"source": "discs"}


def trained(name: str, out: Path, stop: int | None = None, **changes: Any) -> dict[str, Tensor]:
    """The weights after `STEPS` steps of two episodes; broken off after `stop` and taken up."""
    given = {"steps": STEPS, "lr": 1e-3, "episodes_per_step": 2, "checkpoint_every": 2, **changes}
    method: nn.Module | None = None
    for last in (stop, None) if stop else (None,):
        method = small(name)
        train(
            method,
            Discs(needs_of(method)),
            settings(**given),
            out=out,
            recipe=TinyRecipe(),
            progress=False,
            stop=None if last is None else last.__eq__,
        )
    assert method is not None
    return method.state_dict()


@pytest.mark.parametrize("name", LEARNING)
def test_workers_and_a_break_change_no_bit(name: str, tmp_path: Path) -> None:
    whole = trained(name, tmp_path / "whole", workers=1)
    broken = trained(name, tmp_path / "broken", stop=2, workers=2)
    fresh = small(name).state_dict()
    assert any(not torch.equal(whole[key], fresh[key]) for key in whole)
    assert all(torch.equal(whole[key], broken[key]) for key in whole)


def test_another_seed_gives_other_numbers(tmp_path: Path) -> None:
    """So that the comparison above compares something: apscl draws its latents."""
    one, other = (trained("apscl", tmp_path / str(seed), seed=seed) for seed in (0, 1))
    assert any(not torch.equal(one[key], other[key]) for key in one)


SOURCES: dict[str, dict[str, Any]] = {
    "labels, strong augmentation": {"source": "supervised"},
    "superpixels": {"source": "superpixel"},
    "supervoxels": {"source": "supervoxel"},
    "a mixture": {"pseudo": 0.5, "pseudo_source": "superpixel"},
}


@pytest.fixture(scope="module")
def scans() -> list[PreparedScan]:
    dataset = abdomen(n_scans=2, size=32, n_slices=8)
    return [prepare(dataset.load(one), size=None, intensity=Intensity()) for one in dataset.ids]


@pytest.mark.parametrize("case", SOURCES)
def test_every_source_draws_the_same_episodes_in_any_process(
    case: str, scans: list[PreparedScan]
) -> None:
    source = make_source(
        scans,
        EpisodeSettings.from_dict(SOURCES[case]),
        base=(2, 3),
        novel=(1,),
        setting="leave_one_organ",
        needs=("auxiliary", "second_view", "unlabelled"),
        augmentation=Augmentation.strong(),
    )
    alone, *others = (
        list(EpisodeLoader(source, episodes_per_step=2, n_steps=4, workers=workers))
        for workers in (0, 1, 2)
    )
    for steps in others:
        for one, other in zip(alone, steps, strict=True):
            assert all(map(torch.equal, tensors(one), tensors(other)))


def tensors(task: Episode) -> list[Tensor]:
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    task.map(keep)
    return found


@pytest.mark.parametrize("name", METHODS)
def test_slices_in_one_call_are_answered_as_one_by_one(name: str) -> None:
    method = small(name)
    task = episode(method, n_query=16)
    parts = [Part((0,), tuple(range(16)))]

    def answers(batch: int) -> Tensor:
        odds = log_odds(
            method,
            lambda slices, queries: method.encode_support(task.support),
            task.query_images[0],
            parts,
            batch=batch,
            device=torch.device("cpu"),
        )
        return torch.stack([odds[index] for index in range(16)])

    single, together = answers(1), answers(16)
    torch.testing.assert_close(together.sigmoid(), single.sigmoid(), atol=1e-5, rtol=0)
    torch.testing.assert_close(together, single, atol=1e-5, rtol=1e-5)
