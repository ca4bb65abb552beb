"""LVQM: few-shot segmentation as vector quantisation.

S. Huang, T. Xu, N. Shen, F. Mu, J. Li, "Rethinking Few-Shot Medical Segmentation: A Vector
Quantization View", CVPR 2023, 3072-3081; code sqhuang0103/VQ_Fss.

Prototypes are a codebook, and more of them do not always help. Three kinds are joined: grid cells
(GFVQ, SSL-ALPNet's), neurons of a self-organising map over the support's pixels, expressed by the
cells next to them (SOVQ), and vectors fitted by learning vector quantisation (ROVQ). Agrees with
the official code to 1e-4 in its exact modes (tests/test_lvqm.py); by default the iterative parts
run as a few batched matrix products (docs/methods/lvqm.md).
"""

from fewshot_seg.field import FIELD_TRAINING
from fewshot_seg.recipe import Part, Recipe


def lvqm() -> Recipe:
    """SSL-ALPNet's encoder and training with the three quantisers."""
    return Recipe(
        "lvqm",
        encoder=Part("resnet101", {"freeze_bn": False}),
        contrastive=(Part("grid_align"),),
        decoder=Part("vq"),
        options={"ce_weights": [0.05, 1.0]},
        weights={"ce": 1.0, "grid_align": 1.0},
        training=dict(FIELD_TRAINING),
        episodes={"source": "superpixel"},
    )
