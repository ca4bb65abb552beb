"""The contract of methods and parts, for our tests and for those of plugin authors.

    from fewshot_seg import build
    from fewshot_seg.testing import check_method, make_episode, overfit

    def test_contract():
        check_method(build("mine", encoder="resnet18"))

    def test_it_learns():
        assert overfit(build("mine", encoder="resnet18"), make_episode()) > 0.9

Each check raises AssertionError with a sentence that says what is wrong.
"""

from fewshot_seg.testing.asserts import TOLERANCE
from fewshot_seg.testing.episodes import make_episode, make_features
from fewshot_seg.testing.learning import foreground_dice, overfit
from fewshot_seg.testing.methods import check_method
from fewshot_seg.testing.parts import (
    check_contrastive,
    check_decoder,
    check_encoder,
    check_enrichment,
    check_prior,
)

__all__ = [
    "TOLERANCE",
    "check_contrastive",
    "check_decoder",
    "check_encoder",
    "check_enrichment",
    "check_method",
    "check_prior",
    "foreground_dice",
    "make_episode",
    "make_features",
    "overfit",
]
