"""A method measured part by part: seconds, floating-point operations, memory, parameters."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fewshot_seg.errors import check_choice
from fewshot_seg.profiling.clocks import HostClock, Meter, make_clock
from fewshot_seg.profiling.flops import flop_counter
from fewshot_seg.profiling.machine import machine
from fewshot_seg.profiling.memory import peak_memory, resident_peak
from fewshot_seg.profiling.result import Costs, Memory, Profile, Row
from fewshot_seg.profiling.subject import PHASES, Load, Subject
from fewshot_seg.profiling.tape import REST, Span, Tape
from fewshot_seg.training.config import ACCELERATORS
from fewshot_seg.training.hardware import choose_accelerator

Amounts = dict[Span, float]
Run = Callable[[Tape], None]


class Flops:
    """Multiplications and additions so far, as torch counts them: convolutions, matrix products
    and attention, two for each multiply-add; nothing for what works value by value."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self.read = counter.get_total_flops

    def between(self, first: int, last: int) -> float:
        return float(last - first)


def profile(
    method: nn.Module,
    load: Load,
    *,
    precision: str = "auto",
    rounds: int = 3,
    clock: str = "wall",
    device: str = "auto",
) -> Profile:
    """Measure a method, which is moved to the device.

    rounds: measured ones, after one that is not; medians count.   clock: see `clocks.CLOCKS`.
    device: "auto" is a GPU where there is one, see `training.hardware`.
    Raises OptionError; EpisodeError when the method does not take what `load` asks for;
    TrainingError for a GPU that is not there.
    """
    check_choice("device", device, ACCELERATORS)
    place = torch.device(choose_accelerator(device))
    subject = Subject(method, load, precision=precision, device=place)
    subject.check()
    return profile_together([subject], rounds=rounds, clock=clock)[0]


def profile_together(subjects: Sequence[Subject], *, rounds: int, clock: str) -> list[Profile]:
    """Measure several, which take turns, so that they can be compared with each other too."""
    place = subjects[0].device
    meter = make_clock(clock, place)
    counts = [count(one) for one in subjects]
    times = clocked(subjects, meter, rounds)
    return [
        Profile(
            load=subject.load,
            precision=subject.precision,
            clock=clock,
            machine=machine(place),
            rows=rows_of(subject, seconds, flops),
            bare=Costs(summed(bare_seconds), summed(bare_flops)),
            memory=memory,
        )
        for subject, (flops, bare_flops, memory), (seconds, bare_seconds) in zip(
            subjects, counts, times
        )
    ]


def count(subject: Subject) -> tuple[Amounts, Amounts, Memory]:
    """FLOPs by phase and part, those of the networks alone, and peak memory."""
    flops = _counted(subject, subject.step, subject.segment)
    return flops, _counted(subject, subject.bare_step, subject.bare_segment), _memory(subject)


def _counted(subject: Subject, learn: Run, test: Run) -> Amounts:
    """FLOPs of one training step and one test."""
    with flop_counter() as counter:
        tape = Tape(Flops(counter))
        with subject.training():
            learn(tape)
        with subject.testing():
            test(tape)
    return tape.amounts()


def _memory(subject: Subject) -> Memory:
    def peak(run: Run) -> int:
        # a tape of its own: marks of a clock take no memory that is counted
        return peak_memory(lambda: run(Tape(HostClock("wall"))), subject.tensors(), subject.device)

    with subject.training():
        train = peak(subject.step) if subject.learns else 0
    with subject.testing():
        test = peak(subject.segment)
    return Memory(train, test, resident_peak())


def clocked(
    subjects: Sequence[Subject], meter: Meter, rounds: int
) -> list[tuple[Amounts, Amounts]]:
    """Seconds of each subject by phase and part, and of its networks alone.

    All take turns, round by round, as machines drift.
    """
    with ExitStack() as stack:
        for one in subjects:
            stack.enter_context(one.training())
        steps: list[Run] = [run for one in subjects for run in (one.step, one.bare_step)]
        learnt = alternate(steps, meter, rounds)
    with ExitStack() as stack:
        for one in subjects:
            stack.enter_context(one.testing())
        tests: list[Run] = [run for one in subjects for run in (one.segment, one.bare_segment)]
        tested = alternate(tests, meter, rounds)
    both = [{**one, **other} for one, other in zip(learnt, tested)]
    return list(zip(both[::2], both[1::2]))


def alternate(runs: Sequence[Run], meter: Meter, rounds: int) -> list[Amounts]:
    """Medians of every run; one round of all first that does not count."""
    found: list[list[Amounts]] = [[] for _ in runs]
    for index in range(rounds + 1):
        for run, seen in zip(runs, found):
            tape = Tape(meter)
            run(tape)
            amounts = tape.amounts()  # waits for a GPU, so that no run meets the one before
            if index:
                seen.append(amounts)
    return [
        {span: statistics.median(one[span] for one in seen) for span in seen[0]} for seen in found
    ]


def rows_of(subject: Subject, seconds: Amounts, flops: Amounts) -> tuple[Row, ...]:
    """A row for each part, and one for everything else."""
    held = {name: _parameters(modules) for name, modules in subject.parts.items()}
    held[REST] = _parameters([subject.network]) - sum(held.values())
    return tuple(
        Row(name, number, Costs(_of(name, seconds), _of(name, flops)))
        for name, number in held.items()
    )


def summed(amounts: Amounts) -> dict[str, float]:
    """By phase, over all parts."""
    return {
        phase: sum((value for (one, _), value in amounts.items() if one == phase), 0.0)
        for phase in PHASES
    }


def _of(part: str, amounts: Amounts) -> dict[str, float]:
    return {phase: amounts.get((phase, part), 0.0) for phase in PHASES}


def _parameters(modules: Iterable[nn.Module]) -> int:
    """Numbers in the parameters of these modules, each counted once."""
    found = {id(one): one.numel() for module in modules for one in module.parameters()}
    return sum(found.values())
