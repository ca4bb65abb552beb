"""The Poisson decoder: labels spread over a graph of support, unlabelled and query cells.

RECONSTRUCTED from the abstract of PoissonSeg and the public formulas of Poisson learning; there is
no official code to agree with.
"""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import full_precision, resize
from fewshot_seg_poissonseg.graph import (
    BARRED,
    bridge,
    dense_weights,
    knn_weights,
    neighbour_weights,
    pair_distances,
    squared_distances,
)
from fewshot_seg_poissonseg.nodes import (
    Sources,
    cells,
    describe_support,
    image_points,
)
from fewshot_seg_poissonseg.solver import poisson_dense, poisson_iterative, sources

FAINT = 1e-12
"""Smallest variance of u over the labelled nodes; without two classes u is 0 everywhere."""


@final
class Poisson(nn.Module):
    """Poisson learning on one graph for each query image: support, unlabelled images, that query.

    A node is a cell of `window` x `window` positions, its feature at length 1. One solve gives the
    value u of every label at every node; logits are scale * u, measured from `zero` in a unit given
    by the labelled nodes, so for one way [-a, a]. The answer for a query does not depend on the
    other queries of the batch.

    scale: where the learnable factor starts.
    solver: "dense" (Cholesky) or "iterative" (`steps` of a random walk; 0 follows the notes'
        stopping rule at the price of 1000 steps).
    zero: where u changes from a label to the others: "middle" between its labelled nodes and the
        others' (see `calibrated`), or "mean", the solver's own: u centred over the graph, over its
        deviation on the labelled nodes. The latter gives a small organ far too much.
    graph: "knn", weights exp(-4 d^2 / d_k^2) to `k` neighbours, or "dense", exp(cosine / 0.05).
    spatial: weight of (row, column) as part of each point; the notes' option is 0.3, 0 is off.
    window: side of a cell in feature positions; a map with less than two windows a side gives one
        node for each position.
    hub_limit: with "knn", nodes that more than this many others choose as neighbour (air, padding)
        keep only their own choices; 0 is no limit.
    refine_pixels: every position of the query map takes the weighted mean of u over its k nearest
        nodes, instead of bilinear interpolation between cells.
    rebalance: multiply u by the ratio of a label's share in pixels to that in nodes. It moves no
        decision between background and a single way.
    unlabelled: ask episodes for unlabelled images, at test too (`needs`).

    Memory: one graph takes about 80 n^2 bytes in training and 60 n^2 at test, n = nodes. With 32x32
    maps n = 256 (images + 1 query): 1536, so 190 and 130 MB for each query image, with one
    shot and four unlabelled images. All solves run in fp32.
    Gradients reach the features through the edge weights; the choice of neighbours is discrete.
    """

    def __init__(
        self,
        *,
        scale: float = 5.0,
        solver: str = "dense",
        steps: int = 0,
        zero: str = "middle",
        graph: str = "knn",
        k: int = 10,
        spatial: float = 0.0,
        window: int = 2,
        hub_limit: int = 0,
        refine_pixels: bool = False,
        rebalance: bool = False,
        unlabelled: bool = False,
    ) -> None:
        super().__init__()
        check_choice("solver", solver, ("dense", "iterative"))
        check_choice("graph", graph, ("knn", "dense"))
        check_choice("zero", zero, ("middle", "mean"))
        if scale <= 0 or k < 1 or window < 1:
            raise OptionError(f"scale={scale}, k={k} and window={window} must be positive")
        if spatial < 0 or hub_limit < 0 or steps < 0:
            raise OptionError(
                f"spatial={spatial}, hub_limit={hub_limit} and steps={steps} cannot be negative"
            )
        if steps and solver == "dense":
            raise OptionError(f"steps={steps} needs solver='iterative'; the dense solver has none")
        if hub_limit and graph == "dense":
            raise OptionError(f"hub_limit={hub_limit} needs graph='knn'; 'dense' has no neighbours")
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.solver, self.steps, self.zero = solver, steps, zero
        self.graph, self.k, self.hub_limit = graph, k, hub_limit
        self.spatial, self.window = float(spatial), window
        self.refine_pixels, self.rebalance = refine_pixels, rebalance
        self.needs: tuple[str, ...] = ("unlabelled",) if unlabelled else ()

    def describe(
        self,
        maps: Float[Tensor, "batch way shot dim rows cols"],
        masks: Float[Tensor, "batch way shot height width"],
        backgrounds: Float[Tensor, "batch way shot height width"] | None = None,
        *,
        unlabelled: Float[Tensor, "batch unlabelled dim down across"] | None = None,
    ) -> Sources:
        """Nodes and labels of the support, and nodes of unlabelled maps, which get no gradient."""
        with full_precision(maps):
            rest = 1 - masks if backgrounds is None else backgrounds
            state = describe_support(
                maps.float(), masks.float(), rest.float(), window=self.window, spatial=self.spatial
            )
            if unlabelled is None:
                return state
            return state.with_unlabelled(self._points(unlabelled.detach()))

    def forward(
        self,
        maps: Float[Tensor, "batch query dim rows cols"],
        state: Sources,
        size: tuple[int, int],
    ) -> Float[Tensor, "batch query label height width"]:
        batch, n_query = maps.shape[:2]
        with full_precision(maps):
            own = rearrange(maps, "b q d r c -> (b q) 1 d r c").float()
            graph = state.repeated(n_query).with_unlabelled(self._points(own))
            u = self._unit_free(self._solve(graph), graph)
            if self.rebalance:
                u = u * _class_factors(graph)
            values = self._refined(own, u, graph) if self.refine_pixels else self._cells(own, u)
            logits = self.scale * rearrange(values, "(b q) l r c -> b q l r c", b=batch)
            return resize(logits, size)

    def _points(
        self, maps: Float[Tensor, "batch image dim rows cols"]
    ) -> Float[Tensor, "batch node axis"]:
        return image_points(maps.float(), window=self.window, spatial=self.spatial)

    def _solve(self, graph: Sources) -> Float[Tensor, "graph node label"]:
        distances = pair_distances(graph.points, graph.present)
        if self.graph == "dense":
            weights = dense_weights(distances)
        else:
            weights = knn_weights(distances, self.k, self.hub_limit)
        weights = bridge(weights, distances, _labelled(graph), graph.present)
        b = sources(graph.labels)
        if self.solver == "dense":
            return poisson_dense(weights, b, graph.present)
        return poisson_iterative(weights, b, self.steps)

    def _unit_free(
        self, u: Float[Tensor, "graph node label"], graph: Sources
    ) -> Float[Tensor, "graph node label"]:
        """u in a unit of its own: 1 at an average node of the label, -1 at one of the others.

        With zero="mean": u over its standard deviation on the labelled nodes.
        """
        if self.zero == "mean":
            return u / _deviation(u, graph)[:, None, None]
        return calibrated(u, graph.labels)

    def _cells(
        self,
        maps: Float[Tensor, "graph 1 dim rows cols"],
        u: Float[Tensor, "graph node label"],
    ) -> Float[Tensor, "graph label down across"]:
        """The query's own nodes, which stand last, laid out as a map."""
        down, across = cells(maps, self.window).shape[-2:]
        return rearrange(u[:, -down * across :], "g (r c) l -> g l r c", r=down)

    def _refined(
        self,
        maps: Float[Tensor, "graph 1 dim rows cols"],
        u: Float[Tensor, "graph node label"],
        graph: Sources,
    ) -> Float[Tensor, "graph label rows cols"]:
        """Every position's weighted mean of u over its k nearest nodes of any image."""
        positions = image_points(maps, window=1, spatial=self.spatial)
        distances = squared_distances(positions, graph.points)
        distances = distances.masked_fill(~graph.present.unsqueeze(1), BARRED)
        weights = neighbour_weights(distances, self.k)
        values = weights @ u / weights.sum(-1, keepdim=True)
        return rearrange(values, "g (r c) l -> g l r c", r=maps.shape[-2])


def _labelled(graph: Sources) -> Bool[Tensor, "graph node"]:
    return graph.labels.sum(-1) > 0


def calibrated(
    u: Float[Tensor, "graph node label"], labels: Float[Tensor, "graph node label"]
) -> Float[Tensor, "graph node label"]:
    """(u - middle) / half of the gap between a label's nodes and the other labelled ones.

    u is centred over the graph, so u > 0 cuts it into halves of about equal weight, however rare a
    label is; the middle between the labelled nodes does not depend on how many there are. The gap
    is positive, as u^T b = u^T L u. A label without nodes has -1; 0 where there is no other.
    """
    count = labels.sum(1, keepdim=True)  # graph 1 label
    others = labels.sum((1, 2), keepdim=True) - count
    total = (u * labels.sum(-1, keepdim=True)).sum(1, keepdim=True)
    own = (u * labels).sum(1, keepdim=True)
    rest = (total - own) / others.clamp_min(1)
    own = own / count.clamp_min(1)
    known = (count > 0) & (others > 0)
    half = torch.where(known, (own - rest) / 2, 1.0).clamp_min(FAINT)
    value = (u - (own + rest) / 2) / half
    return torch.where(known, value, torch.where(count > 0, 0.0, -1.0))


def _deviation(u: Float[Tensor, "graph node label"], graph: Sources) -> Float[Tensor, " graph"]:
    """Standard deviation of u over the labelled nodes, one for all labels so that the largest u
    still wins: the root of the mean variance of the labels that there are."""
    labelled = _labelled(graph).to(u.dtype).unsqueeze(-1)
    count = labelled.sum(1, keepdim=True).clamp_min(1)
    mean = (u * labelled).sum(1, keepdim=True) / count
    variance = ((u - mean).square() * labelled).sum(1) / count.squeeze(1)
    occurring = (graph.labels.sum(1) > 0).sum(1).clamp_min(1)
    return (variance.sum(1) / occurring).clamp_min(FAINT).sqrt()


def _class_factors(graph: Sources) -> Float[Tensor, "graph 1 label"]:
    """Share of the labelled area over share of the labelled nodes; 0 for an empty label."""
    nodes = graph.labels.sum(1)
    share = nodes / nodes.sum(1, keepdim=True).clamp_min(1)
    factors = torch.where(share > 0, graph.areas / share.clamp_min(FAINT), 0.0)
    return factors.unsqueeze(1)
