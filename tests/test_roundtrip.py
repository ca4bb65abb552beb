"""There and back: the labels as a network sees them, written on the scan's own grid again.

Whatever a method answers, no more than this can be right; so preparing and writing back may not
lose what a person would miss.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.nifti import read_labels, read_scan
from fewshot_seg.data.prepare import prepare
from fewshot_seg.data.scan import Scan
from fewshot_seg.episode import Episode, Output, Support
from fewshot_seg.evaluation.metrics import dice
from fewshot_seg.inference import Frame, Placement, segment_scans
from fewshot_seg.inference.files import seen_like

LEAST = 0.97


class Oracle(nn.Module):
    """Answers the prepared labels of the scans that it was shown before, by their images."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[bytes, Tensor] = {}

    def learn(
        self,
        images: Float[Tensor, "slice 1 height width"],
        masks: Integer[Tensor, "slice height width"],
    ) -> None:
        self.known |= {
            image.contiguous().numpy().tobytes(): mask for image, mask in zip(images, masks)
        }

    def encode_support(self, support: Support) -> None:
        return None

    def segment(
        self, state: None, query_images: Float[Tensor, "batch query 1 height width"]
    ) -> Float[Tensor, "batch query label height width"]:
        found = torch.stack([self.known[one.numpy().tobytes()] for one in query_images[0]])
        odds = 20 * (found.float() - 0.5)
        return torch.stack([-odds, odds], 1)[None]

    def forward(self, episode: Episode) -> Output:
        return Output(self.segment(None, episode.query_images))


def round_trip(
    example: tuple[Path, Path], query: tuple[Path, Path], size: int, out: Path
) -> dict[int, float]:
    """Dice by class of the prepared labels of `query`, written back, with those in its file."""
    support, own = read_scan(*example), read_scan(*query)
    seen = seen_like(own, support)[0]
    truth = read_labels(query[1])[0]
    scores = {}
    for value in own.class_slices:
        if value not in support.class_slices:
            continue
        oracle = Oracle()
        _show(oracle, support, seen, value, size)
        report = segment_scans(
            oracle, [example], [query[0]], out=out, classes=[value], matching="middle", size=size
        )
        assert report.ok, report.failures
        found = read_labels(report.written[0].labels)[0]
        scores[value] = dice(found == value, truth == value)
    return scores


def _show(oracle: Oracle, support: Scan, seen: Scan, value: int, size: int) -> None:
    """Let the oracle see the scan as the segmenter will."""
    frame = Frame.of(support, (size, size))
    scaled = frame.scaled(seen)
    ready = prepare(seen, size=scaled, intensity=Intensity(), channels=1)
    canvas = frame.canvas(scaled, frame.scaled(support))
    placement = Placement(ready.original_size, scaled, canvas)
    assert ready.labels is not None
    oracle.learn(placement.put(ready.images), placement.put_labels((ready.labels == value).long()))


@pytest.mark.parametrize("scan", [3, 21, 39])
def test_chaos(shared_data, tmp_path: Path, scan: int) -> None:
    folder = shared_data("chaos_MR_T2_normalized")
    pairs = {
        one: (folder / f"image_{one}.nii.gz", folder / f"label_{one}.nii.gz") for one in (1, scan)
    }
    scores = round_trip(pairs[1], pairs[scan], 256, tmp_path)
    assert len(scores) == 4
    assert min(scores.values()) >= LEAST, scores


@pytest.mark.parametrize("scan", ["007", "199", "387"])
def test_hippocampus(shared_data, tmp_path: Path, scan: str) -> None:
    folder = shared_data("msd_hippocampus_mr")
    pairs = [
        tuple(folder / kind / f"hippocampus_{one}.nii.gz" for kind in ("imagesTr", "labelsTr"))
        for one in ("001", scan)
    ]
    scores = round_trip(pairs[0], pairs[1], 256, tmp_path)  # type: ignore[arg-type]
    assert len(scores) == 2
    assert min(scores.values()) >= LEAST, scores


def test_another_orientation_and_spacing(tmp_path: Path) -> None:
    """A ball in a scan that is stored, sized and spaced otherwise than the example."""
    example = _ball(tmp_path, "example", "LAS", (60, 50, 6), (1.5, 1.5, 6.0))
    for codes in ("LAS", "RPI", "SAL", "PSR"):
        query = _ball(tmp_path, codes, codes, (90, 70, 8), (1.0, 1.1, 5.0))
        scores = round_trip(example, query, 96, tmp_path / "out")
        assert scores[1] >= LEAST, (codes, scores)


def _ball(
    folder: Path, name: str, codes: str, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> tuple[Path, Path]:
    grid = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    far = sum((mm * (one - size / 2)) ** 2 for one, size, mm in zip(grid, shape, spacing))
    noise = np.random.default_rng(0).random(shape)
    volumes = {
        "image": (far**0.5 + noise).astype(np.float32),
        "label": (far < 400).astype(np.uint8),
    }
    paths = []
    for kind, data in volumes.items():
        affine = np.diag([-spacing[0], *spacing[1:], 1.0])  # axes run to L, A, S
        image = nib.Nifti1Image(data, affine)
        turn = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(affine),
            nib.orientations.axcodes2ornt(tuple(codes)),
        )
        nib.save(image.as_reoriented(turn), folder / f"{name}_{kind}.nii.gz")
        paths.append(folder / f"{name}_{kind}.nii.gz")
    return paths[0], paths[1]
