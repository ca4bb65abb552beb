"""The ALPNet decoder, against the official code's arrays and a slow loop.

Its rules, laws and options are in tests/test_alpnet_rules.py, the method in test_alpnet_method.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apscl_cases import close, episode, features_of
from torch import Tensor

from fewshot_seg.episode import Episode, Features, Support
from fewshot_seg.functional import resize, segmentation_loss
from fewshot_seg.interfaces import Latent, Step
from fewshot_seg.registry import Registry
from fewshot_seg_alpnet.decoder import ALP, LocalPrototypes

CASES = [
    "k1_border_object",
    "k1_fg_empty",
    "k1_fg_large",
    "k1_fg_medium",
    "k1_fg_small",
    "k1_fg_vanishes",
    "k1_query_all_background",
    "k2_fg_large",
    "k2_mixed_sizes",
]
FEATURES = ("support_features", "query_features")
MODE_NAMES = {"mask": False, "gridconv+": True}


def arrays(folder: Path, name: str) -> dict[str, Any]:
    with np.load(folder / f"{name}.npz") as data:
        kept = {key: data[key] for key in data.files}
    if "align_fg_modes" in kept:  # one for each shot, all by the same prediction
        (kept["align_fg_mode"],) = np.unique(kept.pop("align_fg_modes"))
    return {k: str(v) if v.dtype.kind == "U" else torch.from_numpy(v) for k, v in kept.items()}


def step_of(data: dict[str, Any], decoder: ALP) -> Step:
    """One episode of one way, as the network hands it to its alignment loss."""
    masks = data["support_masks"].float()[None, None]
    labels = data["query_labels"].long()[None]
    maps, query = data["support_features"][None, None], data["query_features"][None]
    task = Episode(Support(masks.unsqueeze(3), masks), labels.float().unsqueeze(2), labels)
    features = Features(maps, resize(masks, maps.shape[-2:]), query)
    return Step(task, features, features, Latent(), decoder.describe(maps, masks), decoder)


def counts(state: LocalPrototypes, n_shot: int) -> tuple[int, int]:
    """Cells in the background's and in the way's set."""
    background = state.background.present[..., :-1].sum()
    return int(background), int(state.ways.present[..., : -n_shot - 1].sum())


def is_wide(state: LocalPrototypes) -> bool:
    return not state.ways.present[..., -1].item()


def swapped_scores(step: Step, decoder: ALP) -> tuple[Tensor, bool]:
    """Scores of the support images with the query's prediction as support."""
    features = step.features
    predicted = decoder(features.query, step.state, features.grid).argmax(2)
    state = decoder.describe(features.query[:, None], (predicted == 1).float()[:, None])
    return decoder(features.support[:, 0], state, features.grid), is_wide(state)


@pytest.mark.parametrize("kind", ["train", "test"])
@pytest.mark.parametrize("name", CASES)
def test_official_scores(golden: Callable[[str], Path], name: str, kind: str) -> None:
    data = arrays(golden("alpnet"), name)
    decoder = ALP().train(kind == "train")
    step = step_of(data, decoder)
    query = step.features.query
    close(decoder(query, step.state, step.features.grid)[0], data[f"scores_{kind}"], atol=1e-4)
    logits = decoder(query, step.state, data["query_labels"].shape[-2:])
    close(logits[0, ..., 1::4, 2::4], data[f"logits_{kind}_sub"], atol=1e-4)
    if f"logits_{kind}" in data:
        close(logits[0], data[f"logits_{kind}"], atol=1e-4)
    loss = segmentation_loss(logits, step.episode.query_labels, [0.05, 1.0])
    close(loss, data[f"loss_query_{kind}"])
    assert is_wide(step.state) == MODE_NAMES[data[f"fg_mode_{kind}"]]
    background, local = counts(step.state, data["support_masks"].shape[0])
    assert background == data[f"num_bg_prototypes_{kind}"]
    assert local == data[f"num_local_fg_prototypes_{kind}"]


@pytest.mark.parametrize("name", CASES)
def test_official_alignment(golden: Callable[[str], Path], name: str) -> None:
    data = arrays(golden("alpnet"), name)
    for key in FEATURES:
        data[key].requires_grad_()
    decoder, align = ALP(), Registry("contrastive").build("align", skip_empty=False)
    step = step_of(data, decoder)
    scores, wide = swapped_scores(step, decoder)
    close(scores[0], data["align_scores"], atol=1e-4)
    assert wide == MODE_NAMES[data["align_fg_mode"]]
    aligned = align(step)["align"]
    close(aligned, data["loss_align"])
    logits = decoder(step.features.query, step.state, data["query_labels"].shape[-2:])
    loss = segmentation_loss(logits, step.episode.query_labels, [0.05, 1.0])
    for kind, total in (("align", aligned), ("total", loss + aligned)):
        if f"grad_{kind}_query_features" not in data:
            continue
        found = torch.autograd.grad(total, [data[key] for key in FEATURES], retain_graph=True)
        for key, grad in zip(FEATURES, found, strict=True):
            wanted = data[f"grad_{kind}_{key}"]
            close(grad, wanted, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.parametrize("window", [2, 4])
@pytest.mark.parametrize("mode", ["global", "local", "local_global"])
@pytest.mark.parametrize("n_shot", [1, 2])
def test_official_modes(golden: Callable[[str], Path], n_shot: int, mode: str, window: int) -> None:
    data = arrays(golden("alpnet"), "module_modes")
    decoder = ALP(mode=mode, train_window=window)
    masks = data[f"k{n_shot}_soft_masks"][None, None]
    query = data[f"k{n_shot}_query_features"][None]
    state = decoder.describe(data[f"k{n_shot}_support_features"][None, None], masks)
    score = decoder(query, state, masks.shape[-2:])[0, 0, 1]
    suffix = "" if mode == "global" else f"_window{window}"
    close(score, data[f"k{n_shot}_score_{mode}{suffix}"], atol=1e-4)
    if f"k{n_shot}_similarities_{mode}{suffix}" in data:
        chosen = state.ways.vectors[state.ways.present]
        unit = torch.nn.functional.normalize(query[0, 0], dim=0)
        keys = torch.nn.functional.normalize(chosen, dim=1)
        got = 20 * torch.einsum("nd,drc->nrc", keys, unit)
        close(got, data[f"k{n_shot}_similarities_{mode}{suffix}"], atol=1e-4)


# --- an independent loop -------------------------------------------------------------------------


def pooled(array: np.ndarray, window: int) -> list[np.ndarray]:
    """Means of whole windows over the last two axes, row by row."""
    rows, cols = (n // window for n in array.shape[-2:])
    return [
        array[..., r * window : (r + 1) * window, c * window : (c + 1) * window].mean((-2, -1))
        for r, c in np.ndindex(rows, cols)
    ]


def cells_of(maps: np.ndarray, mask: np.ndarray, window: int) -> list[np.ndarray]:
    pairs = zip(pooled(maps, window), pooled(mask, window), strict=True)
    return [cell for cell, share in pairs if share > 0.95]


def mean_of(maps: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return (maps * mask).sum((1, 2)) / (mask.sum() + 1e-5)


def fused(prototypes: list[np.ndarray], query: np.ndarray) -> np.ndarray:
    out = np.zeros(query.shape[1:])
    for r, c in np.ndindex(*out.shape):
        q = query[:, r, c] / max(np.linalg.norm(query[:, r, c]), 1e-4)
        d = np.array([20 * q @ p / max(np.linalg.norm(p), 1e-4) for p in prototypes])
        weight = np.exp(d - d.max())
        out[r, c] = (weight / weight.sum() * d).sum()
    return out


def slow_scores(
    maps: np.ndarray, masks: np.ndarray, rest: np.ndarray, query: np.ndarray, window: int
) -> np.ndarray:
    """One episode, section 3, masks on the grid; maps: way shot dim rows cols."""
    ways, shots = masks.shape[:2]
    every = [(maps[w, s], rest[w, s]) for w in range(ways) for s in range(shots)]
    background = [cell for pair in every for cell in cells_of(*pair, window)]
    background = background or [np.mean([mean_of(*pair) for pair in every], 0)]
    sets = [background]
    for w in range(ways):
        means = [mean_of(maps[w, s], masks[w, s]) for s in range(shots)]
        if max(share for s in range(shots) for share in pooled(masks[w, s], 4)) >= 0.95:
            local = [
                cell for s in range(shots) for cell in cells_of(maps[w, s], masks[w, s], window)
            ]
            sets.append([*local, *means])
        else:
            sets.append([np.mean(means, 0)])
    return np.stack([[fused(one, image) for one in sets] for image in query])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_against_a_loop(seed: int, training: bool) -> None:
    """Several episodes, ways, shots and queries; 10x10 leaves a ragged rest at window 4."""
    task = episode(batch=2, way=2, shot=2, query=2, size=10, seed=seed)
    features = features_of(task, grid=10, dim=5, seed=seed)
    decoder = ALP().train(training)
    masks, rest = task.support.masks, task.support.backgrounds
    got = decoder(features.query, decoder.describe(features.support, masks, rest), (10, 10))
    for b in range(2):
        numbers = [t[b].double().numpy() for t in (features.support, masks, rest, features.query)]
        wanted = slow_scores(*numbers, 4 if training else 2)
        close(got[b], torch.from_numpy(wanted).float(), atol=1e-4)
