"""Registered means tested: the whole registry goes through the contract."""

from typing import Any

import pytest

from fewshot_seg import build, names
from fewshot_seg.registry import Registry
from fewshot_seg.testing import (
    check_contrastive,
    check_decoder,
    check_encoder,
    check_enrichment,
    check_method,
    check_prior,
)

SMALL = {"name": "timm", "backbone": "test_resnet.r160_in1k", "dim": 32}
"""An encoder of 0.5 M parameters; the contract is about wiring, not about accuracy."""

METHODS: dict[str, dict[str, Any]] = {
    "copy": {},
    "senet": {"conditioner_width": 4, "segmenter_width": 6},
    "rpnet": {
        "encoder": {"name": "unet", "width": 4},
        "width": 8,
        "train_steps": 2,
        "test_steps": 2,
        "registration_steps": 2,
    },
    "gcn_de": {"width_divisor": 16},
    "aas_dcl": {"width": 4},
    "apscl_literal": {
        "encoder": SMALL,
        "image_size": 64,
        "label_encoder": "light",
        "prior.hidden": 32,
    },
}
"""Overrides where the small encoder alone is not enough."""


def _ours(kind: str) -> list[str]:
    """Names of this distribution; other installed plugins answer for themselves."""
    registry = Registry(kind)
    found = registry.providers()
    return [name for name in names(kind) if found[name][0].distribution.startswith("fewshot-seg 0")]


@pytest.mark.parametrize("name", _ours("method"))
def test_every_method_keeps_the_contract(name: str) -> None:
    check_method(build(name, **METHODS.get(name, {"encoder": SMALL, "image_size": 64})))


ENCODERS: dict[str, dict[str, Any]] = {"timm": {"backbone": "test_resnet.r160_in1k"}}


@pytest.mark.parametrize("name", _ours("encoder"))
def test_every_encoder_keeps_the_contract(name: str) -> None:
    check_encoder(Registry("encoder").build(name, **ENCODERS.get(name, {})))


CONTEXT = {"dim": 32, "latent": 8, "stride": 8, "grid": (8, 8)}
"""What `build` fills in from the other parts."""


def _part(kind: str, name: str) -> Any:
    takes = Registry(kind).options(name)
    own = "latent" if kind == "prior" else ""
    given = {key: value for key, value in CONTEXT.items() if key in takes and key != own}
    return Registry(kind).build(name, **given)


@pytest.mark.parametrize("name", _ours("prior"))
def test_every_prior_keeps_the_contract(name: str) -> None:
    check_prior(_part("prior", name), dim=32)


@pytest.mark.parametrize("name", _ours("enrichment"))
def test_every_enrichment_keeps_the_contract(name: str) -> None:
    check_enrichment(_part("enrichment", name), dim=32, latent=8)


@pytest.mark.parametrize("name", _ours("decoder"))
def test_every_decoder_keeps_the_contract(name: str) -> None:
    check_decoder(_part("decoder", name), dim=32)


@pytest.mark.parametrize("decoder", _ours("decoder"))
@pytest.mark.parametrize("name", _ours("contrastive"))
def test_every_contrastive_term_works_with_every_decoder(name: str, decoder: str) -> None:
    check_contrastive(_part("contrastive", name), _part("decoder", decoder), dim=32)
