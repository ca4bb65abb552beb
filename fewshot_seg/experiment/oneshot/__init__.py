"""One call from a folder of scans and one label file to a label file for every scan."""

from fewshot_seg.experiment.oneshot.learn import CHANGES, METHOD, METHOD_2D, STEPS
from fewshot_seg.experiment.oneshot.report import OneShotReport
from fewshot_seg.experiment.oneshot.run import oneshot

__all__ = ["CHANGES", "METHOD", "METHOD_2D", "STEPS", "OneShotReport", "oneshot"]
