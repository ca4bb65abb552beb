"""Every method of the field on one episode: its parts, what it asks of an episode, its losses.

python examples/all_methods.py
"""

from fewshot_seg import build, names
from fewshot_seg.needs import needs_of
from fewshot_seg.testing import make_episode

ENCODER = {"name": "timm", "backbone": "test_resnet.r160_in1k", "dim": 32}  # small; try "resnet18"
WHOLE = {  # networks that are more than an encoder and parts, at a small width
    "copy": {},
    "senet": {"segmenter_width": 8, "conditioner_width": 4},
    "rpnet": {"encoder": {"name": "unet", "width": 8}, "train_steps": 2},
    "gcn_de": {"width_divisor": 16},
    "aas_dcl": {"width": 4},
}

for name in names("methods"):
    model = build(name, **WHOLE.get(name, {"encoder": ENCODER, "image_size": 64}))
    needs = needs_of(model)
    output = model(make_episode(needs=needs))
    parts = ", ".join(f"{slot} {part.name}" for slot, part in model.recipe.parts() if part)
    losses = ", ".join(f"{loss} {value.item():.2f}" for loss, value in output.losses.items())
    print(f"{name}: {parts or 'a whole network'}")
    print(f"    asks of an episode: {', '.join(needs) or 'support and query'}; losses: {losses}")
