"""Files of a study that cells may keep for the report: predictions, pictures, features."""

from pathlib import Path

from fewshot_seg.ablation.folder import StudyFolder
from fewshot_seg.ablation.report.groups import Group


def predictions_file(group: Group, cell: str) -> Path:
    """What `PredictionWriter` wrote for a cell."""
    return StudyFolder(group.study.folder).cell(cell) / "predictions.safetensors"


def features_file(group: Group, cell: str) -> Path:
    """What `write_features` wrote for a cell."""
    return StudyFolder(group.study.folder).cell(cell) / "features.safetensors"


def scans_folder(group: Group) -> Path:
    """The pictures of test scans, which all cells share."""
    return group.study.folder / "scans"
