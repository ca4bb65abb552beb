"""The report's figures: what is drawn is what was measured."""

import io
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("pandas", reason="the report needs the extra 'ablation'")
pytest.importorskip("statsmodels", reason="the report needs the extra 'ablation'")

from matplotlib.colors import to_hex, to_rgb
from PIL import Image
from report_cases import (
    cell_rows,
    keep_predictions,
    make_study,
    modules_study,
    score_rows,
    write_log,
)

from fewshot_seg.ablation.artefacts import FeatureSample, write_features
from fewshot_seg.ablation.folder import StudyFolder
from fewshot_seg.ablation.report import figures
from fewshot_seg.ablation.report.figures.cost import pareto
from fewshot_seg.ablation.report.figures.labels import curves, numeric_axes
from fewshot_seg.ablation.report.figures.overlays import FOUND, TRUTH
from fewshot_seg.ablation.report.figures.picture import COLOURS, GREY, Picture, short, style
from fewshot_seg.ablation.report.figures.prior import collapse_words, latent_kl, spread_words
from fewshot_seg.ablation.report.figures.tsne import embed, neighbours_agree, thin
from fewshot_seg.ablation.report.groups import Group, groups
from fewshot_seg.ablation.report.logs import joined, loss_names
from fewshot_seg.errors import OptionError

LATENT = (2, 8, 32, 128)


@pytest.fixture
def modules(tmp_path: Path) -> Group:
    (group,) = groups(modules_study(tmp_path))
    return group


@pytest.fixture
def latents(tmp_path: Path) -> Group:
    """Four sizes of the latent with and without FEM, their costs, and the paper's numbers."""
    rows = []
    for index, size in enumerate(LATENT):
        for fem in ("on", "off"):
            dice = {"liver": 0.4 + 0.1 * index + (0.05 if fem == "on" else 0.0)}
            name = f"{'FEM' if fem == 'on' else 'none'}, latent={size}"
            rows += score_rows(name, dice, labels={"FEM": fem, "latent": str(size)})
    scores = pd.DataFrame(rows)
    sizes = scores.drop_duplicates("cell")["latent"].astype(float).to_numpy()
    cells = cell_rows(scores, ("FEM", "latent"), gflops=30.0 + sizes, parameters=4e7)
    paper = {"FEM, latent=2": {"mean": 73.7}, "FEM, latent=128": {"mean": 85.9}}
    study = make_study(tmp_path, rows, axes=("FEM", "latent"), cells=cells, paper=paper)
    (group,) = groups(study)
    return group


def line(picture: Picture, label: str, axes: int = 0) -> tuple[list[float], list[float]]:
    """The points of the line of that name."""
    own = picture.figure.axes[axes]
    (found,) = [one for one in own.get_lines() if one.get_label() == label]
    return list(found.get_xdata()), list(found.get_ydata())


def names_on_y(picture: Picture) -> list[str]:
    return [one.get_text() for one in picture.figure.axes[0].get_yticklabels()]


def test_the_leaderboard_draws_means_intervals_and_the_papers_numbers(modules: Group) -> None:
    picture = figures.leaderboard_picture(modules)
    assert names_on_y(picture) == ["FEM+SCL", "FEM", "SCL", "none"]
    means, places = line(picture, "ours")
    assert means == pytest.approx([70, 55, 50, 45])
    assert places == [0, 1, 2, 3]
    (whiskers,) = picture.figure.axes[0].collections
    ends = [[point[0] for point in one] for one in whiskers.get_segments()]
    expected = 100 * modules.means.loc[["FEM+SCL", "FEM", "SCL", "none"], ["low", "high"]]
    np.testing.assert_allclose(ends, expected)
    paper, _ = line(picture, "paper")
    assert math.isnan(paper[0])
    assert paper[1:] == [62.2, 66.7, 49.5]
    low, high = picture.figure.axes[0].get_ylim()
    assert low > high  # the best on top
    assert "from FEM+SCL with 70.0 % to none with 45.0 %" in picture.alt
    assert modules.protocol.describe() in picture.caption


def test_a_large_leaderboard_shows_the_best_and_says_so(tmp_path: Path) -> None:
    rows = [
        row
        for index in range(33)
        for row in score_rows(f"v{index}", {"liver": 0.1 + 0.02 * index}, labels={})
    ]
    (group,) = groups(make_study(tmp_path, rows))
    picture = figures.leaderboard_picture(group)
    assert names_on_y(picture)[0] == "v32"
    assert len(names_on_y(picture)) == 30
    assert "The best 30 of 33 variants." in picture.caption


def test_ranks_carry_half_the_critical_difference_to_each_side(modules: Group) -> None:
    picture = figures.rank_picture(modules)
    assert picture is not None
    assert names_on_y(picture) == ["FEM+SCL", "FEM", "SCL", "none"]
    (bars,) = picture.figure.axes[0].collections
    ends = np.array([[point[0] for point in one] for one in bars.get_segments()])
    # liver ranks 1 3 2 4, spleen 1 2 4 3
    np.testing.assert_allclose(ends.mean(1), [1.0, 2.5, 3.0, 3.5])
    critical = modules.ranks["critical_difference"].iloc[0]
    np.testing.assert_allclose(np.diff(ends, axis=1), critical)
    assert f"{critical:.2f}" in picture.caption


def test_two_variants_have_no_critical_difference(tmp_path: Path) -> None:
    rows = [row for name in "ab" for row in score_rows(name, {"liver": 0.5}, labels={})]
    (group,) = groups(make_study(tmp_path, rows))
    assert figures.rank_picture(group) is None


def test_a_curve_for_each_setting_of_the_other_axes(latents: Group) -> None:
    (picture,) = figures.curve_pictures(latents)
    axes = picture.figure.axes[0]
    assert axes.get_xscale() == "log"  # 128 is more than 20 times 2
    assert [one.get_text() for one in axes.get_xticklabels()] == ["2", "8", "32", "128"]
    drawn = {one.get_label(): one[0].get_xydata() for one in axes.containers}
    np.testing.assert_allclose(drawn["FEM on"], [[2, 45], [8, 55], [32, 65], [128, 75]])
    np.testing.assert_allclose(drawn["FEM off"], [[2, 40], [8, 50], [32, 60], [128, 70]])
    assert line(picture, "paper, FEM on") == ([2, 128], [73.7, 85.9])
    assert "best 75.0 % at 128" in picture.alt


def test_a_narrow_axis_is_linear_and_a_star_has_a_line_for_each_arm(tmp_path: Path) -> None:
    places = [("0.1", "0.05"), ("0.1", "0.07"), ("0.1", "0.09"), ("0.08", "0.07"), ("0.12", "0.07")]
    rows = [
        row
        for index, (kl, scl) in enumerate(places)
        for row in score_rows(
            f"{kl} {scl}", {"a": 0.1 * index + 0.2}, labels={"kl": kl, "scl": scl}
        )
    ]
    (group,) = groups(make_study(tmp_path, rows, axes=("kl", "scl")))
    assert numeric_axes(group) == ("kl", "scl")
    (curve,) = curves(group, "kl")
    assert curve.label == "scl 0.07"
    assert curve.points["value"].tolist() == [0.08, 0.1, 0.12]
    assert curve.points["mean"].tolist() == pytest.approx([50, 30, 60])
    assert figures.curve_picture(group, "scl").figure.axes[0].get_xscale() == "linear"


def test_words_make_no_curve(modules: Group) -> None:
    assert numeric_axes(modules) == ()
    assert figures.curve_pictures(modules) == []


def test_the_front_holds_what_nothing_beats() -> None:
    points = pd.DataFrame(
        {"cost": [3.0, 1.0, 2.0, 2.0, 4.0, 1.0], "dice": [60.0, 50.0, 55.0, 58.0, 60.0, 40.0]},
        index=list("abcdef"),
    )
    front = pareto(points)
    assert front.index.tolist() == ["b", "d", "a"]
    for name, (cost, dice) in points.iterrows():  # the definition, slowly
        beaten = any(
            other.cost <= cost and other.dice >= dice and (other.cost, other.dice) != (cost, dice)
            for other in points.itertuples()
        )
        assert (name in front.index) != beaten


def test_cost_against_dice(latents: Group) -> None:
    (picture,) = figures.cost_pictures(latents)  # the parameters are all the same
    assert picture.name == "cost-gflops"
    every, step, front = picture.figure.axes[0].get_lines()
    assert len(every.get_xdata()) == 8
    assert list(front.get_xdata()) == [32, 38, 62, 158]
    assert list(front.get_ydata()) == pytest.approx([45, 55, 65, 75])
    assert to_hex(front.get_color()) == to_hex(step.get_color()) == COLOURS[0]
    numbers = [one.get_text() for one in picture.figure.axes[0].texts]
    assert numbers == ["1", "2", "3", "4"]
    (legend,) = picture.figure.legends
    assert [one.get_text() for one in legend.get_texts()][-1] == "FEM, latent=128"
    with pytest.raises(OptionError, match="cost='flops'"):
        figures.cost_picture(latents, "flops")


def test_an_incomplete_variant_is_grey_and_on_no_front(tmp_path: Path) -> None:
    rows = [
        *score_rows("whole", {"liver": 0.5, "spleen": 0.5}, labels={}),
        *score_rows("one organ", {"liver": 0.9}, labels={}),
    ]
    scores = pd.DataFrame(rows)
    costs = np.where(scores.drop_duplicates("cell")["variant"] == "whole", 2.0, 1.0)
    study = make_study(tmp_path, rows, cells=cell_rows(scores, (), gflops=costs))
    (group,) = groups(study)
    board = figures.leaderboard_picture(group)
    assert line(board, "ours, incomplete") == ([90.0], [1])
    picture = figures.cost_picture(group)
    assert list(picture.figure.axes[0].get_lines()[-1].get_xdata()) == [2.0]
    assert "Left out: 1 variants" in picture.caption


def losses_of(start: float, steps: int = 4) -> list[dict[str, float | None]]:
    return [
        {"step": 50 * n, "ce": start / n, "total": start / n + 1, "lr": 0.1, "seconds": 1.0,
         "grad_norm": None, "diagnostics/latent_spread": 0.1 / n}
        for n in range(1, steps + 1)
    ]  # fmt: skip


def test_losses_are_means_over_trainings_with_a_band(modules: Group) -> None:
    folder = modules.study.folder
    write_log(folder, "t-FEM-liver-0", losses_of(1.0))
    write_log(folder, "t-FEM-liver-1", losses_of(3.0))
    with_kl = [{**one, "kl": 0.5} for one in losses_of(5.0, steps=3)]
    write_log(folder, "t-none-liver-0", with_kl)
    picture = figures.loss_picture(modules)
    assert picture is not None
    assert [axes.get_title(loc="left") for axes in picture.figure.axes] == ["total", "ce", "kl"]
    assert [one.get_label() for one in picture.figure.axes[2].get_lines()] == ["none"]
    steps, means = line(picture, "FEM")
    assert steps == [50, 100, 150, 200]
    assert means == pytest.approx([3, 2, 2 / 3 + 1, 1.5])
    (band,) = picture.figure.axes[0].collections  # one training alone has none
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(1.25)
    assert heights.max() == pytest.approx(4.0)
    assert len(line(picture, "none")[0]) == 3
    assert "Left out: 2 variants" in picture.caption


def test_no_log_no_losses(modules: Group) -> None:
    assert figures.loss_picture(modules) is None
    assert figures.prior_pictures(modules) == []


def test_what_of_a_log_is_a_loss() -> None:
    log = pd.DataFrame(losses_of(1.0)).set_index("step").astype(float)
    assert loss_names({"a": [log]}) == ("total", "ce")
    assert joined([log], "kl").empty
    table = joined([log, log + 2], "ce")
    np.testing.assert_allclose(table["high"] - table["low"], 2)
    np.testing.assert_allclose(table["mean"], log["ce"] + 1)


def test_the_prior_tells_which_latents_are_collapsed(modules: Group) -> None:
    kl = {f"diagnostics/kl_per_dim/{index}": 0.5 / 10**index for index in range(12)}
    lines = [{**one, **kl} for one in losses_of(1.0, steps=40)]
    write_log(modules.study.folder, "t-FEM-liver-0", lines)
    write_log(modules.study.folder, "t-SCL-liver-0", losses_of(1.0))
    (picture,) = figures.prior_pictures(modules)
    assert "10 of 12 latents are collapsed (KL < 0.01)." in picture.alt
    bars, spread = picture.figure.axes
    heights = [one.get_height() for one in bars.patches]
    assert heights == pytest.approx([0.5 / 10**index for index in range(12)])
    colours = [to_hex(one.get_facecolor()) for one in bars.patches]
    assert colours == [COLOURS[0]] * 2 + [COLOURS[1]] * 10
    assert len(spread.get_lines()[0].get_xdata()) == 40
    assert "differs by image" in picture.caption


def test_collapse_in_words() -> None:
    assert collapse_words(np.array([0.5, 0.02])) == "0 of 2 latents are collapsed (KL < 0.01)."
    assert collapse_words(np.array([0.5, 0.001])) == "1 of 2 latents is collapsed (KL < 0.01)."
    assert "has collapsed" in spread_words(5e-4)
    assert spread_words(math.nan) == ""
    log = pd.DataFrame({"diagnostics/kl_per_dim": [0.0] * 9 + [0.3]})  # a latent of one number
    assert latent_kl(log).tolist() == pytest.approx([0.3])
    assert latent_kl(pd.DataFrame({"total": [1.0]})).size == 0


def test_overlays_show_the_best_median_and_worst_scan(modules: Group) -> None:
    keep_predictions(modules.study, shift={"none": 4, "FEM": 0})
    liver, spleen = figures.overlay_pictures(modules)
    assert [liver.name, spleen.name] == ["overlay-0", "overlay-1"]
    panels = liver.figure.axes
    assert len(panels) == 9  # ground truth, none, FEM
    titles = [axes.get_title(loc="left") for axes in panels]
    assert titles[:3] == ["best: scan13", "median: scan11", "worst: scan0"]
    assert [axes.get_ylabel() for axes in panels[::3]] == ["ground truth", "none", "FEM"]
    assert titles[3] == "53.5 %"  # as the leaderboard's scores say
    outlines = [one for axes in panels for one in outlines_of(axes)]
    assert outlines[0] == (TRUTH, 14.0, 26.0, 14.0, 26.0)
    assert outlines[3] == (FOUND, 18.0, 30.0, 18.0, 30.0)  # moved by 4 pixels
    assert outlines[6] == (FOUND, 14.0, 26.0, 14.0, 26.0)
    low, high = panels[0].get_ylim()
    assert low < high  # the patient's front, the last row, on top
    assert panels[0].get_aspect() == 2.0  # 2 mm high, 1 mm wide
    left, right = panels[0].get_xlim()
    assert (right - left) == pytest.approx(2 * (high - low))  # a square in millimetres


def outlines_of(axes: object) -> list[tuple[str, float, float, float, float]]:
    """Colour and ends (left, right, low, high) of each outline, to the next half pixel."""
    found = []
    for drawn in axes.collections:  # type: ignore[attr-defined]
        colours = drawn.get_edgecolor()
        corners = np.concatenate([path.vertices for path in drawn.get_paths()])
        if drawn.filled:
            continue
        (left, low), (right, high) = corners.min(0), corners.max(0)
        found.append((to_hex(colours[0]), left, right, low, high))
    return found


def test_a_damaged_file_is_named_not_hidden(modules: Group) -> None:
    keep_predictions(modules.study, shift={"none": 4})
    place = StudyFolder(modules.study.folder).cell("none-liver-0") / "predictions.safetensors"
    place.write_bytes(place.read_bytes()[:-20])
    liver, _ = figures.overlay_pictures(modules)
    assert "Not shown: " in liver.caption
    assert "none-liver-0" in liver.caption


def test_without_files_there_are_no_overlays_and_no_tsne(modules: Group) -> None:
    assert figures.overlay_pictures(modules) == []
    assert figures.tsne_picture(modules) is None


def features(apart: float, count: int = 60, seed: int = 0) -> FeatureSample:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 8)).astype(np.float32)
    labels = np.repeat([0, 1], count // 2).astype(np.uint8)
    points[labels == 1, 0] += np.float32(apart)
    points[labels == 0, 0] -= np.float32(apart)
    return FeatureSample(points, labels, ("liver",))


def keep_features(group: Group, samples: dict[str, FeatureSample]) -> None:
    for cell, sample in samples.items():
        place = StudyFolder(group.study.folder).cell(cell) / "features.safetensors"
        write_features(place, sample)


def test_tsne_has_a_panel_for_each_variant_of_one_cell(modules: Group) -> None:
    pytest.importorskip("sklearn", reason="t-SNE needs scikit-learn")
    empty = FeatureSample(np.zeros((0, 0), np.float32), np.zeros(0, np.uint8), ("liver",), "whole")
    keep_features(
        modules,
        {
            "none-liver-0": features(0.0),
            "FEM-liver-0": features(9.0),
            "SCL-liver-0": empty,
            "FEM-spleen-1": features(9.0),
        },
    )
    picture = figures.tsne_picture(modules)
    assert picture is not None
    assert [axes.get_title(loc="left") for axes in picture.figure.axes] == ["none", "FEM"]
    for axes in picture.figure.axes:
        background, liver = axes.get_lines()
        assert (background.get_label(), liver.get_label()) == ("background", "liver")
        assert len(background.get_xdata()) == len(liver.get_xdata()) == 30
        assert to_hex(background.get_color()) == GREY
    assert "liver, fold 0, seed 0" in picture.caption
    assert "FEM 100 %" in picture.alt
    assert "Not shown: SCL (whole)." in picture.caption


def test_the_embedding_is_seeded_and_small() -> None:
    pytest.importorskip("sklearn", reason="t-SNE needs scikit-learn")
    sample = features(3.0, count=40)
    first, again = (embed(sample.features, 0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, embed(sample.features, 1))
    assert np.isfinite(embed(np.ones((30, 4), np.float32), 0)).all()  # features of one kind
    assert neighbours_agree(features(9.0)) == 1.0
    assert neighbours_agree(features(0.0, count=600)) == pytest.approx(0.5, abs=0.1)
    few = thin(features(1.0, count=100), 10, seed=3)
    assert few.features.shape == (10, 8)
    assert thin(few, 10, seed=0) is few


def test_everything_that_can_be_drawn(latents: Group) -> None:
    names = [picture.name for picture in figures.pictures(latents)]
    assert names == ["leaderboard", "ranks", "curve-latent", "cost-gflops"]


def test_pictures_are_see_through_and_repeat(modules: Group) -> None:
    picture = figures.leaderboard_picture(modules)
    pixels = np.array(Image.open(io.BytesIO(picture.png(dpi=60))))
    assert (pixels[[0, -1]][..., 3] == 0).all()
    first, again = (figures.leaderboard_picture(modules).svg() for _ in range(2))
    assert b"<svg" in first
    assert first == again


def test_names_are_not_read_as_mathematics(tmp_path: Path) -> None:
    rows = score_rows("a $x_{ $ b <b>", {"$y": 0.5}, labels={})
    (group,) = groups(make_study(tmp_path, rows))
    picture = figures.leaderboard_picture(group)
    assert picture.png(dpi=40)
    assert names_on_y(picture) == [short("a $x_{ $ b <b>")]
    assert short("x" * 40) == "x" * 27 + "…"


def luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("paper", ["#ffffff", "#101418"])
def test_colours_are_seen_on_white_and_on_dark(paper: str) -> None:
    for colour in COLOURS:
        assert contrast(colour, paper) >= 2.95, colour
    assert contrast(GREY, paper) >= 4.0


VISION = {
    "normal": np.eye(3),
    # Machado, Oliveira, Fernandes 2009, severity 1, for linear RGB
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


@pytest.mark.parametrize("vision", VISION)
def test_the_colour_blind_tell_the_colours_apart(vision: str) -> None:
    from skimage.color import rgb2lab

    rgb = np.array([to_rgb(colour) for colour in COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(VISION[vision]).T, 0, 1)
    back = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(back)
    apart = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]
    assert min(apart) > 20  # 2.3 is just noticeable


def test_twelve_lines_look_different() -> None:
    looks = {json.dumps(style(index), sort_keys=True) for index in range(12)}
    assert len(looks) == 12
