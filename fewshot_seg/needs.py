"""What some methods need of an episode beyond support and query, by name.

A method or part says so by an attribute `needs`, a tuple of the names in `NEEDS`. The tensors, each
with a leading batch axis:

    unlabelled    support.unlabelled               "batch unlabelled channel height width"
    auxiliary     extras["auxiliary_images"]       "batch auxiliary channel height width"
                  extras["auxiliary_masks"]        "batch auxiliary height width", superpixel ids
                  extras["auxiliary_ids"]          "batch auxiliary", the id that was drawn
    second_view   extras["second_view_images"]     "batch image channel height width", the episode's
                                                   images in the order support (way shot), query
                  extras["second_view_grid"]       "batch image height width 2", where each pixel
                                                   was read from: (x, y) in [-1, 1] as in
                                                   `grid_sample`, align_corners False

Three more are never needed but used where they are given: extras["registration"], the affine theta
of each support-query pair ("batch way shot query 2 3"), extras["query_position"], the relative
position of each query slice in its scan ("batch query", 0 to 1), and extras["redrawn"], how many
draws were thrown away before this one ("batch"; the training log has its mean).
"""

from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

from fewshot_seg.episode import Episode, Support
from fewshot_seg.errors import EpisodeError, PluginError, did_you_mean


class Need(NamedTuple):
    """The fields behind a need, and the episode source that provides them."""

    fields: tuple[str, ...]
    source: str


NEEDS: Mapping[str, Need] = {
    "unlabelled": Need(("unlabelled",), "WithUnlabelled"),
    "auxiliary": Need(("auxiliary_images", "auxiliary_masks", "auxiliary_ids"), "WithAuxiliary"),
    "second_view": Need(("second_view_images", "second_view_grid"), "WithSecondView"),
}


def needs_of(module: nn.Module) -> tuple[str, ...]:
    """The needs of a method and all its parts. Raises PluginError for a need nobody knows."""
    found: set[str] = set()
    for part in module.modules():
        for need in getattr(part, "needs", ()):
            if need not in NEEDS:
                raise PluginError(
                    f"{type(part).__name__} needs '{need}' of an episode"
                    f"{did_you_mean(need, NEEDS)}; known: {', '.join(NEEDS)}"
                )
            found.add(need)
    return tuple(sorted(found))


def require(task: Episode | Support, need: str, *, by: str) -> None:
    """Raise EpisodeError, naming the field and its provider, when `task` lacks what `by` needs."""
    support = task.support if isinstance(task, Episode) else task
    extras = task.extras if isinstance(task, Episode) else {}
    for field in NEEDS[need].fields:
        if field == "unlabelled":
            lacks, where = support.unlabelled is None, "support.unlabelled"
        else:
            lacks, where = field not in extras, f"extras['{field}']"
        if lacks:
            raise EpisodeError(
                f"{by} needs {where}, which this episode lacks: wrap the episode source in "
                f"fewshot_seg.data.extras.{NEEDS[need].source}, or train with `fewshot-seg train`, "
                "which does so"
            )
