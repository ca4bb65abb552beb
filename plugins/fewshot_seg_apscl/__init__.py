"""APSCL: Anatomical Prior guided Spatial Contrastive Learning. RECONSTRUCTED.

W. Huang, J. Hu, X. Bi, B. Xiao, "Anatomical Prior Guided Spatial Contrastive Learning for Few-Shot
Medical Image Segmentation", ACM MM 2024, doi 10.1145/3664647.3680558. No code was published: this
is a reconstruction from the paper.

A Gaussian latent inferred from each image (pulled in training towards one inferred from its mask)
scales and shifts the feature channels (FiLM); a spatial contrastive loss compares regions through
cross-attention; the decoder re-weights the query's channels by their correlation with the
support's before comparing with prototypes.

The paper leaves much open; docs/methods/apscl.md names each gap and our choice. `apscl` is what we
recommend, `apscl_literal` the paper word for word wherever that can be computed.
"""

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
