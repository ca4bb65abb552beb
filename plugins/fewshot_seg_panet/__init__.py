"""PANet: prototype alignment network.

K. Wang, J.H. Liew, Y. Zou, D. Zhou, J. Feng, "PANet: Few-Shot Image Semantic Segmentation with
Prototype Alignment", ICCV 2019, arXiv 1908.06391; official code kaixin96/PANet.

One prototype for each class and one for the background, by masked average pooling; scaled cosine;
in training the prediction must segment the support in turn (`align`). Decoder and alignment agree
with the official code to 1e-4 (tests/test_panet.py). The recipe differs from the paper in what
medical data ask for: no flips, no ImageNet statistics (docs/methods/panet.md).
"""

from fewshot_seg.recipe import Part, Recipe


def panet() -> Recipe:
    """The original network: VGG-16, pooling at mask resolution, scale 20, alignment weight 1."""
    return Recipe(
        "panet",
        encoder=Part("vgg16"),
        contrastive=(Part("align"),),
        decoder=Part("cosine"),
        weights={"ce": 1.0, "align": 1.0},
        training={
            "optimizer": "sgd",
            "lr": 1e-3,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "schedule": "step",
            "step_every": 10_000,
            "step_factor": 0.1,
            "episodes_per_step": 1,
            "steps": 30_000,
        },
    )
