"""The contrastive and segmentation losses of AAS-DCL: official arrays, slow loops, laws."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from aas_dcl_cases import Golden, arrays, close
from torch import Tensor

from fewshot_seg_aas_dcl.cells import Cells, contexts, local_prototypes, scrambled
from fewshot_seg_aas_dcl.compat import Quirks
from fewshot_seg_aas_dcl.contrast import Auxiliary, DualLoss, Runs
from fewshot_seg_aas_dcl.losses import global_loss, info_nce, local_loss, local_values
from fewshot_seg_aas_dcl.segmentation import (
    official_bce_dice,
    official_ce_dice,
    official_dice,
    soft_dice_loss,
)

LEAVES = ("query_fused", "support_bottleneck", "aux_bottleneck")


def official_case(data: dict[str, Tensor]) -> tuple[Runs, Auxiliary, Any, list[int]]:
    def gate(maps: Tensor) -> Tensor:
        weight, bias = (data[f"weights.sSE5.conv.{name}"] for name in ("weight", "bias"))
        return F.conv2d(maps, weight, bias).sigmoid() * maps

    maps = data["query_fused"]
    masks = data["support_masks"]
    unused = torch.zeros(1, 1, *masks.shape[-2:])
    runs = Runs(maps[None], data["support_bottleneck"], masks, unused, unused)
    auxiliary = Auxiliary(
        data["aux_bottleneck"][None], data["aux_masks"].long()[None], data["aux_ids"][None]
    )
    window = int(data["pool_window"])
    return runs, auxiliary, gate, [size // window for size in maps.shape[-2:]]


# name in the arrays -> (term, quirks); what is not named there is our default
VALUES = {
    "loss_global": ("overall", ["drop_label_1"]),
    "loss_global_plain_background": ("overall", []),
    "loss_local": ("local", ["raw_superpixels", "scrambled_negatives", "last_only"]),
    "loss_local_binary_aux": ("local", ["scrambled_negatives", "last_only"]),
    "loss_context": ("context", ["mixed_contexts"]),
    "loss_context_true_vectors": ("context", []),
}


@pytest.mark.parametrize("name", VALUES)
def test_official_terms(golden: Golden, name: str) -> None:
    data = arrays(golden("aas_dcl"), "contrastive_losses")
    runs, auxiliary, gate, cells = official_case(data)
    term, quirks = VALUES[name]
    loss = DualLoss(cells=cells, quirks=Quirks.named(quirks))
    close(getattr(loss(runs, auxiliary, gate), term), data[name])


def test_official_total_and_its_gradient(golden: Golden) -> None:
    data = arrays(golden("aas_dcl"), "contrastive_losses")
    leaves = [data[key].requires_grad_() for key in LEAVES]
    runs, auxiliary, gate, cells = official_case(data)
    loss = DualLoss(cells=cells, quirks=Quirks.named("official"))
    total = loss.total(loss(runs, auxiliary, gate))
    close(total, data["loss_contrastive"])
    for key, found in zip(LEAVES, torch.autograd.grad(total, leaves), strict=True):
        close(found, data[f"gradient.{key}"], atol=1e-7)


@pytest.mark.parametrize("suffix", ["", "_unmixed", "_binary_aux", "_unmixed_binary_aux"])
def test_official_pairs(golden: Golden, suffix: str) -> None:
    """Each auxiliary image with each support cell, listed image by image."""
    data = arrays(golden("aas_dcl"), "contrastive_losses")
    runs, auxiliary, _, cells = official_case(data)
    masks = auxiliary.masks.float()
    if "binary" in suffix:
        masks = (auxiliary.masks == auxiliary.ids[..., None, None]).float()
    support = local_prototypes(runs.support, runs.masks, tuple(cells))
    others = local_prototypes(auxiliary.maps, masks, tuple(cells))
    values, counts = local_values(
        runs.query.mean((-2, -1)),
        support,
        others,
        compat_scrambled_negatives="unmixed" not in suffix,
    )
    close(values[counts], data[f"local_pair_values{suffix}"])
    kind = "_binary_aux" if "binary" in suffix else ""
    wanted = data[f"local_cell_counts{kind}"]
    for column, name in enumerate(("foreground", "background")):
        numbers = [getattr(support, name).sum(-1), getattr(others, name).sum(-1)[0]]
        assert torch.equal(torch.cat(numbers), wanted[:, column])
    assert torch.equal(counts[0, 0].nonzero()[:, 0], data[f"local_pair_index{kind}"][:, 0])
    if suffix == "_unmixed_binary_aux":
        mean = local_loss(runs.query.mean((-2, -1)), support, others)
        close(mean, data[f"local_pair_values{suffix}"].mean())


def test_official_helper_losses(golden: Golden) -> None:
    data = arrays(golden("aas_dcl"), "segmentation_loss")
    probabilities, labels = data["probabilities"], data["query_labels"].long()
    close(official_dice(probabilities, labels), data["loss_dice"])
    close(official_bce_dice(probabilities, labels), data["loss_bce_dice"])
    close(official_ce_dice(probabilities, labels), data["loss_ce_dice"])
    logits = probabilities.clamp_min(1e-30).log()
    joint = soft_dice_loss(logits[:, None], labels[:, None], joint=True)
    close(joint, data["loss_dice"])


# --- worked by hand, and slow loops --------------------------------------------------------------


def test_one_negative_equal_to_the_positive_gives_log_2() -> None:
    cosine = torch.tensor([0.3, -1.0, 1.0])
    close(info_nce(cosine, cosine[:, None]), torch.full((3,), math.log(2)))
    vector = torch.randn(1, 1, 7)
    other = torch.randn(1, 7)
    close(global_loss(vector, other, 3 * other[:, None]), torch.tensor(math.log(2)))


def test_without_a_negative_the_loss_is_zero() -> None:
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    cosines = torch.randn(2, 4, requires_grad=True)
    loss = info_nce(torch.tensor([0.5, -0.5]), cosines, nothing)
    assert loss.eq(0).all()
    loss.sum().backward()
    assert cosines.grad is not None
    assert cosines.grad.eq(0).all()


def cells_of(*shape: int, seed: int) -> Cells:
    rng = torch.Generator().manual_seed(seed)
    kind = torch.randint(0, 3, shape, generator=rng)
    vectors = F.normalize(torch.randn(*shape, 5, generator=rng), dim=-1)
    return Cells(vectors, kind == 0, kind == 1)


def slow_value(query: Tensor, positive: Tensor, negatives: list[Tensor]) -> float:
    def share(vector: Tensor) -> float:
        return math.exp(float(F.cosine_similarity(query, vector, dim=0)) / 0.1)

    first = share(positive)
    return -math.log(first / (first + sum(share(vector) for vector in negatives)))


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_local_loss_against_loops(mixed: bool, last: bool) -> None:
    support, auxiliary = cells_of(3, 6, seed=1), cells_of(3, 4, 6, seed=2)
    auxiliary.foreground[0, 1] = False  # an image that takes no part
    support.foreground[2] = False  # a run without any pair
    query = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(3))
    runs = []
    for n in range(3):
        for q in range(2):
            values, count = [], 0
            for a in range(4):
                here = [auxiliary.vectors[n, a][kind[n, a]] for kind in auxiliary[1:]]
                rows = torch.cat([here[0], support.vectors[n][support.background[n]], here[1]])
                if mixed:
                    rows = rows.T.contiguous().view(rows.shape)
                js = support.foreground[n].nonzero()[:, 0].tolist()
                js = js if auxiliary.foreground[n, a].any() else []
                count += len(js)
                for j in js[-1:] if last else js:
                    positive = support.vectors[n, j]
                    values.append(slow_value(query[n, q], positive, list(rows)))
            runs.append(sum(values) / max(count, 1))
    got = local_loss(
        query, support, auxiliary, compat_scrambled_negatives=mixed, compat_last_only=last
    )
    close(got, torch.tensor(sum(runs) / len(runs)))


def test_scrambled_is_the_official_reading_for_every_count() -> None:
    vectors = torch.randn(9, 8, 5)
    valid = torch.rand(9, 8) < torch.linspace(0, 1, 9)[:, None]
    read, kept = scrambled(vectors, valid)
    for i in range(9):
        rows = vectors[i][valid[i]]
        close(read[i][kept[i]], rows.T.reshape(rows.shape))


def test_cells_exactly_at_a_threshold_belong_to_no_class() -> None:
    shares = torch.tensor([[1.0, 0.8], [0.5, -0.3]])  # of the fullest 0.8, mean 0.5
    cells = local_prototypes(torch.randn(3, 2, 2), shares, (2, 2))
    assert cells.foreground.tolist() == [True, False, False, False]
    assert cells.background.tolist() == [False, False, False, True]
    close(cells.vectors.norm(dim=-1), torch.ones(4))
    nothing = local_prototypes(torch.randn(3, 2, 2), torch.zeros(8, 8), (2, 2))
    assert not (nothing.foreground | nothing.background).any()


def test_contexts_are_the_vectors_of_their_cells() -> None:
    maps = torch.randn(2, 3, 8, 8)
    found = contexts(maps, (4, 4))
    close(found[1, 6], maps[1, :, 2:4, 4:6].mean((1, 2)))
    assert not torch.allclose(contexts(maps, (4, 4), mixed=True), found)


def test_dice_of_each_way_ignores_what_is_not_scored() -> None:
    labels = torch.tensor([[[[0, 1, 2, 255]]]])
    right = 50 * F.one_hot(labels.clamp(max=2), 3).movedim(-1, 2).float()
    close(soft_dice_loss(right, labels), torch.tensor(0.0))
    wrong = right.clone()
    wrong[0, 0, :, 0, 1] = torch.tensor([50.0, 0.0, 0.0])
    close(soft_dice_loss(wrong, labels), torch.tensor(0.5))
    assert soft_dice_loss(wrong, torch.full_like(labels, 255)) == 0


# --- laws ----------------------------------------------------------------------------------------


def a_case(batch: int = 2, runs: int = 4, queries: int = 2) -> tuple[Runs, Auxiliary]:
    rng = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    labels = (noise(runs, queries, 64, 64) > 0).float()
    masks = torch.zeros(runs, 64, 64)
    masks[:, 8:40, 12:50] = 1
    ids = torch.randint(0, 4, (batch, 3, 4, 4), generator=rng)
    pixels = ids.repeat_interleave(16, 2).repeat_interleave(16, 3)
    drawn = torch.randint(1, 4, (batch, 3), generator=rng)
    auxiliary = Auxiliary(noise(batch, 3, 6, 8, 8), pixels, drawn)
    query, support = noise(runs, queries, 6, 8, 8), noise(runs, 6, 8, 8)
    return Runs(query, support, masks, labels, 1 - labels), auxiliary


@pytest.mark.parametrize("prototype", ["sum", "concat"])
def test_the_order_of_auxiliary_images_does_not_matter(prototype: str) -> None:
    runs, auxiliary = a_case()
    order = torch.tensor([2, 0, 1])
    loss = DualLoss(prototype=prototype)
    terms = loss(runs, auxiliary)
    for got, wanted in zip(loss(runs, Auxiliary(*(t[:, order] for t in auxiliary))), terms):
        close(got, wanted)


@pytest.mark.parametrize("compat", [[], "official"])
def test_episodes_do_not_touch_each_other(compat: Any) -> None:
    runs, auxiliary = a_case()
    loss = DualLoss(quirks=Quirks.named(compat))
    apart = [
        loss(Runs(*(t[2 * b : 2 * b + 2] for t in runs)), Auxiliary(*(t[[b]] for t in auxiliary)))
        for b in range(2)
    ]
    for name, got in loss(runs, auxiliary)._asdict().items():
        close(got, torch.stack([getattr(terms, name) for terms in apart]).mean())


def test_concat_tells_foreground_from_background() -> None:
    runs, auxiliary = a_case()
    swapped = runs._replace(masks=1 - runs.masks)
    for prototype, same in (("sum", True), ("concat", False)):
        loss = DualLoss(prototype=prototype)
        values = [loss(case, auxiliary).overall for case in (runs, swapped)]
        assert torch.allclose(*values) == same


def test_concat_compares_foreground_with_foreground() -> None:
    """A query that is its support, labelled alike, is as near as can be; mislabelled it is not."""
    runs, auxiliary = a_case(queries=1)
    masks = runs.masks[:, None]
    same = Runs(runs.support[:, None], runs.support, runs.masks, masks, 1 - masks)
    swapped = same._replace(query_foreground=1 - masks, query_background=masks)
    loss = DualLoss(prototype="concat", temperature=1.0)
    right, wrong = (loss(case, auxiliary).overall for case in (same, swapped))
    assert right < wrong - 0.1


@pytest.mark.parametrize("size", [1, 3, 5])
def test_every_grid_size_gives_the_wanted_cells(size: int) -> None:
    assert contexts(torch.randn(2, 3, size, size + 1), (4, 4)).shape == (2, 16, 3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_give_finite_gradients(value: float) -> None:
    runs, auxiliary = a_case()
    runs = runs._replace(
        masks=torch.full_like(runs.masks, value), support=runs.support.requires_grad_()
    )
    nobody = auxiliary._replace(ids=torch.full_like(auxiliary.ids, 99))
    loss = DualLoss()
    loss.total(loss(runs, nobody)).backward()
    assert runs.support.grad is not None
    assert torch.isfinite(runs.support.grad).all()
