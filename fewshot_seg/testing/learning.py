"""Can a method learn one episode by heart? One that cannot will learn nothing elsewhere.

One that can has shown that its gradients arrive and that what it learns in training mode is there
in eval mode; not that it segments scans.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fewshot_seg.episode import IGNORE, Episode
from fewshot_seg.testing.asserts import check_losses

MakeOptimizer = Callable[..., torch.optim.Optimizer]
"""Takes parameters and `lr`: a class of torch.optim, or a partial of one with more options."""


def overfit(
    method: nn.Module,
    episode: Episode,
    *,
    lr: float = 1e-3,
    steps: int = 100,
    target: float = 0.95,
    every: int = 10,
    optimizer: MakeOptimizer = torch.optim.AdamW,
) -> float:
    """Train on one episode and nothing else; the best `foreground_dice` seen, in [0, 1].

        torch.manual_seed(0)
        method = build("mine", encoder="resnet18")
        assert overfit(method, make_episode(), target=0.95) > 0.9

    episode: with query labels; its channels and extras are those that the method needs
        (`make_episode(channels=1, needs=needs_of(method))`).
    lr, optimizer: made as `optimizer(parameters, lr=lr)`; `partial(torch.optim.SGD, momentum=0.9)`
        sets more. The loss is the method's own, weighted as its recipe says.
    steps: at most so many; training ends early at a look that finds `target` or more.
    every: looks come each so many steps, and after the last. A look costs an answer in eval mode.

    The method keeps what it learnt and the mode it was in. Nothing is seeded here.
    Raises ValueError for an episode without labels of any way, a method with nothing to train or
    without losses, and `steps` or `every` below 1; AssertionError for a loss that is not finite.
    """
    for name, value in (("steps", steps), ("every", every)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    _labels(episode)
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError(f"{type(method).__name__} has no parameter that could be trained")
    rule = optimizer(trained, lr=lr)
    best = 0.0
    with _in_mode(method, training=True):
        for step in range(1, steps + 1):
            _train_once(method, episode, rule)
            if step % every == 0 or step == steps:
                best = max(best, foreground_dice(method, episode))
                if best >= target:
                    break
    return best


@torch.no_grad()
def foreground_dice(method: nn.Module, episode: Episode) -> float:
    """Dice of the queries in [0, 1], answered as at test: in eval mode, without their labels.

    Over all pixels of all queries that are scored (not 255), for each way that the labels or the
    answer show; of several ways, the mean. The method keeps the mode it was in.
    Raises ValueError for an episode without labels of any way.
    """
    labels = _labels(episode)
    with _in_mode(method, training=False):
        answer = method(episode.without_labels()).logits.argmax(2)
    answer = torch.where(labels == IGNORE, 0, answer)
    ways = range(1, 1 + episode.support.n_way)
    sizes = [((answer == way).sum() + (labels == way).sum()).item() for way in ways]
    common = [((answer == way) & (labels == way)).sum().item() for way in ways]
    scores = [2 * both / size for both, size in zip(common, sizes, strict=True) if size]
    return sum(scores) / len(scores)


def _train_once(method: nn.Module, episode: Episode, rule: torch.optim.Optimizer) -> None:
    rule.zero_grad()
    output = method(episode)
    check_losses(output.losses)
    output.loss.backward()
    rule.step()


def _labels(episode: Episode) -> Tensor:
    """batch query height width; raises ValueError when there are none, or none but background."""
    labels = episode.query_labels
    if labels is None:
        raise ValueError("this episode has no query labels, so there is nothing to learn")
    if not ((labels > 0) & (labels <= episode.support.n_way)).any():
        raise ValueError("the query labels show no way, so there is no foreground to learn")
    return labels


@contextmanager
def _in_mode(method: nn.Module, *, training: bool) -> Iterator[None]:
    """Training or eval mode inside; afterwards every module is in the mode it had before."""
    before = [(module, module.training) for module in method.modules()]
    method.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode
