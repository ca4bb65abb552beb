"""The whole method: what it reads at test, its laws, precision, and that it can learn."""

from typing import Any

import pytest
import torch
from apscl_cases import TinyEncoder, close, episode, small_apscl
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewshot_seg import build
from fewshot_seg.episode import Episode, Support, collate

PRESETS = ["apscl", "apscl_literal"]
literal_warns = pytest.mark.filterwarnings("ignore:scl_mode 'image'")


def stripped(model: nn.Module) -> nn.Module:
    """Without what only training needs."""
    for name in ("label_encoder", "posterior_block", "label_decoder"):
        delattr(model.prior, name)
    del model.contrastives
    return model


@pytest.mark.parametrize("method", PRESETS)
def test_the_test_path_needs_neither_labels_nor_training_parts(method: str) -> None:
    task = episode(way=2, shot=2, query=2)
    whole = small_apscl(method).eval()
    before = whole(task).logits
    bare = stripped(whole)
    close(bare(task.without_labels()).logits, before, atol=0)
    state = bare.encode_support(task.support)
    close(bare.segment(state, task.query_images), before, atol=1e-4)


class Untouchable(Tensor):
    """A tensor that no operation may read."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("__get__", "dim", "size"):
            return super().__torch_function__(func, types, args, kwargs or {})
        raise AssertionError(f"query labels were read by {func}")


@pytest.mark.parametrize("method", [*PRESETS, "panet"])
def test_query_labels_are_never_read_at_test(method: str) -> None:
    task = episode()
    assert task.query_labels is not None
    guarded = Episode(
        task.support, task.query_images, task.query_labels.as_subclass(Untouchable), task.classes
    )
    with pytest.raises(AssertionError, match="were read"):
        guarded.query_labels.float()
    if method == "panet":
        model = build("panet", encoder=TinyEncoder()).eval()
    else:
        model = small_apscl(method).eval()
    output = model(guarded)
    assert not output.losses
    close(output.logits, model(task.without_labels()).logits, atol=0)


@literal_warns
@pytest.mark.parametrize("method", PRESETS)
def test_losses_and_their_weighted_sum(method: str) -> None:
    model = small_apscl(method).train()
    output = model(episode())
    names = {"ce", "kl", "scl"} | ({"label_recon"} if method == "apscl" else set())
    assert set(output.losses) == names
    weights = {"ce": 1.0, "kl": 0.1, "scl": 0.07, "label_recon": 1.0}
    close(output.loss, sum(weights[name] * output.losses[name] for name in names))
    assert (output.losses["scl"] == 0) == (method == "apscl_literal")


@literal_warns
@pytest.mark.parametrize("method", PRESETS)
def test_gradient_reaches_every_parameter_that_can_have_one(method: str) -> None:
    model = small_apscl(method).train()
    model.enrichment.scale[4].weight.data.normal_()
    model.enrichment.shift[4].weight.data.normal_()
    model(episode(way=1, shot=2)).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def shots(task: Episode, order: Tensor) -> Episode:
    support = task.support
    parts = (support.images, support.masks, support.backgrounds)
    return Episode(Support(*(part[:, :, order] for part in parts)), task.query_images)


def trained(method: str, **options: Any) -> nn.Module:
    """Nothing at its neutral start, so that a law which fails is seen to."""
    model = small_apscl(method, **options).eval()
    for name, parameter in model.named_parameters():
        if name.startswith(("enrichment", "decoder")):
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


VARIANTS = [
    ("apscl", {}),
    ("apscl_literal", {}),
    ("apscl", {"bg": "grid", "bg_window": 2, "prior_condition": "support_mask"}),
    ("apscl", {"cross_source": "aligned", "alpha_per_way": True}),
]


@pytest.mark.parametrize(("method", "options"), VARIANTS, ids=str)
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 1000))
def test_the_order_of_shots_does_not_matter(method: str, options: Any, seed: int) -> None:
    task = episode(way=2, shot=3, seed=seed)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(seed))
    model = trained(method, **options)
    close(model(shots(task, order)).logits, model(task).logits, atol=1e-3)


@pytest.mark.parametrize(("method", "options"), VARIANTS, ids=str)
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 1000))
def test_swapping_ways_swaps_labels(method: str, options: Any, seed: int) -> None:
    task = episode(way=2, shot=2, seed=seed)
    parts = (task.support.images, task.support.masks, task.support.backgrounds)
    other = Episode(Support(*(part.flip(1) for part in parts)), task.query_images)
    model = trained(method, **options)
    close(model(other).logits, model(task).logits[:, :, [0, 2, 1]], atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"eval_latent": "sample", "eval_samples": 2}], ids=str)
def test_episodes_of_a_batch_do_not_meet_at_test(options: dict[str, Any]) -> None:
    tasks = [episode(seed=seed, query=2) for seed in range(3)]
    model = trained("apscl", **options)
    joined = model(collate(tasks)).logits
    for index, task in enumerate(tasks):
        close(joined[index : index + 1], model(task).logits, atol=1e-4)
    alone = Episode(tasks[0].support, tasks[0].query_images[:, 1:])
    close(joined[:1, 1:], model(alone).logits, atol=1e-4)


def test_samples_average_probabilities() -> None:
    """The answer of 2 samples is the mean of what each noise alone gives."""
    task = episode()
    model = trained("apscl", eval_latent="sample", eval_samples=2)
    together = model(task).logits.softmax(2)
    noise = model.prior.eval_noise.clone()
    model.prior.eval_samples = 1
    each = []
    for row in noise:
        model.prior.eval_noise = row[None]
        each.append(model(task).logits.softmax(2))
    assert not torch.allclose(*each, atol=1e-5)
    close(together, torch.stack(each).mean(0))


def test_num_samples_in_training() -> None:
    torch.manual_seed(0)
    model = small_apscl(num_samples=3).train()
    output = model(episode(batch=2))
    assert output.logits.shape == (2, 1, 2, 32, 32)
    output.loss.backward()
    close(output.logits.softmax(2).sum(2), torch.ones(2, 1, 32, 32))


def test_ce_weights_change_the_cross_entropy() -> None:
    task = episode()
    torch.manual_seed(0)
    plain = small_apscl().train()(task).losses["ce"]
    torch.manual_seed(0)
    weighted = small_apscl(ce_weights=[0.05, 1.0]).train()(task).losses["ce"]
    assert abs(plain - weighted) > 1e-3


def test_empty_support_gives_background_and_a_flag() -> None:
    task = episode(way=2)
    masks = task.support.masks.clone()
    masks[:, 1] = 0
    model = trained("apscl")
    output = model(Episode(Support(task.support.images, masks), task.query_images))
    assert output.empty_support.tolist() == [[False, True]]
    assert torch.isfinite(output.logits).all()
    assert not (output.logits.argmax(2) == 2).any()


@literal_warns
@pytest.mark.parametrize("method", PRESETS)
def test_autocast_runs_and_stays_close(method: str) -> None:
    task = episode(way=1, shot=2)
    results = []
    for enabled in (False, True):
        model = small_apscl(method, scale=1.0, latent_source="prior").train()
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = model(task)
        output.loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        results.append(output)
    exact, half = results
    close(half.logits.float(), exact.logits, atol=0.05)
    for name, value in exact.losses.items():
        torch.testing.assert_close(half.losses[name].float(), value, atol=0.05, rtol=0.05)


def test_other_sizes_than_squares() -> None:
    task = episode(size=64)
    wide = task.map(lambda t: t if t.ndim < 4 else t[..., :40, :])
    output = trained("apscl")(wide)
    assert output.logits.shape[-2:] == (40, 64)
    literal = small_apscl("apscl_literal", image_size=(40, 64)).eval()
    assert torch.isfinite(literal(wide).logits).all()
    with pytest.raises(ValueError, match="grid of 4x4 but the images give 5x8: set image_size"):
        small_apscl("apscl_literal").eval()(wide)
