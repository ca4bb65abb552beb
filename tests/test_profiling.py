"""What is counted, and that each part gets what is its own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner, Result

from fewshot_seg import build
from fewshot_seg.cli import app
from fewshot_seg.errors import EpisodeError, OptionError
from fewshot_seg.profiling import Load, Profile, Subject, profile, table, time_organs, time_scan
from fewshot_seg.profiling.clocks import make_clock
from fewshot_seg.profiling.flops import flop_counter
from fewshot_seg.profiling.memory import LiveBytes
from fewshot_seg.profiling.scan import Organs, Scan
from fewshot_seg.profiling.subject import parts_of
from fewshot_seg.profiling.tape import REST, Tape, watched

ENCODER = {"name": "timm", "backbone": "test_resnet", "dim": 16}
SIZE = 32
CPU = torch.device("cpu")


class Ticks:
    """A clock that a part moves by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def read(self) -> float:
        return self.now

    def between(self, first: float, last: float) -> float:
        return last - first


class Slow(torch.autograd.Function):
    """The identity; it takes `ahead` ticks, and `back` in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clock: Ticks, ahead: float, back: float) -> Tensor:
        ctx.clock, ctx.back = clock, back
        clock.now += ahead
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.clock.now += ctx.back
        return grads[0], None, None, None


class Part(nn.Module):
    def __init__(self, clock: Ticks, ahead: float, back: float) -> None:
        super().__init__()
        self.clock, self.ahead, self.back = clock, ahead, back

    def forward(self, x: Tensor) -> Tensor:
        return Slow.apply(x, self.clock, self.ahead, self.back)

    def describe(self, x: Tensor, other: nn.Module) -> Tensor:
        """A second public function, which calls another part."""
        return other(self(x))


def _small(method: str = "panet", **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    return build(method, encoder=ENCODER, image_size=SIZE, **changes)


def _profile(method: nn.Module, **load: int) -> Profile:
    return profile(
        method,
        Load(**{"size": SIZE, "slices": 2, **load}),
        precision="32",
        rounds=1,
        clock="process",
        device="cpu",
    )


# --- the tape -------------------------------------------------------------------------------------


def test_each_part_gets_its_own_time_forward_and_backward() -> None:
    clock = Ticks()
    one, two, rest = Part(clock, 1, 10), Part(clock, 2, 20), Part(clock, 4, 40)
    tape = Tape(clock)
    x = torch.ones(3, requires_grad=True)
    with watched({"one": [one], "two": [two]}, tape), tape.phase("forward"):
        # two is used twice and in between; the last call is inside one, so it is one's
        loss = one.describe(two(rest(two(x))), two).sum()
    clock.now += 1000  # between the phases nothing counts
    tape.backward(loss, "backward")
    assert tape.amounts() == {
        ("forward", "one"): 1 + 2,
        ("forward", "two"): 2 * 2,
        ("forward", REST): 4,
        ("backward", "one"): 10 + 20,
        ("backward", "two"): 2 * 20,
        ("backward", REST): 40,
    }


def test_watching_leaves_no_trace() -> None:
    part = Part(Ticks(), 0, 0)
    before = dict(vars(part))
    with watched({"one": [part]}, Tape(Ticks())):
        assert vars(part) != before
    assert vars(part) == before


def test_the_answer_and_its_gradient_are_the_same_when_watched() -> None:
    gradients = []
    for look in (True, False):
        method = _small().train()
        subject = Subject(method, Load(size=SIZE), precision="32", device=CPU)
        if look:
            subject.step(Tape(make_clock("process", CPU)))
        else:
            torch.autograd.backward(subject.method(subject.episode).loss)
        gradients.append([one.grad.clone() for one in method.parameters() if one.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    assert all(torch.equal(one, other) for one, other in zip(*gradients))


# --- what is counted ------------------------------------------------------------------------------


class Tiny(nn.Module):
    """A 3x3 convolution from 3 to 4 channels, stride 2, and a 1x1 to 8."""

    dim, stride, in_channels = 8, 2, 3

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, kernel_size=3, stride=2, padding=1, bias=False)
        self.second = nn.Conv2d(4, 8, kernel_size=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images))


def test_flops_of_a_small_encoder_by_hand() -> None:
    found = _profile(build("panet", encoder=Tiny(), contrastive=None, image_size=SIZE))
    positions = (SIZE // 2) ** 2
    first, second = 2 * positions * 3 * 9 * 4, 2 * positions * 4 * 8
    encoder = found.rows[0]
    assert encoder.part == "encoder"
    assert encoder.parameters == 3 * 9 * 4 + 4 * 8
    flops = encoder.costs.flops
    assert flops["forward"] == 2 * (first + second)  # support and query
    # gradients of weights and of inputs; the images need none
    assert flops["backward"] == 2 * (first + 2 * second)
    assert flops["support"] == first + second
    assert flops["segment"] == 2 * (first + second)  # slices
    assert found.bare.flops == {**flops, "support": 0}


@pytest.mark.parametrize("masked", [True, False])
def test_attention_and_matrix_products_count(masked: bool) -> None:
    heads, rows, cols, dim = 2, 5, 7, 16
    query, key = torch.randn(1, heads, rows, dim), torch.randn(1, heads, cols, dim)
    mask = torch.zeros(rows, cols) if masked else None
    query.requires_grad_()
    with flop_counter() as counter:
        found = torch.nn.functional.scaled_dot_product_attention(query, key, key, mask)
        assert counter.get_total_flops() == 2 * (2 * heads * rows * cols * dim)
        found.sum().backward()
    # scores once more, and the gradients of weights, scores, queries, keys and values
    assert counter.get_total_flops() == (2 + 5) * (2 * heads * rows * cols * dim)
    with FlopCounterMode(display=False) as counter:
        query[0] @ key[0].mT
        torch.einsum("hrd,hcd->hrc", query[0], key[0])
        query[0, 0] @ key[0, 0].mT
    assert counter.get_total_flops() == (heads + heads + 1) * 2 * rows * cols * dim


def test_bytes_alive_are_followed() -> None:
    given = torch.zeros(1000)
    with LiveBytes([given]) as live:
        kept = given + 1
        view = kept.view(10, 100).t()  # no memory of its own
        (given * 2).exp()  # two at a time, and both gone
        del kept
        assert live.peak == 4 * 4000
        last = view * 1  # the view holds what `kept` was
        assert live.peak == 4 * 4000
        more = torch.cat([last, last, last])
    assert live.peak == (3 * 1000 + more.numel()) * 4


# --- a profile ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found() -> Profile:
    changes = {"label_encoder": "light", "prior.hidden": 8}
    return _profile(_small("apscl", **changes))


def test_parts_add_up_to_the_whole(found: Profile) -> None:
    names = [row.part for row in found.rows]
    slots = ["encoder", "prior", "enrichment", "decoder", "contrastive spatial"]
    assert names == [*slots, REST]
    method = _small("apscl", label_encoder="light", **{"prior.hidden": 8})
    assert found.parameters == sum(one.numel() for one in method.parameters())
    subject = Subject(method, found.load, precision="32", device=CPU)
    with FlopCounterMode(display=False) as counter, subject.testing():
        state = subject.method.encode_support(subject.task.support)
        subject.method.segment(state, subject.task.query_images)
    flops = found.whole.flops
    assert flops["support"] + flops["segment"] == counter.get_total_flops()
    for phase, seconds in found.whole.seconds.items():
        assert seconds == pytest.approx(sum(row.costs.seconds[phase] for row in found.rows))
        assert seconds > 0


def test_every_learning_part_is_seen_at_work(found: Profile) -> None:
    for row in found.rows:
        assert row.costs.seconds["forward"] > 0, row.part
        assert row.costs.seconds["backward"] > 0, row.part
        trains_only = row.part.startswith("contrastive")
        assert (row.costs.seconds["segment"] == 0) == trains_only, row.part
    by_name = {row.part: row for row in found.rows}
    assert by_name["encoder"].costs.flops["forward"] == found.bare.flops["forward"]
    assert by_name["encoder"].costs.flops["backward"] == found.bare.flops["backward"]


def test_ratios_and_memory_are_sound(found: Profile) -> None:
    for ratio in (found.train_ratio, found.test_ratio):
        assert ratio is not None
        assert 0 < ratio < 100
    weights = 4 * found.parameters
    assert found.memory.train > 2 * weights  # with their gradients
    assert weights < found.memory.test < found.memory.train


def test_memory_grows_with_episodes_and_flops_with_slices() -> None:
    one, three = (_profile(_small(), episodes=n, slices=n) for n in (1, 3))
    assert three.memory.train > one.memory.train
    encoder = [found.rows[0].costs.flops for found in (one, three)]
    assert encoder[1]["forward"] == 3 * encoder[0]["forward"]
    assert encoder[1]["segment"] == 3 * encoder[0]["segment"]
    assert encoder[1]["support"] == encoder[0]["support"]  # at test there is one episode


def test_a_whole_network_is_measured_by_its_children() -> None:
    found = _profile(build("senet", conditioner_width=2, segmenter_width=4))
    assert [row.part for row in found.rows] == ["conditioner", "segmenter", REST]
    conditioner, segmenter, rest = found.rows
    assert conditioner.costs.flops["segment"] == 0 < conditioner.costs.flops["support"]
    assert segmenter.costs.flops["support"] == 0 < segmenter.costs.flops["segment"]
    assert rest.costs.step_flops == 0
    assert found.whole.step_flops == found.bare.step_flops  # its loss has none
    assert found.train_ratio is not None
    assert found.test_ratio is None


def test_a_method_without_weights_has_no_training() -> None:
    found = _profile(build("copy"))
    assert found.train_ratio is None
    assert found.memory.train == found.whole.step == 0
    assert found.whole.segment > 0


def test_a_scan_encodes_each_support_slice_once() -> None:
    method = _small()
    subject = Subject(method, Load(size=SIZE), precision="32", device=CPU)
    seen: list[int] = []
    encoder: nn.Module = method.encoder  # type: ignore[assignment]
    encoder.register_forward_hook(lambda _, images, __: seen.append(len(images[0])))
    scan = Scan(subject)
    with subject.testing():
        scan.whole(Tape(Ticks()))
    assert sum(seen) == 3 + 36
    slice_seconds, image_seconds = time_scan(subject, rounds=1, clock="process")
    assert 0 < slice_seconds < 1
    assert 0 < image_seconds < 1


def test_organs_of_a_scan_share_its_encoded_slices() -> None:
    method = build("panet", encoder=ENCODER)
    subject = Subject(method, Load(size=SIZE), precision="32", device=CPU)
    seen: list[int] = []
    encoder: nn.Module = method.encoder  # type: ignore[assignment]
    encoder.register_forward_hook(lambda _, images, __: seen.append(len(images[0])))
    scan = Organs(subject, 3)
    with subject.testing():
        scan.together(Tape(Ticks()))
        assert sum(seen) == 3 + 36
        seen.clear()
        scan.apart(Tape(Ticks()))
    assert sum(seen) == 3 * (1 + 36)
    together, apart = time_organs(subject, 3, rounds=1, clock="process")
    assert together > 0
    assert apart > 0


def test_parts_of_a_network_hold_each_parameter_once() -> None:
    method = build("gcn_de", width_divisor=16)
    held = [one for part in parts_of(method).values() for module in part[:1] for one in
            module.parameters()]  # fmt: skip
    assert len(held) == len({id(one) for one in held}) == len(list(method.parameters()))


# --- wrong requests -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "8"}, "precision='8' is not one of auto, 32, bf16"),
        ({"clock": "sun"}, "clock='sun' is not one of wall, process"),
        ({"device": "tpu"}, "device='tpu' is not one of auto, cpu, cuda"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        profile(build("copy"), Load(size=SIZE), rounds=1, **options)


def test_a_gpu_has_no_processor_time() -> None:
    with pytest.raises(OptionError, match="use clock 'wall'"):
        make_clock("process", torch.device("cuda"))


def test_what_a_method_cannot_take_is_said() -> None:
    with pytest.raises(OptionError, match="shots must be at least 1; got 0"):
        Load(shots=0)
    senet = build("senet", conditioner_width=2, segmenter_width=4)
    with pytest.raises(EpisodeError, match=r"size 40, .* multiples of 16"):
        _profile(senet, size=40)


# --- the command ----------------------------------------------------------------------------------


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, ["profile", *(str(word) for word in words)])


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    file = tmp_path / "new" / "panet.json"
    told = _run(
        "panet", "--set", 'encoder={name="timm", backbone="test_resnet", dim=16}', "--size", SIZE,
        "--shots", 2, "--ways", 2, "--rounds", 1, "--precision", "32", "--clock", "process",
        "--device", "cpu", "--json", file,
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    for word in ("encoder", "contrastive", "whole", "bare networks", "ratio", "peak memory"):
        assert word in told.output
    assert "…" not in told.output
    read = json.loads(file.read_text())
    assert read["load"] == vars(Load(size=SIZE, shots=2, ways=2))
    assert read["precision"] == "32"
    assert read["machine"]["torch"] == torch.__version__
    assert read["train_ratio"] > 0
    assert [row["part"] for row in read["rows"]] == [
        "encoder", "decoder", "contrastive align", REST
    ]  # fmt: skip
    total = sum(row["costs"]["flops"]["forward"] for row in read["rows"])
    assert read["whole"]["costs"]["flops"]["forward"] == total > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["panett"], "did you mean 'panet'"),
        (["nowhere.toml"], "nowhere.toml"),
        (["copy", "--size", "4"], "8"),
        (["copy", "--size", "16", "--shots", "0"], "1"),
        (["copy", "--size", "16", "--clock", "sun"], "clock='sun'"),
        (["copy", "--size", "16", "--precision", "64"], "precision='64'"),
        (["copy", "--size", "16", "--set", "depth=3"], "no option 'depth'"),
        (["senet", "--size", "40"], "multiples of 16"),
        (["panet", "--size", "16", "--set", "encoder"], "key=value"),
    ],
)
def test_wrong_requests_end_with_exit_code_2(
    words: list[str], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "out.json"
    told = _run(*words, "--rounds", "1", "--json", file)
    assert told.exit_code == 2, told.output
    assert message in " ".join(told.output.split())
    assert not file.exists()


def test_the_table_fits_a_terminal(found: Profile) -> None:
    from rich.console import Console

    console = Console(width=80, record=True, quiet=True)
    console.print(table(found, "apscl"))
    shown = console.export_text()
    assert "…" not in shown
    assert all(len(one) <= 80 for one in shown.splitlines())
