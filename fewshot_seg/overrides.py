"""Turn `build("apscl", decoder="cosine", **{"contrastive.tau": 0.2})` into a recipe.

An override is a slot (`decoder=...`), a dotted key (`"decoder.scale"`, `"weights.kl"`,
`"training.lr"`) or the bare name of an option that exactly one part of the recipe has.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from fewshot_seg.errors import OptionError, did_you_mean
from fewshot_seg.recipe import CUSTOM, SLOTS, TABLES, Part, Recipe
from fewshot_seg.registry import Registry

CONTEXT = {
    "dim": "encoder",
    "stride": "encoder",
    "latent": "prior",
    "grid": "encoder",
}
"""Argument that `build` fills in -> the slot it comes from."""
PIPELINE_OPTIONS = ("ce_weights", "image_size", "in_channels")


@dataclass
class Resolved:
    """A recipe after overrides, and the modules that were handed in, by `id` of their part."""

    recipe: Recipe
    modules: dict[int, nn.Module] = field(default_factory=dict)

    def part(self, slot: str, value: object, present: Part | None) -> Part:
        """A part from a name, a table or a module. Raises OptionError for anything else."""
        if isinstance(value, Part):
            return value
        if isinstance(value, str):
            return present if present is not None and present.name == value else Part(value)
        if isinstance(value, Mapping):
            options = {key: value[key] for key in value if key != "name"}
            if "name" in value:
                return Part(str(value["name"]), options)
            if present is None:
                raise OptionError(
                    f"{slot}={dict(value)!r} names no part and the recipe has none: "
                    'add {"name": ...}'
                )
            return present.with_options(options)
        if isinstance(value, nn.Module):
            kind = type(value)
            part = Part(kind.__name__, {CUSTOM: f"{kind.__module__}:{kind.__qualname__}"})
            self.modules[id(part)] = value
            return part
        raise OptionError(
            f"{slot}={value!r} is a {type(value).__name__}; give a registered name, a table "
            "{'name': ..., option: value}, a module, or None to leave the part out"
        )


def apply(recipe: Recipe, overrides: Mapping[str, Any]) -> Resolved:
    """Raises OptionError for an override that fits nothing, or fits several parts."""
    resolved = Resolved(recipe)
    for key in sorted(overrides, key=_turn):
        resolved.recipe = _apply_one(resolved, key, overrides[key])
    return resolved


def _turn(key: str) -> int:
    """Slots come before options, so that options meet the swapped parts."""
    return SLOTS.index(key) if key in SLOTS else len(SLOTS)


def _apply_one(resolved: Resolved, key: str, value: Any) -> Recipe:
    recipe = resolved.recipe
    if key in SLOTS and recipe.is_pipeline:
        return _swap(resolved, key, value)
    if "." in key:
        head, rest = key.split(".", 1)
        if head in TABLES:
            return _set_table(recipe, head, rest, value)
        if head in SLOTS and recipe.is_pipeline:
            return _set_option(recipe, head, rest, value)
        raise OptionError(
            f"'{key}': '{head}' is neither a slot of '{recipe.method}' nor one of "
            f"{', '.join(TABLES)}{did_you_mean(head, [*SLOTS, *TABLES])}"
        )
    if not recipe.is_pipeline:
        Registry("method").check_options(recipe.method, {key: value})
        return _set_table(recipe, "options", key, value)
    if key in PIPELINE_OPTIONS:
        return _set_table(recipe, "options", key, value)
    return _set_by_name(recipe, key, value)


def _swap(resolved: Resolved, slot: str, value: Any) -> Recipe:
    present = getattr(resolved.recipe, slot)
    if slot == "contrastive":
        if value is None:
            return replace(resolved.recipe, contrastive=())
        several = value if isinstance(value, list | tuple) else [value]
        known = {part.name: part for part in present}
        fallback = present[0] if len(present) == 1 else None
        parts = tuple(
            resolved.part(slot, item, known.get(item) if isinstance(item, str) else fallback)
            for item in several
        )
        return replace(resolved.recipe, contrastive=parts)
    if value is None:
        if slot in ("encoder", "decoder"):
            raise OptionError(f"a method cannot do without its {slot}; {slot}=None was given")
        return resolved.recipe.with_entry(slot, None)
    return resolved.recipe.with_entry(slot, resolved.part(slot, value, present))


def _set_table(recipe: Recipe, table: str, key: str, value: Any) -> Recipe:
    if table == "weights" and not recipe.is_pipeline:
        known = ", ".join(Registry("method").options(recipe.method))
        raise OptionError(
            f"'{recipe.method}' is a whole network, whose loss weights are options of its own; "
            f"'weights.{key}' would do nothing. It takes: {known}."
        )
    if table == "options" and recipe.is_pipeline and key not in PIPELINE_OPTIONS:
        raise OptionError(
            f"a pipeline has no option '{key}'{did_you_mean(key, PIPELINE_OPTIONS)} "
            f"It takes: {', '.join(PIPELINE_OPTIONS)}."
        )
    values = {name: item for name, item in getattr(recipe, table).items() if name != key}
    return recipe.with_entry(table, values if value is None else {**values, key: value})


def part_options(slot: str, part: Part) -> list[str]:
    """Names of the options a user may set; what `build` fills in from other parts is left out."""
    if CUSTOM in part.options:
        return []
    names = Registry(slot).options(part.name)
    return [name for name in names if CONTEXT.get(name, slot) == slot]


def _set_option(recipe: Recipe, slot: str, rest: str, value: Any) -> Recipe:
    """`rest` is an option, or for one of several contrastive terms `<name>.<option>`."""
    parts = [part for found, part in recipe.parts() if found == slot]
    if "." in rest:
        name, rest = rest.split(".", 1)
        parts = [part for part in parts if part.name == name]
    if len(parts) != 1:
        names = ", ".join(part.name for part in parts) or "none"
        raise OptionError(
            f"'{slot}.{rest}' needs exactly one {slot} in the recipe of '{recipe.method}'; "
            f"it has: {names}. Write '{slot}.<name>.{rest}' to choose one."
        )
    Registry(slot).check_options(parts[0].name, {rest: value})
    return _replace_part(recipe, slot, parts[0], rest, value)


def _set_by_name(recipe: Recipe, key: str, value: Any) -> Recipe:
    owners = [(slot, part) for slot, part in recipe.parts() if key in part_options(slot, part)]
    if len(owners) == 1:
        return _replace_part(recipe, owners[0][0], owners[0][1], key, value)
    if owners:
        dotted = " or ".join(f"'{_address(recipe, slot, part)}.{key}'" for slot, part in owners)
        raise OptionError(f"several parts have an option '{key}'; say {dotted}")
    known = [*SLOTS, *PIPELINE_OPTIONS]
    for slot, part in recipe.parts():
        known += part_options(slot, part)
    raise OptionError(
        f"method '{recipe.method}' has no hyper-parameter '{key}'{did_you_mean(key, known)} "
        f"It takes: {', '.join(dict.fromkeys(known))}."
    )


def _address(recipe: Recipe, slot: str, part: Part) -> str:
    """How a dotted key names the part."""
    several = slot == "contrastive" and len(recipe.contrastive) > 1
    return f"{slot}.{part.name}" if several else slot


def _replace_part(recipe: Recipe, slot: str, part: Part, option: str, value: Any) -> Recipe:
    options = {name: item for name, item in part.options.items() if name != option}
    if value is not None or Registry(slot).options(part.name)[option].default is not None:
        options[option] = value
    changed = Part(part.name, options)
    if slot == "contrastive":
        several = tuple(changed if item is part else item for item in recipe.contrastive)
        return replace(recipe, contrastive=several)
    return recipe.with_entry(slot, changed)
