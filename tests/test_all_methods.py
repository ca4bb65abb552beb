"""Every method goes the whole way: its recipe's episodes, training, test, own scans."""

import logging
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_methods import WHOLE

from fewshot_seg import names
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.phantom.dataset import Phantom
from fewshot_seg.data.prepare import PreparedScan, prepare
from fewshot_seg.errors import DataError, OptionError, RecipeError
from fewshot_seg.evaluation import Results
from fewshot_seg.evaluation.transductive import usable_scans
from fewshot_seg.experiment import (
    evaluate_runs,
    evaluate_unlearned,
    read_notes,
    resolve_recipe,
    segment_with_checkpoint,
    train_fold,
)
from fewshot_seg.registry import Registry

ENCODER = {"name": "timm", "backbone": "test_resnet.r160_in1k", "dim": 16}
OWN: dict[str, dict[str, Any]] = {
    "apscl_literal": {"label_encoder": "light", "prior.hidden": 16},
    "lvqm": {"som_size": [3, 3]},
}
SOURCES = {
    "alpnet": "superpixel", "srnet": "superpixel", "lvqm": "superpixel", "adnet": "supervoxel",
}  # fmt: skip


def learning_methods() -> list[str]:
    found = Registry("method").providers()
    ours = [one for one in names("methods") if found[one][0].distribution.startswith("fewshot-seg")]
    return [name for name in ours if name != "copy"]


def changes_of(name: str) -> dict[str, Any]:
    return {**WHOLE.get(name, {"encoder": ENCODER}), **OWN.get(name, {})}


@pytest.fixture(scope="module")
def dataset() -> Phantom:
    return abdomen(n_scans=5, size=64, n_slices=10)


def trained(dataset: Phantom, name: str, out: Path, **options: Any) -> Path:
    given = {"novel": "liver", "size": 64, "progress": False, "training": {"steps": 2}, **options}
    given["training"] = {"episodes_per_step": 2, **given["training"]}
    return train_fold(dataset, resolve_recipe(name, changes_of(name)), out=out, **given)


@pytest.mark.parametrize("name", learning_methods())
def test_the_recipe_trains_is_tested_and_used(name: str, dataset: Phantom, tmp_path: Path) -> None:
    path = trained(dataset, name, tmp_path / "run")
    record = tomllib.loads((tmp_path / "run" / "run.toml").read_text())
    assert record["source"]["source"] == SOURCES.get(name, "supervised")
    assert read_notes(path).setting == ("setting1" if name in SOURCES else "leave_one_organ")
    results = evaluate_runs([path], dataset, surface=False)
    assert not results.failures
    assert 0 <= results.mean("liver") <= 1
    wanted = "4 slices of the training scans" if name == "poissonseg" else "none"
    assert results.protocol.unlabelled == wanted
    if name in SOURCES:
        assert f"trained on {SOURCES[name]}s without labels" in results.protocol.describe()


def test_poissonseg_segments_scans_with_their_own_slices(dataset: Phantom, tmp_path: Path) -> None:
    path = trained(dataset, "poissonseg", tmp_path / "run")
    support, query = (dataset.load(one) for one in dataset.ids[:2])
    labels = _segment(path, support, query, tmp_path)
    assert labels.shape == query.labels.shape  # type: ignore[union-attr]
    assert set(np.unique(labels)) <= {0, 1}


def _segment(path: Path, support: Any, query: Any, folder: Path) -> np.ndarray:
    import nibabel as nib

    def save(scan: Any, name: str) -> tuple[Path, Path]:
        affine = np.diag([*scan.spacing[::-1], 1.0])
        for part, values in (("image", scan.image[:, 0]), ("label", scan.labels)):
            volume = np.ascontiguousarray(values.T.astype(np.float32 if part == "image" else "u1"))
            nib.Nifti1Image(volume, affine).to_filename(folder / f"{name}_{part}.nii.gz")
        return folder / f"{name}_image.nii.gz", folder / f"{name}_label.nii.gz"

    image, label = save(support, "support")
    other, _ = save(query, "query")
    report = segment_with_checkpoint(
        path, [(image, label)], [other], out=folder / "out", classes=[1]
    )
    assert not report.failures
    written = nib.load(report.written[0].labels).get_fdata()  # type: ignore[attr-defined]
    return np.asarray(written).T.astype(int)


def test_unlabelled_images_at_test_are_chosen_by_name(dataset: Phantom, tmp_path: Path) -> None:
    path = trained(dataset, "poissonseg", tmp_path / "run", episodes={"unlabelled": 2})
    by_rule = {
        rule: evaluate_runs([path], dataset, surface=False, unlabelled=rule)
        for rule in ("train", "query")
    }
    assert by_rule["train"].protocol.unlabelled.startswith("2 slices of the training scans")
    assert "slices of the query scan itself" in by_rule["query"].protocol.describe()
    with pytest.raises(ValueError, match="different protocols"):
        _merged(by_rule["train"], by_rule["query"])
    with pytest.raises(OptionError, match="unlabelled='both' is not one of train, query"):
        evaluate_runs([path], dataset, unlabelled="both")


def _merged(one: Results, other: Results) -> Results:
    return one.merge(other)


def test_a_scan_that_cannot_be_read_gives_no_unlabelled_images(
    dataset: Phantom, caplog: pytest.LogCaptureFixture
) -> None:
    def load(scan_id: str) -> PreparedScan:
        if scan_id == "bad":
            raise DataError("bad: the file is cut short")
        return prepare(dataset.load(scan_id), size=16, intensity=Intensity(), channels=1)

    with caplog.at_level(logging.WARNING):
        found = usable_scans(load, [dataset.ids[0], "bad"])
    assert [scan.id for scan in found] == [dataset.ids[0]]
    assert "bad" in caplog.text
    with pytest.raises(DataError, match="none of the 1 training scans"):
        usable_scans(load, ["bad"])


# --- any source with any method -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "episodes"),
    [
        ("apscl", {"source": "superpixel"}),
        ("senet", {"source": "supervoxel"}),
        ("poissonseg", {"source": "superpixel", "unlabelled": 2}),
        ("aas_dcl", {"source": "supervoxel", "auxiliary": 2}),
        ("adnet", {"source": "supervised"}),
        ("rpnet", {"registered": True}),
        ("gcn_de", {"n_way": 3, "shared": True}),
        ("panet", {"n_way": 2, "shared": True}),
        ("aas_dcl", {"pseudo": 0.5, "pseudo_source": "supervoxel"}),
        ("lvqm", {"source": "supervised", "n_way": 2, "n_shot": 2, "same_scan": "allow"}),
    ],
)
def test_any_source_goes_with_any_method(
    name: str, episodes: dict[str, Any], dataset: Phantom, tmp_path: Path
) -> None:
    path = trained(dataset, name, tmp_path / "run", episodes=episodes)
    assert path.is_file()


def test_without_labels_all_classes_may_be_held_out(dataset: Phantom, tmp_path: Path) -> None:
    every = list(dataset.classes.values())
    path = trained(dataset, "alpnet", tmp_path / "run", novel=every, setting="setting1")
    assert read_notes(path).base == ()
    results = evaluate_runs([path], dataset, surface=False)
    assert sorted(results.classes) == sorted(every)
    with pytest.raises(DataError, match="no class left to train on"):
        trained(dataset, "panet", tmp_path / "other", novel=every, setting="setting1")


def test_episode_settings_travel_in_the_recipe(tmp_path: Path) -> None:
    recipe = resolve_recipe("gcn_de", {"episodes.n_way": 3, "width_divisor": 16})
    assert dict(recipe.episodes) == {"source": "supervised", "n_way": 3, "shared": True}
    again = type(recipe).from_toml(recipe.to_toml())
    assert again == recipe
    with pytest.raises(RecipeError, match="must be a table"):
        type(recipe).from_toml('method = "gcn_de"\nepisodes = 3\n')


def test_a_method_that_learns_is_named_untrained(dataset: Phantom) -> None:
    results = evaluate_unlearned("copy", dataset, folds=[0], novel=["liver"], size=64)
    assert results.name == "copy"
