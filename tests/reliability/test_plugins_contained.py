"""A plugin that misbehaves is named, and everything else goes on."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from test_registry import DECODER, install
from tiny_methods import Patches
from tiny_training import TinyRecipe, settings
from torch import nn

from fewshot_seg import build, names
from fewshot_seg.cli.trial import troubles
from fewshot_seg.episode import Episode, Support
from fewshot_seg.errors import PluginError, TrainingError
from fewshot_seg.inference import segment_scans
from fewshot_seg.registry import Registry
from fewshot_seg.testing import make_episode
from fewshot_seg.training import train


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


# At import

IMPORTS = {
    "raises": "raise OSError('no disk')",
    "leaves": "raise SystemExit('no licence')",
    "dies": "import os; os._exit(3)",
    "hangs": "import time; time.sleep(3600)",
}


def strangers(site: Path) -> None:
    """One decoder a way to misbehave at import, each leaving a trace when it is imported."""
    for name, code in IMPORTS.items():
        trace = f"from pathlib import Path; Path({str(site / name)!r}).touch()\n"
        install(site, f"seg-{name}", "decoders", f"{name} = seg_{name}:Part", trace + code)
    install(site, "seg-fine", "decoders", "fine = seg_fine:Constant", "class Constant: ...")


def test_names_and_list_answer_and_import_none_of_them(site: Path) -> None:
    strangers(site)
    assert {*IMPORTS, "fine", "cosine"} <= set(names("decoders"))
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r}); from fewshot_seg.cli import app; app()"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, "list", "decoders"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert all(name in told.stdout for name in (*IMPORTS, "cosine"))
    assert not [name for name in IMPORTS if (site / name).exists()]


@pytest.mark.parametrize(
    ("name", "message"), [("raises", "OSError: no disk"), ("leaves", "SystemExit: no licence")]
)
def test_a_plugin_that_cannot_be_imported_is_named(site: Path, name: str, message: str) -> None:
    strangers(site)
    with pytest.raises(PluginError, match=rf"'{name}' from seg-{name} 0\.2\.0 .* {message}"):
        build("panet", encoder=Patches(), decoder=name)
    assert build("panet", encoder=Patches()) is not None


def test_trying_them_all_out_survives_what_they_do(site: Path) -> None:
    strangers(site)
    asked = [("decoder", name) for name in ("raises", "leaves", "dies", "fine")]
    found = troubles(asked, seconds=100.0)
    assert list(found) == asked[:3]
    told = list(found.values())
    assert "seg-raises 0.2.0 failed to load seg_raises:Part: OSError: no disk" in told[0]
    assert "no licence" in told[1]
    assert told[2] == "broken: loading it ended Python (exit code 3)"


def test_trying_out_has_a_time_bound(site: Path) -> None:
    strangers(site)
    hanging = ("decoder", "hangs")
    assert troubles([hanging], seconds=1.0) == {hanging: "broken: it did not load within 1 s"}


def test_a_damaged_entry_file_hides_nobody_else(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(site, "seg-cut", "decoders", "cut = seg_cut:Part\nand then the disk was fu")
    install(site, "seg-fine", "decoders", "fine = seg_fine:Constant", "class Constant: ...")
    assert {"fine", "cosine"} <= set(names("decoders"))
    assert "what seg-cut provides cannot be read" in caplog.text


def test_an_entry_that_names_no_module_is_named(site: Path) -> None:
    install(site, "seg-odd", "decoders", "odd = no module :::")
    with pytest.raises(PluginError, match=r"'odd' from seg-odd 0\.2\.0 failed to load"):
        Registry("decoder").get("odd")
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r}); from fewshot_seg.cli import app; app()"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, "list", "decoders"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (told.returncode, told.stderr.strip()) == (2, "1 cannot be used")


def test_a_taken_method_name_is_refused_and_the_others_are_built(site: Path) -> None:
    install(site, "seg-rival", "methods", "panet = seg_rival:Constant", DECODER)
    with pytest.raises(PluginError, match=r"'panet' is provided by .*seg-rival 0\.2\.0"):
        build("panet")
    assert "seg_rival" not in sys.modules
    assert build("copy") is not None


# Shapes

LIAR = """
import torch
from torch import nn

class Liar(nn.Module):
    def __init__(self):
        super().__init__()

    def describe(self, maps, masks, backgrounds=None):
        return masks.shape[1]

    def forward(self, maps, state, size):
        batch, query = maps.shape[:2]
        height, width = size
        return maps.new_zeros({shape}) + 0 * maps.mean()
"""
SHAPES = {
    "the feature grid": "batch, query, 1 + state, height // 8, width // 8",
    "one label": "batch, query, 1, height, width",
    "no query": "batch, 1 + state, height, width",
    "turned": "batch, query, height, width, 1 + state",
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", SHAPES)
def test_logits_of_another_shape_are_the_decoders_fault(
    case: str, training: bool, site: Path
) -> None:
    package = f"seg_liar_{'_'.join(case.split())}"
    code = LIAR.format(shape=SHAPES[case])
    install(site, package.replace("_", "-"), "decoders", f"liar = {package}:Liar", code)
    method = build("panet", encoder=Patches(), decoder="liar", contrastive=None).train(training)
    with pytest.raises(PluginError, match=rf"Liar of {package} gave logits of shape .* asked for"):
        method(make_episode())


class Narrow(Patches):
    """Says 16 channels, gives 8."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images)[:, :8]


class Thinning(nn.Module):
    """An enrichment that drops half of the channels."""

    def forward(self, features: object, latent: object) -> object:
        return features.with_maps(features.maps()[:, :8])  # type: ignore[attr-defined]


class Vector(nn.Module):
    """A contrastive term that gives a loss for each episode."""

    def forward(self, step: object) -> dict[str, torch.Tensor]:
        return {"each": step.logits.mean((1, 2, 3, 4))}  # type: ignore[attr-defined]


def test_an_encoder_that_lies_about_its_channels() -> None:
    method = build("panet", encoder=Narrow())
    with pytest.raises(PluginError, match="Narrow of .* gave maps of shape .*; asked for"):
        method(make_episode())


def test_an_enrichment_that_drops_channels() -> None:
    method = build("panet", encoder=Patches(), enrichment=Thinning())
    with pytest.raises(PluginError, match="Thinning of .* gave features of shape"):
        method(make_episode())


class Episodes:
    """Two at a time, as a training run takes them."""

    def __init__(self, size: tuple[int, int] = (64, 64)) -> None:
        self.size = size

    def episode(self, index: int) -> Episode:
        return make_episode(batch=1, size=self.size, seed=index)

    def describe(self) -> dict[str, str]:
        return {"source": "discs"}


def run(method: nn.Module, out: Path, source: Episodes | None = None) -> None:
    config = settings(steps=2, checkpoint_every=1)
    train(method, source or Episodes(), config, out=out, recipe=TinyRecipe(), progress=False)


def test_a_loss_that_is_no_number_ends_training_and_names_the_method(tmp_path: Path) -> None:
    method = build("panet", encoder=Patches(), contrastive=Vector())
    with pytest.raises(PluginError, match=r"'panet' from fewshot-seg .* a loss 'each' of shape"):
        run(method, tmp_path)


def test_a_size_that_a_method_refuses_ends_training_with_its_words(tmp_path: Path) -> None:
    method = build("gcn_de", width_divisor=16)
    with pytest.raises(TrainingError, match=r"'gcn_de' from .* multiples of 32; got 48x48"):
        run(method, tmp_path, Episodes((48, 48)))


# NaN


class Poisoned(Patches):
    """An encoder whose maps have one value that is not a number."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = super().forward(images)
        return torch.where(torch.arange(maps.shape[-1]) == 3, torch.nan, maps)


def test_nan_ends_training_before_any_weight_is_kept(tmp_path: Path) -> None:
    method = build("panet", encoder=Poisoned())
    with pytest.raises(TrainingError, match="not finite at step 1 .* ce = nan"):
        run(method, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


class Answers(nn.Module):
    """A whole method that answers `logits`, whatever it is shown."""

    def __init__(self, logits: Callable[[int, int, int], torch.Tensor]) -> None:
        super().__init__()
        self.logits = logits

    def encode_support(self, support: Support) -> None:
        return None

    def segment(self, state: None, query_images: torch.Tensor) -> torch.Tensor:
        queries, _, height, width = query_images.shape[1:]
        return self.logits(queries, height, width)


WRONG: dict[str, tuple[nn.Module, str]] = {
    "NaN in an encoder": (
        build("panet", encoder=Poisoned()),
        "method 'panet' from fewshot-seg .* gave logits that are NaN or infinite",
    ),
    "infinity for both labels": (
        Answers(lambda q, h, w: torch.full((1, q, 2, h, w), torch.inf)),
        "Answers of .* gave logits that are NaN or infinite",
    ),
    "half the size": (
        Answers(lambda q, h, w: torch.zeros(1, q, 2, h // 2, w // 2)),
        r"gave logits of shape \(1, 1, 2, 32, 32\); asked for was \(1, 1, 2, 64, 64\)",
    ),
    "three labels": (
        Answers(lambda q, h, w: torch.zeros(1, q, 3, h, w)), "shape .*1, 1, 3, 64, 64",
    ),
    "one row for all": (
        Answers(lambda q, h, w: torch.zeros(1, q, 2, 1, w)), "shape .*1, 1, 2, 1, 64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_answer_writes_no_label_volume(case: str, tmp_path: Path) -> None:
    method, message = WRONG[case]
    rng = np.random.default_rng(0)
    labels = np.zeros((16, 16, 4), np.uint8)
    labels[4:9, 4:9] = 1
    for name, data in (("image", rng.normal(size=labels.shape)), ("labels", labels)):
        nib.save(nib.Nifti1Image(data.astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii")
    image = tmp_path / "image.nii"
    report = segment_scans(
        method, [(image, tmp_path / "labels.nii")], [image], out=tmp_path / "out", size=64
    )
    assert not report.written
    assert re.search(message, report.failures[0].reason), report.failures[0].reason
    assert not (tmp_path / "out").exists()
