"""The training loop: what a step does, and errors that say what to do."""

import io
import tomllib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from rich.console import Console
from tiny_training import TinyMethod, TinySource, run, same, trained
from torch import nn

from fewshot_seg.checkpoint import load_weights
from fewshot_seg.episode import Episode, Output, collate
from fewshot_seg.errors import OptionError, TrainingError
from fewshot_seg.training import TrainConfig, hardware
from fewshot_seg.training.log import read_log
from fewshot_seg.training.optim import learning_rate

# settings

WRONG_SETTINGS: dict[str, tuple[dict[str, object], str]] = {
    "unknown": ({"momentun": 0.9}, "no setting 'momentun'; did you mean 'momentum'?"),
    "word for number": ({"lr": "fast"}, "'lr' takes a number, such as 0.001; got 'fast'"),
    "number for switch": ({"channels_last": 1}, "'channels_last' takes true or false"),
    "switch for number": ({"steps": True}, "'steps' takes a whole number"),
    "fraction": ({"steps": 1.5}, "'steps' takes a whole number"),
    "no steps": ({"steps": 0}, "'steps' must be at least 1; got 0"),
    "no lr": ({"lr": 0}, "'lr' must be more than 0; got 0"),
    "not a number": ({"lr": float("nan")}, "'lr' must be finite"),
    "momentum of 1": ({"momentum": 1}, "'momentum' must be at most"),
    "unknown word": (
        {"optimizer": "adan"},
        "one of sgd, adam, adamw; got 'adan'; did you mean 'adam'?",
    ),
    "precision": ({"precision": "64"}, "one of 32, bf16, 16, auto; got '64'"),
    "devices": ({"episodes_per_step": 3, "devices": 2}, "must be a multiple of 2"),
}


@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_a_wrong_setting_is_refused(case: str) -> None:
    given_settings, message = WRONG_SETTINGS[case]
    with pytest.raises(OptionError) as caught:
        TrainConfig.from_dict(given_settings)
    assert message in str(caught.value)


def test_settings_go_to_a_table_and_back() -> None:
    config = TrainConfig.from_dict({"lr": 1, "schedule": "cosine", "steps": 7})
    assert config.lr == 1.0
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert all(setting.metadata["help"] for setting in fields(TrainConfig))


# schedules: against torch's own schedulers


def _torch_rates(
    make: Callable[[torch.optim.Optimizer], Any], lr: float, steps: int
) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one_cycle"])
def test_rates_are_those_of_torch(schedule: str) -> None:
    rates = torch.optim.lr_scheduler
    makers: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
        "constant": lambda o: rates.ConstantLR(o, factor=1.0),
        "step": lambda o: rates.StepLR(o, 7, 0.5),
        "cosine": lambda o: rates.CosineAnnealingLR(o, 40),
        "one_cycle": lambda o: rates.OneCycleLR(o, 0.2, total_steps=41, cycle_momentum=False),
    }
    config = TrainConfig(steps=40, lr=0.2, schedule=schedule, step_every=7, step_factor=0.5)
    steps = 40
    if schedule == "one_cycle":
        config = replace(config, steps=41)
    ours = [learning_rate(config, step) for step in range(steps)]
    assert ours == pytest.approx(_torch_rates(makers[schedule], 0.2, steps), rel=1e-9)


@given(
    steps=st.integers(1, 50),
    schedule=st.sampled_from(["constant", "step", "cosine", "one_cycle"]),
    warm_up=st.floats(0, 1),
)
@examples(deadline=None, max_examples=25)
def test_rates_stay_between_nothing_and_lr(steps: int, schedule: str, warm_up: float) -> None:
    config = TrainConfig(steps=steps, lr=0.3, schedule=schedule, one_cycle_warm_up=warm_up)
    for step in range(steps):
        assert 0 < learning_rate(config, step) <= 0.3 * (1 + 1e-12)


# the loop


def test_the_loop_does_what_a_plain_loop_does() -> None:
    ours, plain = TinyMethod(dropout=0.0), TinyMethod(dropout=0.0)
    run(ours, episodes_per_step=2, clip_norm=0.1, schedule="step", step_every=3, step_factor=0.5)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for step in range(8):
        optimizer.param_groups[0]["lr"] = 0.05 * 0.5 ** (step // 3)
        optimizer.zero_grad()
        episode = collate([TinySource().episode(2 * step + one) for one in range(2)])
        plain(episode).loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        optimizer.step()
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


def test_training_learns() -> None:
    method = TinyMethod(dropout=0.0)
    first = run(TinyMethod(dropout=0.0), steps=2)
    last = run(method, steps=40, optimizer="adamw", lr=0.02)
    assert last.losses["ce"] < 0.8 * first.losses["ce"]


def test_the_seed_decides_dropout_and_the_caller_keeps_their_generator() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one = trained(seed=1)
    assert torch.equal(torch.rand(3), expected)
    torch.rand(5)
    assert same(one, trained(seed=1))
    assert not same(one, trained(seed=2))


@pytest.mark.parametrize("mode", [True, False])
def test_the_method_keeps_its_mode(mode: bool) -> None:
    method = TinyMethod().train(mode)
    assert run(method, steps=1).finished
    assert method.training is mode
    assert not same(method, TinyMethod())


def test_frozen_parameters_stay() -> None:
    method = TinyMethod()
    method.first.requires_grad_(False)
    run(method)
    assert torch.equal(method.first.weight, TinyMethod().first.weight)
    assert not torch.equal(method.last.weight, TinyMethod().last.weight)


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"channels_last": True}])
def test_other_number_formats_come_close(changes: dict[str, Any]) -> None:
    # Without dropout, whose mask follows the order of memory.
    run(plain := TinyMethod(dropout=0.0))
    run(other := TinyMethod(dropout=0.0), **changes)
    for a, b in zip(plain.parameters(), other.parameters(), strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.01)


@pytest.mark.parametrize(("able", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_precision_asks_the_hardware_and_says_so(
    able: bool, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hardware, "computes_in_bf16", lambda accelerator: able)
    screen = Console(file=io.StringIO())
    run(TinyMethod(), tmp_path, precision="auto", steps=1, progress=True, console=screen)
    assert f"precision auto: {expected} on cpu" in screen.file.getvalue()
    record = tomllib.loads((tmp_path / "run.toml").read_text())
    assert record["sessions"][0]["precision"] == expected


def test_16_bits_need_cuda() -> None:
    with pytest.raises(TrainingError, match="precision '16' needs a CUDA device"):
        run(TinyMethod(), precision="16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_needs_a_device() -> None:
    with pytest.raises(TrainingError, match="torch sees no CUDA device"):
        run(TinyMethod(), accelerator="cuda")


class Odd(nn.Module):
    """A method whose losses are `losses(weight)`."""

    def __init__(self, losses: Callable[[torch.Tensor], dict[str, torch.Tensor]]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.losses = losses

    def forward(self, episode: Episode) -> Output:
        return Output(torch.zeros(1, 1, 2, 8, 8), self.losses(self.weight))


ODD_METHODS: dict[str, tuple[nn.Module, str]] = {
    "no parameters": (nn.Identity(), "Identity has nothing to train"),
    "all frozen": (TinyMethod().requires_grad_(False), "TinyMethod has nothing to train"),
    "no losses": (Odd(lambda weight: {}), "Odd of .* returned no losses"),
    "reserved name": (Odd(lambda weight: {"lr": weight}), "may not call a loss 'lr'"),
    "constant loss": (
        Odd(lambda weight: {"a": torch.ones(())}),
        "does not depend on its trainable parameters",
    ),
    "infinite gradient": (
        Odd(lambda weight: {"a": (weight - 1).abs().sqrt()}),
        r"the gradient is not finite at step 1 \(episodes 0\): a = 0, total = 0",
    ),
}


@pytest.mark.parametrize("case", ODD_METHODS)
def test_a_method_that_cannot_train_is_told_why(case: str) -> None:
    method, message = ODD_METHODS[case]
    with pytest.raises(TrainingError, match=message):
        run(method)


# losses that are no numbers


def test_a_loss_that_is_not_finite_ends_the_run_at_its_step(tmp_path: Path) -> None:
    method = TinyMethod()
    message = r"the loss is not finite at step 6 \(episodes 10-11\): ce = nan, small = nan, total"
    with pytest.raises(TrainingError, match=message):
        run(method, tmp_path, source=TinySource(nan_at=11), episodes_per_step=2)
    assert all(value.isfinite().all() for value in method.state_dict().values())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000003"]
    load_weights(TinyMethod(), tmp_path / "checkpoints" / "step_00000003" / "model.safetensors")
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [2, 4]


def test_no_checkpoint_keeps_a_weight_that_is_not_finite(tmp_path: Path) -> None:
    method = Odd(lambda weight: {"a": weight})
    method.register_buffer("broken", torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match="after step 3 the weights of broken are not finite"):
        run(method, tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())
