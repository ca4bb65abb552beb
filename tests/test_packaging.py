"""What users install: the wheel in an environment of its own, and a stranger's plugin beside it."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "examples" / "third_party_plugin"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Our wheel and the example plugin's, built as for a release."""
    folder = tmp_path_factory.mktemp("wheels")
    for source in (ROOT, PLUGIN):
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source)
    found = {path.name.split("-")[0]: path for path in folder.glob("*.whl")}
    assert set(found) == {"fewshot_seg", "fewshot_seg_nearest"}
    return found


@pytest.fixture(scope="module")
def python(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has both wheels, and takes the dependencies from the one we run in."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    interpreter = folder / "bin" / "python"
    site = Path(run(interpreter, "-c", "import site; print(site.getsitepackages()[0])").strip())
    for wheel in wheels.values():
        run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
            "--target", site, wheel)  # fmt: skip
    for path in sys.path:
        # the dependencies, but not the editable installation of this repository
        if path.endswith("site-packages"):
            (site / "dependencies.pth").write_text(f"import sys; sys.path.append({path!r})\n")
    return interpreter


def test_the_wheel_holds_core_and_plugins_and_nothing_else(wheels: dict[str, Path]) -> None:
    names = zipfile.ZipFile(wheels["fewshot_seg"]).namelist()
    tops = {name.split("/")[0] for name in names}
    plugins = {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fewshot_seg", *plugins}
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)


WORK = """
import fewshot_seg, torch
from pathlib import Path
from fewshot_seg import build
from fewshot_seg.testing import make_episode

assert Path(fewshot_seg.__file__).is_relative_to(Path({site!r})), fewshot_seg.__file__
tiny = {{"name": "timm", "backbone": "test_resnet.r160_in1k", "dim": 16}}
for name, changes in (("apscl", {{"decoder": "nearest"}}), ("nearest", {{}}), ("panet", {{}})):
    output = build(name, encoder=tiny, **changes)(make_episode())
    output.loss.backward()
    print(name, tuple(output.logits.shape))
"""


def test_the_wheel_works_with_a_strangers_plugin(python: Path, tmp_path: Path) -> None:
    site = str(python.parent.parent)
    printed = run(python, "-c", WORK.format(site=site), cwd=tmp_path)
    assert printed.splitlines() == [
        f"{name} (2, 1, 2, 64, 64)" for name in ("apscl", "nearest", "panet")
    ]
    listed = run(python, "-m", "fewshot_seg.cli", "list", "decoders", cwd=tmp_path)
    assert "nearest" in listed
    assert "fewshot-seg-nearest" in listed


def test_the_strangers_plugin_keeps_the_contract(python: Path, tmp_path: Path) -> None:
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", PLUGIN / "test_nearest.py",
        cwd=tmp_path)  # fmt: skip
