"""The options behind the six experiments that separate APSCL's readings, and their diagnostics."""

from typing import Any

import pytest
import torch
from apscl_cases import TinyEncoder, episode
from torch import nn

from fewshot_seg import build
from fewshot_seg.episode import collate

WITHOUT = {"prior": None, "enrichment": None, "decoder": "cosine"}
PLAIN = {"prior": None, "enrichment": None, "contrastive": None}
READINGS: dict[str, dict[str, Any]] = {
    "1 none": {**WITHOUT, "contrastive": None},
    "1 image": {**WITHOUT, "contrastive.scl_mode": "image"},
    "1 region": WITHOUT,
    "2 cosine, scale 1": {**PLAIN, "decoder": {"name": "cosine", "scale": 1.0}},
    "2 cosine, scale 20": {**PLAIN, "decoder": {"name": "cosine", "scale": 20.0}},
    "2 MGD, scale 1": {**PLAIN, "decoder.scale": 1.0},
    "2 MGD, alpha none": {**PLAIN, "decoder.alpha_norm": "none"},
    "3 d=2": {"prior.latent": 2},
    "3 d=128": {"prior.latent": 128},
    "5 literal": {"contrastive.align": "literal"},
    "6 support mask": {"prior.prior_condition": "support_mask"},
}


@pytest.mark.filterwarnings("ignore:scl_mode 'image'")
@pytest.mark.parametrize("name", READINGS)
def test_every_reading_trains(name: str) -> None:
    small = {"prior.latent": 4, "prior.hidden": 16} if "prior" not in READINGS[name] else {}
    model = plain_apscl(**{**small, **READINGS[name]})
    output = model(episode())
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert (output.losses.get("scl") == 0) == (name == "1 image")
    assert output.diagnostics["margin_spread"] > 0


def plain_apscl(**changes: Any) -> nn.Module:
    torch.manual_seed(0)
    return build("apscl", encoder=TinyEncoder(), image_size=32, **changes).train()


@pytest.mark.filterwarnings("ignore:scl_mode 'image'")
def test_image_mode_with_one_episode_trains_exactly_as_no_contrast() -> None:
    weights = []
    for name in ("1 none", "1 image", "1 region"):
        model = plain_apscl(**READINGS[name])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for seed in range(3):
            optimizer.zero_grad()
            model(episode(seed=seed)).loss.backward()
            optimizer.step()
        weights.append(model.encoder.conv.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2], atol=1e-4)


def test_image_mode_compares_the_three_episodes_of_a_step() -> None:
    task = collate([episode(seed=seed, classes=torch.tensor([[seed]])) for seed in (1, 2, 3)])
    model = plain_apscl(**READINGS["1 image"])
    assert model(task).losses["scl"] > 0


# --- the spread of margins ------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_margin_spread_is_of_cosines(scale: float) -> None:
    task = episode(query=2, way=2)
    model = plain_apscl(**PLAIN, **{"decoder.scale": scale})
    output = model(task)
    cosines = output.logits.detach() / scale
    expected = []
    for image in cosines[0]:
        expected += [(image[way] - image[0]).std().item() for way in (1, 2)]
    assert output.diagnostics["margin_spread"].item() == pytest.approx(sum(expected) / 4, rel=1e-4)
    assert not output.diagnostics["margin_spread"].requires_grad


def test_an_unscaled_gram_matrix_makes_all_pixels_alike() -> None:
    """Section 7(c)3: features with a common mean lose their spread, about thirtyfold."""
    spreads = {}
    for norm in ("corr", "none"):
        model = plain_apscl(**PLAIN, **{"decoder.alpha_norm": norm})
        model.encoder.conv.bias.data += 1
        spreads[norm] = model(episode(size=32)).diagnostics["margin_spread"].item()
    assert spreads["corr"] > 10 * spreads["none"]
