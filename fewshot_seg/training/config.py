"""The settings of a training run, checked; each with where its default comes from."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any

from fewshot_seg.errors import OptionError, did_you_mean

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "step", "one_cycle", "cosine")
PRECISIONS = ("32", "bf16", "16", "auto")
ACCELERATORS = ("auto", "cpu", "cuda")


def _setting(
    default: Any,
    help: str,
    *,
    low: int | float | None = None,
    high: int | float | None = None,
    above: int | float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field with its meaning and its limits: low <= value <= high, value > above."""
    limits = {"low": low, "high": high, "above": above, "choices": choices}
    return field(default=default, metadata={"help": help, **limits})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of a training run; the schema of `Recipe.training`.

    The defaults are the recipe that PANet's successors share (ALPNet's official code: SGD 1e-3,
    momentum 0.9, weight decay 5e-4, one episode a step, 100k steps), without its decay, as APSCL
    states none. `fields(TrainConfig)` carries each setting's meaning in `metadata["help"]`.
    Raises OptionError for a value that is not allowed.
    """

    steps: int = _setting(
        100_000, "optimizer steps of the whole run (APSCL: 100 epochs of 1000 episodes)", low=1
    )
    episodes_per_step: int = _setting(
        1, "episodes whose mean loss makes one step, over all devices (PANet, ALPNet: 1)", low=1
    )
    optimizer: str = _setting(
        "sgd", "sgd (PANet and successors), adam (RP-Net) or adamw", choices=OPTIMIZERS
    )
    lr: float = _setting(1e-3, "highest learning rate (PANet, ALPNet, APSCL: 1e-3)", above=0)
    momentum: float = _setting(
        0.9,
        "momentum of sgd, unused by the others (PANet: 0.9; SE-Net: 0.99)",
        low=0,
        high=0.999999,
    )
    weight_decay: float = _setting(
        5e-4, "L2 penalty of sgd and adam, decoupled decay of adamw (PANet, ALPNet: 5e-4)", low=0
    )
    schedule: str = _setting(
        "constant", "course of the learning rate (APSCL states none)", choices=SCHEDULES
    )
    step_every: int = _setting(
        1000, "schedule 'step': steps between decays (ALPNet: 1000, PANet: 10000)", low=1
    )
    step_factor: float = _setting(
        0.95, "schedule 'step': factor of a decay (ALPNet: 0.95, PANet: 0.1)", above=0, high=1
    )
    one_cycle_warm_up: float = _setting(
        0.3, "schedule 'one_cycle': rising part of the run (torch's pct_start: 0.3)", low=0, high=1
    )
    one_cycle_start: float = _setting(
        25.0, "schedule 'one_cycle': lr / first learning rate (torch's div_factor: 25)", low=1
    )
    one_cycle_end: float = _setting(
        1e4, "schedule 'one_cycle': first / last learning rate (torch's final_div_factor)", low=1
    )
    clip_norm: float = _setting(
        0.0, "largest gradient norm, 0 for no clipping (no paper of the field clips)", low=0
    )
    precision: str = _setting(
        "32",
        "32 (every paper of the field), bf16 or 16 for mixed precision, auto for bf16 where the "
        "hardware computes in it and 32 elsewhere",
        choices=PRECISIONS,
    )
    channels_last: bool = _setting(
        False, "store 4-D weights channels last, faster on tensor cores and many CPUs (ours)"
    )
    compile: bool = _setting(
        False,
        "torch.compile, for GPUs: other random draws, and a first step that takes long (ours)",
    )
    workers: int = _setting(0, "processes that prepare episodes, 0 for none (ours)", low=0)
    seed: int = _setting(0, "root of every random draw in the run (ours)", low=0, high=2**63 - 1)
    checkpoint_every: int = _setting(
        1000, "steps between checkpoints (ours; ALPNet's code: 25000)", low=1
    )
    log_every: int = _setting(50, "steps between lines of the log (ours)", low=1)
    accelerator: str = _setting(
        "auto", "auto takes a CUDA device where there is one (ours)", choices=ACCELERATORS
    )
    devices: int = _setting(1, "processes that share each step, one per device (ours)", low=1)

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = _typed(setting, getattr(self, setting.name))
            _check_limits(setting, value)
            object.__setattr__(self, setting.name, value)
        if self.episodes_per_step % self.devices:
            raise OptionError(
                f"{self.episodes_per_step} episodes per step cannot be shared by {self.devices} "
                f"devices; episodes_per_step must be a multiple of {self.devices}"
            )

    @classmethod
    def from_dict(cls, settings: Mapping[str, object]) -> "TrainConfig":
        """Settings by name, the rest at their defaults. Raises OptionError for an unknown name."""
        known = {setting.name: setting for setting in fields(cls)}
        for name in settings:
            if name not in known:
                raise OptionError(
                    f"training has no setting '{name}'{did_you_mean(name, known)} "
                    f"It takes: {', '.join(known)}."
                )
        values: dict[str, Any] = {
            name: _typed(known[name], value) for name, value in settings.items()
        }
        return cls(**values)

    def to_dict(self) -> dict[str, bool | int | float | str]:
        """All settings by name; `from_dict` is the inverse."""
        return asdict(self)


def _typed(setting: Field, value: object) -> bool | int | float | str:
    """`value` in the type of the setting's default; a whole number is also a float."""
    assert setting.default is not MISSING
    wanted = type(setting.default)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise OptionError(
            f"training setting '{setting.name}' takes {_article(wanted)}, "
            f"such as {setting.default!r}; got {value!r}"
        )
    assert isinstance(value, bool | int | float | str)
    return value


def _article(wanted: type) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    return names[wanted]


def _check_limits(setting: Field, value: bool | int | float | str) -> None:
    limits = setting.metadata
    name = f"training setting '{setting.name}'"
    if isinstance(value, str):
        if limits["choices"] and value not in limits["choices"]:
            raise OptionError(
                f"{name} is one of {', '.join(limits['choices'])}; "
                f"got {value!r}{did_you_mean(value, limits['choices'])}"
            )
        return
    if not math.isfinite(value):
        raise OptionError(f"{name} must be finite; got {value}")
    low, high, above = limits["low"], limits["high"], limits["above"]
    if low is not None and value < low:
        raise OptionError(f"{name} must be at least {low}; got {value}")
    if high is not None and value > high:
        raise OptionError(f"{name} must be at most {high}; got {value}")
    if above is not None and value <= above:
        raise OptionError(f"{name} must be more than {above}; got {value}")
