"""The report's page: it needs nothing else, hides nothing, and mixes nothing up."""

import base64
import hashlib
import json
import math
import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("pandas", reason="reports need the extra `ablation`")
pytest.importorskip("jinja2", reason="reports need the extra `ablation`")

from page_cases import Page, page_study, renamed
from report_cases import keep_predictions
from study_cases import PROTOCOL, Row, write_study

from fewshot_seg.ablation.report.blocks import MOST_ROWS, html_cell, table_block
from fewshot_seg.ablation.report.page import render_page, write_report
from fewshot_seg.ablation.report.runs import MOST_CELLS
from fewshot_seg.ablation.report.tables import TableData
from fewshot_seg.ablation.report.tables.data import Column, Number, PValue, Text, Tick
from fewshot_seg.ablation.study import Study, read_study
from fewshot_seg.errors import DataError, OptionError


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return page_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def written(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(study, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written.read_text(encoding="utf-8"))


def test_nothing_is_fetched_from_anywhere(written: Path, page: Page) -> None:
    html = written.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z0-9]+\.", re.sub(r'base64,[^"]*', "", html))
    for tag, attributes in page.tags:
        for name in {"src", "href", "srcset", "action", "data", "poster"} & attributes.keys():
            address = attributes[name]
            assert address.startswith(("data:", "#", "tables/")), (tag, address)
            if address.startswith("tables/"):
                assert (written.parent / address).is_file()


def test_the_browser_is_told_to_run_only_the_pages_own_script(page: Page) -> None:
    (policy,) = [
        tag["content"]
        for tag in page.all("meta")
        if tag.get("http-equiv", "").startswith("Content")
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    (script,) = [content for attributes, content in page.scripts if not attributes]
    (style,) = page.styles
    for name, content in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not any("style" in attributes for _, attributes in page.tags)


def test_headings_addresses_and_pictures_are_in_order(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [tag["href"][1:] for tag in page.all("a") if tag["href"].startswith("#")]
    assert set(anchors) <= set(ids)
    assert len(anchors) > 10
    assert all(len(tag["alt"]) > 20 for tag in page.all("img"))


def test_every_section_of_a_full_study_is_there(page: Page) -> None:
    titles = (
        "Three modules", "Leaderboard", "Ablation matrix", "Significance", "Beside the paper",
        "Slices", "Training", "Cells without results", "Provenance",
    )  # fmt: skip
    for title in titles:
        assert title in page.text
    assert "uses the query's ground-truth organ range" in page.text
    assert "4 of 28 cells have no results (2 failed, 2 missing)" in page.text
    assert "What was varied: FEM, SCL, MGD" in page.text


def test_hostile_names_are_only_words(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    write_study(
        tmp_path / "study",
        [Row(f"{evil}{n}", {"axis<b>": f'{n}" onclick="x'}, 0.5) for n in range(3)],
        title=evil,
        reference=f"{evil}0",
        failed=[(f"{evil}2", "liver")],
    )
    study = renamed(read_study(tmp_path / "study"), evil)
    keep_predictions(study, shift={f"{evil}0": 1, f"{evil}1": 2})
    page = Page(render_page(study))
    assert {tag for tag, _ in page.tags}.isdisjoint({"b", "iframe", "object"})
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert all(tag["src"].startswith("data:") for tag in page.all("img"))
    assert [attributes for attributes, _ in page.scripts] == [{"type": "application/json"}, {}]
    viewer = json.loads(page.scripts[0][1])
    assert viewer["scans"][0]["scan"].startswith(evil)
    assert "DataError: no scan <b>could</b> be scored" in page.text
    assert evil in page.text


def test_results_under_other_rules_have_chapters_of_their_own(tmp_path: Path) -> None:
    write_study(tmp_path / "a", [Row("one", {"x": "1"}, 0.9, 0), Row("two", {"x": "2"}, 0.1)])
    other = replace(PROTOCOL, matching="middle", uses_query_range=False)
    write_study(tmp_path / "b", [Row("one", {"x": "1"}, 0.3, 0)], protocol=other, data_version="v2")
    both = joined(read_study(tmp_path / "a"), read_study(tmp_path / "b"))
    html = render_page(replace(both, folder=tmp_path / "a", cells=both.cells[:4]))
    chapters = html.split('<div class="chapter-head">')
    assert len(chapters) == 4  # the head of the page, two groups, the runs
    assert "2 sets of rules" in chapters[0]
    for chapter, own, foreign in ((chapters[1], "90.0", "30.0"), (chapters[2], "30.0", "90.0")):
        assert "must not be compared" in chapter
        assert f">{own}<" in chapter
        assert f">{foreign}<" not in chapter
    assert "parts-3" in chapters[1]
    assert "middle" in chapters[2]


def joined(first: Study, second: Study) -> Study:
    """Both studies as one folder would hold them."""
    import pandas as pd

    return replace(
        first,
        scores=pd.concat([first.scores, second.scores], ignore_index=True),
        cells=pd.concat([first.cells, second.cells], ignore_index=True),
        protocols={**first.protocols, **second.protocols},
    )


def test_failed_cells_are_named_and_those_that_failed_alike_stand_together(
    tmp_path: Path,
) -> None:
    many = [Row(f"v{n}", {"n": str(n)}, 0.5) for n in range(MOST_CELLS + 4)]
    failed = [(row.variant, "liver") for row in many[1:]]
    study = read_study(write_study(tmp_path, many, failed=failed).root)
    cells = study.cells.copy()
    last = cells["variant"] == many[-1].variant
    cells.loc[last & (cells["state"] == "failed"), "error"] = "TrainingError: the loss is nan"
    page = Page(render_page(replace(study, cells=cells)))
    assert len([tag for tag in page.all("details") if tag.get("class") == "errors"]) == 2
    assert f"{MOST_CELLS + 3} cells failed, for 2 reasons" in page.text
    assert "v1, liver, fold 0, seed 0" in page.text
    assert "and 2 more" in page.text
    assert page.text.index("no scan") < page.text.index("the loss is nan")
    assert page.text.count("Traceback ...") == 2


def test_a_study_with_nothing_done_has_a_page_that_says_so(tmp_path: Path) -> None:
    row = Row("only", {"x": "1"}, 0.5)
    missing = [("only", "liver"), ("only", "spleen")]
    write_study(tmp_path / "study", [row], missing=missing)
    page = Page(write_report(tmp_path / "study", tmp_path / "out").read_text(encoding="utf-8"))
    assert "No cell has results yet" in page.text
    assert "0 of 2" in page.text
    assert "Leaderboard" not in page.text
    assert (tmp_path / "out" / "tables" / "unfinished.csv").is_file()


def test_a_folder_without_a_study_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no study"):
        write_report(tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_jinja_is_named(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(OptionError, match=r"jinja2.*fewshot-seg\[ablation\]"):
        render_page(study)


@pytest.mark.parametrize(
    ("cell", "main", "aside", "value"),
    [
        (Number(value=51.26, sd=1.04, low=49.0, high=53.04), "51.3", "± 1.0 [49.0, 53.0]", "51.26"),
        (Number(value=math.nan), "-", "", ""),
        (PValue(0.0004), "<0.001", "", "0.0004"),
        (PValue(math.nan), "-", "", ""),
        (Tick(True), "✓", "", "1.0"),
        (Text("10"), "10", "", None),
    ],
)
def test_a_cell_shows_rounded_words_and_sorts_by_its_number(
    cell: Number | PValue | Tick | Text, main: str, aside: str, value: str | None
) -> None:
    found = html_cell(cell)
    assert (found.main, found.aside, found.value) == (main, aside, value)


def test_a_long_table_is_cut_and_says_where_the_rest_is() -> None:
    table = TableData(
        name="long",
        title="Long",
        columns=(Column("n", "n"),),
        rows=tuple((Number(value=float(n)),) for n in range(MOST_ROWS + 1)),
        note="Counted.\nrules",
    )
    block = table_block(table, rules="rules")
    assert len(block.rows) == MOST_ROWS
    assert block.words[0] == (
        f"The first {MOST_ROWS} of {MOST_ROWS + 1} rows are shown; tables/long.csv beside this "
        "page has them all."
    )
    assert block.words[1:] == ("Counted.",)
    assert block.rules == "rules"
