"""A folder of scans and one label file: train without labels, then segment the other scans.

    python examples/one_label.py [folder]

Synthetic scans and ten steps only, to show the road. For your own scans, with enough steps:

    fewshot-seg oneshot MY_SCANS --label MY_LABELS.nii.gz --out ANSWERS
"""

import sys
from pathlib import Path

from fewshot_seg.demo.scans import make_scans
from fewshot_seg.experiment.oneshot import oneshot

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/one_label")
scans = folder / "scans"
make_scans(scans, n_scans=4, size=64, seed=0)  # four scans; their labels serve to measure Dice
report = oneshot(
    scans,
    [scans / "label_1.nii.gz"],
    out=folder / "answers",
    classes=["liver"],
    method="alpnet",
    changes={"encoder": {"name": "timm", "backbone": "test_resnet.r160_in1k", "dim": 32}},
    steps=10,
    progress=False,
)
print(f"{len(report.answers)} label files in {report.folder / 'segmented'}")
print(f"Dice after ten steps: {100 * report.mean_dice()[1]:.0f} %; see {report.picture}")
