"""A network, a source and a recipe small enough to train in a test; also run as a script.

python tests/tiny_training.py OUT STEPS key=value ...
"""

import sys
import tomllib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewshot_seg.episode import Episode, Output, Support
from fewshot_seg.training import TrainConfig, TrainResult, train


class TinyMethod(nn.Module):
    """Scores each pixel by a small convolution of query and mean support."""

    def __init__(self, *, seed: int = 0, dropout: float = 0.3) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv2d(2, 4, 3, padding=1)
            self.last = nn.Conv2d(4, 2, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, episode: Episode) -> Output:
        support = (episode.support.images * episode.support.masks.unsqueeze(3)).mean((1, 2))
        images = torch.cat([episode.query_images[:, 0], support], dim=1)
        logits = self.last(self.dropout(self.first(images).relu()))
        assert episode.query_labels is not None
        ce = nn.functional.cross_entropy(logits, episode.query_labels[:, 0])
        return Output(
            logits[:, None],
            {"ce": ce, "small": logits.square().mean()},
            {"small": 0.1},
            diagnostics={"bias": self.last.bias, "never": torch.tensor(float("nan"))},
        )


class TinySource:
    """Bright squares; `nan_at` gives the number of an episode with a broken image."""

    def __init__(self, *, seed: int = 0, nan_at: int | None = None, slow: float = 0.0) -> None:
        self.seed, self.nan_at, self.slow = seed, nan_at, slow

    def episode(self, index: int) -> Episode:
        generator = torch.Generator().manual_seed(self.seed * 1000 + index)
        images = torch.randn(2, 1, 8, 8, generator=generator)
        top, left = torch.randint(0, 4, (2,), generator=generator).tolist()
        mask = torch.zeros(8, 8)
        mask[top : top + 4, left : left + 4] = 1
        images += 2 * mask
        if index == self.nan_at:
            images = images * float("nan")
        support = Support(images[:1, None, None], mask[None, None, None])
        extras = {"redrawn": torch.tensor([index % 2])}
        return Episode(support, images[1:, None], mask.long()[None, None], extras=extras)

    def describe(self) -> dict[str, Any]:
        return {"source": "tiny", "seed": self.seed, "nothing": None}


class TinyRecipe:
    """As much of a recipe as training looks at."""

    def __init__(self, text: str = 'method = "tiny"\n') -> None:
        self.text = text

    def to_toml(self) -> str:
        return self.text


def settings(**changes: Any) -> TrainConfig:
    """Short runs, checkpoints every third step."""
    given = {"steps": 8, "lr": 0.05, "checkpoint_every": 3, "log_every": 2, "accelerator": "cpu"}
    return TrainConfig.from_dict({**given, **changes})


def weights(method: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def run(method: nn.Module, out: Path | None = None, **changes: Any) -> TrainResult:
    """Train with the tiny source; `source`, `notes`, `stop`, `recipe` and `console` go to train."""
    own = {"source": TinySource(), "recipe": TinyRecipe(), "progress": False}
    for name in ("source", "notes", "stop", "recipe", "console", "progress"):
        if name in changes:
            own[name] = changes.pop(name)
    source = own.pop("source")
    return train(method, source, settings(**changes), out=out, **own)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def trained(**changes: Any) -> TinyMethod:
    run(method := TinyMethod(), **changes)
    return method


def main() -> None:
    """Train into OUT, with settings in TOML notation; `dropout` goes to the method."""
    out, *words = sys.argv[1:]
    changes = tomllib.loads("\n".join(words))
    torch.set_num_threads(1)
    method = TinyMethod(dropout=changes.pop("dropout", 0.3))
    path = None if out == "-" else Path(out)
    result = train(
        method,
        TinySource(),
        settings(**changes),
        out=path,
        recipe=TinyRecipe(),
        progress=False,
        stop=_announce,
    )
    print(f"rank {result.rank} finished {result.finished} at {result.steps}")


def _announce(done: int) -> bool:
    print(f"step {done}", flush=True)
    return False


if __name__ == "__main__":
    main()
