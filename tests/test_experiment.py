"""Training and testing as one call each: what a checkpoint remembers, and who may test it."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewshot_seg.checkpoint import load_method, save_method
from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.phantom import Phantom, abdomen, heart
from fewshot_seg.errors import (
    CheckpointError,
    DataError,
    OptionError,
    UnknownNameError,
)
from fewshot_seg.experiment import (
    augmentation_named,
    evaluate_runs,
    evaluate_unlearned,
    evaluate_untrained,
    find_runs,
    fresh_method,
    open_dataset,
    read_notes,
    resolve_recipe,
    run_name,
    train_fold,
)
from fewshot_seg.recipe import Recipe

ENCODER = {"name": "timm", "backbone": "test_resnet", "dim": 16, "in_channels": 1}


@pytest.fixture(scope="module")
def dataset() -> Phantom:
    return abdomen(n_scans=6, size=32, n_slices=8)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return resolve_recipe("panet", {"encoder": ENCODER, "training.steps": 2})


@pytest.fixture(scope="module")
def runs(dataset: Phantom, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds without liver, one without spleen."""
    folder = tmp_path_factory.mktemp("runs")
    for fold, novel in ((0, "liver"), (1, "liver"), (0, "spleen")):
        _train(dataset, recipe, folder / run_name(fold, [novel]), fold=fold, novel=novel)
    return folder


def _train(dataset: Phantom, recipe: Recipe, out: Path, **options: object) -> Path:
    options = {"novel": "liver", "size": 32, "n_folds": 3, "progress": False, **options}
    return train_fold(dataset, recipe, out=out, **options)  # type: ignore[arg-type]


def test_a_checkpoint_remembers_its_protocol(runs: Path, dataset: Phantom) -> None:
    notes = read_notes(runs / "fold1_liver" / "final.safetensors")
    assert notes.novel_names == ("liver",)
    assert notes.base == (2, 3, 4)
    assert (notes.fold, notes.n_folds, notes.size, notes.channels) == (1, 3, (32, 32), 1)
    assert notes.ids == dataset.ids
    assert notes.intensity == Intensity()
    assert notes.fold_of(dataset).index == 1


def test_notes_survive_the_file(runs: Path) -> None:
    path = runs / "fold0_liver" / "final.safetensors"
    notes = replace(read_notes(path), window=(-100.0, 200.0), intensity=Intensity(3.0, 2.0))
    copy = runs.parent / "copy.safetensors"
    save_method(load_method(path), copy, recipe=None, notes=notes.to_dict())
    assert read_notes(copy) == notes
    assert notes.intensity_rule.endswith("within -100 to 200")


def test_training_again_gives_back_the_finished_run(runs, dataset, recipe) -> None:
    path = runs / "fold0_liver" / "final.safetensors"
    before = path.read_bytes()
    assert _train(dataset, recipe, runs / "fold0_liver") == path
    assert path.read_bytes() == before
    with pytest.raises(CheckpointError, match="holds another run"):
        _train(dataset, recipe, runs / "fold0_liver", novel="spleen")


def test_the_seed_decides_the_first_weights(recipe: Recipe) -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, second, other = (fresh_method(recipe, size=(32, 32), seed=s) for s in (1, 1, 2))
    torch.testing.assert_close(first.state_dict(), second.state_dict())
    weights = "encoder.projection.weight"
    assert not torch.equal(first.state_dict()[weights], other.state_dict()[weights])
    assert torch.equal(torch.get_rng_state(), state)


def test_runs_are_put_together_by_class_and_fold(runs: Path, dataset: Phantom) -> None:
    results = evaluate_runs(runs, dataset, surface=False)
    assert results.classes == ("liver", "spleen")
    assert results.protocol.folds == (0, 1)
    assert {(row.fold, row.class_name) for row in results.rows} == {
        (0, "liver"), (1, "liver"), (0, "spleen"),
    }  # fmt: skip
    tested = {row.scan_id for row in results.rows if row.class_name == "liver"}
    assert tested == {"1", "2", "3", "4"}
    assert results.name == "panet"


def test_runs_can_be_chosen(runs: Path, dataset: Phantom) -> None:
    only = evaluate_runs(runs, dataset, folds=[0], novel=["Spleen"], surface=False)
    assert {(row.fold, row.class_name) for row in only.rows} == {(0, "spleen")}
    with pytest.raises(DataError, match=r"there are: fold 0 without liver; .*fold 1 without liver"):
        evaluate_runs(runs, dataset, folds=[2])
    with pytest.raises(UnknownNameError, match="did you mean 'liver'"):
        evaluate_runs(runs, dataset, novel=["livr"])


def test_a_checkpoint_is_tested_on_its_own_data_only(runs: Path) -> None:
    with pytest.raises(CheckpointError, match="other classes and scans"):
        evaluate_runs(runs, heart(n_scans=5, size=32, n_slices=6))
    with pytest.raises(CheckpointError, match="not those that training left out"):
        evaluate_runs(runs, abdomen(n_scans=7, size=32, n_slices=8))


def test_runs_of_different_rules_are_not_put_together(runs, dataset, recipe, tmp_path) -> None:
    other = _train(dataset, recipe, tmp_path / "other", fold=1, setting="setting1")
    with pytest.raises(CheckpointError, match="setting: 'leave_one_organ' and 'setting1'"):
        evaluate_runs([runs / "fold0_liver", other], dataset, surface=False)


def test_damaged_and_foreign_checkpoints_are_named(tmp_path, dataset, runs) -> None:
    path = tmp_path / "notes.safetensors"
    whole = runs / "fold0_liver" / "final.safetensors"
    save_method(load_method(whole), path, recipe=None, notes={"fold": 0})
    with pytest.raises(CheckpointError, match="does not say how it was trained"):
        evaluate_runs(path, dataset)
    path.write_bytes(whole.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="cut off"):
        evaluate_runs(path, dataset)
    with pytest.raises(CheckpointError, match="no finished run"):
        find_runs(tmp_path)
    (tmp_path / "run.toml").touch()
    with pytest.raises(CheckpointError, match="not finished"):
        find_runs(tmp_path)


WRONG = [
    ({"novel": "livr"}, UnknownNameError, "did you mean 'liver'"),
    ({"novel": [1, 2, 3, 4], "setting": "setting1"}, DataError, "no class left to train on"),
    ({"novel": [1, 2]}, OptionError, "holds out one class"),
    ({"setting": "setting3"}, UnknownNameError, "unknown setting"),
    ({"fold": 3}, OptionError, "folds 0 to 2"),
    ({"n_folds": 6, "n_support": 5}, DataError, "cannot make 6 folds"),
    ({"training": {"stepz": 3}}, OptionError, "did you mean 'steps'"),
]


@pytest.mark.parametrize(("options", "kind", "message"), WRONG)
def test_wrong_requests_show_before_any_scan_is_read(
    options, kind, message, recipe, tmp_path
) -> None:
    class Unread:
        name, modality = "unread", "mr"
        classes = abdomen().classes
        ids = ("1", "2", "3", "4", "5", "6")

        def load(self, scan_id: str) -> None:
            raise AssertionError("a scan was read")

    with pytest.raises(kind, match=message):
        _train(Unread(), recipe, tmp_path / "run", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_methods_that_do_not_learn_stand_beside(runs, dataset) -> None:
    copy = evaluate_unlearned(
        "copy", dataset, folds=[0, 1], novel=["liver"], size=32, n_folds=3, surface=False
    )
    trained = evaluate_runs(runs, dataset, novel=["liver"], surface=False)
    assert copy.protocol == trained.protocol
    assert [row.key for row in copy.rows] == [row.key for row in trained.rows]
    assert copy.mean() > 0.2
    notes = read_notes(runs / "fold0_liver" / "final.safetensors")
    method = fresh_method(Recipe("copy"), size=(32, 32), seed=0)
    beside = evaluate_untrained(method, dataset, notes, name="copy", surface=False)
    assert beside.rows == tuple(row for row in copy.rows if row.fold == 0)


def test_training_fits_ct_intensities_on_its_own_scans(recipe, tmp_path) -> None:
    scans = abdomen(n_scans=6, size=32, n_slices=8, contrast="ct")
    path = _train(scans, recipe, tmp_path / "ct", window=(-125.0, 275.0))
    notes = read_notes(path)
    assert notes.window == (-125, 275)
    assert notes.intensity.window == (-125, 275)
    assert notes.intensity.std is not None
    results = evaluate_runs(path, scans, surface=False)
    assert "training scans within -125 to 275" in results.protocol.intensity


def test_data_sets_by_name_and_folder(tmp_path: Path) -> None:
    assert open_dataset("phantom_heart", n_scans=5).name == "phantom_heart"
    with pytest.raises(DataError, match="did you mean 'phantom_heart'"):
        open_dataset("phantom_hart")
    with pytest.raises(OptionError, match="n_scans must be a whole number from 1 to 1000"):
        open_dataset("phantom_heart", n_scans=0)
    with pytest.raises(OptionError, match="has no option 'n_scan'"):
        open_dataset("phantom_heart", n_scan=5)
    with pytest.raises(DataError, match="no layout this library knows"):
        open_dataset(str(tmp_path))


def test_augmentations_by_name() -> None:
    assert augmentation_named("none") == Augmentation.none()
    assert augmentation_named("field") == Augmentation()
    with pytest.raises(UnknownNameError, match="did you mean 'strong'"):
        augmentation_named("stron")


def test_the_image_size_reaches_the_parts(recipe: Recipe) -> None:
    method = fresh_method(recipe, size=(32, 64), seed=0)
    assert method.recipe.options["image_size"] == [32, 64]  # type: ignore[union-attr]


def test_superpixel_episodes_are_mixed_in_and_the_protocol_says_so(
    dataset: Phantom, recipe: Recipe, tmp_path: Path
) -> None:
    path = _train(dataset, recipe, tmp_path / "run", episodes={"pseudo": 0.5})
    record = tomllib.loads((tmp_path / "run" / "run.toml").read_text())["source"]
    assert record["shares"] == [0.5, 0.5]
    assert [one["source"] for one in record["sources"]] == ["supervised", "superpixel"]
    assert read_notes(path).episodes == "50% of training episodes from superpixels"
    results = evaluate_runs([path], dataset, surface=False)
    assert results.protocol.setting.endswith("50% of training episodes from superpixels")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pseudo": 1.0}, "from 0 to below 1; got 1.0"),
        ({"pseudo": 0.5, "n_way": 2}, "one way"),
        ({"pseudo": 0.5, "source": "superpixel"}, "leave pseudo out"),
        ({"source": "superpixels"}, "did you mean 'superpixel'"),
        ({"pseudo_source": "none"}, "superpixel, supervoxel"),
        ({"n_way": 2, "source": "supervoxel"}, "one way"),
        ({"n_shot": 0}, "n_shot must be a whole number of 1 or more; got 0"),
        ({"auxiliaries": 3}, "did you mean 'auxiliary'"),
    ],
)
def test_impossible_episodes_are_refused(
    dataset: Phantom, recipe: Recipe, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        _train(dataset, recipe, tmp_path / "run", episodes=options)
