"""SRNet: self-reference and contrastive regularisation. RECONSTRUCTED.

R. Wang, Q. Zhou, G. Zheng, "Few-shot Medical Image Segmentation Regularized with Self-reference and
Contrastive Learning", MICCAI 2022, LNCS 13434, 514-523. No code was published, and the full text
was not at hand: this is a reconstruction from the abstract and from the family of methods it
belongs to (PANet, SSL-ALPNet). Do not read its numbers as the paper's.

A good prototype describes its class in both images, so the support's own features, compared with
the support's prototypes, must give the support's mask (`self_reference`); a contrastive term pulls
features of a class together across the two images and classes apart (`class_contrast`). The rest is
ALPNet. docs/methods/srnet.md says which choices are ours.
"""

from fewshot_seg.field import FIELD_TRAINING
from fewshot_seg.recipe import Part, Recipe


def srnet() -> Recipe:
    """RECONSTRUCTED: ALPNet with both regularisers; weights 1 and 0.1 are our guess."""
    return Recipe(
        "srnet",
        encoder=Part("resnet101", {"freeze_bn": False}),
        contrastive=(
            Part("align", {"skip_empty": False}),
            Part("self_reference"),
            Part("class_contrast"),
        ),
        decoder=Part("alp"),
        options={"ce_weights": [0.05, 1.0]},
        weights={"ce": 1.0, "align": 1.0, "self_reference": 1.0, "class_contrast": 0.1},
        training=dict(FIELD_TRAINING),
        episodes={"source": "superpixel"},
    )
