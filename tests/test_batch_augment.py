"""Changing all images of a step at once does to each what changing it alone would have done."""

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_seg import build
from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.batch_augment import BatchAugmentation
from fewshot_seg.data.drawn import FIRST, SECOND, STREAMS, WithDrawnChanges
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.prepare import PreparedScan, prepare_all
from fewshot_seg.data.recolour import Colours
from fewshot_seg.data.warp import Affine, elastic, resample, sampling_grid
from fewshot_seg.episode import IGNORE, Episode, collate
from fewshot_seg.errors import OptionError, TrainingError
from fewshot_seg.experiment import resolve_recipe, train_fold
from fewshot_seg.experiment.episodes import EpisodeSettings, make_source, on_device
from fewshot_seg.testing import make_episode
from fewshot_seg.training import TrainConfig, train
from fewshot_seg.training.log import read_log

SIZE = (48, 40)
SEED = 4
STRONG = replace(Augmentation.strong(), flip=0.3)


@pytest.fixture(scope="module")
def scans() -> list[PreparedScan]:
    dataset = abdomen(n_scans=3, size=48, n_slices=10)
    return prepare_all(dataset, dataset.ids, size=48, intensity=Intensity(), channels=1).scans


class Given:
    """A source whose every episode is `made`."""

    def __init__(self, made: Callable[[int], Episode]) -> None:
        self.episode = made

    def describe(self) -> dict[str, Any]:
        return {}


def smooth_masks(*axes: int, seed: int) -> Tensor:
    """Blobs that no plausible change wipes out."""
    noise = torch.randn(*axes, 4, 4, generator=torch.Generator().manual_seed(seed))
    flat = noise.reshape(-1, 1, 4, 4)
    large = torch.nn.functional.interpolate(flat, SIZE, mode="bicubic")
    return (large > 0).float().reshape(*axes, *SIZE)


def made(index: int, *, n_way: int = 2, n_shot: int = 2, n_query: int = 2) -> Episode:
    """Disjoint classes, smooth images, background masks and some pixels that do not count."""
    episode = make_episode(
        batch=1, n_way=n_way, n_shot=n_shot, n_query=n_query, size=SIZE, seed=index
    )
    labels = smooth_masks(1, n_query, seed=index).long() * (1 + index % n_way)
    labels[..., :3, :3] = IGNORE
    union = smooth_masks(1, n_way, n_shot, seed=index + 50)
    own = union * (torch.arange(SIZE[1]) < 20)
    support = replace(episode.support, masks=own, background_masks=1 - union)
    return replace(episode, support=support, query_labels=labels)


def changes(index: int, count: int, augmentation: Augmentation) -> list[tuple[Affine, Colours]]:
    """What `WithDrawnChanges` draws for an episode's images."""
    generator = np.random.default_rng([SEED, index, STREAMS[FIRST]])
    return [
        (augmentation.affine(SIZE, generator), augmentation.colours(SIZE, generator))
        for _ in range(count)
    ]


def one_by_one(
    image: Tensor, masks: Tensor, drawn: tuple[Affine, Colours], noise: Tensor, grain: Tensor
) -> tuple[Tensor, Tensor]:
    """As a source changes an image (channel h w) and its masks (mask h w) by itself."""
    affine, colours = drawn
    field = elastic(noise * 2 - 1, STRONG.elastic, STRONG.elastic_sigma)
    grid = sampling_grid(SIZE, affine, field)[None]
    moved = resample(torch.cat([image, masks])[None], grid)[0]
    n_channels = len(image)
    changed = STRONG.coloured(moved[None, :n_channels], colours, grain[None])[0]
    return changed, (moved[n_channels:] > 0.5).float()


def test_the_same_draws_give_the_same_pixels() -> None:
    """A step of three episodes of two ways, two shots and two queries, in every kind of change."""
    source = WithDrawnChanges(Given(made), STRONG, seed=SEED)
    step = collate([source.episode(index) for index in range(3)])
    torch.manual_seed(7)
    changed = BatchAugmentation(STRONG)(step)
    torch.manual_seed(7)  # support and query, elastic noise and grain, as BatchAugmentation draws
    noise = torch.cat([torch.rand(3, n, 2, *SIZE) for n in (4, 2)], 1)
    grain = torch.cat([torch.randn(3, n, 1, *SIZE) for n in (4, 2)], 1)
    assert not changed.extras["redrawn"].any()
    for index in range(3):
        before, drawn = made(index), changes(index, 6, STRONG)
        shots = before.support.images[0].flatten(0, 1)
        own, union = before.support.masks[0], 1 - before.support.backgrounds[0]
        planes = torch.stack([own, union], 2).flatten(0, 1)
        for shot in range(4):
            image, masks = one_by_one(
                shots[shot], planes[shot], drawn[shot], noise[index, shot], grain[index, shot]
            )
            place = (index, shot // 2, shot % 2)
            torch.testing.assert_close(changed.support.images[place], image, atol=1e-3, rtol=0)
            assert torch.equal(changed.support.masks[place], masks[0])
            assert torch.equal(changed.support.backgrounds[place], 1 - masks[1])
        for query in range(2):
            labels = before.query_labels[0, query]
            planes = torch.stack([labels == value for value in (1, 2, IGNORE)]).float()
            image, masks = one_by_one(
                before.query_images[0, query], planes, drawn[4 + query],
                noise[index, 4 + query], grain[index, 4 + query],
            )  # fmt: skip
            torch.testing.assert_close(changed.query_images[index, query], image, atol=1e-3, rtol=0)
            expected = masks[0] + 2 * masks[1] + IGNORE * masks[2]
            assert torch.equal(changed.query_labels[index, query], expected.long())


def test_drawn_changes_depend_on_seed_and_index_alone() -> None:
    first, again, other = (
        WithDrawnChanges(Given(made), STRONG, seed=seed).episode(3).extras[FIRST]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_strength_is_no_change() -> None:
    none = Augmentation.none()
    step = WithDrawnChanges(Given(made), none, seed=0).episode(1)
    changed, before = BatchAugmentation(none)(step), made(1)
    assert torch.equal(changed.support.images, before.support.images)
    assert torch.equal(changed.query_images, before.query_images)
    assert torch.equal(changed.query_labels, before.query_labels)
    assert FIRST not in changed.extras


def test_a_geometry_that_wipes_a_mask_out_is_undone_and_counted() -> None:
    """A shift far beyond the image: each image keeps its place, and its colours still change."""
    away = replace(Augmentation.none(), shift=2000.0, gamma=0.5)
    source = WithDrawnChanges(Given(lambda index: made(index, n_way=1, n_shot=1)), away, seed=0)
    step, before = collate([source.episode(0), source.episode(1)]), made(0, n_way=1, n_shot=1)
    changed = BatchAugmentation(away)(step)
    assert changed.extras["redrawn"].tolist() == [3, 3]
    assert torch.equal(changed.support.masks[:1], before.support.masks)
    assert torch.equal(changed.support.backgrounds[:1], before.support.backgrounds)
    assert torch.equal(changed.query_labels[:1], before.query_labels)
    assert not torch.allclose(changed.query_images[:1], before.query_images, atol=0.01)
    order = before.query_images[0, 0].flatten().argsort()  # gamma keeps the order of pixels
    assert (changed.query_images[0, 0].flatten()[order].diff() > -1e-4).all()


@pytest.mark.parametrize(("least", "still"), [(1, 0), (10_000, 3)])
def test_how_much_of_a_mask_must_be_left(least: int, still: int) -> None:
    mild = replace(Augmentation.none(), rotation=5.0)
    one = WithDrawnChanges(
        Given(lambda index: made(index, n_way=1, n_shot=1)), mild, seed=0, least=least
    )
    assert BatchAugmentation(mild)(one.episode(0)).extras["redrawn"].item() == still


def test_one_side_moves_and_one_side_changes_its_colours() -> None:
    """ADNet's rule; over forty episodes each of the four combinations comes."""
    both = replace(Augmentation.none(), shift=10.0, elastic=400.0, gamma=0.5)
    source = WithDrawnChanges(
        Given(lambda index: made(index, n_way=1, n_shot=2)), both, seed=0, one_side=True
    )
    seen = set()
    for index in range(40):
        before, changed = (
            made(index, n_way=1, n_shot=2),
            BatchAugmentation(both)(source.episode(index)),
        )
        moved = [
            not torch.equal(changed.support.masks, before.support.masks),
            not torch.equal(changed.query_labels, before.query_labels),
        ]
        assert sum(moved) == 1
        still, old = (
            (changed.query_images, before.query_images)
            if moved[0]
            else (changed.support.images, before.support.images)
        )
        coloured = not torch.allclose(still, old, atol=1e-2)
        seen.add((moved[0], coloured))
    assert len(seen) == 4


def test_ways_that_share_their_slices_share_the_change() -> None:
    def shared(index: int) -> Episode:
        one = made(index)
        images = one.support.images[:, :1].expand(-1, 2, -1, -1, -1, -1)
        return replace(one, support=replace(one.support, images=images))

    source = WithDrawnChanges(Given(shared), STRONG, seed=0, shared=True)
    changed = BatchAugmentation(STRONG, shared=True)(source.episode(0))
    images = changed.support.images
    assert torch.equal(images[:, 0], images[:, 1])
    assert not torch.allclose(images[:, 0, 0], images[:, 0, 1], atol=0.1)
    assert not torch.allclose(images[:, 0], made(0).support.images[:, 0], atol=0.1)


def test_second_views_are_warps_of_the_changed_images() -> None:
    mild = replace(Augmentation(), gamma=0.0)
    source = WithDrawnChanges(Given(made), Augmentation(), seed=0)
    source = WithDrawnChanges(source, mild, seed=0, name=SECOND)
    changed = BatchAugmentation(Augmentation(), second=mild)(source.episode(0))
    images = torch.cat([changed.support.images.flatten(1, 2), changed.query_images], 1)
    grids, seen = (changed.extras[f"second_view_{one}"] for one in ("grid", "images"))
    assert grids.shape == (1, 6, *SIZE, 2)
    torch.testing.assert_close(seen[0], resample(images[0], grids[0]))
    assert SECOND not in changed.extras
    assert not torch.allclose(seen, images, atol=0.1)


SETTINGS = {
    "supervised": {},
    "ways": {"n_way": 2, "n_query": 2, "pairing": "random"},
    "shared": {"n_way": 2, "shared": True},
    "superpixel": {"source": "superpixel", "superpixel_size": 400, "min_pixels": 5},
    "supervoxel": {"source": "supervoxel", "supervoxel_size": 100},
    "mixed": {"pseudo": 0.5},
}


def source_of(
    scans: list[PreparedScan], name: str, where: str, needs: tuple[str, ...] = ()
) -> tuple[Any, Any]:
    settings = EpisodeSettings.from_dict({**SETTINGS[name], "augment_on": where})
    source = make_source(
        scans, settings, base=(1, 2, 3), novel=(4,), setting="setting2_any", needs=needs, cache=None
    )
    return source, on_device(settings, None, needs)


@pytest.mark.parametrize("name", SETTINGS)
def test_steps_look_like_those_of_the_workers(scans: list[PreparedScan], name: str) -> None:
    """The same fields, shapes and types; masks that are whole; images as bright as theirs."""
    needs = ("auxiliary", "second_view", "unlabelled")
    ours, change = source_of(scans, name, "device", needs)
    theirs, nothing = source_of(scans, name, "workers", needs)
    assert nothing is None
    torch.manual_seed(0)
    step = change(collate([ours.episode(index) for index in range(6)]))
    expected = collate([theirs.episode(index) for index in range(6)])
    assert set(step.extras) == set(expected.extras)
    for one, other in zip(fields_of(step), fields_of(expected), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    assert bool((step.support.masks.sum((-2, -1)) >= 1).all())
    assert bool((step.query_labels > 0).any(-1).any(-1).all())
    assert step.query_images.std() == pytest.approx(float(expected.query_images.std()), rel=0.3)
    assert not torch.equal(step.query_images, collate(
        [ours.episode(index) for index in range(6)]
    ).query_images)  # fmt: skip


def fields_of(episode: Episode) -> list[Tensor]:
    found: list[Tensor] = []
    extras = dict(sorted(episode.extras.items()))
    replace(episode, extras=extras).map(lambda tensor: found.append(tensor) or tensor)
    return found


def tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    encoder = {"name": "timm", "backbone": "test_resnet", "dim": 8, "in_channels": 1}
    return build("panet", encoder=encoder)


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(steps=4, episodes_per_step=2, checkpoint_every=2, log_every=1, **changes)


def test_training_goes_on_after_a_break_to_the_same_bits(
    scans: list[PreparedScan], tmp_path: Path
) -> None:
    def weights(folder: str, workers: int, stops: tuple[int, ...]) -> list[Tensor]:
        source, change = source_of(scans, "mixed", "device")
        for stop in (*stops, None):
            method = tiny()
            result = train(
                method, source, config(workers=workers), out=tmp_path / folder,
                on_device=change, progress=False, stop=lambda step, at=stop: step == at,
            )  # fmt: skip
        assert result.finished
        return [one.detach().clone() for one in method.parameters()]

    whole, broken = weights("whole", 0, ()), weights("broken", 1, (2,))
    assert all(torch.equal(one, other) for one, other in zip(whole, broken, strict=True))


def test_changes_that_nobody_would_make_are_refused(scans: list[PreparedScan]) -> None:
    source, _ = source_of(scans, "supervised", "device")
    with pytest.raises(TrainingError, match=r"give train\(\) on_device=BatchAugmentation"):
        train(tiny(), source, config(), progress=False)


def test_a_recipe_asks_for_it(tmp_path: Path) -> None:
    recipe = resolve_recipe("panet", {
        "encoder": {"name": "timm", "backbone": "test_resnet", "dim": 8, "in_channels": 1},
        "episodes.augment_on": "device",
        "training.steps": 2,
    })  # fmt: skip
    dataset = abdomen(n_scans=5, size=48, n_slices=10)
    train_fold(
        dataset, recipe, novel="liver", out=tmp_path / "run", size=48, progress=False, n_folds=2
    )
    told = tomllib.loads((tmp_path / "run" / "run.toml").read_text())
    assert told["source"]["augment_on_device"]["augmentation"]["elastic"] == 10
    assert len(read_log(tmp_path / "run" / "log.jsonl")) >= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augment_on": "gpu"}, "augment_on"),
        ({"augment_on": "device", "registered": True}, "leave one of the two out"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        EpisodeSettings.from_dict(settings)
