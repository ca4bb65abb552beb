"""The contrastive losses, each for all episodes, auxiliary images and cells at once.

Axes: a `run` is one support image of one way, facing all `query` images of its episode.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_seg.functional import full_precision, normalise
from fewshot_seg_aas_dcl.cells import Cells, scrambled

NORM_EPS = 1e-12


def info_nce(
    positive: Float[Tensor, "*axes"],
    negatives: Float[Tensor, "*others negative"],
    valid: Bool[Tensor, "*more negative"] | None = None,
    *,
    temperature: float = 0.1,
) -> Float[Tensor, "*result"]:
    """-log of the positive's share of the softmax, from cosines; axes broadcast.

    valid: False for a negative that takes no part. With none left the loss is 0.
    """
    positive, rest = positive / temperature, negatives / temperature
    if valid is not None:
        rest = rest.masked_fill(~valid, torch.finfo(rest.dtype).min)
    return torch.logaddexp(positive, rest.logsumexp(-1)) - positive


def unit(vectors: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """Of length 1; a zero vector stays zero, so that its cosine with anything is 0."""
    return normalise(vectors.float(), -1, NORM_EPS)


def global_loss(
    query: Float[Tensor, "run query dim"],
    support: Float[Tensor, "run dim"],
    auxiliary: Float[Tensor, "run auxiliary dim"],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """The query's vector belongs to the support's prototype, not to an auxiliary image's."""
    with full_precision(query):
        query = unit(query)
        positive = torch.einsum("nqd,nd->nq", query, unit(support))
        negatives = torch.einsum("nqd,nad->nqa", query, unit(auxiliary))
        return info_nce(positive, negatives, temperature=temperature).mean()


def local_values(
    query: Float[Tensor, "run query dim"],
    support: Cells,
    auxiliary: Cells,
    *,
    temperature: float = 0.1,
    compat_scrambled_negatives: bool = False,
) -> tuple[Float[Tensor, "run query auxiliary cell"], Bool[Tensor, "run 1 auxiliary cell"]]:
    """InfoNCE of every auxiliary image and support cell, and which of these pairs count.

    support: cells (run cell), auxiliary: (run auxiliary cell). A pair counts when the support cell
    is foreground and the auxiliary image has a foreground cell. Negatives: the auxiliary image's
    foreground and background cells and the support's background cells.
    """
    with full_precision(query):
        query = unit(query)
        around = (1, auxiliary.vectors.shape[1], 1)
        vectors = torch.cat(
            [
                auxiliary.vectors,
                support.vectors.unsqueeze(1).repeat(*around, 1),
                auxiliary.vectors,
            ],
            2,
        )
        backgrounds = support.background.unsqueeze(1).repeat(*around)
        valid = torch.cat([auxiliary.foreground, backgrounds, auxiliary.background], 2)
        if compat_scrambled_negatives:
            vectors, valid = scrambled(vectors, valid)
        negatives = torch.einsum("nqd,nakd->nqak", query, unit(vectors)).unsqueeze(3)
        positive = torch.einsum("nqd,ncd->nqc", query, unit(support.vectors)).unsqueeze(2)
        present = auxiliary.foreground.any(-1)
        counts = (support.foreground.unsqueeze(1) & present.unsqueeze(2)).unsqueeze(1)
        allowed = valid[:, None, :, None]
        return info_nce(positive, negatives, allowed, temperature=temperature), counts


def local_loss(
    query: Float[Tensor, "run query dim"],
    support: Cells,
    auxiliary: Cells,
    *,
    temperature: float = 0.1,
    compat_scrambled_negatives: bool = False,
    compat_last_only: bool = False,
) -> Float[Tensor, ""]:
    """The query's vector belongs to the cells of the support's organ, not to the cells around it
    or those of auxiliary images: mean of `local_values` over the pairs of each run, then over runs.

    A run without a pair adds 0. The `compat_` options are the official code's, see `Quirks`.
    """
    values, counts = local_values(
        query,
        support,
        auxiliary,
        temperature=temperature,
        compat_scrambled_negatives=compat_scrambled_negatives,
    )
    pairs = counts.sum((2, 3)).clamp_min(1)
    if compat_last_only:
        # the last foreground cell: none follows it
        counts = counts & (counts.flip(-1).cumsum(-1).flip(-1) == 1)
    return ((values * counts).sum((2, 3)) / pairs).mean()


def context_loss(
    query: Float[Tensor, "run query cell dim"],
    support: Float[Tensor, "run cell dim"],
    auxiliary: Float[Tensor, "run auxiliary cell dim"],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Each of the query's contexts belongs to the support's at its place, not to the contexts of an
    auxiliary image; mean over places and auxiliary images."""
    with full_precision(query):
        query = unit(query)
        positive = torch.einsum("nqcd,ncd->nqc", query, unit(support)).unsqueeze(2)
        negatives = torch.einsum("nqcd,nakd->nqack", query, unit(auxiliary))
        return info_nce(positive, negatives, temperature=temperature).mean()
