"""The mutual guidance decoder: a slow loop over Eq. 9-12 and every option."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from apscl_cases import close, episode, features_of, generator
from torch import Tensor

from fewshot_seg.episode import Episode, Features
from fewshot_seg.errors import OptionError
from fewshot_seg_apscl.guidance import MutualGuidance
from fewshot_seg_panet.cosine import Cosine

DIM, GRID, SIZE = 5, 4, 16


def guidance(**options: Any) -> MutualGuidance:
    torch.manual_seed(2)
    module = MutualGuidance(**{"dim": DIM, "sim_dim": 3, "h_init": "independent", **options})
    if module.gain is not None:
        module.gain.data.fill_(1.7)
    if module.threshold is not None:
        module.threshold.data.fill_(0.3)
    return module


def case(**shape: int) -> tuple[Episode, Features]:
    task = episode(size=SIZE, **shape)
    return task, features_of(task, dim=DIM, grid=GRID)


def answer(module: torch.nn.Module, task: Episode, features: Features, size: int = GRID) -> Tensor:
    state = module.describe(features.support, task.support.masks, task.support.backgrounds)
    return module(features.query, state, (size, size))


# --- an independent loop -------------------------------------------------------------------------


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def convolve(conv: torch.nn.Conv2d, maps: np.ndarray) -> np.ndarray:
    """A 1x1 convolution; the result is a matrix of positions by channels, as in the paper."""
    flat = maps.reshape(maps.shape[0], -1).T
    return flat @ array(conv.weight)[:, :, 0, 0].T + array(conv.bias)


def columns(z: np.ndarray, norm: str) -> np.ndarray:
    return z / np.linalg.norm(z, axis=0) if norm in ("corr", "softmax") else z


def normalised(gram: np.ndarray, norm: str, positions: int) -> np.ndarray:
    if norm == "softmax":
        weights = np.exp(10 * gram)
        return weights / weights.sum(1, keepdims=True)
    return gram / {"corr": DIM, "mean": DIM * positions, "none": 1}[norm]


def softmax_rows(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def cell_average(mask: np.ndarray) -> np.ndarray:
    side = SIZE // GRID
    return mask.reshape(GRID, side, GRID, side).mean((1, 3)).reshape(-1)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (max(np.linalg.norm(a), 1e-4) * max(np.linalg.norm(b), 1e-4)))


def background_score(module: MutualGuidance, z: list, rest: list, vector: np.ndarray) -> float:
    """Scaled score of one query position; z, rest: per support image."""
    if module.bg == "threshold":
        return module.scale * 0.3
    if module.bg == "prototype":
        means = [(a * m[:, None]).sum(0) / (m.sum() + 1e-5) for a, m in zip(z, rest)]
        return module.scale * cosine(vector, np.mean(means, 0))
    window, found = module.bg_window, []
    for a, m in zip(z, rest):
        grid, mask = a.reshape(GRID, GRID, -1), m.reshape(GRID, GRID)
        for r, c in product(range(0, GRID - window + 1, window), repeat=2):
            if mask[r : r + window, c : c + window].mean() > 0.95:
                found.append(grid[r : r + window, c : c + window].mean((0, 1)))
    if not found:
        means = [(a * m[:, None]).sum(0) / (m.sum() + 1e-5) for a, m in zip(z, rest)]
        found = [np.mean(means, 0)]
    scores = np.array([module.scale * cosine(vector, p) for p in found])
    weights = np.exp(scores - scores.max())
    return float((weights / weights.sum()) @ scores)


def slow_logits(module: MutualGuidance, task: Episode, features: Features, b: int) -> np.ndarray:
    """Logits on the feature grid of one episode: query label position."""
    maps, masks = array(features.support[b]), array(task.support.masks[b])
    rests = array(task.support.backgrounds[b])
    ways, shots = masks.shape[:2]
    pairs = list(product(range(ways), range(shots)))
    z = {p: convolve(module.support_head, maps[p]) for p in pairs}
    m = {p: cell_average(masks[p]) for p in pairs}
    rest = {p: cell_average(rests[p]) for p in pairs}
    foreground = []
    for w in range(ways):
        each = [(z[w, s] * m[w, s][:, None]).sum(0) / (m[w, s].sum() + 1e-5) for s in range(shots)]
        foreground.append(np.mean(each, 0))
    out = np.zeros((features.query.shape[1], ways + 1, GRID * GRID))
    for q, query in enumerate(array(features.query[b])):
        zq = convolve(module.query_head, query)
        norm = module.alpha_norm

        def source(p: tuple[int, int], query: np.ndarray = query) -> np.ndarray:
            if module.cross_source == "raw":
                return z[p]
            scores = convolve(module.align_query, query) @ convolve(module.align_key, maps[p]).T
            return softmax_rows(scores / np.sqrt(3)) @ z[p]

        groups = [[(w, s) for s in range(shots)] for w in range(ways)]
        if not module.alpha_per_way:
            groups = [pairs]
        enhanced = []
        for group in groups:
            if not module.chan_attn:
                enhanced.append(zq)
                continue
            zq_n = columns(zq, norm)
            own = normalised(zq_n.T @ zq_n, norm, len(zq))
            grams = [columns(source(p), norm).T @ zq_n for p in group]
            cross = normalised(np.mean(grams, 0), norm, len(zq))
            alpha = own + cross if module.alpha_combine == "sum" else own * cross
            change = zq @ alpha.T if module.alpha_side == "left" else zq @ alpha
            enhanced.append(zq + (1.7 if module.gain is not None else 1) * change)
        every = ([z[p] for p in pairs], [rest[p] for p in pairs])
        for position in range(GRID * GRID):
            backgrounds = [background_score(module, *every, e[position]) for e in enhanced]
            out[q, 0, position] = np.mean(backgrounds)
            for w in range(ways):
                view = enhanced[w if len(enhanced) > 1 else 0]
                out[q, w + 1, position] = module.scale * cosine(view[position], foreground[w])
    return out


LOOP = [
    {},
    {"scale": 1.0},
    {"chan_attn": False},
    {"alpha_norm": "softmax"},
    {"alpha_norm": "mean"},
    {"alpha_norm": "none"},
    {"alpha_combine": "product"},
    {"alpha_side": "right"},
    {"alpha_gain": True},
    {"alpha_per_way": True},
    {"alpha_per_way": True, "alpha_norm": "softmax", "bg": "grid", "bg_window": 2},
    {"cross_source": "aligned"},
    {"cross_source": "aligned", "alpha_per_way": True, "alpha_norm": "mean"},
    {"bg": "grid", "bg_window": 1},
    {"bg": "grid", "bg_window": 2},
    {"bg": "threshold"},
]


@pytest.mark.parametrize("options", LOOP, ids=str)
def test_against_a_loop(options: dict[str, Any]) -> None:
    task, features = case(way=2, shot=2, query=2)
    module = guidance(**options)
    got = answer(module, task, features).flatten(-2)[0]
    close(got, torch.from_numpy(slow_logits(module, task, features, 0)).float(), atol=3e-4)
    if options:  # each option does something
        plain = answer(guidance(), task, features).flatten(-2)[0]
        assert not torch.allclose(got, plain, atol=1e-3)


@pytest.mark.parametrize("shape", [{}, {"shot": 3, "batch": 2}, {"way": 3, "query": 2}], ids=str)
def test_the_default_for_other_shapes(shape: dict[str, int]) -> None:
    task, features = case(**shape)
    got = answer(guidance(), task, features).flatten(-2)
    for b in range(len(got)):
        expected = torch.from_numpy(slow_logits(guidance(), task, features, b)).float()
        close(got[b], expected, atol=3e-4)


# --- laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [{"chan_attn": False}, {"alpha_gain": True}], ids=str)
def test_without_attention_it_is_the_cosine_decoder_after_h(off: dict[str, Any]) -> None:
    task, features = case(way=2, shot=2, query=2)
    module = guidance(**off)
    if module.gain is not None:
        module.gain.data.zero_()
    maps = module.support_head(features.support.flatten(0, 2)).view_as(features.support)
    query = module.query_head(features.query.flatten(0, 1)).view_as(features.query)
    after = Features(maps, features.support_masks, query)
    expected = answer(Cosine(pool_at="feature", eps=1e-4), task, after, SIZE)
    close(answer(module, task, features, SIZE), expected, atol=1e-4)


def test_a_full_mask_leaves_a_zero_background_and_finite_logits() -> None:
    _, features = case()
    module = guidance()
    state = module.describe(features.support, torch.ones(1, 1, 1, SIZE, SIZE))
    assert state.background.abs().max() == 0
    logits = module(features.query, state, (SIZE, SIZE))
    assert torch.isfinite(logits).all()
    assert logits[:, :, 0].abs().max() == 0


def test_an_empty_mask_leaves_finite_logits() -> None:
    _, features = case()
    for bg in ("prototype", "grid", "threshold"):
        module = guidance(bg=bg)
        state = module.describe(features.support, torch.zeros(1, 1, 1, SIZE, SIZE))
        assert torch.isfinite(module(features.query, state, (SIZE, SIZE))).all()


def scaled(module: MutualGuidance, factor: float) -> MutualGuidance:
    """Z_s and Z_q times `factor`."""
    for head in (module.support_head, module.query_head):
        for parameter in head.parameters():
            parameter.data.mul_(factor)
    return module


@pytest.mark.parametrize("norm", ["corr", "softmax"])
def test_correlations_do_not_feel_the_scale_of_features(norm: str) -> None:
    task, features = case()
    module = guidance(alpha_norm=norm)
    before = answer(module, task, features)
    close(answer(scaled(module, 10), task, features), before, atol=1e-4)


@pytest.mark.parametrize("norm", ["mean", "none"])
def test_bare_products_do_feel_it(norm: str) -> None:
    task, features = case()
    module = guidance(alpha_norm=norm)
    before = answer(module, task, features)
    assert not torch.allclose(answer(scaled(module, 10), task, features), before, atol=1e-2)


def test_the_literal_attention_makes_all_pixels_alike() -> None:
    """Section 7(c)3: without normalisation the difference of the two cosines hardly varies."""
    torch.manual_seed(0)
    features = Features(
        torch.relu(torch.randn(1, 1, 1, 64, 16, 16)) + 0.3,
        torch.zeros(1, 1, 1, 16, 16),
        torch.relu(torch.randn(1, 1, 64, 16, 16)) + 0.3,
    )
    masks = torch.zeros(1, 1, 1, 16, 16)
    masks[..., 4:10, 4:10] = 1
    spread = {}
    for norm in ("corr", "none"):
        module = MutualGuidance(dim=64, alpha_norm=norm, scale=1.0, h_init="shared")
        torch.nn.init.dirac_(module.support_head.weight)
        torch.nn.init.zeros_(module.support_head.bias)
        logits = module(features.query, module.describe(features.support, masks), (16, 16))
        spread[norm] = (logits[:, :, 1] - logits[:, :, 0]).std().item()
    assert spread["none"] < spread["corr"] / 5


def test_aligned_does_not_care_where_the_support_lies() -> None:
    """Section 7(c)4: Eq. 9 presumes aligned images; attention first makes it indifferent."""
    _, features = case()
    order = torch.randperm(GRID * GRID, generator=generator(3))

    def shuffled(maps: Tensor) -> Tensor:
        return maps.flatten(-2)[..., order].unflatten(-1, (GRID, GRID))

    masks = features.support_masks
    for source, same in (("raw", False), ("aligned", True)):
        module = guidance(cross_source=source)
        first = module.describe(features.support, masks)
        second = module.describe(shuffled(features.support), shuffled(masks))
        logits = [module(features.query, state, (GRID, GRID)) for state in (first, second)]
        assert torch.allclose(*logits, atol=1e-3) == same


def test_map_feat_up_is_pooling_at_the_masks_resolution() -> None:
    task, features = case(shot=2)
    module = guidance(map="feat_up")
    heads = module.support_head(features.support.flatten(0, 2))
    up = F.interpolate(heads, (SIZE, SIZE), mode="bilinear", align_corners=False)
    masks = task.support.masks.flatten(0, 2).unsqueeze(1)
    expected = ((up * masks).sum((2, 3)) / (masks.sum((2, 3)) + 1e-5)).mean(0)
    state = module.describe(features.support, task.support.masks, task.support.backgrounds)
    close(state.foreground[0, 0], expected)
    down = guidance().describe(features.support, task.support.masks)
    assert not torch.allclose(down.foreground[0, 0], expected, atol=1e-3)


def test_h_init() -> None:
    tied, shared, independent = (guidance(h_init=k) for k in ("tied", "shared", "independent"))
    assert tied.query_head is not tied.support_head
    assert torch.equal(tied.query_head.weight, tied.support_head.weight)
    assert shared.query_head is shared.support_head
    assert not torch.equal(independent.query_head.weight, independent.support_head.weight)


@pytest.mark.parametrize("options", LOOP, ids=str)
def test_gradient_reaches_every_parameter(options: dict[str, Any]) -> None:
    task, features = case(way=2, shot=2)
    module = guidance(**options)
    answer(module, task, features, SIZE).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        # the key's bias shifts a whole row of the softmax, so nothing can depend on it
        assert name == "align_key.bias" or parameter.grad.abs().sum() > 0, name


def test_one_size_for_support_and_query() -> None:
    task, features = case()
    module = guidance()
    state = module.describe(features.support, task.support.masks)
    small = features.query[..., :2]
    with pytest.raises(ValueError, match="16 feature cells but the query 8"):
        module(small, state, (SIZE, SIZE // 2))
    aligned = guidance(cross_source="aligned")
    state = aligned.describe(features.support, task.support.masks)
    assert aligned(small, state, (SIZE, SIZE // 2)).shape == (1, 1, 2, SIZE, SIZE // 2)


WRONG = [
    ({"alpha_norm": "l2"}, "alpha_norm='l2'"),
    ({"alpha_combine": "add"}, "alpha_combine='add'"),
    ({"alpha_side": "lef"}, "did you mean 'left'"),
    ({"cross_source": "align"}, "did you mean 'aligned'"),
    ({"h_init": "same"}, "h_init='same'"),
    ({"bg": "mean"}, "bg='mean'"),
    ({"map": "up"}, "map='up'"),
    ({"scale": 0.0}, "scale=0.0"),
    ({"bg_window": 0}, "bg_window=0"),
    ({"sim_dim": 0}, "sim_dim=0"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        guidance(**options)
