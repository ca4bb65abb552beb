"""RP-Net as a whole network: the support moved to the query, training, its laws."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from apscl_cases import close, episode
from rpnet_cases import small_rpnet, warm_rpnet

from fewshot_seg import build
from fewshot_seg.data.registered import Registered
from fewshot_seg.episode import Episode, Support, collate
from fewshot_seg.errors import OptionError, UnknownNameError
from fewshot_seg.evaluation.metrics import dice
from fewshot_seg.experiment.episodes import EpisodeSettings
from fewshot_seg.functional import area_average, resize
from fewshot_seg.registration import identity, register_slices
from fewshot_seg.testing import check_method, make_episode, overfit
from fewshot_seg.training.config import TrainConfig
from fewshot_seg_rpnet import RPNet
from fewshot_seg_rpnet.views import moved, unmoved

SMALL = {"name": "timm", "backbone": "test_resnet.r160_in1k", "dim": 16}


def test_an_identity_registration_moves_nothing() -> None:
    task = episode(batch=2, way=2, shot=2, query=3)
    theta = identity(torch.zeros(2 * 2 * 2 * 3, 1, 1, 1)).reshape(2, 2, 2, 3, 2, 3)
    views = moved(task.support, theta, threshold=0.1, zero_flow_resample=False)
    still = unmoved(task.support, 3)
    close(views.images, still.images.expand_as(views.images))
    close(views.masks, still.masks.expand_as(views.masks))
    close(views.backgrounds, still.backgrounds.expand_as(views.backgrounds))
    close(views.start, still.start)


def test_pixels_from_outside_are_dark_background() -> None:
    task = episode(size=32)
    theta = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]).reshape(1, 1, 1, 1, 2, 3)
    views = moved(task.support, theta, threshold=0.1, zero_flow_resample=False)
    close(views.images[..., :16], task.support.images.unsqueeze(3)[..., 16:])
    outside = views.images[..., 17:]
    close(outside, task.support.images.min().expand_as(outside))
    assert not views.masks[..., 17:].any()
    assert views.backgrounds[..., 17:].all()


def test_only_the_first_mask_shrinks_by_the_zero_flow() -> None:
    task = episode(size=32)
    theta = identity(torch.zeros(1, 1, 1, 1)).reshape(1, 1, 1, 1, 2, 3)
    plain, odd = (
        moved(task.support, theta, threshold=0.6, zero_flow_resample=flag) for flag in (False, True)
    )
    assert torch.equal(plain.images, odd.images)
    assert torch.equal(plain.masks, odd.masks)
    assert odd.start.sum() < plain.start.sum()


def test_the_registration_of_an_episode_is_used() -> None:
    task, model = make_episode(n_shot=2, n_query=2, channels=1), warm_rpnet()
    still = warm_rpnet(registration=False)
    still.load_state_dict(model.state_dict())
    theta = identity(torch.zeros(8, 1, 1, 1)).reshape(2, 1, 2, 2, 2, 3)
    given = replace(task, extras={"registration": theta})
    close(model(given).logits, still(task).logits, atol=1e-4)
    assert not torch.allclose(model(task).logits, still(task).logits, atol=1e-2)
    images = task.support.images.repeat_interleave(2, 2).flatten(0, 2)
    queries = task.query_images[:, None, None].expand(2, 1, 2, 2, 1, 64, 64).flatten(0, 3)
    theta = register_slices(images, queries, steps=20).reshape(2, 1, 2, 2, 2, 3)
    own = replace(task, extras={"registration": theta})
    close(model(own).logits, model(task).logits, atol=1e-4)
    with pytest.raises(ValueError, match=r"is for \(batch, way, shot\) = \(2, 1, 1\)"):
        model(replace(task, extras={"registration": theta[:, :, :1]}))


class One:
    """A source with one episode."""

    def episode(self, index: int) -> Episode:
        return make_episode(batch=1, channels=1, seed=index)

    def describe(self) -> dict[str, Any]:
        return {}


def test_registered_episodes_give_what_the_network_would_find() -> None:
    source, model = Registered(One(), steps=20), small_rpnet().train()
    task = collate([source.episode(0), source.episode(1)])
    found, wanted = (copy.deepcopy(model)(one) for one in (task, replace(task, extras={})))
    close(found.logits, wanted.logits, atol=1e-4)
    close(found.loss, wanted.loss, atol=1e-4)


# ---------------------------------------------------------------- the whole network


@pytest.mark.parametrize(
    "options",
    [{}, {"registration": False, "soft_mask": True, "gamma": 0.8}, {"encoder": SMALL}],
    ids=str,
)
def test_rpnet_keeps_the_contract(options: dict[str, Any]) -> None:
    model = small_rpnet(test_steps=3, train_steps=2, **options)
    check_method(model, channels=3 if "encoder" in options else 1)


def test_rpnet_through_build() -> None:
    model = build("rpnet", encoder={"name": "unet", "width": 2}, test_steps=2, align=0.5)
    assert isinstance(model, RPNet)
    assert model.encoder.dim == 8
    output = model.train()(make_episode(channels=1))
    close(output.loss, output.losses["refine"] + 0.5 * output.losses["align"])
    config = TrainConfig.from_dict(RPNet.TRAINING)
    assert EpisodeSettings.from_dict(RPNet.EPISODES).source == "supervised"
    assert (config.lr, config.weight_decay, config.step_factor) == (1e-3, 1e-4, 0.1)
    whole = RPNet()
    assert (whole.train_steps, whole.test_steps, whole.refinement.scale) == (4, 10, 20.0)


def test_neighbours_in_the_batch_do_not_matter() -> None:
    model = warm_rpnet()
    many = make_episode(batch=3, n_query=2, channels=1)
    together = model(many).logits
    assert together.std() > 0.1
    for index in range(3):
        alone = many.map(lambda tensor, index=index: tensor[index : index + 1])
        close(model(alone).logits[0], together[index], atol=1e-3)
    state = model.encode_support(many.support)
    close(model.segment(state, many.query_images[:, 1:]), together[:, 1:], atol=1e-3)


def test_swapping_ways_and_shots() -> None:
    model = warm_rpnet()
    task = make_episode(n_way=2, n_shot=2, channels=1)
    support = task.support
    wanted = model(task).logits
    assert wanted.std() > 0.1  # a squashed answer would pass any test
    swapped = Support(support.images.flip(1), support.masks.flip(1))
    close(model(Episode(swapped, task.query_images)).logits, wanted[:, :, [0, 2, 1]], atol=1e-3)
    turned = Support(support.images.flip(2), support.masks.flip(2))
    close(model(Episode(turned, task.query_images)).logits, wanted, atol=1e-3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=str)
def test_gradient_modes_change_nothing(mode: Callable[[], Any]) -> None:
    model, task = warm_rpnet(), make_episode(channels=1)
    wanted = model(task).logits.detach()
    with mode():
        close(model(task).logits, wanted)


def test_autocast_runs_and_stays_close() -> None:
    task, model = make_episode(channels=1), small_rpnet(scale=1.0).train()
    exact = copy.deepcopy(model)(task)
    with torch.autocast("cpu", torch.bfloat16):
        half = copy.deepcopy(model)(task)
    for name, value in exact.losses.items():
        close(half.losses[name].float(), value, atol=0.05)


def test_overfits_one_episode_and_profits_from_a_better_start() -> None:
    task = make_episode(size=(48, 48), channels=1)
    assert task.query_labels is not None
    model = small_rpnet(test_steps=4, train_steps=2).train()
    registered = overfit(
        model, task, lr=3e-3, steps=60, target=1.0, every=60, optimizer=torch.optim.Adam
    )
    assert registered > 0.9
    model.eval()
    with torch.no_grad():
        run = model._run(task.support, task.query_images, None)
        maps = model._encode(run.views, task.query_images)[1]
        truth = area_average((task.query_labels == 1).float(), tuple(maps.shape[-2:]))
        rounds = model.refinement(
            maps, run.support.prototypes, truth.unsqueeze(2), steps=4, size=task.size
        )
        found = resize(rounds.scores[-1], task.size).argmax(2) == 1
    truth = task.query_labels == 1
    known = dice(found.flatten(0, 1).numpy(), truth.flatten(0, 1).numpy())
    assert known >= registered


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"encoder": "unett"}, UnknownNameError, "did you mean 'unet'"),
    ({"encoder": {"width": 4}}, OptionError, "names no encoder"),
    ({"encoder": {"name": "unet", "depth": 4}}, OptionError, "no option 'depth'"),
    ({"train_steps": 0}, OptionError, "train_steps=0"),
    ({"gamma": 0.0}, OptionError, "gamma=0.0"),
    ({"scale": -1.0}, OptionError, "scale=-1.0"),
    ({"threshold": 1.0}, OptionError, "threshold=1.0"),
    ({"registration_lr": 0.0}, OptionError, "registration_lr=0.0"),
    ({"align": -1.0}, OptionError, "align=-1.0"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG, ids=[str(w[0]) for w in WRONG])
def test_wrong_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small_rpnet(**options)


def test_wrong_sizes() -> None:
    model = small_rpnet().eval()
    with pytest.raises(ValueError, match="divisible by 16; got 40x64"):
        model(make_episode(size=(40, 64), channels=1))
    support = make_episode(channels=1).support
    with pytest.raises(ValueError, match=r"\(64, 64\), the query \(32, 32\)"):
        model.segment(support, torch.zeros(2, 1, 1, 32, 32))
