"""From labelled support slices to a mask volume. No query label gets in here."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.data.unlabelled import UnlabelledPool
from fewshot_seg.episode import Support
from fewshot_seg.errors import DataError
from fewshot_seg.evaluation.matching import Part
from fewshot_seg.evaluation.modes import evaluating, place
from fewshot_seg.interfaces import Method

Images = Float[Tensor, "slice channel height width"]
Mask = Bool[np.ndarray, "full_height full_width"]


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
) -> dict[int, Mask]:
    """The class's mask in each slice that `parts` names, by slice index.

    scans: the labelled scans, one a shot, as large as the query.
    size: height and width of the masks; logits are upsampled to it before they are compared.
    batch: query slices in one call.   device: where to compute; the method is moved there
    (None: where it is).
    unlabelled: for methods that learn from unlabelled images; those at the mean position of the
    query slices that share a support.

    The support is encoded once for each distinct choice of support slices.
    Raises ValueError when the method answers NaN or has not two labels for one way.
    """
    place_on = place(method, device)
    masks: dict[int, Mask] = {}
    with evaluating(method):
        for support, queries in _by_support(parts):
            chosen = support_of(scans, support, class_id)
            further = _further(unlabelled, queries, len(query_images))
            state = method.encode_support(
                Support(
                    chosen.images.to(place_on),
                    chosen.masks.to(place_on),
                    unlabelled=None if further is None else further.to(place_on),
                )
            )
            for start in range(0, len(queries), batch):
                indices = queries[start : start + batch]
                images = query_images[list(indices)][None].to(place_on)
                found = _foreground(method.segment(state, images)[0], size)
                masks.update(zip(indices, found, strict=True))
    return masks


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
    logits: Float[Tensor, "query label height width"], size: tuple[int, int]
) -> Bool[np.ndarray, "query full_height full_width"]:
    if logits.shape[1] != 2:
        raise ValueError(f"one way asks for 2 logits a pixel; the method gave {logits.shape[1]}")
    if logits.isnan().any():
        raise ValueError("the method answered NaN; train it anew or look at its inputs")
    if tuple(logits.shape[-2:]) != size:
        logits = F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
    # As argmax over two labels, which is many times slower along this axis; a tie is background.
    found: np.ndarray = (logits[:, 1] > logits[:, 0]).cpu().numpy()
    return found
