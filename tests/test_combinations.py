"""Borrowing across methods: every decoder x contrastive x enrichment x prior, one training step."""

from itertools import product
from typing import Any

import pytest
import torch
from apscl_cases import TinyEncoder

from fewshot_seg import build, names
from fewshot_seg.errors import FewshotSegError
from fewshot_seg.needs import needs_of
from fewshot_seg.recipe import Part, Recipe
from fewshot_seg.registry import Registry
from fewshot_seg.testing import make_episode

SIZE = 32


def _ours(kind: str) -> list[str]:
    providers = Registry(kind).providers()
    return [
        one for one in names(kind) if providers[one][0].distribution.startswith("fewshot-seg 0")
    ]


DECODERS, CONTRASTIVES = _ours("decoder"), [None, *_ours("contrastive")]
GROUNDS = list(product(_ours("decoder"), [None, *_ours("enrichment")], [None, *_ours("prior")]))

SMALL: dict[str, dict[str, Any]] = {"anatomical": {"latent": 8, "label_encoder": "light"}}
"""Options that keep a part small."""


def _part(name: str | None) -> Part | None:
    return None if name is None else Part(name, SMALL.get(name, {}))


def _refusal(enrichment: str | None, prior: str | None) -> str | None:
    """What cannot be combined, and a word of the message that says why."""
    return "latent" if enrichment == "film" and prior is None else None


@pytest.mark.parametrize(("decoder", "enrichment", "prior"), GROUNDS)
def test_every_combination_trains_or_says_why_not(
    decoder: str, enrichment: str | None, prior: str | None
) -> None:
    for contrastive in CONTRASTIVES:
        torch.manual_seed(0)
        encoder = TinyEncoder(in_channels=3)
        recipe = Recipe(
            "mixed",
            encoder=Part("timm"),
            prior=_part(prior),
            enrichment=_part(enrichment),
            contrastive=() if contrastive is None else (Part(contrastive),),
            decoder=_part(decoder),
            options={"image_size": SIZE},
        )
        why = _refusal(enrichment, prior)
        if why is not None:
            with pytest.raises(FewshotSegError, match=why):
                build(recipe, encoder=encoder)
            continue
        model = build(recipe, encoder=encoder)
        episode = make_episode(size=(SIZE, SIZE), needs=needs_of(model))
        before = [parameter.detach().clone() for parameter in model.parameters()]
        output = model(episode)
        assert torch.isfinite(output.logits).all(), contrastive
        assert all(torch.isfinite(value) for value in output.losses.values()), contrastive
        output.loss.backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters())]
        assert any(moved), f"{contrastive}: no weight moves"
        assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_unlabelled_images_do_not_go_with_a_prior_or_an_enrichment() -> None:
    for slot, part in (("prior", "anatomical"), ("enrichment", "global_correlation")):
        with pytest.raises(FewshotSegError, match=rf"{slot} '{part}'.*decoder.unlabelled=False"):
            build("poissonseg", encoder=TinyEncoder(in_channels=3), image_size=SIZE, **{slot: part})


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("apscl", {"decoder": "alp"}),
        ("alpnet", {"enrichment": "film", "prior": "anatomical"}),
        ("panet", {"contrastive": ["align", "spatial"]}),
        ("adnet", {"contrastive": ["align", "dual"]}),
        ("srnet", {"decoder": "anomaly"}),
        ("poissonseg", {"contrastive": ["consistency", "class_contrast"]}),
        ("lvqm", {"enrichment": "global_correlation"}),
        ("apscl", {"decoder": "refine", "contrastive": ["discriminative", "align"]}),
    ],
)
def test_parts_are_borrowed_by_name(method: str, changes: dict[str, Any]) -> None:
    model = build(method, encoder=TinyEncoder(in_channels=3), image_size=SIZE, **changes)
    episode = make_episode(size=(SIZE, SIZE), needs=needs_of(model))
    output = model(episode)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert model.recipe.method == method
