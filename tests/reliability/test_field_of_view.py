"""A scan whose millimetres cannot be right, or whose size memory does not hold."""

import re
from pathlib import Path

import nibabel as nib
import pytest
from patients import Place, patient

from fewshot_seg import batching, build
from fewshot_seg.errors import DataError
from fewshot_seg.inference import SegmentationReport, segment_scans

SIZE = 32


@pytest.mark.parametrize("times", [1e3, 1e-3])
def test_millimetres_that_cannot_be_are_refused_before_memory_is_taken(
    times: float, tmp_path: Path
) -> None:
    """A header whose unit is wrong would ask for a canvas of gigabytes, or show a dot."""
    scan = patient(Place(spacing=(2.0 * times,) * 3)).image
    nib.save(scan, tmp_path / "scan.nii")
    example = patient(Place()).save(tmp_path, "example")
    report = segment_scans(
        build("copy"), [example], [tmp_path / "scan.nii"], out=tmp_path / "out", size=SIZE
    )
    assert not report.written
    assert re.search(r"scan scan spans .* times the field .* check the spacing", _reason(report))


def _reason(report: SegmentationReport) -> str:
    return report.failures[0].reason


def test_labelled_scans_of_different_units_are_refused(tmp_path: Path) -> None:
    large = patient(Place(spacing=(2000.0,) * 3)).save(tmp_path, "large")
    small = patient(Place()).save(tmp_path, "small")
    with pytest.raises(DataError, match=r"scan large spans 1e\+03 times the field of view"):
        segment_scans(build("copy"), [small, large], [small[0]], out=tmp_path / "out", size=SIZE)


def test_a_field_of_view_that_memory_does_not_hold_is_shown_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "free_memory", lambda device: 2**25)
    scan = patient(Place(spacing=(12.0, 12.0, 12.0))).image
    nib.save(scan, tmp_path / "scan.nii")
    example = patient(Place()).save(tmp_path, "example")
    report = segment_scans(
        build("copy"), [example], [tmp_path / "scan.nii"], out=tmp_path / "out", size=SIZE
    )
    assert report.ok, report.failures
    noted = " ".join(report.written[0].notes)
    assert re.search(r"times smaller \(a slice of .* GiB of memory", noted)
    assert nib.load(report.written[0].labels).shape == scan.shape
