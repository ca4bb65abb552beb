"""The method `copy`: its answer is the support mask."""

import pytest
import torch

from fewshot_seg.episode import IGNORE, Episode, Support
from fewshot_seg.interfaces import Method
from fewshot_seg_copy import Copy


def masks_of(*rows: list[list[float]]) -> torch.Tensor:
    """Masks of 1 row of pixels: way x shot lists of pixel values -> (1, way, shot, 1, width)."""
    return torch.tensor(rows)[None, :, :, None, :]


def episode(masks: torch.Tensor, labels: torch.Tensor | None = None, n_query: int = 2) -> Episode:
    batch, way, shot, height, width = masks.shape
    support = Support(torch.randn(batch, way, shot, 1, height, width), masks)
    return Episode(support, torch.randn(batch, n_query, 1, height, width), labels)


def test_the_answer_is_the_support_mask() -> None:
    masks = masks_of([[1.0, 0, 0, 0]], [[0.0, 1, 1, 0]])
    output = Copy().eval()(episode(masks))
    assert output.logits.shape == (1, 2, 3, 1, 4)
    assert output.logits.argmax(2).tolist() == [[[[1, 2, 2, 0]]] * 2]
    assert not output.losses


def test_logits_are_log_probabilities_of_the_mean_over_shots() -> None:
    masks = masks_of([[1.0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]])
    logits = Copy(floor=1e-4).eval()(episode(masks)).logits[0, 0, :, 0].exp()
    torch.testing.assert_close(logits[1], torch.tensor([1, 2 / 3, 1e-4, 1e-4]))
    torch.testing.assert_close(logits[0], torch.tensor([1e-4, 1 / 3, 1, 1]))


def test_overlapping_ways_leave_no_negative_background() -> None:
    logits = Copy().eval()(episode(masks_of([[1.0, 0.2]], [[1.0, 0.3]]))).logits
    assert torch.isfinite(logits).all()
    assert logits[0, 0, 0, 0].exp().tolist() == pytest.approx([1e-6, 0.5], abs=1e-6)


def test_an_empty_support_is_all_background_and_said_so() -> None:
    output = Copy().eval()(episode(masks_of([[0.0, 0, 0]], [[0.0, 1, 0]])))
    assert output.empty_support is not None
    assert output.empty_support.tolist() == [[True, False]]
    assert output.logits.argmax(2)[0, 0, 0].tolist() == [0, 2, 0]


def test_forward_equals_segment_and_swaps_with_the_ways() -> None:
    torch.manual_seed(0)
    task = episode((torch.rand(2, 3, 2, 5, 7) > 0.6).float(), n_query=3)
    method: Method = Copy().eval()
    logits = method(task).logits
    state = method.encode_support(task.support)
    assert torch.equal(logits, method.segment(state, task.query_images))
    order = [2, 0, 1]
    swapped = Support(task.support.images[:, order], task.support.masks[:, order])
    other = method(Episode(swapped, task.query_images)).logits
    torch.testing.assert_close(other[:, :, 1:], logits[:, :, 1:][:, :, order])
    torch.testing.assert_close(other[:, :, 0], logits[:, :, 0])


def test_the_loss_counts_scored_pixels_only_and_exists_in_training_only() -> None:
    masks = masks_of([[0.5, 0.25, 0, 1]])
    labels = torch.tensor([[[[1, 0, IGNORE, IGNORE]]]])
    task = episode(masks, labels, n_query=1)
    method = Copy()
    loss = method.train()(task).losses["ce"]
    expected = -(torch.tensor(0.5).log() + torch.tensor(0.75).log()) / 2
    torch.testing.assert_close(loss, expected)
    assert not method.train()(task.without_labels()).losses
    assert not method.eval()(task).losses
    unscored = episode(masks, torch.full((1, 1, 1, 4), IGNORE), n_query=1)
    assert method.train()(unscored).losses["ce"] == 0


def test_wrong_inputs() -> None:
    state = Copy().encode_support(episode(masks_of([[1.0, 0]])).support)
    with pytest.raises(ValueError, match=r"support's size \(1, 2\); got \(1, 3\)"):
        Copy().segment(state, torch.zeros(1, 1, 1, 1, 3))
    with pytest.raises(ValueError, match="floor must lie between"):
        Copy(floor=0.0)


def shifted(by: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright square 24 x 24 on a slope of grey, `by` pixels to the right: image and mask."""
    mask = torch.zeros(64, 64)
    mask[20:44, 12 + by : 36 + by] = 1
    return 2 * mask + torch.linspace(0, 0.1, 64), mask


def test_registration_moves_the_mask_with_the_image() -> None:
    image, mask = shifted(0)
    moved = [shifted(by) for by in (0, 4, 8)]
    support = Support(image[None, None, None, None], mask[None, None, None])
    queries = torch.stack([query for query, _ in moved])[None, :, None]
    task = Episode(support, queries)
    plain, laid_over = Copy().eval()(task).logits, Copy(registration=True).eval()(task).logits
    for number, (_, truth) in enumerate(moved):
        overlaps = [
            (2 * ((one[0, number].argmax(0) == 1) * truth).sum() / (2 * truth.sum())).item()
            for one in (plain, laid_over)
        ]
        assert overlaps[1] > 0.95
        assert number == 0 or overlaps[0] < 0.9
    state = Copy(registration=True).encode_support(task.support)
    assert torch.equal(Copy(registration=True).segment(state, task.query_images), laid_over)


def test_registration_keeps_ways_shots_and_queries_apart() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 2, 2, 1, 16, 16)
    masks = (torch.rand(2, 2, 2, 16, 16) > 0.5).float()
    queries = torch.rand(2, 3, 1, 16, 16)
    method = Copy(registration=True).eval()
    whole = method(Episode(Support(images, masks), queries)).logits
    for batch in range(2):
        for query in range(3):
            one = Episode(
                Support(images[batch : batch + 1], masks[batch : batch + 1]),
                queries[batch : batch + 1, query : query + 1],
            )
            torch.testing.assert_close(method(one).logits[0, 0], whole[batch, query])
    order = [1, 0]
    swapped = method(Episode(Support(images[:, :, order], masks[:, :, order]), queries)).logits
    torch.testing.assert_close(swapped, whole)
