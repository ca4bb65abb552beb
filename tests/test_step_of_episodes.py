"""What several episodes in a step mean: the mean loss of each alone, so the mean gradient."""

import copy

import pytest
import torch
from tiny_methods import methods, task, tiny
from torch import Tensor, nn

from fewshot_seg.episode import Episode, collate

ACROSS = {"apscl_literal"}
"""Compare the episodes of a step with each other, which is their point."""


@pytest.fixture(autouse=True)
def _no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents at their mean, or an episode's noise would hang on its place in the step."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)


def learnt(method: nn.Module, episode: Episode) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses, and gradients by parameter."""
    method = copy.deepcopy(method).train()
    torch.manual_seed(0)
    output = method(episode)
    output.loss.backward()
    named = method.named_parameters()
    return dict(output.losses), {name: p.grad for name, p in named if p.grad is not None}


def means(found: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    assert all(one.keys() == found[0].keys() for one in found)
    return {name: torch.stack([one[name] for one in found]).mean(0) for name in found[0]}


@pytest.mark.parametrize("name", sorted({*methods(pipelines=True)} - ACROSS))
def test_a_step_is_the_mean_of_its_episodes(name: str) -> None:
    method = tiny(name)
    episodes = [task(method, seed) for seed in range(3)]
    losses, gradients = learnt(method, collate(episodes))
    alone = [learnt(method, episode) for episode in episodes]
    torch.testing.assert_close(losses, means([one for one, _ in alone]), rtol=1e-3, atol=1e-5)
    wanted = means([one for _, one in alone])
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        away = (gradient - wanted[name]).norm()
        assert away <= 1e-2 * wanted[name].norm() + 1e-5, name


@pytest.mark.filterwarnings("ignore:scl_mode 'image' with one episode")
@pytest.mark.parametrize("name", sorted(ACROSS))
def test_these_compare_episodes_with_each_other(name: str) -> None:
    method = tiny(name)
    episodes = [task(method, seed) for seed in range(3)]
    losses, _ = learnt(method, collate(episodes))
    alone = means([learnt(method, episode)[0] for episode in episodes])
    torch.testing.assert_close(losses.pop("ce"), alone["ce"], rtol=1e-3, atol=1e-5)
    assert losses["scl"] > 0 == alone["scl"]
