"""In which precision a method answers."""

import pytest
import torch

from fewshot_seg import build, precision
from fewshot_seg.errors import OptionError
from fewshot_seg.precision import computing, resolve_precision
from fewshot_seg.testing import make_episode

CPU = torch.device("cpu")


@pytest.mark.parametrize("able", [True, False])
def test_auto_is_bf16_where_the_hardware_computes_in_it(
    able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "computes_in_bf16", lambda accelerator: able)
    assert resolve_precision("auto", CPU) == ("bf16" if able else "32")
    assert resolve_precision("auto", torch.device("meta")) == "32"
    assert [resolve_precision(one, CPU) for one in ("32", "bf16")] == ["32", "bf16"]


def test_another_precision_is_refused() -> None:
    with pytest.raises(OptionError, match="precision='16' is not one of auto, 32, bf16"):
        resolve_precision("16", CPU)


def test_bf16_changes_the_answer_a_little_and_the_weights_not_at_all() -> None:
    torch.manual_seed(0)
    method = build("panet", encoder="resnet18", image_size=64).eval()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    task = make_episode(batch=1)
    with torch.inference_mode():
        with computing(method, CPU, "32"):
            exact = method(task).logits
        with computing(method, CPU, "bf16"):
            half = method(task).logits
        with computing(method, CPU, "32"):
            again = method(task).logits
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    assert (half.argmax(2) == exact.argmax(2)).float().mean() > 0.97
    torch.testing.assert_close(again, exact, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
