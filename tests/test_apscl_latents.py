"""z of other images at test: what training remembers, what takes its place, old checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
from apscl_cases import TinyEncoder, close, episode, features_of, small_apscl
from torch import Tensor, nn

from fewshot_seg.checkpoint import load_method, load_weights, save_method
from fewshot_seg.episode import Episode, Features, collate
from fewshot_seg.errors import CheckpointError, OptionError
from fewshot_seg.functional import foreground
from fewshot_seg.interfaces import Privileged
from fewshot_seg.tensorfile import load_tensors, read_words, save_tensors
from fewshot_seg.testing import check_method
from fewshot_seg_apscl.latents import SeenLatents
from fewshot_seg_apscl.prior import EVAL_LATENTS, AnatomicalPrior

OF_TRAINING = ("train_mean", "other")
REPLACED = (*OF_TRAINING, "support")


def prior_of(**options: Any) -> AnatomicalPrior:
    torch.manual_seed(1)
    shape = {"dim": 8, "grid": (4, 4), "latent": 3, "hidden": 6, "prior_pool": 2}
    return AnatomicalPrior(**{**shape, **options})


def known(task: Episode) -> Privileged:
    assert task.query_labels is not None
    images = [task.support.images.flatten(0, 2), task.query_images.flatten(0, 1)]
    masks = [task.support.masks.flatten(0, 2), foreground(task.query_labels).flatten(0, 1)]
    return Privileged(torch.cat(images), torch.cat(masks))


def trained_prior(steps: int = 3, **options: Any) -> tuple[AnatomicalPrior, Tensor]:
    """A prior that has seen a few steps, in eval mode, and mu_x of what it saw."""
    prior = prior_of(**options).train()
    seen = []
    for seed in range(steps):
        task = episode(seed=seed)
        features = features_of(task, seed=seed)
        prior(features, known(task))
        seen.append(prior.prior_block(prior._conditioned(features)).mean.detach())
    return prior.eval(), torch.cat(seen)


# --- what is kept ------------------------------------------------------------------------------


def test_the_newest_are_kept() -> None:
    seen = SeenLatents(latent=1, required=False, size=5)
    assert seen.mean().item() == 0
    assert seen.one(0.9).item() == 0
    seen.remember(torch.tensor([[1.0], [2.0]]))
    assert seen.mean().item() == 1.5
    assert [seen.one(draw).item() for draw in (0.0, 0.49, 0.5, 0.99)] == [1, 1, 2, 2]
    seen.remember(torch.tensor([[3.0], [4.0]]))
    seen.remember(torch.tensor([[5.0], [6.0]]))
    assert seen.latents[:, 0].tolist() == [5, 6, 3, 4, 1]
    assert seen.count.item() == 5
    close(seen.mean(), torch.tensor([[19 / 5]]))
    seen.remember(torch.arange(7.0)[:, None])
    assert seen.latents[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_only_training_is_remembered() -> None:
    prior, means = trained_prior()
    assert prior.seen.count == len(means) == 6
    close(prior.seen.mean()[0], means.mean(0))
    task = episode(seed=9)
    features = features_of(task)
    prior(features, known(task))
    prior(features, None)
    prior.train()(features, None)
    assert prior.seen.count == 6


def test_remembering_changes_no_loss() -> None:
    task = episode(batch=2)
    found = []
    for kept in (True, False):
        model = small_apscl().train()
        if not kept:
            model.prior.seen.remember = lambda means: None
        torch.manual_seed(0)
        found.append(model(task).loss)
    assert torch.equal(*found)


# --- z at test -----------------------------------------------------------------------------------


def many() -> Features:
    return features_of(episode(batch=2, way=2, shot=3, query=2, seed=20), seed=20)


def test_train_mean_is_the_same_for_every_image() -> None:
    prior, means = trained_prior(eval_latent="train_mean")
    z = prior(many(), None).z
    assert z is not None
    close(z, means.mean(0).expand(2 * 2 * 3 + 2 * 2, -1))


def test_support_gives_the_query_the_mean_of_its_episodes_support() -> None:
    prior, _ = trained_prior(eval_latent="support")
    features = many()
    own = prior.prior_block(features.maps()).mean
    z = prior(features, None).z
    assert z is not None
    close(z[:12], own[:12])
    for index in range(4):
        first = (index // 2) * 6
        close(z[12 + index], own[first : first + 6].mean(0))


def test_other_gives_the_query_a_training_images() -> None:
    features = many()
    chosen = set()
    for seed in range(8):
        prior, means = trained_prior(eval_latent="other", eval_seed=seed)
        z = prior(features, None).z
        assert z is not None
        close(z[:12], prior.prior_block(features.maps()).mean[:12])
        distance = (means - z[12]).abs().amax(1)
        chosen.add(distance.argmin().item())
        assert distance.min() < 1e-6
        assert torch.equal(z[12:], z[12:13].expand(4, -1))
        assert torch.equal(prior(features, None).z, z)
    assert len(chosen) > 2


def test_the_mask_conditions_what_is_remembered_too() -> None:
    prior, means = trained_prior(eval_latent="train_mean", prior_condition="support_mask")
    _, blind = trained_prior()
    assert not torch.allclose(means, blind)
    z = prior(many(), None).z
    assert z is not None
    close(z[0], means.mean(0))


def trained(steps: int = 3, **options: Any) -> nn.Module:
    """A small method after a few steps without learning, with random FEM weights."""
    model = small_apscl(**options).train()
    with torch.no_grad():
        for parameter in model.enrichment.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for seed in range(steps):
            model(episode(seed=seed))
    return model.eval()


@pytest.mark.parametrize("choice", EVAL_LATENTS)
def test_the_contract_holds(choice: str) -> None:
    model = trained(eval_latent=choice, encoder=TinyEncoder(in_channels=3), image_size=64)
    check_method(model)


@pytest.mark.parametrize("choice", REPLACED)
def test_an_answer_does_not_depend_on_what_is_segmented_beside_it(choice: str) -> None:
    tasks = [episode(seed=seed, query=2) for seed in range(3)]
    model = trained(eval_latent=choice)
    joined = model(collate(tasks)).logits
    for index, task in enumerate(tasks):
        close(joined[index : index + 1], model(task).logits, atol=1e-4)
    alone = Episode(tasks[0].support, tasks[0].query_images[:, 1:])
    close(joined[:1, 1:], model(alone).logits, atol=1e-4)


# --- on a checkpoint that was trained with the default -------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = trained()
    save_method(model, tmp_path / "final.safetensors", recipe=model.recipe)  # type: ignore[arg-type]
    return tmp_path / "final.safetensors"


def reopened(path: Path, **changes: Any) -> nn.Module:
    return load_method(path, encoder=TinyEncoder(), **changes)


def test_one_training_serves_every_choice(checkpoint: Path) -> None:
    task = episode(seed=5)
    direct = trained()
    answers = [reopened(checkpoint)(task).logits]
    close(answers[0], direct(task).logits)
    for choice in REPLACED:
        answers.append(reopened(checkpoint, **{"prior.eval_latent": choice})(task).logits)
        assert all(not torch.allclose(answers[-1], other, atol=1e-3) for other in answers[:-1])
    again = reopened(checkpoint, **{"prior.eval_latent": "other", "prior.eval_seed": 3})
    assert not torch.equal(again(task).logits, answers[2])


def test_a_checkpoint_from_before_there_was_anything_to_remember(checkpoint: Path) -> None:
    header = {name: read_words(checkpoint)[0][name] for name in ("recipe", "notes")}
    tensors = {k: v for k, v in load_tensors(checkpoint).items() if ".seen." not in k}
    save_tensors(tensors, checkpoint, header)
    task = episode(seed=5)
    close(reopened(checkpoint)(task).logits, trained()(task).logits)
    reopened(checkpoint, **{"prior.eval_latent": "support"})
    for choice in OF_TRAINING:
        with pytest.raises(CheckpointError, match=r"missing: prior.seen.latents, prior.seen.count"):
            reopened(checkpoint, **{"prior.eval_latent": choice})
    del tensors["decoder.query_head.bias"]
    save_tensors(tensors, checkpoint, header)
    with pytest.raises(CheckpointError, match=r"missing: decoder.query_head.bias$"):
        load_weights(small_apscl(), checkpoint)


def test_samples_are_of_the_images_own_gaussian() -> None:
    with pytest.raises(OptionError, match="needs eval_latent='sample': 'other' is one value"):
        prior_of(eval_latent="other", eval_samples=2)
    with pytest.raises(OptionError, match="did you mean 'train_mean'"):
        prior_of(eval_latent="trainmean")
