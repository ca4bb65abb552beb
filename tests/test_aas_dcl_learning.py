"""What AAS-DCL needs in order to learn: every iterate trained, and one function in both modes.

With the official batch norm, and losses on the selected iterate only, it predicted nothing on the
CHAOS liver although its training losses fell (docs/methods/aas_dcl.md).
"""

import pytest
import torch
from aas_dcl_cases import close, small

from fewshot_seg.episode import Episode
from fewshot_seg.errors import OptionError
from fewshot_seg.functional import segmentation_loss
from fewshot_seg.testing import make_episode
from fewshot_seg_aas_dcl import AASDCL
from fewshot_seg_aas_dcl.segmentation import soft_dice_loss


def task(**options: int) -> Episode:
    return make_episode(needs=("auxiliary",), **options)


def test_every_iterate_is_supervised() -> None:
    """Mean over the iterates of the loss that each would have as the answer."""
    episode = task(batch=2, n_way=2, n_shot=2, n_query=2)
    model = small(iterations=3).train()
    losses = model(episode).losses
    state = model.encode_support(episode.support)
    iterates = model._answer(state, episode.query_images).iterates.logits
    assert len(iterates) == 4
    assert episode.query_labels is not None
    answers = [model._join(state, one) for one in iterates]
    wanted = [segmentation_loss(one, episode.query_labels) for one in answers]
    close(losses["ce"], torch.stack(wanted).mean())
    wanted = [soft_dice_loss(one, episode.query_labels) for one in answers]
    close(losses["dice"], torch.stack(wanted).mean())


def gradient_of_plain_answer(supervise: str) -> float:
    """Of the losses, by the plain network's answer, where the selected iterate is another one."""
    episode = task(batch=1)
    model = small(iterations=2, supervise=supervise).train()
    state = model.encode_support(episode.support)
    answer = model._answer(state, episode.query_images)
    scores = torch.tensor([[0.9], [0.5], [0.1]])
    logits = answer.iterates.logits.detach().requires_grad_()
    answer = answer._replace(iterates=answer.iterates._replace(logits=logits, scores=scores))
    best = model._join(state, answer.iterates.best())
    losses, _ = model._losses(episode, state, answer, best)
    (losses["ce"] + losses["dice"]).backward()
    assert logits.grad is not None
    return float(logits.grad[0].abs().max())


def test_an_iterate_that_is_not_selected_learns_only_if_all_are_supervised() -> None:
    assert gradient_of_plain_answer("selected") == 0
    assert gradient_of_plain_answer("all") > 0


def disagreement(model: AASDCL, episode: Episode) -> float:
    """Share of pixels whose answer changes from training to eval mode."""
    with torch.no_grad():
        training = model.train()(episode).logits.argmax(2)
        testing = model.eval()(episode).logits.argmax(2)
    return (training != testing).float().mean().item()


@pytest.mark.parametrize(("compat", "differ"), [((), False), (("running_norm",), True)])
def test_what_is_learnt_is_there_at_test(compat: tuple[str, ...], differ: bool) -> None:
    """Running statistics of branches with different distributions fit none of them."""
    episode = task(batch=1)
    with torch.random.fork_rng():
        model = small(width=4, iterations=1, compat=compat).train()
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(25):
            optimiser.zero_grad()
            model(episode).loss.backward()
            optimiser.step()
    found = disagreement(model, episode)
    assert (found > 0.05) if differ else (found == 0)


def test_wrong_options() -> None:
    with pytest.raises(OptionError, match="supervise='last' is not one of all, selected"):
        AASDCL(width=2, supervise="last")
    model = small().eval()
    with pytest.raises(ValueError, match="larger than 16x16"):
        model(make_episode(size=(16, 16), needs=("auxiliary",)))
