"""Train on synthetic scans with one organ held out, then segment that organ from one example.

    python examples/train_and_segment.py [folder]

Ten steps only, to show the road from scans to label volumes; `fewshot-seg demo` trains for real.
"""

import sys
from pathlib import Path

from fewshot_seg.data.phantom import abdomen
from fewshot_seg.experiment import evaluate_runs, resolve_recipe, train_fold

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example")
dataset = abdomen(n_scans=5, size=64, n_slices=8)
recipe = resolve_recipe(
    "apscl", {"encoder": {"name": "timm", "backbone": "test_resnet.r160_in1k", "dim": 32}}
)
checkpoint = train_fold(
    dataset,
    recipe,
    novel="spleen",
    out=folder,
    size=64,
    training={"steps": 10, "optimizer": "adamw", "log_every": 5},
    progress=False,
)
results = evaluate_runs([checkpoint], dataset, surface=False)
print(f"{checkpoint}: Dice {100 * results.mean('spleen'):.1f} % on the organ held out")
print(f"protocol: {results.protocol}")
