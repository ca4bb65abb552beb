"""ADNet: few-shot segmentation as anomaly detection.

S. Hansen, S. Gautam, R. Jenssen, M. Kampffmeyer, "Anomaly detection-inspired few-shot medical
image segmentation through self-supervision with supervoxels", Medical Image Analysis 78 (2022)
102385, arXiv 2203.02048; official code sha168/ADNet.

The background is not modelled: one foreground prototype, and one learned threshold below which a
pixel's anomaly score makes it foreground. Training tasks are neighbouring slices of one supervoxel,
so no label is needed. Decoder, losses and gradients agree with the official code
(tests/test_adnet.py); what differs stands in docs/methods/adnet.md.
"""

from fewshot_seg.recipe import Part, Recipe


def adnet() -> Recipe:
    """The original network: ResNet-101, one prototype, threshold -10 at the start."""
    return Recipe(
        "adnet",
        encoder=Part("resnet101", {"freeze_bn": False}),
        contrastive=(Part("align"),),
        decoder=Part("anomaly"),
        options={"ce_weights": [0.1, 1.0]},
        weights={"ce": 1.0, "align": 1.0, "threshold": 1.0},
        training={
            "optimizer": "sgd",
            "lr": 1e-3,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "schedule": "step",
            "step_every": 1000,
            "step_factor": 0.98,  # the paper; the code's default is 0.95
            "episodes_per_step": 1,
            "steps": 50_000,
        },
        episodes={"source": "supervoxel"},
    )
