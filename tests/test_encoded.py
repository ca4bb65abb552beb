"""A slice of a query scan goes through the encoder once, whoever asks for it."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_methods import methods, task, tiny
from torch import Tensor, nn

from fewshot_seg.data.folds import Fold
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.prepare import PreparedScan, prepare_all
from fewshot_seg.episode import Support
from fewshot_seg.errors import PluginError
from fewshot_seg.evaluation import evaluate_fold, get_matching
from fewshot_seg.evaluation.encoded import EncodedSlices, some_twice
from fewshot_seg.evaluation.pairs import Part
from fewshot_seg.evaluation.predict import PROBABILITY_FLOOR, log_odds
from fewshot_seg.inference import segment_scans
from fewshot_seg.interfaces import EncodesQueries

CPU = torch.device("cpu")
EVERY = (Part((0,), (0, 1, 2, 3, 4)), Part((1,), (3, 4)))
WARNING = "ignore:scl_mode 'image' with one episode"


class Counting:
    """How many images have gone through a method's encoder."""

    def __init__(self, method: nn.Module) -> None:
        self.images = 0
        method.encoder.register_forward_hook(self._count)  # type: ignore[union-attr, operator]

    def _count(self, module: nn.Module, given: tuple[Tensor, ...], maps: Tensor) -> None:
        self.images += len(given[0])


def supports_of(method: nn.Module) -> tuple[list[Support], Tensor]:
    tasks = [task(method, seed, n_query=5) for seed in range(2)]
    return [one.support for one in tasks], tasks[0].query_images[0]


def answers(method: nn.Module, encoded: EncodedSlices | None, parts: tuple[Part, ...] = EVERY):
    supports, images = supports_of(method)

    def encode(slices: tuple[int, ...], _: Any) -> object:
        return method.encode_support(supports[slices[0]])  # type: ignore[operator]

    return log_odds(method, encode, images, parts, batch=3, device=CPU, encoded=encoded)  # type: ignore[arg-type]


@pytest.mark.filterwarnings(WARNING)
@pytest.mark.parametrize("name", methods(pipelines=True))
def test_encoded_once_is_answered_as_encoded_each_time(name: str) -> None:
    method = tiny(name)
    assert isinstance(method, EncodesQueries)
    apart = [answers(method, None, (part,)) for part in EVERY]
    wanted = {
        index: torch.stack([one[index] for one in apart if index in one]) for index in range(5)
    }
    encoded = EncodedSlices(supports_of(method)[1])
    for _ in range(2):  # the second time all slices are there
        found = answers(method, encoded)
        for index, odds in wanted.items():
            # of a slice in two parts the mean probability counts
            mean = odds.sigmoid().mean(0).logit(PROBABILITY_FLOOR)
            expected = odds[0] if len(odds) == 1 else mean
            torch.testing.assert_close(found[index], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("parts", "room", "images"),
    [
        (EVERY, None, 5),
        (EVERY, 0, 7),  # no room: as often as they are asked for
        (EVERY, 3 * 16 * 8 * 8 * 4, 7),  # room for three maps of 16 channels on an 8 x 8 grid
        (EVERY[1:], None, 2),
    ],
)
def test_how_often_the_encoder_is_asked(
    parts: tuple[Part, ...], room: int | None, images: int
) -> None:
    method = tiny("panet")
    encoded = EncodedSlices(supports_of(method)[1], room=room)
    count = Counting(method)
    answers(method, encoded, parts)
    assert count.images == len(parts) + images
    before = count.images
    answers(method, encoded, parts)
    again = {None: 0, 0: images}.get(room, 4)  # slices 3 and 4, twice
    assert count.images == before + len(parts) + again


def test_within_a_call_too() -> None:
    method = tiny("panet")
    count = Counting(method)
    answers(method, None)
    assert count.images == 2 + 5
    assert some_twice(EVERY)
    assert not some_twice(EVERY[:1])


def test_a_whole_network_is_simply_asked() -> None:
    method = tiny("senet")
    assert not isinstance(method, EncodesQueries)
    found = answers(method, EncodedSlices(supports_of(method)[1]))
    for index, odds in answers(method, None).items():
        assert torch.equal(found[index], odds)


def test_a_plugin_that_encodes_another_number_of_slices_is_named(monkeypatch) -> None:
    method = tiny("panet")
    wrong = torch.zeros(1, 1, 16, 8, 8)
    monkeypatch.setattr(method, "encode_query", lambda images: wrong, raising=False)
    with pytest.raises(PluginError, match="encoded slices"):
        answers(method, EncodedSlices(supports_of(method)[1]))


@pytest.fixture(scope="module")
def scans() -> list[PreparedScan]:
    dataset = abdomen(n_scans=2, size=48, n_slices=10)
    return prepare_all(dataset, dataset.ids, size=48, intensity=Intensity(), channels=1).scans


def test_a_fold_encodes_a_slice_once_for_all_classes(scans: list[PreparedScan]) -> None:
    """Three classes by the middle slice: three supports, and each slice of the query once."""
    method, by_id = tiny("panet"), {scan.id: scan for scan in scans}
    first, second = by_id
    fold = Fold(0, train=(), query=(second,), support=(first,))

    def go(classes: dict[int, str]) -> tuple[int, list[float]]:
        count = Counting(method)
        found = evaluate_fold(
            method, by_id.__getitem__, fold, classes,
            matching=get_matching("middle"), surface=False,
        )  # type: ignore[arg-type]  # fmt: skip
        assert not found.failures
        return count.images, [row.dice for row in found.rows]

    classes = {1: "one", 2: "two", 3: "three"}
    images, dice = go(classes)
    assert images == 3 + by_id[second].n_slices
    alone = [go({value: name}) for value, name in classes.items()]
    assert [one for _, one in alone] == [pytest.approx([each], abs=1e-6) for each in dice]
    assert sum(count for count, _ in alone) == 3 * (1 + by_id[second].n_slices)


def test_segmenting_encodes_a_slice_once_for_all_classes_and_matches(tmp_path: Path) -> None:
    """Two organs by `spread-3`: six supports, and each slice once."""
    labels = np.zeros((32, 32, 6), np.uint8)
    labels[4:14, 5:15], labels[17:28, 9:24] = 1, 2
    noise = np.random.default_rng(0).normal(size=labels.shape)
    for name, data in (("image", (noise + labels).astype(np.float32)), ("label", labels)):
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / f"{name}.nii.gz")
    method = tiny("panet")
    count = Counting(method)
    segment_scans(
        method, [(tmp_path / "image.nii.gz", tmp_path / "label.nii.gz")],
        [tmp_path / "image.nii.gz"], out=tmp_path / "out", size=32, matching="spread-3",
        intensity=Intensity(), precision="32",
    )  # type: ignore[arg-type]  # fmt: skip
    assert count.images == 6 + 6
