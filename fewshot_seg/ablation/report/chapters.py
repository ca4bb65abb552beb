"""What the page tells of a group of scores, section by section."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fewshot_seg.ablation.report.blocks import Block, Chapter, Section, picture_block, table_block
from fewshot_seg.ablation.report.figures import (
    Picture,
    cost_pictures,
    curve_pictures,
    leaderboard_picture,
    loss_picture,
    overlay_pictures,
    prior_pictures,
    rank_picture,
    tsne_picture,
)
from fewshot_seg.ablation.report.groups import Group
from fewshot_seg.ablation.report.slices import slices_block
from fewshot_seg.ablation.report.tables import (
    TableData,
    ablation_matrix,
    beside_paper,
    cost_table,
    leaderboard,
    significance,
    signs_table,
)

APART = (
    "These scores were obtained under other rules or on other data than those of the other "
    "chapters ({words}). Numbers of different chapters must not be compared."
)

Shown = TableData | Picture | Block | None


@dataclass(frozen=True)
class Outline:
    """A section before it is made.   make: group and bytes for slices -> what stands in it."""

    key: str
    title: str
    words: str
    make: Callable[[Group, int], Iterable[Shown]]


OUTLINES = (
    Outline(
        "leaderboard",
        "Leaderboard",
        "Every variant by its mean Dice. Where intervals overlap, look under Significance before "
        "calling one variant better.",
        lambda group, _: [leaderboard(group), leaderboard_picture(group)],
    ),
    Outline(
        "matrix",
        "Ablation matrix",
        "Which modules are in, and what that gives.",
        lambda group, _: [ablation_matrix(group)],
    ),
    Outline(
        "significance",
        "Significance",
        "Differences on the same scans: whether a variant is better scan by scan, and not only "
        "on average.",
        lambda group, _: [significance(group), rank_picture(group)],
    ),
    Outline(
        "paper",
        "Beside the paper",
        "Whether the published differences reproduce, and how far the numbers lie apart.",
        lambda group, _: [signs_table(group), beside_paper(group)],
    ),
    Outline(
        "curves",
        "Hyper-parameters",
        "Mean Dice along each setting that is a number.",
        lambda group, _: curve_pictures(group),
    ),
    Outline(
        "cost",
        "Cost against Dice",
        "What a variant costs beside what it gives.",
        lambda group, _: [cost_table(group), *cost_pictures(group)],
    ),
    Outline(
        "slices",
        "Slices",
        "What the variants drew in the test scans. The slider moves through a scan, and so do "
        "the arrow keys once a slice has been clicked.",
        lambda group, room: [slices_block(group, room), *overlay_pictures(group)],
    ),
    Outline(
        "features",
        "Features",
        "Whether the features tell the class from its surroundings.",
        lambda group, _: [tsne_picture(group)],
    ),
    Outline("losses", "Training", "How the losses fell.", lambda group, _: [loss_picture(group)]),
    Outline(
        "prior",
        "Anatomical prior",
        "What each latent of the prior tells of the anatomy, and whether it has collapsed.",
        lambda group, _: prior_pictures(group),
    ),
)
"""In the order of the page; a section that has nothing to show is left out."""


def group_chapter(group: Group, number: int, *, slice_bytes: int) -> Chapter:
    """All that can be told of one group.

    number: of the chapter, for addresses within the page.
    slice_bytes: how much of the page its slices may take.
    """
    sections = (
        Section(f"{one.key}-{number}", one.title, one.words, blocks)
        for one in OUTLINES
        if (blocks := _blocks(group, one.make(group, slice_bytes)))
    )
    return Chapter(
        id=f"results-{number}",
        title=f"Results: {group.words}" if group.words else "Results",
        words=group.note,
        warnings=(APART.format(words=group.words),) if group.words else (),
        sections=tuple(sections),
    )


def _blocks(group: Group, shown: Iterable[Shown]) -> tuple[Block, ...]:
    """A table has its title above it where it stands among others."""
    there = [one for one in shown if one is not None]
    titled = sum(isinstance(one, TableData) for one in there) > 1
    return tuple(_block(group, one, titled) for one in there)


def _block(group: Group, one: TableData | Picture | Block, titled: bool) -> Block:
    if isinstance(one, Picture):
        return picture_block(one, rules=group.note)
    if isinstance(one, TableData):
        heading = one.title.removesuffix(f" ({group.words})") if titled else ""
        return table_block(one, rules=group.note, heading=heading)
    return one
