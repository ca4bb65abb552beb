"""A whole scan beside its slices one by one in the bare encoder."""

import torch

from fewshot_seg.batching import choose_batch
from fewshot_seg.evaluation.encoded import EncodedSlices
from fewshot_seg.pipeline import Pipeline
from fewshot_seg.profiling.clocks import make_clock
from fewshot_seg.profiling.measure import alternate
from fewshot_seg.profiling.subject import Load, Subject
from fewshot_seg.profiling.tape import Tape

SLICES, SUPPORTS = 36, 3
"""Support slices that share the slices of a scan equally."""
SCAN = "scan"


class Scan:
    """Segments a synthetic scan by a subject's method, in batches as free memory allows."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        size = subject.load.size
        load = Load(size=size, slices=SLICES // SUPPORTS)
        self.tasks = [load.task(subject.network).to(subject.device) for _ in range(SUPPORTS)]
        self.batch = choose_batch(None, (size, size), subject.device)
        images = self.tasks[0].query_images[0].contiguous(memory_format=torch.channels_last)
        self.images = torch.split(images, 1)

    def whole(self, tape: Tape) -> None:
        """Each support slice is encoded once."""
        method = self.subject.method
        with tape.phase(SCAN):
            for task in self.tasks:
                state = method.encode_support(task.support)
                for images in torch.split(task.query_images, self.batch, 1):
                    method.segment(state, images)

    def one_by_one(self, tape: Tape) -> None:
        """The encoder on a part's slices; nothing for a whole network, which has none."""
        network = self.subject.network
        if isinstance(network, Pipeline):
            with tape.phase(SCAN):
                for image in self.images:
                    network.encoder(image)


def time_scan(subject: Subject, *, rounds: int, clock: str) -> tuple[float, float]:
    """Seconds of a slice of a scan, its share of the support included, and of one image alone in
    the bare encoder (0 for a whole network). Both take turns; medians."""
    scan, meter = Scan(subject), make_clock(clock, subject.device)
    with subject.testing():
        whole, bare = alternate([scan.whole, scan.one_by_one], meter, rounds)
    return sum(whole.values()) / SLICES, sum(bare.values(), 0.0) / len(scan.images)


class Organs:
    """Segments a synthetic scan of `SLICES` slices once for each organ, as label files with several
    organs ask for."""

    def __init__(self, subject: Subject, organs: int) -> None:
        self.subject, self.organs = subject, organs
        size = subject.load.size
        self.task = Load(size=size, slices=SLICES).task(subject.network).to(subject.device)
        self.batch = choose_batch(None, (size, size), subject.device)

    def together(self, tape: Tape) -> None:
        """Each slice encoded once for all organs."""
        self._segment(tape, None)

    def apart(self, tape: Tape) -> None:
        """Each slice encoded anew for each organ."""
        self._segment(tape, 0)

    def _segment(self, tape: Tape, room: int | None) -> None:
        method, encoded = self.subject.method, EncodedSlices(self.task.query_images[0], room=room)
        with tape.phase(SCAN):
            for _ in range(self.organs):
                state = method.encode_support(self.task.support)
                for start in range(0, SLICES, self.batch):
                    indices = range(start, min(start + self.batch, SLICES))
                    encoded.segment(method, state, indices, self.subject.device)


def time_organs(subject: Subject, organs: int, *, rounds: int, clock: str) -> tuple[float, float]:
    """Seconds for all organs of a scan, each slice encoded once, and once for each organ."""
    scan, meter = Organs(subject, organs), make_clock(clock, subject.device)
    with subject.testing():
        together, apart = alternate([scan.together, scan.apart], meter, rounds)
    return sum(together.values()), sum(apart.values())
