"""APSCL: Anatomical Prior guided Spatial Contrastive Learning. RECONSTRUCTED.

W. Huang, J. Hu, X. Bi, B. Xiao, "Anatomical Prior Guided Spatial Contrastive Learning for Few-Shot
Medical Image Segmentation", ACM MM 2024, doi 10.1145/3664647.3680558. No code was published: this
is a reconstruction from the paper.

A Gaussian latent inferred from each image (pulled in training towards one inferred from its mask)
scales and shifts the feature channels (FiLM); a spatial contrastive loss compares regions through
cross-attention; the decoder re-weights the query's channels by their correlation with the
support's before comparing with prototypes.

The paper leaves much open; docs/methods/apscl.md names each gap and our choice. `apscl` is what we
recommend, `apscl_literal` the paper word for word wherever that can be computed, `apscl_fast` is
`apscl` trained in larger steps.
"""

from dataclasses import replace

from fewshot_seg.recipe import Part, Recipe

TRAINING = {
    "optimizer": "sgd",
    "lr": 1e-3,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "schedule": "constant",
    "episodes_per_step": 1,
    "steps": 100_000,
}
"""Section 4.1: 100 epochs of 1000 episodes, batch 1; no schedule is stated."""
EPISODES_PER_STEP = 8
FAST = {
    **TRAINING,
    "lr": EPISODES_PER_STEP * 1e-3,
    "episodes_per_step": EPISODES_PER_STEP,
    "steps": 100_000 // EPISODES_PER_STEP,
    "precision": "auto",
    "channels_last": True,
    "workers": 4,
}
"""As many episodes, an eighth of the steps. The gradient is the mean over the step's episodes, so
the learning rate grows with their number (linear scaling), and lr * steps stays: with it how far
weights can move, and how much of them weight decay takes away."""


def apscl() -> Recipe:
    """The recommended reading of the paper; every option at its default."""
    return Recipe(
        "apscl",
        encoder=Part("resnet101"),
        prior=Part("anatomical"),
        enrichment=Part("film"),
        contrastive=(Part("spatial"),),
        decoder=Part("mutual_guidance"),
        weights={"ce": 1.0, "kl": 0.1, "scl": 0.07},
        training=TRAINING,
    )


def apscl_fast() -> Recipe:
    """`apscl` in steps of 8 episodes and in bf16: for GPUs, and other machines with bf16."""
    return replace(apscl(), method="apscl_fast", training=FAST)


def apscl_literal() -> Recipe:
    """The paper word for word, its degenerate places included (docs/methods/apscl.md)."""
    return Recipe(
        "apscl_literal",
        encoder=Part("resnet101"),
        prior=Part(
            "anatomical",
            {
                "prior_pool": "none",
                "label_encoder": "resnet101",
                "label_recon": 0.0,
                "eval_latent": "sample",
            },
        ),
        enrichment=Part("film", {"film": "literal"}),
        contrastive=(Part("spatial", {"scl_mode": "image", "align": "literal"}),),
        decoder=Part(
            "mutual_guidance",
            {"alpha_norm": "none", "h_init": "independent", "scale": 1.0},
        ),
        weights={"ce": 1.0, "kl": 0.1, "scl": 0.07},
        training=TRAINING,
    )
