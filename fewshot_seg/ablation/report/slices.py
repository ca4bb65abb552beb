"""The slice viewer's data: pictures once a scan, masks as deflated bits, all within a budget."""

from typing import Any

from fewshot_seg.ablation.report.blocks import SlicesBlock
from fewshot_seg.ablation.report.groups import Group
from fewshot_seg.ablation.report.shelf import MOST_SLICES, Drawn, Shelf
from fewshot_seg.ablation.report.slice_choice import Choice, Choices, choose

MOST_PROBLEMS = 3
"""Files that cannot be shown of which the page tells why."""


def slices_block(group: Group, budget: int) -> SlicesBlock | None:
    """The viewer of one group; None when no predictions were kept.

    budget: bytes of the page that it may take. Scans that do not fit are left out, and counted.
    """
    shelf = Shelf(group)
    kept = frozenset(cell for cell in group.cells["cell"] if shelf.has(cell))
    if not kept:
        return None
    choices = choose(group, kept)
    gallery = Gallery(shelf, budget)
    for choice in choices.shown:
        gallery.add(choice)
    data = {"scans": gallery.scans, "pictures": gallery.pictures}
    words = _words(choices, len(gallery.scans), tuple(dict.fromkeys(shelf.problems)))
    return SlicesBlock(data=data, words=words)


class Gallery:
    """Scans for the viewer until `budget` bytes are spent."""

    def __init__(self, shelf: Shelf, budget: int) -> None:
        self.scans: list[dict[str, Any]] = []
        self.pictures: dict[str, dict[int, str]] = {}
        self._shelf, self._left = shelf, budget

    def add(self, choice: Choice) -> None:
        """Add a scan with its pictures, if there is something to show and room for it."""
        drawn = self._drawn(choice)
        if not drawn:
            return
        first = next(iter(drawn.values()))
        fresh = self._fresh_pictures(first)
        size = sum(map(len, fresh.values())) + len(first.truth)
        size += sum(len(one.prediction) for one in drawn.values())
        if size > self._left:
            self._left = 0  # later ones are less telling, even if they would fit
            return
        self._left -= size
        self.pictures.setdefault(first.pictures, {}).update(fresh)
        self.scans.append(_entry(choice, first, drawn))

    def _drawn(self, choice: Choice) -> dict[str, Drawn]:
        """variant -> prediction; those that do not lie on the first one's slices are a problem."""
        key = (choice.class_name, choice.scan_id)
        found: dict[str, Drawn] = {}
        for variant, cell in choice.cells.items():
            one = self._shelf.prediction(cell, key)
            if one is None:
                continue
            first = next(iter(found.values()), one)
            if (one.slices, one.shape, one.truth) == (first.slices, first.shape, first.truth):
                found[variant] = one
            else:
                self._shelf.problems.append(
                    f"the prediction of {variant} for {choice.class_name} in scan "
                    f"{choice.scan_id} (cell {cell}) has another ground truth than the others"
                )
        return found

    def _fresh_pictures(self, one: Drawn) -> dict[int, str]:
        """The slices' pictures that the page does not have yet."""
        known = self.pictures.get(one.pictures, {})
        found = {
            index: self._shelf.picture(one.pictures, index)
            for index in one.slices
            if index not in known
        }
        return {index: address for index, address in found.items() if address is not None}


def _entry(choice: Choice, first: Drawn, drawn: dict[str, Drawn]) -> dict[str, Any]:
    """What the page's script reads of one scan; see templates/slices.js."""
    _, height, width = first.shape
    return {
        "class": choice.class_name,
        "scan": choice.scan_id,
        "name": f"{choice.scan_id} ({choice.role})" if choice.role else choice.scan_id,
        "slices": list(first.slices),
        "start": first.fullest,
        "height": height,
        "width": width,
        "aspect": first.aspect,
        "upright": first.upright,
        "pictures": first.pictures,
        "truth": first.truth,
        # A list, because scripts put names that are numbers in an order of their own.
        "predictions": [
            {"variant": variant, "dice": 100 * one.dice, "mask": one.prediction}
            for variant, one in drawn.items()
        ],
    }


def _words(choices: Choices, n_shown: int, problems: tuple[str, ...]) -> tuple[str, ...]:
    """What is shown, what was left out, and why."""
    told = [
        "Best, median and worst are by the mean Dice of the variants shown. A variant's prediction "
        f"is that of its lowest seed. Of more than {MOST_SLICES} slices only every second, third "
        "and so on is shown."
    ]
    if n_shown < choices.n_scans:
        told.append(
            f"{n_shown} of {choices.n_scans} pairs of class and scan are shown, to keep this page "
            "small; the best, median and worst of each class come first."
        )
    if len(choices.variants) < choices.n_variants:
        told.append(f"The {len(choices.variants)} best of {choices.n_variants} variants are shown.")
    told += problems[:MOST_PROBLEMS]
    if len(problems) > MOST_PROBLEMS:
        told.append(f"{len(problems) - MOST_PROBLEMS} more files could not be shown.")
    return tuple(told)
