"""Ablation in ten lines: the same method with parts exchanged by name.

python examples/swap_parts.py
"""

from fewshot_seg import build
from fewshot_seg.testing import make_episode

ENCODER = {"name": "timm", "backbone": "test_resnet.r160_in1k", "dim": 32}  # small; try "resnet18"
VARIANTS = {
    "APSCL": {},
    "without contrastive loss": {"contrastive": None},
    "without prior and FEM": {"prior": None, "enrichment": None},
    "cosine decoder": {"decoder": "cosine"},
    "with PANet's alignment": {"contrastive": ["spatial", "align"]},
    "background by local prototypes": {"bg": "grid"},
}

episode = make_episode(batch=2)
for title, changes in VARIANTS.items():
    model = build("apscl", encoder=ENCODER, image_size=64, **changes)
    output = model(episode)
    output.loss.backward()
    losses = ", ".join(f"{name} {value.item():.3f}" for name, value in output.losses.items())
    print(f"{title:32} {losses}")
