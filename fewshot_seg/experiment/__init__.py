"""Whole experiments as one call each: train on a fold with a class held out, test it, use it."""

from fewshot_seg.experiment.apply import segment_with_checkpoint
from fewshot_seg.experiment.episodes import EpisodeSettings, make_source
from fewshot_seg.experiment.evaluate import evaluate_runs, evaluate_unlearned, evaluate_untrained
from fewshot_seg.experiment.notes import FINAL, RunNotes, checkpoint_path, find_runs, read_notes
from fewshot_seg.experiment.sources import augmentation_named, open_dataset, resolve_recipe
from fewshot_seg.experiment.train import fresh_method, run_name, train_fold
from fewshot_seg.experiment.unlabelled import train_unlabelled

__all__ = [
    "FINAL",
    "EpisodeSettings",
    "RunNotes",
    "augmentation_named",
    "checkpoint_path",
    "evaluate_runs",
    "evaluate_unlearned",
    "evaluate_untrained",
    "find_runs",
    "fresh_method",
    "make_source",
    "open_dataset",
    "read_notes",
    "resolve_recipe",
    "run_name",
    "segment_with_checkpoint",
    "train_fold",
    "train_unlabelled",
]
