"""What is imported is declared and the reverse, and every lower bound can be tried."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import distributions, packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOM = "fewshot_seg/ablation/"
"""Where extras may be imported; everything else works without any."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OLDEST = ROOT / ".ci" / "oldest_versions.py"

PACKAGES = [path for folder in ("fewshot_seg", "plugins") for path in (ROOT / folder).rglob("*.py")]
OUTSIDE = [
    path for folder in ("tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")
]
"""Code that runs with the extra `dev`."""

BY_TORCH = {"torch.utils.tensorboard": "tensorboard"}
"""Modules of a dependency that import another one, which its own metadata leave to us."""


def distribution(requirement: str) -> str:
    """`PyYAML>=6` -> `pyyaml`: names as packaging compares them."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


CORE = {distribution(one) for one in PROJECT["dependencies"]}
EXTRAS = {
    extra: {distribution(one) for one in listed} - {PROJECT["name"]}
    for extra, listed in PROJECT["optional-dependencies"].items()
}


@cache
def imported_modules(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return found


@pytest.fixture(scope="module")
def providers() -> dict[str, str]:
    """Top-level module -> the distribution it comes from, for all that is declared."""
    declared = CORE.union(*EXTRAS.values()) - EXTRAS["fuzz"]
    absent = declared - {distribution(one.metadata["Name"]) for one in distributions()}
    if absent:
        pytest.skip(f"not installed: {', '.join(sorted(absent))}")
    return {name: distribution(found[0]) for name, found in packages_distributions().items()}


def third_party(files: list[Path], providers: dict[str, str]) -> dict[str, set[str]]:
    """Distribution -> the files that import it, relative to the repository."""
    folders = (ROOT / "fewshot_seg", *ROOT.glob("plugins/*"), *ROOT.glob("examples/*/*"))
    own = {path.stem for path in (*OUTSIDE, *folders)}
    found: dict[str, set[str]] = {}
    for path in files:
        for module in imported_modules(path):
            top = module.partition(".")[0]
            if top in sys.stdlib_module_names or top in own:
                continue
            name = BY_TORCH.get(module) or providers.get(top, top)
            found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


def test_core_and_plugins_import_core_dependencies_only(providers: dict[str, str]) -> None:
    files = [path for path in PACKAGES if not path.is_relative_to(ROOT / ROOM)]
    stray = {name: by for name, by in third_party(files, providers).items() if name not in CORE}
    assert not stray, f"imported, but no core dependency in pyproject.toml: {stray}"


def test_the_ablation_room_imports_its_extras_at_most(providers: dict[str, str]) -> None:
    allowed = CORE | EXTRAS["ablation"] | EXTRAS["cluster"]
    stray = {
        name: by for name, by in third_party(PACKAGES, providers).items() if name not in allowed
    }
    assert not stray, f"imported, but declared in no list of pyproject.toml: {stray}"


def test_every_dependency_is_imported(providers: dict[str, str]) -> None:
    found = third_party(PACKAGES, providers)
    for declared in (CORE, EXTRAS["ablation"], EXTRAS["cluster"]):
        assert not declared - found.keys(), "declared in pyproject.toml, but imported nowhere"


def test_extras_repeat_nothing_of_the_core() -> None:
    assert not {extra: names & CORE for extra, names in EXTRAS.items() if names & CORE}


def test_tests_and_examples_import_what_is_declared(providers: dict[str, str]) -> None:
    allowed = CORE.union(*EXTRAS.values())
    stray = {
        name: by for name, by in third_party(OUTSIDE, providers).items() if name not in allowed
    }
    assert not stray, f"imported, but declared in no list of pyproject.toml: {stray}"


WITHOUT_EXTRAS = """
import sys
for module in {modules}:
    sys.modules[module] = None  # importing it fails as if it were not installed
from fewshot_seg.cli import app
app({words})
"""


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["list", "methods"], 0, "apscl"),
        (["report", "nowhere"], 2, 'pip install "fewshot-seg[ablation]"'),
    ],
)
def test_commands_without_extras(
    words: list[str], code: int, told: str, providers: dict[str, str]
) -> None:
    extra = EXTRAS["ablation"] | EXTRAS["cluster"]
    modules = [module for module, name in providers.items() if name in extra]
    program = WITHOUT_EXTRAS.format(modules=modules, words=words)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stderr
    assert told in (done.stdout if code == 0 else done.stderr)
    assert "Traceback" not in done.stderr


# --- the oldest supported versions ----------------------------------------------------------------


@pytest.fixture(scope="module")
def oldest() -> ModuleType:
    spec = importlib.util.spec_from_file_location("oldest_versions", OLDEST)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_dependency_has_an_oldest_version(oldest: ModuleType) -> None:
    found = {distribution(name): version for name, version in oldest.oldest_versions().items()}
    assert found.keys() == CORE.union(*EXTRAS.values())
    assert all(re.fullmatch(r"[0-9]+([.][0-9]+)+", version) for version in found.values())


def test_it_prints_constraints_for_pip(oldest: ModuleType) -> None:
    done = subprocess.run([sys.executable, OLDEST], capture_output=True, text=True, check=True)
    listed = oldest.oldest_versions()
    assert dict(line.split("==") for line in done.stdout.splitlines()) == listed


@pytest.mark.parametrize("requirement", ["torch", "torch<3", "torch>=2.6,<3", "torch==2.6"])
def test_a_dependency_without_a_plain_lower_bound_is_refused(
    requirement: str, oldest: ModuleType, tmp_path: Path
) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(
        f'[project]\nname = "x"\ndependencies = ["{requirement}"]\n'
        "[project.optional-dependencies]\n"
    )
    with pytest.raises(ValueError, match=re.escape(f"'{requirement}' is not of the form")):
        oldest.oldest_versions(file)
