"""Quirks of the official code, each off unless asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from fewshot_seg.errors import check_choice

OFFICIAL = "official"


@dataclass(frozen=True)
class Quirks:
    """What the official code does otherwise than its method seems to mean.

    drop_label_1: the background of an auxiliary image also leaves out superpixel 1, whichever was
        drawn (a class list that was fixed to [1]).
    raw_superpixels: the local loss takes cells of an auxiliary image by the numbers of its
        superpixels, so that the drawn one plays no part.
    scrambled_negatives: the local loss reads its negatives with channels and vectors mixed up.
    last_only: the local loss counts only the last support cell of each auxiliary image, yet
        divides by the number of all.
    mixed_contexts: the context loss reads its vectors with channels and positions mixed up.
    per_column: similarities are scaled to [0, 1] within each column instead of the whole map.
    joint_dice: soft Dice over both classes together, which is the mean probability of an error.
    running_norm: batch norm whose running statistics mix the support branch, the gated query
        branch, auxiliary images and all rounds of the refinement. In training each pass has its
        own; at test these fit none of them, and the answer may be empty. Without the quirk every
        map is normalised by itself, which is what training with one episode a step does anyway.
    """

    drop_label_1: bool = False
    raw_superpixels: bool = False
    scrambled_negatives: bool = False
    last_only: bool = False
    mixed_contexts: bool = False
    per_column: bool = False
    joint_dice: bool = False
    running_norm: bool = False

    @classmethod
    def named(cls, compat: str | Sequence[str]) -> "Quirks":
        """From one name or several; "official" is all. Raises OptionError for an unknown one."""
        known = [quirk.name for quirk in fields(cls)]
        names = [compat] if isinstance(compat, str) else list(compat)
        for name in names:
            check_choice("compat", name, (OFFICIAL, *known))
        chosen = known if OFFICIAL in names else names
        return cls(**dict.fromkeys(chosen, True))

    @property
    def norm(self) -> str:
        """The option of `convolutions`."""
        return "batch" if self.running_norm else "instance"

    @property
    def minmax(self) -> str:
        """The option of `SimPrior` and `ConstrainedIteration`."""
        return "per_column" if self.per_column else "global"
