"""A method and an episode, ready to be run: a training step, segmenting, and the networks alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewshot_seg.episode import Episode
from fewshot_seg.errors import EpisodeError, FewshotSegError, OptionError
from fewshot_seg.interfaces import Method
from fewshot_seg.needs import needs_of
from fewshot_seg.pipeline import Pipeline
from fewshot_seg.precision import computing, resolve_precision
from fewshot_seg.profiling.clocks import HostClock
from fewshot_seg.profiling.tape import Tape, watched
from fewshot_seg.testing.episodes import make_episode

FORWARD, BACKWARD, SUPPORT, SEGMENT = PHASES = ("forward", "backward", "support", "segment")
"""Of a training step, and of the test path: `encode_support`, then `segment`."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What has to be done. size: pixels of a side; the rest counts.

    queries, episodes: of a training step.   slices: segmented in one call at test, where there is
    one episode.
    Raises OptionError for a number below 1.
    """

    size: int = 256
    shots: int = 1
    ways: int = 1
    queries: int = 1
    episodes: int = 1
    slices: int = 4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise OptionError(f"{name} must be at least 1; got {value}")

    def episode(self, network: nn.Module) -> Episode:
        """A synthetic training step, with whatever else the method needs."""
        return self._made(network, self.episodes, self.queries)

    def task(self, network: nn.Module) -> Episode:
        """As it stands at test."""
        return self._made(network, 1, self.slices).without_labels()

    def _made(self, network: nn.Module, episodes: int, queries: int) -> Episode:
        encoder = network.encoder if isinstance(network, Pipeline) else None
        return make_episode(
            batch=episodes,
            n_way=self.ways,
            n_shot=self.shots,
            n_query=queries,
            size=(self.size, self.size),
            channels=getattr(encoder, "in_channels", 3),
            needs=needs_of(network),
        )


class Subject:
    """Runs a method on synthetic episodes, marking a tape.

    method: on its device; its convolutions are stored channels last from now on.
    precision: see `fewshot_seg.precision.PRECISIONS`.
    """

    def __init__(
        self, method: nn.Module, load: Load, *, precision: str, device: torch.device
    ) -> None:
        assert isinstance(method, Method)
        self.load, self.device = load, device
        self.precision = resolve_precision(precision, device)
        self.network: nn.Module = method.to(device).to(memory_format=torch.channels_last)
        self.method: Method = method
        self.episode = load.episode(self.network).to(device)
        self.task = load.task(self.network).to(device)
        self.parts = parts_of(self.network)

    @property
    def learns(self) -> bool:
        return any(parameter.requires_grad for parameter in self.network.parameters())

    def check(self) -> None:
        """Raises EpisodeError when the method does not take what it is to do."""
        nothing = Tape(HostClock("wall"))
        try:
            with self.training():
                self.step(nothing)
            with self.testing():
                self.segment(nothing)
        except FewshotSegError:
            raise
        except ValueError as error:
            asked = ", ".join(f"{name} {value}" for name, value in vars(self.load).items())
            raise EpisodeError(f"the method does not take {asked}: {error}") from error

    def tensors(self) -> Iterator[Tensor]:
        """What is in memory before anything runs: weights, buffers and episodes."""
        yield from self.network.parameters()
        yield from self.network.buffers()
        found: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        for one in (self.episode, self.task):
            one.map(keep)
        yield from found

    @contextmanager
    def training(self) -> Iterator[None]:
        """The context of `step` and `bare_step`."""
        self.network.train()
        try:
            yield
        finally:
            self.network.zero_grad(set_to_none=True)

    @contextmanager
    def testing(self) -> Iterator[None]:
        """The context of `segment` and `bare_segment`, as long as a scan or more."""
        self.network.eval()
        with torch.inference_mode(), computing(self.network, self.device, self.precision):
            yield

    def step(self, tape: Tape) -> None:
        """Forward and backward of a training step, without the optimizer."""
        with watched(self.parts, tape):
            self._learn(lambda: self.method(self.episode).loss, tape)

    def bare_step(self, tape: Tape) -> None:
        """The networks alone, forward and backward.

        Of a pipeline its encoder on the same images; images that only serve a part go through it
        without gradient. Of a whole network what it does with an episode without labels.
        """
        if isinstance(self.network, Pipeline):
            self._learn(lambda: self._encode_all().float().mean(), tape)
        else:
            blind = self.episode.without_labels()
            self._learn(lambda: self.method(blind).logits.float().mean(), tape)

    def segment(self, tape: Tape) -> None:
        """The test path: the support, then all query slices in one call."""
        with watched(self.parts, tape):
            with tape.phase(SUPPORT):
                state = self.method.encode_support(self.task.support)
            with tape.phase(SEGMENT):
                self.method.segment(state, self.task.query_images)

    def bare_segment(self, tape: Tape) -> None:
        """The encoder on the query slices; nothing for a whole network, which has none."""
        if isinstance(self.network, Pipeline):
            images = _flat(self.task.query_images)
            with tape.phase(SEGMENT):
                self.network.encoder(images)

    def _learn(self, forward: Callable[[], Tensor], tape: Tape) -> None:
        """Nothing for a method without parameters."""
        if not self.learns:
            return
        self.network.zero_grad(set_to_none=True)
        half = self.precision == "bf16"
        autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half)
        with autocast, tape.phase(FORWARD):
            loss = forward()
        tape.backward(loss, BACKWARD)

    def _encode_all(self) -> Tensor:
        assert isinstance(self.network, Pipeline)
        episode, encoder = self.episode, self.network.encoder
        with torch.no_grad():
            for more in (episode.support.unlabelled, episode.extras.get("second_view_images")):
                if more is not None:
                    encoder(_flat(more))
        return encoder(torch.cat([_flat(episode.support.images), _flat(episode.query_images)]))


def parts_of(network: nn.Module) -> dict[str, Sequence[nn.Module]]:
    """The parts of a pipeline; of a whole network its children, each with all it holds."""
    if not isinstance(network, Pipeline):
        return {name: list(child.modules()) for name, child in network.named_children()}
    slots = {
        "encoder": network.encoder,
        "prior": network.prior,
        "enrichment": network.enrichment,
        "decoder": network.decoder,
        **{f"contrastive {name}": term for name, term in network.contrastives.items()},
    }
    return {name: [part] for name, part in slots.items() if isinstance(part, nn.Module)}


def _flat(images: Tensor) -> Tensor:
    """One row of images, channels last."""
    return images.flatten(0, -4).contiguous(memory_format=torch.channels_last)
