"""Can a method learn one episode by heart? Dice of the query while it is trained on nothing else.

    python benchmarks/overfit.py                      # apscl, apscl_literal, panet
    python benchmarks/overfit.py --size 128 --dim 256 --organs liver

The episode comes from two synthetic patients, so nothing is downloaded. A small encoder stands in
for the paper's; everything else is the preset's own, and `sgd` is the papers' optimiser (lr 1e-3,
momentum 0.9, weight decay 5e-4). A method that stays low here cannot learn anything elsewhere; one
that gets high has shown only that its gradients arrive. As a reference: the query's own mask,
area-averaged to the feature grid and upsampled, as an answer (free logits can do better).
"""

import argparse
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from fewshot_seg import Episode, build
from fewshot_seg.data.episodes import SupervisedSource
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.prepare import prepare
from fewshot_seg.functional import area_average, foreground, resize

STEPS = (25, 50, 100, 200)
RUNS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("apscl", "adamw", {}),
    ("apscl_literal", "sgd", {"label_encoder": "resnet18"}),
    ("apscl_literal", "adamw", {"label_encoder": "resnet18"}),
    ("panet", "adamw", {}),
)


def phantom_episode(organ: str, size: int, seed: int) -> Episode:
    """A slice of one synthetic patient to segment by a slice of another."""
    dataset = abdomen(seed=seed)
    value = next(value for value, name in dataset.classes.items() if name == organ)
    scans = [dataset.load(scan_id) for scan_id in dataset.ids[:2]]
    prepared = [prepare(scan, size=size, intensity=Intensity()) for scan in scans]
    source = SupervisedSource(prepared, classes=[value], seed=seed, pairing="matched")
    return source.episode(0)


def optimiser_of(name: str, model: nn.Module) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


@torch.no_grad()
def dice(model: nn.Module, episode: Episode) -> float:
    """Dice of the query in [0, 1], as at test: no labels, running batch-norm statistics."""
    model.eval()
    predicted = model(episode.without_labels()).logits.argmax(2) > 0
    model.train()
    return overlap(predicted, episode)


def overlap(predicted: torch.Tensor, episode: Episode) -> float:
    assert episode.query_labels is not None
    truth = episode.query_labels == 1
    return 2 * (predicted & truth).sum().item() / (predicted.sum() + truth.sum()).item()


def reference(episode: Episode, stride: int = 8) -> float:
    """Dice of the true mask after a round trip through the feature grid."""
    assert episode.query_labels is not None
    height, width = episode.size
    small = area_average((episode.query_labels == 1).float(), (height // stride, width // stride))
    return overlap(resize(small, (height, width)) > 0.5, episode)


def learn(
    method: str, optimiser: str, episode: Episode, options: dict[str, Any]
) -> Iterator[tuple[int, float, float]]:
    """(step, Dice, total loss) at each of STEPS."""
    torch.manual_seed(0)
    model = build(method, **options).train()
    steps = optimiser_of(optimiser, model)
    for step in range(1, STEPS[-1] + 1):
        loss = model(episode).loss
        steps.zero_grad()
        loss.backward()
        steps.step()
        if step in STEPS:
            yield step, dice(model, episode), loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=96, help="pixels of the square slices")
    parser.add_argument("--dim", type=int, default=64, help="channels of the features")
    parser.add_argument("--organs", nargs="+", default=["liver"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    # the literal preset's contrastive loss is constantly 0, which is part of what is shown here
    warnings.filterwarnings("ignore", message="scl_mode 'image'")
    for organ in given.organs:
        episode = phantom_episode(organ, given.size, given.seed)
        assert episode.query_labels is not None
        pixels = int(foreground(episode.query_labels).sum())
        print(f"{organ}: {pixels} pixels, mask through the feature grid {reference(episode):.3f}")
        for method, optimiser, options in RUNS:
            encoder = {"name": "resnet18", "dim": given.dim}
            changes = {"encoder": encoder, "image_size": given.size, **options}
            print(f"  {method:14} {optimiser:6}", end="", flush=True)
            for step, value, loss in learn(method, optimiser, episode, changes):
                print(f"  {step}: {value:.3f} (loss {loss:.3f})", end="", flush=True)
            print()


if __name__ == "__main__":
    main()
