"""Grid files: what they mean, and what is wrong with them."""

import re
from pathlib import Path
from typing import Any

import pytest
from grid_cases import TINY, scales, tiny

from fewshot_seg.ablation import Grid, Plan, make_plan
from fewshot_seg.ablation.cell import Cell
from fewshot_seg.errors import FewshotSegError, OptionError

ON_OFF = [
    {
        "name": name,
        "value": [{"label": "off", "set": {slot: "none"}}, {"label": "on"}],
    }
    for name, slot in (("SCL", "contrastive"), ("FEM", "enrichment"))
]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(tiny(axis=scales(5.0, 20.0)))


def test_a_cell_for_each_value_class_fold_and_seed() -> None:
    rules = {**TINY["protocol"], "novel": ["liver", "spleen"], "folds": [0, 2], "seeds": [0, 1, 2]}
    cells = make_plan(tiny(axis=scales(5.0, 20.0), protocol=rules)).cells
    assert len(cells) == 2 * 2 * 2 * 3
    assert len({cell.id for cell in cells}) == len(cells)
    assert {(c.variant, *c.novel, c.fold, c.seed) for c in cells} == {
        (scale, organ, fold, seed)
        for scale in ("5.0", "20.0")
        for organ in ("liver", "spleen")
        for fold in (0, 2)
        for seed in (0, 1, 2)
    }


def test_overrides_reach_the_recipe(plan: Plan) -> None:
    first, second = plan.cells
    assert first.recipe.decoder is not None
    assert first.recipe.decoder.options["scale"] == 5.0
    assert second.recipe.decoder is not None
    assert second.recipe.decoder.options["scale"] == 20.0
    assert first.recipe.training["steps"] == 4
    assert first.recipe.encoder is not None
    assert first.recipe.encoder.name == "unet"


def test_the_same_file_gives_the_same_addresses(plan: Plan) -> None:
    again = make_plan(tiny(axis=scales(5.0, 20.0)))
    assert [cell.id for cell in again.cells] == [cell.id for cell in plan.cells]


@pytest.mark.parametrize(
    ("changes", "same_training", "same_cell"),
    [
        ({"training": {**TINY["training"], "workers": 1}}, True, True),
        ({"title": "another title"}, True, True),
        ({"protocol": {**TINY["protocol"], "predictions": False}}, True, True),
        ({"protocol": {**TINY["protocol"], "matching": "middle"}}, True, False),
        ({"training": {**TINY["training"], "steps": 5}}, False, False),
        ({"protocol": {**TINY["protocol"], "seeds": [1]}}, False, False),
        ({"protocol": {**TINY["protocol"], "size": 48}}, False, False),
        ({"data": {"phantom": {**TINY["data"]["phantom"], "seed": 1}}}, False, False),
    ],
)
def test_an_address_says_all_that_decides_the_result(
    changes: dict[str, Any], same_training: bool, same_cell: bool
) -> None:
    (one,), (other,) = make_plan(tiny()).cells, make_plan(tiny(**changes)).cells
    assert (one.training == other.training) == same_training
    assert (one.id == other.id) == same_cell


def test_what_is_set_at_test_shares_the_training() -> None:
    axis = [{"name": "scale", "key": "test.decoder.scale", "values": [5.0, 10.0]}]
    first, second = make_plan(tiny(axis=axis)).cells
    assert first.training == second.training
    assert first.id != second.id
    assert first.test == {"decoder.scale": 5.0}


def test_modules_on_and_off_are_named_as_papers_do() -> None:
    changes = {"prior": "anatomical", "enrichment": "film", "contrastive": "spatial"}
    grid = tiny(method="apscl", set={**TINY["set"], **changes}, axis=ON_OFF, reference="none")
    assert [cell.variant for cell in make_plan(grid).cells] == ["none", "FEM", "SCL", "SCL+FEM"]


def test_settings_are_not_part_of_a_rows_name() -> None:
    folds = {"name": "rule", "key": "protocol.matching", "values": ["middle", "parts-3"]}
    cells = make_plan(tiny(axis=[*scales(5.0, 20.0), folds])).cells
    assert [cell.variant for cell in cells] == ["5.0", "5.0", "20.0", "20.0"]
    assert cells[0].labels == {"scale": "5.0", "rule": "middle"}


def test_common_settings_of_parts_do_not_reach_whole_networks() -> None:
    rows = [{"label": "panet"}, {"label": "copy", "method": "copy"}]
    panet, copy = make_plan(tiny(variant=rows)).cells
    assert panet.recipe.is_pipeline
    assert copy.recipe.options == {}
    assert copy.recipe.training["steps"] == 4


def test_an_axis_wins_over_what_is_common() -> None:
    grid = tiny(set={**TINY["set"], "decoder.scale": 7.0}, axis=scales(5.0, 20.0))
    scale = [cell.recipe.decoder.options["scale"] for cell in make_plan(grid).cells]  # type: ignore[union-attr]
    assert scale == [5.0, 20.0]


def test_combinations_are_skipped() -> None:
    other = {"name": "bg", "key": "weights.ce", "values": [1.0, 2.0]}
    rule = {"scale": "5.0", "bg": ["1.0", "2.0"]}
    cells = make_plan(tiny(axis=[*scales(5.0, 20.0), other], skip=[rule])).cells
    assert [cell.variant for cell in cells] == ["scale=20.0, bg=1.0", "scale=20.0, bg=2.0"]


def test_data_that_lie_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(FewshotSegError, match="has no data set 'chaos'"):
        make_plan(tiny(), {"chaos": str(tmp_path)})
    with pytest.raises(FewshotSegError, match=re.escape("--data FOLDER")):
        make_plan(tiny(data=None))
    with pytest.raises(FewshotSegError, match="--data phantom=FOLDER"):
        make_plan(tiny(data={"phantom": str(tmp_path / "nowhere")}))


def test_text_and_table_are_the_same_grid() -> None:
    text = 'name = "x"\n[[axis]]\nkey = "decoder.scale"\nvalues = [1, 2]\n'
    table = {"name": "x", "axis": [{"key": "decoder.scale", "values": [1, 2]}]}
    assert Grid.from_toml(text) == Grid.from_dict(table)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"nam": "x"}, "no entry 'nam'; did you mean 'name'?"),
    ({"name": ""}, "needs a name"),
    ({"title": 3}, "title is a word"),
    ({"axis": {"name": "x"}}, "write [[axis]]"),
    ({"axis": [{"name": "a"}]}, "either a key with values"),
    ({"axis": [{"name": "a", "values": [1]}]}, "needs key"),
    ({"axis": [{"key": "decoder.scale", "values": []}]}, "has no values"),
    ({"axis": [{"key": "decoder.scale", "values": [1, 1]}]}, "the value '1' twice"),
    ({"axis": [{"name": "a", "value": [{"set": {}}]}]}, "needs label"),
    ({"axis": [{"name": "a", "value": [{"label": "x", "sett": {}}]}]}, "did you mean 'set'?"),
    ({"axis": scales(1.0) * 2}, "two axes are called 'scale'"),
    ({"axis": [{"name": "seed", "key": "decoder.scale", "values": [1]}]}, "cannot be called"),
    ({"skip": [{"b": "x"}], "axis": scales(1.0)}, "names the axis 'b'"),
    ({"skip": [{"scale": "2"}], "axis": scales(1.0)}, "names the value '2'"),
    ({"skip": [{}]}, "would leave out every cell"),
    ({"skip": [{"scale": "1.0"}], "axis": scales(1.0)}, "leaves out all"),
    ({"protocol": {"novels": ["liver"]}}, "did you mean 'novel'?"),
    ({"protocol": {}}, "needs novel"),
    ({"protocol": {"novel": ["livr"]}}, "unknown class 'livr'; did you mean 'liver'?"),
    ({"protocol": {"novel": ["liver", "liver"]}}, "holds a value twice"),
    ({"protocol": {"novel": ["liver"], "folds": [7]}}, "there are folds 0 to 4"),
    ({"protocol": {"novel": ["liver"], "folds": "0"}}, "folds is a list of numbers"),
    ({"protocol": {"novel": ["liver"], "size": "big"}}, "size is a number; got 'big'"),
    ({"protocol": {"novel": ["liver"], "surface": 1}}, "surface is a truth value"),
    ({"protocol": {"novel": ["liver"], "setting": "setting9"}}, "setting='setting9'"),
    ({"protocol": {"novel": ["liver"], "matching": "part-3", "n_folds": 3}}, "part-3"),
    ({"protocol": {"novel": ["liver,spleen"], "n_folds": 3}}, "holds out one class"),
    ({"protocol": {"novel": ["liver"], "window": [3, 1], "n_folds": 3}}, "window is [low, high]"),
    ({"method": "panett"}, "unknown method 'panett'; did you mean 'panet'?"),
    ({"set": {"decoder": "cosin"}}, "unknown decoder 'cosin'; did you mean 'cosine'?"),
    ({"set": {"decoder.scal": 3}}, "no option 'scal'; did you mean 'scale'?"),
    ({"set": {"prior.latent": 3}}, "needs exactly one prior"),
    ({"set": {"enrichment": "film"}}, "needs `latent`, which a prior provides"),
    ({"training": {"step": 3}}, "did you mean 'steps'?"),
    ({"training": {"lr": -1.0}}, "must be more than 0"),
    ({"episodes": {"n_way": 9}}, "need as many base classes"),
    ({"reference": "panet"}, "is no variant of the grid"),
    ({"paper": {"x": {"mean": 1.0}}}, "no variant"),
    ({"paper": {"x": {"mean": "1"}}}, "a table of numbers"),
    ({"axis": [{"key": "protocol.seed", "values": [1]}]}, "did you mean 'seeds'?"),
    (
        {"axis": [*scales(1.0), {"name": "b", "key": "decoder.scale", "values": [2]}]},
        "two axes set 'decoder.scale'",
    ),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_grid_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotSegError, match=re.escape(message)):
        make_plan(tiny(**changes))


def test_an_axis_that_changes_nothing_is_refused() -> None:
    axis = {"name": "b", "value": [{"label": "x"}, {"label": "y"}]}
    with pytest.raises(OptionError, match="axis 'b' changes nothing between b = x and b = y"):
        make_plan(tiny(axis=[axis]))


def test_a_pair_that_cannot_be_says_how_to_skip_it() -> None:
    film = {
        "name": "film",
        "value": [{"label": "no"}, {"label": "yes", "set": {"enrichment": "film"}}],
    }
    rule = re.escape('[[skip]] with scale = "5.0", film = "yes"')
    with pytest.raises(FewshotSegError, match=rule):
        make_plan(tiny(axis=[*scales(5.0), film]))


def test_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot read the grid"):
        Grid.load(tmp_path / "none.toml")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("name = ", encoding="utf-8")
    with pytest.raises(OptionError, match=r"wrong\.toml: this is not valid TOML"):
        Grid.load(wrong)


def test_all_grids_of_the_benchmarks_can_be_read() -> None:
    root = Path(__file__).parent.parent
    files = sorted((root / "benchmarks").glob("*.toml"))
    assert len(files) >= 8
    for file in files:
        assert Grid.load(file).name == file.stem
    assert len(make_plan(Grid.load(root / "examples" / "first_grid.toml")).cells) == 6


def test_words_of_a_cell(plan: Plan) -> None:
    cell: Cell = plan.cells[0]
    assert cell.words == "5.0, phantom, liver, fold 0, seed 0"
