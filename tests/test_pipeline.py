"""The pipeline and what travels through it."""

from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_seg import Episode, Support, build
from fewshot_seg.episode import Features, Output, collate
from fewshot_seg.functional import area_average, masked_average, resize, segmentation_loss
from fewshot_seg.testing import make_episode

TINY = {"name": "timm", "backbone": "test_resnet.r160_in1k", "dim": 16}


def method(name: str = "panet", **changes: Any) -> Any:
    torch.manual_seed(0)
    return build(name, **{"encoder": TINY, "image_size": 64, **changes}).eval()


def test_one_channel_is_repeated_and_others_are_refused() -> None:
    network = method()
    grey = make_episode(channels=1)
    three = grey.map(lambda t: t)
    colour = Episode(
        Support(grey.support.images.expand(-1, -1, -1, 3, -1, -1), grey.support.masks),
        three.query_images.expand(-1, -1, 3, -1, -1),
    )
    with torch.no_grad():
        torch.testing.assert_close(network(grey).logits, network(colour).logits)
        with pytest.raises(ValueError, match="2 channels but the encoder was built for 3"):
            network(make_episode(channels=2))


def test_a_way_without_support_gets_no_pixel_and_is_flagged() -> None:
    episode = make_episode(n_way=2)
    masks = episode.support.masks.clone()
    masks[0, 1] = 0
    with torch.no_grad():
        output = method()(Episode(Support(episode.support.images, masks), episode.query_images))
    assert output.empty_support is not None
    assert output.empty_support.tolist() == [[False, True], [False, False]]
    assert not (output.logits[0].argmax(1) == 2).any()


def test_several_samples_average_probabilities() -> None:
    options = {"eval_latent": "sample", "eval_samples": 3}
    network = method("apscl", **options)
    for part in (network.enrichment.scale, network.enrichment.shift):
        torch.nn.init.normal_(part[-1].weight, std=0.05)
    episode = make_episode()
    noise = network.prior.eval_noise.clone()
    with torch.no_grad():
        joint = network(episode).logits.softmax(2)
        single = []
        for index in range(3):
            network.prior.eval_noise = noise[index : index + 1]
            network.prior.eval_samples = 1
            single.append(network(episode).logits.softmax(2))
    assert not torch.allclose(single[0], single[1], atol=1e-3)
    torch.testing.assert_close(joint, torch.stack(single).mean(0), atol=1e-5, rtol=1e-4)


def test_two_parts_cannot_claim_one_loss() -> None:
    class Ce(torch.nn.Module):
        def forward(self, step: Any) -> dict[str, torch.Tensor]:
            return {"ce": torch.zeros(())}

    network = method(contrastive=Ce()).train()
    with pytest.raises(ValueError, match="contrastive 'Ce' adds a loss 'ce' that another part"):
        network(make_episode())


def test_the_total_is_the_weighted_sum() -> None:
    output = Output(
        torch.zeros(1, 1, 2, 4, 4),
        {"ce": torch.tensor(1.0), "kl": torch.tensor(3.0)},
        {"kl": 0.1},
    )
    assert output.loss.item() == pytest.approx(1.3)
    with pytest.raises(ValueError, match="has no losses"):
        _ = Output(torch.zeros(1, 1, 2, 4, 4)).loss


BAD_EPISODES: list[tuple[str, dict[str, Any], str]] = [
    ("sizes", {"query": (1, 1, 3, 32, 32)}, "support images are 16x16 but query images are 32x32"),
    ("channels", {"query": (1, 1, 1, 16, 16)}, "3 channels but query images have 1"),
    ("batch", {"query": (2, 1, 3, 16, 16)}, "support holds 1 episodes but the query holds 2"),
    ("masks", {"masks": (1, 1, 1, 8, 8)}, "support masks have shape"),
    ("labels", {"labels": (1, 2, 16, 16)}, "query labels have shape"),
    ("classes", {"classes": (1, 3)}, "1 episodes of 1 ways"),
]


@pytest.fixture
def unhooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user meets: without the tests' shape checks, which would speak first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("name", "shapes", "message"), BAD_EPISODES, ids=lambda case: str(case)[:8]
)
def test_episodes_that_do_not_fit_are_refused(
    name: str, shapes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Episode(
            Support(
                torch.zeros(1, 1, 1, 3, 16, 16), torch.zeros(shapes.get("masks", (1, 1, 1, 16, 16)))
            ),
            torch.zeros(shapes.get("query", (1, 1, 3, 16, 16))),
            torch.zeros(shapes.get("labels", (1, 1, 16, 16)), dtype=torch.long)
            if "labels" in shapes or name == "classes"
            else None,
            torch.zeros(shapes["classes"], dtype=torch.long) if "classes" in shapes else None,
        )


def test_collate_joins_and_refuses_mixtures() -> None:
    one, two = make_episode(batch=1, seed=1), make_episode(batch=1, seed=2)
    both = collate([one, two])
    assert both.query_images.shape[0] == 2
    assert torch.equal(both.support.images[1], two.support.images[0])
    with pytest.raises(ValueError, match="only some of the 2 episodes have query labels"):
        collate([one, two.without_labels()])
    with pytest.raises(ValueError, match="no episode"):
        collate([])


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 3), way=st.integers(1, 3), shot=st.integers(1, 3), query=st.integers(1, 2)
)
def test_flat_maps_come_back_in_place(batch: int, way: int, shot: int, query: int) -> None:
    features = Features(
        torch.randn(batch, way, shot, 4, 3, 2),
        torch.rand(batch, way, shot, 3, 2),
        torch.randn(batch, query, 4, 3, 2),
    )
    again = features.with_maps(features.maps())
    assert torch.equal(again.support, features.support)
    assert torch.equal(again.query, features.query)
    assert features.maps().shape[0] == features.n_support + batch * query


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_area_average_keeps_the_mean_and_loses_no_organ(height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(1, height * 8, width * 8)
    row = int(torch.randint(height * 8, (1,), generator=generator))
    col = int(torch.randint(width * 8, (1,), generator=generator))
    masks[0, row, col] = 1
    small = area_average(masks, (height, width))
    assert small.sum().item() == pytest.approx(1 / 64)
    assert small[0, row // 8, col // 8] > 0


def test_area_pooling_equals_pooling_of_nearest_upsampled_features() -> None:
    maps, masks = torch.randn(2, 5, 4, 6), (torch.rand(2, 32, 48) > 0.6).float()
    small = masked_average(maps, area_average(masks, (4, 6)) * 64)
    large = maps.repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.testing.assert_close(small, masked_average(large, masks))


def test_masked_average_of_nothing_is_zero() -> None:
    assert not masked_average(torch.randn(1, 3, 4, 4), torch.zeros(1, 4, 4)).any()


def test_cross_entropy_agrees_with_torch() -> None:
    logits = torch.randn(2, 3, 4, 5, 6)
    labels = torch.randint(0, 4, (2, 3, 5, 6))
    labels[0, 0, :2] = 255
    flat, target = logits.flatten(0, 1), labels.flatten(0, 1)
    want = torch.nn.functional.cross_entropy(flat, target, ignore_index=255)
    torch.testing.assert_close(segmentation_loss(logits, labels), want)
    weight = torch.tensor([0.05, 1.0, 1.0, 1.0])
    want = torch.nn.functional.cross_entropy(flat, target, weight, ignore_index=255)
    torch.testing.assert_close(segmentation_loss(logits, labels, (0.05, 1.0)), want)
    assert segmentation_loss(logits, torch.full_like(labels, 255)).item() == 0


def test_resize_is_bilinear_without_aligned_corners() -> None:
    maps = torch.randn(2, 3, 4, 4)
    want = torch.nn.functional.interpolate(maps, (9, 7), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resize(maps, (9, 7)), want)


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 999), name=st.sampled_from(["panet", "apscl"]))
def test_the_order_of_shots_does_not_matter(seed: int, name: str) -> None:
    network = method(name)
    episode = make_episode(n_shot=3, seed=seed)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(seed))
    support = Support(episode.support.images[:, :, order], episode.support.masks[:, :, order])
    with torch.no_grad():
        want = network(episode).logits
        got = network(Episode(support, episode.query_images)).logits
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 999), name=st.sampled_from(["panet", "apscl", "copy"]))
def test_swapping_ways_swaps_labels(seed: int, name: str) -> None:
    network: Any = build("copy").eval() if name == "copy" else method(name)
    episode = make_episode(n_way=2, seed=seed)
    support = Support(episode.support.images.flip(1), episode.support.masks.flip(1))
    with torch.no_grad():
        want = network(episode).logits[:, :, [0, 2, 1]]
        got = network(Episode(support, episode.query_images)).logits
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
