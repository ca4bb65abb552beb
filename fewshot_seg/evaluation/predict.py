"""From labelled support slices to a mask volume. No query label gets in here."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_seg.answers import check_finite, check_shape
from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.data.unlabelled import UnlabelledPool
from fewshot_seg.episode import Support
from fewshot_seg.errors import DataError
from fewshot_seg.evaluation.encoded import EncodedSlices, some_twice
from fewshot_seg.evaluation.modes import evaluating, place
from fewshot_seg.evaluation.pairs import Part
from fewshot_seg.interfaces import Method
from fewshot_seg.precision import computing, resolve_precision

Images = Float[Tensor, "slice channel height width"]
Mask = Bool[np.ndarray, "full_height full_width"]
Odds = Float[Tensor, "height width"]

PROBABILITY_FLOOR = 1e-6
"""Keeps the log-odds of averaged probabilities finite."""


def support_mask(scan: PreparedScan, index: int, class_id: int) -> Float[Tensor, "height width"]:
    """The class in one slice, 1 or 0, on the network's size. Raises DataError without labels."""
    if scan.labels is None:
        raise DataError(f"support scan {scan.id} has no labels; a support scan needs them")
    return (scan.labels[index] == class_id).to(scan.images.dtype)


def support_of(scans: Sequence[PreparedScan], slices: Sequence[int], class_id: int) -> Support:
    """One way, one shot a scan: slice `slices[i]` of `scans[i]` with the class's mask."""
    chosen = list(zip(scans, slices, strict=True))
    images = torch.stack([scan.images[index] for scan, index in chosen])
    masks = torch.stack([support_mask(scan, index, class_id) for scan, index in chosen])
    return Support(images[None, None], masks[None, None])


def predict(
    method: Method,
    scans: Sequence[PreparedScan],
    query_images: Images,
    *,
    class_id: int,
    parts: Sequence[Part],
    size: tuple[int, int],
    batch: int = 8,
    device: torch.device | str | None = None,
    unlabelled: UnlabelledPool | None = None,
    precision: str = "32",
    encoded: EncodedSlices | None = None,
) -> dict[int, Mask]:
    """The class's mask in each slice that `parts` names, by slice index.

    scans: the labelled scans, one a shot, as large as the query.
    size: height and width of the masks; log-odds are upsampled to it before they are compared.
    batch: query slices in one call.   device: where to compute; the method is moved there
    (None: where it is).
    unlabelled: for methods that learn from unlabelled images; those at the mean position of the
    query slices that share a support.
    precision: one of `fewshot_seg.precision.PRECISIONS`.
    encoded: the query's slices, where they are asked for other classes too.

    The support is encoded once for each distinct choice of support slices.
    Raises PluginError when the method's logits have another shape than asked for, or are NaN or
    infinite.
    """
    place_on = place(method, device)
    computed_in = resolve_precision(precision, place_on)

    def encode(slices: tuple[int, ...], queries: Sequence[int]) -> object:
        chosen = support_of(scans, slices, class_id)
        further = _further(unlabelled, queries, len(query_images))
        return method.encode_support(
            Support(
                chosen.images.to(place_on),
                chosen.masks.to(place_on),
                unlabelled=None if further is None else further.to(place_on),
            )
        )

    odds = log_odds(
        method,
        encode,
        query_images,
        parts,
        batch=batch,
        device=place_on,
        precision=computed_in,
        encoded=encoded,
    )
    return {index: _mask(one, size) for index, one in odds.items()}


def log_odds(
    method: Method,
    encode: Callable[[tuple[int, ...], Sequence[int]], object],
    query_images: Images,
    parts: Sequence[Part],
    *,
    batch: int,
    device: torch.device,
    precision: str = "32",
    encoded: EncodedSlices | None = None,
) -> dict[int, Odds]:
    """Of the class against the rest, for each slice that `parts` names, on the CPU.

    encode: the method's state for support slices and the query slices that they serve.
    precision: "32" or "bf16", see `fewshot_seg.precision`.
    encoded: as in `predict`; within a call a slice is encoded once in any case.
    A slice in several parts gets the log-odds of its mean probability.
    Raises PluginError as `predict`.
    """
    seen: dict[int, list[Odds]] = {}
    if encoded is None and some_twice(parts):
        encoded = EncodedSlices(query_images)
    with evaluating(method), computing(method, device, precision):
        for support, queries in _by_support(parts):
            state = encode(support, queries)
            for start in range(0, len(queries), batch):
                indices = queries[start : start + batch]
                if encoded is None:
                    logits = method.segment(state, query_images[list(indices)][None].to(device))
                else:
                    logits = encoded.segment(method, state, indices, device)
                shape = (1, len(indices), 2, *query_images.shape[-2:])
                check_shape(method, "logits", logits, shape)
                check_finite(method, "logits", logits)
                found = _foreground(logits[0])
                for index, one in zip(indices, found, strict=True):
                    seen.setdefault(index, []).append(one)
    return {index: _together(odds) for index, odds in seen.items()}


def _further(
    pool: UnlabelledPool | None, queries: Sequence[int], n_slices: int
) -> Float[Tensor, "1 unlabelled channel height width"] | None:
    if pool is None:
        return None
    middle = sum(queries) / len(queries)
    return pool.at(middle / (n_slices - 1) if n_slices > 1 else 0.5)[None]


def _by_support(parts: Sequence[Part]) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Parts with the same support slices as one: an organ may have fewer slices than parts."""
    joined: dict[tuple[int, ...], list[int]] = {}
    for part in parts:
        joined.setdefault(part.support, []).extend(part.query)
    yield from joined.items()


def _foreground(
    logits: Float[Tensor, "query label height width"],
) -> Float[Tensor, "query height width"]:
    """The log-odds of the second label."""
    logits = logits.float()
    return (logits[:, 1] - logits[:, 0]).cpu()


def _together(odds: Sequence[Odds]) -> Odds:
    """A single part's log-odds as they are: the way over probabilities would cut them."""
    if len(odds) == 1:
        return odds[0]
    chance = torch.stack(list(odds)).sigmoid().mean(0)
    return chance.clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR).logit()


def _mask(odds: Odds, size: tuple[int, int]) -> Mask:
    """Where the class is the likelier; a tie is background."""
    if tuple(odds.shape) != size:
        odds = F.interpolate(odds[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    found: np.ndarray = (odds > 0).numpy()
    return found
