"""PoissonSeg: semi-supervised few-shot segmentation by Poisson learning. RECONSTRUCTED.

X. Shen, G. Zhang, H. Lai, J. Luo, J. Lu, Y. Luo, "PoissonSeg: Semi-Supervised Few-Shot Medical
Image Segmentation via Poisson Learning", IEEE BIBM 2021, arXiv 2108.11694.

The support's labels spread over a graph of support, unlabelled and query cells by Poisson learning;
a consistency between two views of an image keeps the features spatially coherent. No code was
published and we had the abstract only: the parts of the idea are the authors', every constant and
the form of the consistency term are ours (docs/methods/poissonseg.md). Results with this recipe are
no reproduction of the paper's.
"""

from fewshot_seg.recipe import Part, Recipe


def poissonseg() -> Recipe:
    """RECONSTRUCTED recipe: ResNet-101, Poisson decoder with four unlabelled slices, consistency
    weight 0.1; supervised episodes, so the cross-entropy has no class weights."""
    return Recipe(
        "poissonseg",
        encoder=Part("resnet101"),
        contrastive=(Part("consistency"),),
        decoder=Part("poisson", {"unlabelled": True}),
        weights={"ce": 1.0, "consistency": 0.1},
        training={
            "optimizer": "sgd",
            "lr": 1e-3,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "episodes_per_step": 1,
            "steps": 100_000,
        },
        episodes={"source": "supervised", "unlabelled": 4},
    )
