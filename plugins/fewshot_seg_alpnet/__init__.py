"""SSL-ALPNet: adaptive local prototypes, trained on superpixels.

C. Ouyang, C. Biffi, C. Chen, T. Kart, H. Qiu, D. Rueckert, "Self-supervision with Superpixels:
Training Few-shot Medical Image Segmentation without Annotation", ECCV 2020, arXiv 2007.09886;
official code cheng-01037/Self-supervised-Fewshot-Medical-Image-Segmentation.

Besides one prototype for each class there is one for each grid cell that lies almost wholly within
the class; a position's similarities with them are fused by a softmax-weighted sum. The network is
trained without labels: a superpixel plays the organ, two augmentations of its slice play support
and query. Decoder and alignment agree with the official code to 1e-4 (tests/test_alpnet.py); what
that code leaves to an exception is defined here (docs/methods/alpnet.md).
"""

from fewshot_seg.field import FIELD_TRAINING
from fewshot_seg.recipe import Part, Recipe


def alpnet() -> Recipe:
    """The official network: ResNet-101 in stride 8, local prototypes, alignment weight 1.

    Batch norm is trained on the step's slices, as in the official code, also with pretrained
    weights.
    """
    return Recipe(
        "alpnet",
        encoder=Part("resnet101", {"freeze_bn": False}),
        contrastive=(Part("align", {"skip_empty": False}),),
        decoder=Part("alp"),
        options={"ce_weights": [0.05, 1.0]},
        weights={"ce": 1.0, "align": 1.0},
        training=dict(FIELD_TRAINING),
        episodes={"source": "superpixel"},
    )
