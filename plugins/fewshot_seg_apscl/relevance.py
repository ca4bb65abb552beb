"""How much two regions have in common (APSCL Eq. 4-6, with region weights)."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from fewshot_seg_apscl.attention import Projected, agreement, attend

AREA_EPS = 1e-5


def carried_agreement(
    images: Projected, samples: Projected, masks: Tensor | None, align: str
) -> Float[Tensor, "group image sample position"]:
    """Cosine of each image's values with those that attention carries over from each sample.

    images: Q, K, V with axes (group, image).   samples: the same by (group, sample).
    masks: (group, sample, position) weights of the samples' positions; None means all of them.
    align: "cross": softmax(Q_a K_b^T) V_b, so the values of b are laid out on the grid of a, as
        Eq. 6 needs and the source code does; "literal": softmax(Q_b K_a^T) V_b as printed in
        Eq. 4, which pairs positions of two images at random.
    """
    carry = _across if align == "cross" else _literally
    return agreement(images.value.unsqueeze(2), carry(images, samples, masks))


def _across(
    images: Projected, samples: Projected, masks: Tensor | None
) -> Float[Tensor, "group image sample position sim_dim"]:
    """softmax(Q_a K_b^T) V_b: the positions of all images ask each sample in one long row."""
    n_image, n_sample = images.query.shape[1], samples.query.shape[1]
    query = repeat(images.query, "g i l e -> g s (i l) e", s=n_sample)
    carried = attend(query, samples.key, samples.value, masks)
    return rearrange(carried, "g s (i l) e -> g i s l e", i=n_image)


def _literally(
    images: Projected, samples: Projected, masks: Tensor | None
) -> Float[Tensor, "group image sample position sim_dim"]:
    """softmax(Q_b K_a^T) V_b: every sample asks each image."""
    n_image, n_sample = images.query.shape[1], samples.query.shape[1]
    query, value = (
        repeat(item, "g s l e -> (g i) s l e", i=n_image) for item in (samples.query, samples.value)
    )
    key = repeat(images.key, "g i l e -> (g i) s l e", s=n_sample)
    mask = None if masks is None else repeat(masks, "g s l -> (g i) s l", i=n_image)
    return rearrange(attend(query, key, value, mask), "(g i) s l e -> g i s l e", i=n_image)


def half_relevance(
    cosines: Float[Tensor, "group image sample position"],
    image_of: Tensor,
    masks: Float[Tensor, "group anchor position"],
) -> Float[Tensor, "group anchor sample"]:
    """Mean over the anchor's positions of the cosine on the anchor's image."""
    on_anchor = cosines.index_select(1, image_of)
    total = torch.einsum("gasl,gal->gas", on_anchor, masks)
    return total / (masks.sum(-1, keepdim=True) + AREA_EPS)


def relevance(
    images: Projected, image_of: Tensor, masks: Float[Tensor, "group sample position"], align: str
) -> Float[Tensor, "group sample sample"]:
    """r(a, b) for every pair of samples, symmetric, in [-2, 2].

    image_of: the image of each sample.   masks: each sample's weight at each position.
    """
    # a mask of ones shifts every score alike, so the whole-image case needs no branch here
    cosines = carried_agreement(images, images.pick(image_of), masks, align)
    half = half_relevance(cosines, image_of, masks)
    return half + half.transpose(1, 2)


def relevance_to_others(
    images: Projected,
    image_of: Tensor,
    masks: Float[Tensor, "group sample position"],
    others: Projected,
    other_masks: Float[Tensor, "group other position"],
    align: str,
) -> Float[Tensor, "group sample other"]:
    """r(a, b) for samples a and others b, each of which is a whole image with its own mask."""
    there = carried_agreement(images, others, other_masks, align)
    back = carried_agreement(others, images.pick(image_of), masks, align)
    own = torch.arange(other_masks.shape[1], device=image_of.device)
    forth = half_relevance(there, image_of, masks)
    return forth + half_relevance(back, own, other_masks).transpose(1, 2)
