"""The report's tables: the right number in the right cell, in every format."""

import csv
import io
import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pandas", reason="the report needs the extra 'ablation'")
pytest.importorskip("statsmodels", reason="the report needs the extra 'ablation'")

from report_cases import PARTS, cell_rows, make_study, modules_study, score_rows
from study_cases import Row, write_study

from fewshot_seg.ablation.report.csv_out import to_csv
from fewshot_seg.ablation.report.groups import Group, groups
from fewshot_seg.ablation.report.latex import to_latex
from fewshot_seg.ablation.report.markdown import to_markdown
from fewshot_seg.ablation.report.tables import (
    ablation_matrix,
    beside_paper,
    cost_table,
    group_tables,
    leaderboard,
    provenance,
    shown,
    significance,
    signs_table,
    sort_value,
    unfinished,
    write_tables,
)
from fewshot_seg.ablation.report.tables.data import (
    Column,
    Number,
    PValue,
    TableData,
    Text,
    Tick,
)
from fewshot_seg.ablation.study import Study, read_study

NASTY = r"a|b_c*d [x] <b> & 50% $1 #2 {y} ~ ^ \z λ"


@pytest.fixture
def modules(tmp_path: Path) -> Group:
    (group,) = groups(modules_study(tmp_path))
    return group


def values(table: TableData, key: str) -> list[float]:
    return [cell.value for cell in table.column(key) if isinstance(cell, Number)]


def words(table: TableData, key: str) -> list[str]:
    return [shown(cell) for cell in table.column(key)]


def test_the_leaderboard_has_the_known_means_best_first(modules: Group) -> None:
    table = leaderboard(modules)
    assert words(table, "variant") == ["FEM+SCL", "FEM", "SCL", "none"]
    assert values(table, "dice_liver") == pytest.approx([80, 60, 70, 50])
    assert values(table, "dice_spleen") == pytest.approx([60, 50, 30, 40])
    assert values(table, "dice_mean") == pytest.approx([70, 55, 50, 45])
    # two folds whose means lie 1 point apart
    first = table.column("dice_mean")[0]
    assert isinstance(first, Number)
    assert first.sd == pytest.approx(math.sqrt(0.5))
    assert first.low < 70 < first.high
    assert words(table, "n_runs") == ["2"] * 4
    assert words(table, "n_scans") == ["8"] * 4


def test_only_the_best_of_a_column_is_marked(modules: Group) -> None:
    table = leaderboard(modules)
    for key in ("dice_liver", "dice_spleen", "dice_mean"):
        cells = table.column(key)
        assert [isinstance(cell, Number) and cell.best for cell in cells] == [True, *[False] * 3]


def test_the_reference_the_paper_and_reconstructions_are_told(modules: Group) -> None:
    table = leaderboard(modules)
    assert words(table, "p_holm")[-1] == "reference"
    assert words(table, "p_holm")[0] == "0.023"  # 3 x 2 / 2^8: all of 8 scans are better
    assert words(table, "paper") == ["-", "62.2", "66.7", "49.5"]
    assert words(table, "minus_paper") == ["-", "-7.2", "-16.7", "-4.5"]
    assert words(table, "status") == ["-", "-", "RECONSTRUCTED", "-"]
    assert "RECONSTRUCTED" in table.note


def test_a_plain_study_has_no_columns_without_content(tmp_path: Path) -> None:
    rows = score_rows("a", {"liver": 0.5}, labels={})
    (group,) = groups(make_study(tmp_path, rows))
    keys = [column.key for column in leaderboard(group).columns]
    assert keys == ["variant", "dice_liver", "dice_mean", "n_runs", "n_scans"]
    assert significance(group) is None
    assert signs_table(group) is None
    assert beside_paper(group) is None
    assert ablation_matrix(group) is None
    assert cost_table(group) is None


def test_a_single_run_has_no_spread(tmp_path: Path) -> None:
    rows = score_rows("a", {"liver": 0.5}, labels={}, folds=(0,))
    (group,) = groups(make_study(tmp_path, rows))
    (cell,) = leaderboard(group).column("dice_liver")
    assert shown(cell) == "50.0"


def test_means_of_fewer_runs_or_classes_come_last_unmarked_and_named(tmp_path: Path) -> None:
    rows = [
        *score_rows("half", {"liver": 0.9, "spleen": 0.8}, labels={}, folds=(0,)),
        *score_rows("one organ", {"liver": 0.95}, labels={}),
        *score_rows("whole", {"liver": 0.5, "spleen": 0.5}, labels={}),
        *score_rows("worse", {"liver": 0.4, "spleen": 0.5}, labels={}),
    ]
    paper = {name: {"mean": 40.0} for name in ("half", "one organ", "whole")}
    (group,) = groups(make_study(tmp_path, rows, paper=paper))
    table = leaderboard(group)
    assert words(table, "variant") == ["whole", "worse", "one organ", "half"]
    marked = [cell.best for cell in table.column("dice_mean") if isinstance(cell, Number)]
    assert marked == [True, False, False, False]
    assert [isinstance(one, Number) and one.best for one in table.column("dice_liver")][2]
    assert words(table, "dice_spleen")[2] == "-"
    assert words(table, "minus_paper") == ["+10.0", "-", "-", "-"]
    beside = beside_paper(group)
    assert beside is not None
    assert words(beside, "minus_paper") == ["-", "-", "+10.0"]
    for one in (table, beside):
        assert "which have 2 runs: half (1)." in one.note
        assert "which have 2 classes: one organ (1)." in one.note


def test_the_matrix_ticks_modules_in_the_grids_order(modules: Group) -> None:
    table = ablation_matrix(modules)
    assert table is not None
    assert [sort_value(cell) for cell in table.column("FEM")] == [0, 1, 0, 1]
    assert [sort_value(cell) for cell in table.column("SCL")] == [0, 0, 1, 1]
    assert values(table, "dice_mean") == pytest.approx([45, 55, 50, 70])


def test_the_matrix_shows_other_axes_beside_the_modules(tmp_path: Path) -> None:
    rows = []
    for fem in ("on", "off"):
        for scl in ("on", "off"):
            for latent in ("8", "32"):
                labels = {"FEM": fem, "SCL": scl, "latent": latent, "data": "chaos"}
                rows += score_rows(f"{fem} {scl} {latent}", {"liver": 0.5}, labels=labels)
    (group,) = groups(make_study(tmp_path, rows, axes=("FEM", "SCL", "latent", "data")))
    table = ablation_matrix(group)
    assert table is not None
    assert [column.key for column in table.columns][:3] == ["FEM", "SCL", "latent"]
    assert "data" not in [column.key for column in table.columns]
    assert words(table, "latent") == ["8", "32"] * 4


def test_differences_from_the_reference(modules: Group) -> None:
    table = significance(modules)
    assert table is not None
    assert words(table, "variant") == ["FEM", "SCL", "FEM+SCL"]
    assert words(table, "difference")[2] == "+25.0 [+25.0, +25.0]"
    assert words(table, "n_pairs") == ["8"] * 3


def test_the_papers_signs_and_numbers(modules: Group) -> None:
    signs = signs_table(modules)
    assert signs is not None
    assert words(signs, "variant") == ["FEM", "SCL"]
    assert words(signs, "paper") == ["+12.7", "+17.2"]
    assert words(signs, "verdict") == ["reproduced", "reproduced"]
    assert signs.note.startswith("2 reproduced (of 2).")
    beside = beside_paper(modules)
    assert beside is not None
    assert words(beside, "minus_paper") == ["-4.5", "-7.2", "-16.7"]


def test_costs_are_in_their_units_and_a_shared_training_counts_once(tmp_path: Path) -> None:
    rows = [
        *score_rows("a", {"liver": 0.5}, labels={}, folds=(0, 1, 2)),
        *score_rows("b", {"liver": 0.6}, labels={}, folds=(0,)),
    ]
    scores = make_study(tmp_path, rows).scores
    cells = cell_rows(
        scores, (), parameters=43e6, gflops=[41.78, 41.78, 41.78, math.nan],
        train_seconds=[60.0, 60.0, 240.0, 90.0], training=["one", "one", "two", "three"],
    )  # fmt: skip
    (group,) = groups(make_study(tmp_path, rows, cells=cells))
    table = cost_table(group)
    assert table is not None
    keys = [column.key for column in table.columns]
    assert keys == ["variant", "parameters_m", "gflops", "train_minutes", "dice"]  # as measured
    assert words(table, "parameters_m") == ["43.00", "43.00"]
    assert words(table, "gflops") == ["41.78", "-"]
    assert words(table, "train_minutes") == ["2.5", "1.5"]
    assert values(table, "dice") == pytest.approx([50, 60])


def two_protocols(folder: Path) -> Study:
    rows = [
        *score_rows("a", {"liver": 0.2}, labels={}),
        *score_rows("a", {"liver": 0.8}, labels={}, protocol="bbbb2222"),
        *score_rows("a", {"liver": 0.5}, labels={}, data_version="v2"),
    ]
    other = replace(PARTS, matching="blind", uses_query_range=False)
    return make_study(folder, rows, protocols={"aaaa1111": PARTS, "bbbb2222": other})


def test_protocols_and_data_versions_are_never_averaged(tmp_path: Path) -> None:
    found = groups(two_protocols(tmp_path))
    tables = [leaderboard(group) for group in found]
    assert [values(table, "dice_mean") for table in tables] == [
        pytest.approx([20]), pytest.approx([80]), pytest.approx([50]),
    ]  # fmt: skip
    assert len({table.name for table in tables}) == 3
    for table, group in zip(tables, found):
        assert group.protocol.describe() in table.note
        assert f"Data version {group.data_version}." in table.note
    assert "matching blind" in tables[1].title
    assert "data version v2" in tables[2].title


def test_no_name_of_a_version_leads_out_of_the_folder(tmp_path: Path) -> None:
    rows = [
        *score_rows("a", {"liver": 0.2}, labels={}, data_version="../../x"),
        *score_rows("a", {"liver": 0.8}, labels={}),
    ]
    names = [leaderboard(group).name for group in groups(make_study(tmp_path, rows))]
    assert names == ["leaderboard-aaaa1111-_x", "leaderboard-aaaa1111-v1"]


def test_every_table_states_its_protocol(tmp_path: Path, modules: Group) -> None:
    for table in group_tables(modules):
        assert PARTS.describe() in table.note
    studied = provenance(read_study(_on_disk(tmp_path / "disk")))
    assert studied is not None
    assert "Matching parts-3" in studied.note


def _on_disk(folder: Path) -> Path:
    rows = [Row("none", {"FEM": "off"}, 0.5), Row("FEM", {"FEM": "on"}, 0.6)]
    write_study(folder, rows, failed=[("FEM", "liver")], missing=[("none", "spleen")], folds=(0, 1))
    return folder


def test_cells_without_results_are_named_failed_first(tmp_path: Path) -> None:
    table = unfinished(read_study(_on_disk(tmp_path)))
    assert table is not None
    assert words(table, "state") == ["failed", "failed", "missing", "missing"]
    assert words(table, "variant") == ["FEM", "FEM", "none", "none"]
    assert words(table, "fold") == ["0", "1", "0", "1"]
    assert "no scan <b>could</b> be scored" in words(table, "error")[0]
    assert "4 of 8 cells are done." in table.note
    short = unfinished(read_study(tmp_path), most=1)
    assert short is not None
    assert len(short.rows) == 1
    assert "The first 1 of 4 are shown." in short.note


def test_a_finished_study_has_no_such_table(tmp_path: Path) -> None:
    assert unfinished(modules_study(tmp_path)) is None


def test_provenance_tells_device_commit_seeds_and_versions(tmp_path: Path) -> None:
    rows = [Row("none", {}, 0.5)]
    told = {"date": "2026-01-02", "device": "cpu", "commit": "abc", "torch": "2.9", "numpy": "2.4"}
    write_study(tmp_path, rows, folds=(0, 1), seeds=(0, 3), provenance=told)
    table = provenance(read_study(tmp_path))
    assert table is not None
    (row,) = table.rows
    by_key = {column.key: shown(cell) for column, cell in zip(table.columns, row)}
    assert by_key["device"] == "cpu"
    assert by_key["commit"] == "abc"
    assert by_key["folds"] == "0, 1"
    assert by_key["seeds"] == "0, 3"
    assert by_key["cells"] == "8"
    assert by_key["versions"] == "torch 2.9, numpy 2.4"


def test_an_empty_study_has_neither(tmp_path: Path) -> None:
    write_study(tmp_path, [Row("a", {}, 0.5)], missing=[("a", "liver"), ("a", "spleen")])
    study = read_study(tmp_path)
    assert groups(study) == ()
    assert provenance(study) is None
    assert unfinished(study) is not None


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (Number(value=85.466), "85.5"),
        (Number(value=85.466, sd=1.25, low=84.12, high=86.7), "85.5 ± 1.2 [84.1, 86.7]"),
        (Number(value=math.nan), "-"),
        (Number(value=0.04, signed=True), "+0.0"[1:]),
        (Number(value=-0.04, signed=True), "0.0"),
        (Number(value=1.26, signed=True), "+1.3"),
        (Number(value=12.0, digits=0), "12"),
        (PValue(0.0004), "<0.001"),
        (PValue(0.0126), "0.013"),
        (PValue(math.nan), "-"),
        (PValue(math.nan, "reference"), "reference"),
        (Tick(True), "✓"),
        (Tick(False), ""),
        (Text(""), "-"),
    ],
)
def test_cells_in_words(cell: Number | PValue | Tick | Text, expected: str) -> None:
    assert shown(cell) == expected


def nasty_table() -> TableData:
    return TableData(
        name="nasty",
        title=NASTY,
        columns=(Column("variant", NASTY, numeric=False), Column("x", "x %")),
        rows=((Text(NASTY), Number(value=-1.5, sd=0.5, best=True)), (Text("[b"), PValue(0.0001))),
        note=f"{NASTY}\nsecond line",
        origin={"protocol": "aaaa1111"},
    )


def test_markdown_is_a_github_table() -> None:
    lines = to_markdown(nasty_table()).splitlines()
    assert lines[3] == "| :-- | --: |"
    for line in lines[2:6]:
        bars = line.replace("\\\\", "").replace("\\|", "").count("|")
        assert bars == 3, line
    assert r"a\|b\_c\*d \[x\] &lt;b\> & 50%" in lines[4]
    assert "| **-1.5** ± 0.5 |" in lines[4]
    assert "&lt;0.001" in lines[5]
    assert lines[-1] == "second line"


def test_latex_escapes_every_special() -> None:
    text = to_latex(nasty_table())
    name = (
        r"a$|$b\_c*d {[}x{]} $<$b$>$ \& 50\% \$1 \#2 \{y\} \textasciitilde{} "
        r"\textasciicircum{} \textbackslash{}z $\lambda$"
    )
    assert f"    {name} & \\textbf{{$-$1.5}} $\\pm$ 0.5 \\\\" in text
    assert "{[}b & $<$0.001" in text
    assert f"\\caption{{{name}}}" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1
    body = text.replace(r"\\", "").replace(r"\{", "").replace(r"\}", "")
    assert body.count("{") == body.count("}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_latex_compiles_with_booktabs_alone(tmp_path: Path, modules: Group) -> None:
    tables = "\n".join(map(to_latex, (nasty_table(), *group_tables(modules))))
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        f"{tables}\n\\end{{document}}\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


def test_csv_keeps_every_digit_under_one_header(modules: Group) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(leaderboard(modules)))))
    assert [row["variant"] for row in rows] == ["FEM+SCL", "FEM", "SCL", "none"]
    best = modules.means.loc["FEM+SCL"]
    for part, key in (("mean", "dice_mean"), ("sd", "dice_mean_sd"), ("low", "dice_mean_low")):
        assert float(rows[0][key]) == 100 * best[part]
    assert rows[0]["paper"] == ""  # none was published
    assert rows[3]["p_holm"] == ""  # the reference has none
    assert rows[0]["n_scans"] == "8"
    assert {row["protocol"] for row in rows} == {"aaaa1111"}
    assert {row["data_version"] for row in rows} == {"v1"}
    assert "dice_liver_low" not in rows[0]  # only means have an interval


def test_csv_takes_commas_quotes_and_lines() -> None:
    name = 'a, "b"\nc'
    table = replace(nasty_table(), rows=((Text(name), Number(value=1.0)),))
    (row,) = csv.DictReader(io.StringIO(to_csv(table)))
    assert row["variant"] == name
    assert row["x"] == "1"


def test_all_tables_are_written_in_all_formats(tmp_path: Path) -> None:
    rows = [Row(name, {"FEM": "on" if name == "FEM" else "off"}, 0.5) for name in ("none", "FEM")]
    paper = {"none": {"mean": 49.5}, "FEM": {"mean": 62.2}}
    failed = [("FEM", "liver")]
    write_study(tmp_path / "study", rows, reference="none", paper=paper, failed=failed)
    files = write_tables(read_study(tmp_path / "study"), tmp_path / "out")
    names = {path.stem for path in files}
    assert names == {
        "leaderboard", "significance", "signs", "paper", "cost", "unfinished", "provenance",
    }  # fmt: skip
    assert {path.suffix for path in files} == {".md", ".tex", ".csv"}
    assert len(files) == 3 * len(names)
    assert all(path.parent == tmp_path / "out" / "tables" and path.stat().st_size for path in files)


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells under 2 headings"):
        replace(nasty_table(), rows=((Text("a"),),))
    with pytest.raises(KeyError, match="not 'y'"):
        nasty_table().column("y")
