"""What training may see of the classes that are tested: the settings of the field, by name."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from fewshot_seg.errors import OptionError, UnknownNameError, did_you_mean

SETTINGS = ("leave_one_organ", "setting1", "setting2_any", "setting2_all")


def class_ids(classes: Mapping[int, str], wanted: Iterable[str | int]) -> tuple[int, ...]:
    """The ids of classes given by name (any case) or by id, in the order given.

    classes: a data set's id -> name.
    Raises UnknownNameError for a class that the data set does not have.
    """
    by_name = {name.casefold(): value for value, name in classes.items()}
    found = []
    for one in wanted:
        value = one if isinstance(one, int) else by_name.get(one.casefold())
        if value is None or value not in classes:
            hint = did_you_mean(str(one).casefold(), by_name) or "."
            known = ", ".join(f"{value} {name}" for value, name in classes.items())
            raise UnknownNameError(f"unknown class '{one}'{hint} This data set has: {known}.")
        found.append(value)
    return tuple(found)


def check_setting(setting: str, novel: Collection[int]) -> None:
    """Refuse a setting nobody knows, or one that does not fit the classes held out.

    Raises UnknownNameError or OptionError.
    """
    if setting not in SETTINGS:
        hint = did_you_mean(setting, SETTINGS) or "."
        raise UnknownNameError(f"unknown setting '{setting}'{hint} Known: {', '.join(SETTINGS)}.")
    if setting == "leave_one_organ" and len(novel) > 1:
        raise OptionError(
            f"setting 'leave_one_organ' holds out one class; got {sorted(novel)}. "
            "Hold out a group of classes with 'setting1' or 'setting2_any'."
        )


def kept_slices(
    class_slices: Mapping[int, Sequence[int]],
    n_slices: int,
    novel: Collection[int],
    setting: str,
) -> tuple[int, ...]:
    """The slices of a training scan that training may use when the classes `novel` are held out.

    class_slices: class id -> the slices that show it, as `Scan.class_slices` gives it.
    setting: "leave_one_organ" and "setting1" keep every slice (Roy et al.; novel classes may be
        seen, unlabelled; the first holds out a single class and trains on labels of the others).
        "setting2_any" drops each slice that shows any novel class (Ouyang et al.).
        "setting2_all" drops only slices that show all of them at once (Q-Net and its followers:
        far weaker; use it only to compare with those numbers).

    Raises UnknownNameError for another setting, OptionError for several classes held out under
    "leave_one_organ" and for a class id below 1.
    """
    check_setting(setting, novel)
    if any(value < 1 for value in novel):
        raise OptionError(f"class ids start at 1 (0 is background); got {sorted(novel)}")
    everything = set(range(n_slices))
    if not novel or setting in ("leave_one_organ", "setting1"):
        return tuple(range(n_slices))
    shown = [set(class_slices.get(value, ())) for value in novel]
    dropped = set.union(*shown) if setting == "setting2_any" else set.intersection(*shown)
    return tuple(sorted(everything - dropped))
