"""What is said of a part is read from its source, and reconstructions are marked everywhere."""

import io
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from rich.console import Console

from fewshot_seg import build, names
from fewshot_seg.about import about, module_spec
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.evaluation.provenance import RECONSTRUCTED, provenance
from fewshot_seg.experiment import evaluate_unlearned
from fewshot_seg.registry import Registry

PAPERS_WITHOUT_CODE = {"apscl", "apscl_literal", "apscl_fast", "poissonseg", "srnet"}


def entry(value: str, group: str = "fewshot_seg.decoders") -> EntryPoint:
    return EntryPoint("mine", value, group)


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "stranger_about"
    package.mkdir()
    (package / "__init__.py").write_text('"""Mine: a method. RECONSTRUCTED.\n\nMore."""\n')
    (package / "part.py").write_text(
        '"""The file."""\nfrom stranger_about.other import Far\nraise RuntimeError("imported")\n'
        'class Near:\n    """A near thing.\n\n    More."""\nclass Silent:\n    pass\n'
    )
    (package / "other.py").write_text('class Far:\n    """A far thing."""\n')
    (package / "broken.py").write_text("class Half(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    return package


@pytest.mark.parametrize(
    ("value", "summary"),
    [
        ("stranger_about.part:Near", "A near thing."),
        ("stranger_about.part:Far", "A far thing."),
        ("stranger_about.part:Silent", ""),
        ("stranger_about.part:Unknown", "The file."),
        ("stranger_about.broken:Half", ""),
        ("stranger_about.gone:Part", ""),
    ],
)
def test_the_source_is_read_and_not_run(stranger: Path, value: str, summary: str) -> None:
    assert about(entry(value)) == (summary, True)


def test_a_method_is_named_by_its_package(stranger: Path) -> None:
    told = about(entry("stranger_about:mine", "fewshot_seg.methods"))
    assert told == ("Mine: a method.", True)


def test_nothing_is_said_of_what_is_not_there() -> None:
    assert about(entry("nowhere_at_all.part:Part")) == ("", False)
    assert module_spec("nowhere_at_all.part") is None


def test_every_built_in_says_what_it_is_and_the_right_ones_are_reconstructed() -> None:
    for kind in ("encoder", "prior", "enrichment", "contrastive", "decoder", "method"):
        for name, claims in Registry(kind).providers().items():
            if claims[0].distribution.startswith("fewshot-seg 0"):
                told = about(claims[0].entry)
                assert len(told.summary) > 10, name
                own = claims[0].entry.module.split(".")[0].removeprefix("fewshot_seg_")
                assert told.reconstructed == (own in {"apscl", "poissonseg", "srnet"}), name
    assert set(names("methods")) >= PAPERS_WITHOUT_CODE


def test_results_of_a_reconstruction_say_so() -> None:
    assert provenance("cpu", build("srnet", encoder="resnet18"))["status"] == RECONSTRUCTED
    assert "status" not in provenance("cpu", build("panet", encoder="resnet18"))
    assert "status" not in provenance("cpu", object())
    dataset = abdomen(n_scans=5, size=32, n_slices=8)
    results = evaluate_unlearned("copy", dataset, folds=[0], novel=["liver"], size=32)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(results.table())
    assert RECONSTRUCTED not in console.export_text()
    marked = replace(results, provenance={**results.provenance, "status": RECONSTRUCTED})
    console.print(marked.table())
    assert f"copy: {RECONSTRUCTED}." in " ".join(console.export_text().split())


def test_listing_says_what_things_are() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "fewshot_seg.cli", "list", "methods"],
        capture_output=True, text=True, encoding="utf-8", check=True,
        env={"COLUMNS": "160", "PATH": "", "PYTHONPATH": ":".join(sys.path)},
    ).stdout  # fmt: skip
    rows = {line.split()[1]: line for line in told.splitlines() if len(line.split()) > 3}
    assert "anomaly detection" in rows["adnet"]
    assert {name for name, row in rows.items() if "RECONSTRUCTED" in row} == PAPERS_WITHOUT_CODE
