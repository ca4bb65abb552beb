"""Shape checks over the core and every installed plugin, and the fixtures all tests share."""

import locale
import os
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

GROUPS = ("encoders", "priors", "enrichments", "contrastives", "decoders", "methods", "datasets")


def _plugin_packages() -> set[str]:
    found = {
        entry.module.split(".")[0]
        for kind in GROUPS
        for entry in entry_points(group=f"fewshot_seg.{kind}")
    }
    return found | {"fewshot_seg"}


_hook = install_import_hook(sorted(_plugin_packages()), "beartype.beartype")

import torch  # noqa: E402

torch.set_num_threads(1)  # tests run side by side, and their tensors are small

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Pseudo-labels of tests stay out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_SEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_locale() -> Iterator[None]:
    """ITK leaves the locale "C" behind where it writes DICOM; later tests would read ASCII."""
    before = locale.setlocale(locale.LC_CTYPE)
    yield
    locale.setlocale(locale.LC_CTYPE, before)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """`shared_data("chaos_MR_T2_normalized")`: a folder of real scans, or the test is skipped."""

    def find(name: str) -> Path:
        root = Path(os.environ.get("FEWSHOT_SEG_DATA", ROOT.parent / "shared" / "data"))
        folder = root / name
        if not folder.is_dir():
            pytest.skip(f"the real scans '{name}' are not on this machine")
        return folder

    return find


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """`golden("panet")`: outputs of the official code, or the test is skipped."""

    def find(name: str) -> Path:
        root = Path(os.environ.get("FEWSHOT_SEG_GOLDEN", ROOT.parent / "shared" / "golden"))
        folder = root / name
        if not folder.is_dir():
            pytest.skip(f"the golden values of '{name}' are not on this machine")
        return folder

    return find
