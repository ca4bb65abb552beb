"""`build`: from a name or a recipe to a method whose parts know of each other what they must."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from fewshot_seg import interfaces, overrides
from fewshot_seg.errors import FewshotSegError, OptionError, PluginError, RecipeError
from fewshot_seg.needs import needs_of
from fewshot_seg.overrides import CONTEXT, Resolved
from fewshot_seg.pipeline import Pipeline
from fewshot_seg.recipe import CUSTOM, Part, Recipe
from fewshot_seg.registry import Registry

ROLES: Mapping[str, type] = {
    "encoder": interfaces.Encoder,
    "prior": interfaces.Prior,
    "enrichment": interfaces.Enrichment,
    "contrastive": interfaces.Contrastive,
    "decoder": interfaces.Decoder,
    "method": interfaces.Method,
}
IMAGE_SIZE = 256
"""Pixels; the field's slices are 256x256."""
LARGEST_IMAGE = 8192
"""Pixels along an axis; no scanner's slice has more than 4096."""


def build(method: str | Recipe | Path, **changes: Any) -> nn.Module:
    """Make a method by its registered name, from a recipe, or from a recipe file (a Path).

    changes: parts by slot (`decoder="cosine"`, `{"name": ..., option: value}`, a module, None to
        leave it out), options by bare name where only one part has it, or by dotted key
        (`**{"decoder.scale": 10.0}`).
    The result carries its resolved `recipe`. It is in training mode, on the CPU.
    Raises UnknownNameError, OptionError, PluginError, and RecipeError for parts that cannot work
    together.
    """
    resolved = overrides.apply(recipe_of(method), changes)
    recipe = resolved.recipe
    model = _pipeline(resolved) if recipe.is_pipeline else _whole(recipe)
    needs_of(model)  # a need that nobody provides shows here, not in the first step
    model.recipe = recipe  # type: ignore[assignment]
    return model


def recipe_of(method: str | Recipe | Path) -> Recipe:
    """The recipe behind a registered name, a recipe file, or itself."""
    if isinstance(method, Recipe):
        return method
    if isinstance(method, Path):
        return Recipe.load(method)
    registry = Registry("method")
    factory = registry.factory(method)
    if inspect.isclass(factory):
        return Recipe(
            method,
            training=dict(getattr(factory, "TRAINING", {})),
            episodes=dict(getattr(factory, "EPISODES", {})),
        )
    made = factory()
    if not isinstance(made, Recipe):
        raise PluginError(
            f"method '{method}' from {registry.provider(method)} gave a {type(made).__name__}; "
            "a method's entry point is an nn.Module class or a function that returns a Recipe"
        )
    return replace(made, method=method)


def _whole(recipe: Recipe) -> nn.Module:
    return _checked("method", recipe.method, _made("method", recipe.method, recipe.options))


def _pipeline(resolved: Resolved) -> Pipeline:
    recipe = resolved.recipe
    if recipe.encoder is None or recipe.decoder is None:
        missing = "encoder" if recipe.encoder is None else "decoder"
        raise RecipeError(f"the recipe of '{recipe.method}' has no {missing}")
    context: dict[str, Any] = {}
    encoder = _encoder(resolved, recipe.encoder, context)
    prior = _part(resolved, "prior", recipe.prior, context)
    if prior is not None:
        context["latent"] = prior.latent
    enrichment = _part(resolved, "enrichment", recipe.enrichment, context)
    decoder = _part(resolved, "decoder", recipe.decoder, context)
    _check_unlabelled(recipe, decoder)
    contrastives: dict[str, Any] = {}
    for part in recipe.contrastive:
        if part.name in contrastives:
            raise RecipeError(f"contrastive '{part.name}' stands twice in '{recipe.method}'")
        contrastives[part.name] = _part(resolved, "contrastive", part, context)
    return Pipeline(
        encoder=encoder,
        prior=prior,
        enrichment=enrichment,
        decoder=decoder,
        contrastives=contrastives,
        weights=recipe.weights,
        ce_weights=_ce_weights(recipe.options.get("ce_weights")),
    )


def _check_unlabelled(recipe: Recipe, decoder: Any) -> None:
    if "unlabelled" not in getattr(decoder, "needs", ()):
        return
    for slot, part in (("prior", recipe.prior), ("enrichment", recipe.enrichment)):
        if part is not None:
            assert recipe.decoder is not None
            raise RecipeError(
                f"decoder '{recipe.decoder.name}' with unlabelled images cannot be combined with "
                f"{slot} '{part.name}', which changes only the maps of support and query: leave "
                f"the {slot} out, or set decoder.unlabelled=False"
            )


def _encoder(resolved: Resolved, part: Part, context: dict[str, Any]) -> Any:
    given = {k: v for k, v in resolved.recipe.options.items() if k == "in_channels"}
    encoder = _part(resolved, "encoder", part, given)
    if given and getattr(encoder, "in_channels", None) != given["in_channels"]:
        raise RecipeError(
            f"in_channels={given['in_channels']} was asked for, but encoder '{part.name}' "
            f"takes {getattr(encoder, 'in_channels', 'a fixed number of')} channels"
        )
    height, width = _image_size(resolved.recipe.options.get("image_size", IMAGE_SIZE))
    context["dim"] = encoder.dim
    context["stride"] = encoder.stride
    context["grid"] = (-(-height // encoder.stride), -(-width // encoder.stride))
    return encoder


def _ce_weights(weights: Any) -> tuple[float, ...] | None:
    if weights is None:
        return None
    pair = weights if isinstance(weights, list | tuple) else ()
    if len(pair) != 2 or not all(map(_is_weight, pair)) or not any(pair):
        raise OptionError(
            f"ce_weights={weights!r:.40} is not [background, foreground], two numbers of 0 or more "
            "that are not both 0"
        )
    return tuple(map(float, pair))


def _is_weight(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < float("inf")


def _image_size(size: Any) -> tuple[int, int]:
    pair = [size, size] if isinstance(size, int) else size
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(map(_is_size, pair)):
        raise OptionError(
            f"image_size={size!r:.40} is neither a number of pixels nor [height, width], "
            f"from 1 to {LARGEST_IMAGE}"
        )
    height, width = pair
    return height, width


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_IMAGE


def _part(resolved: Resolved, slot: str, part: Part | None, context: Mapping[str, Any]) -> Any:
    if part is None:
        return None
    module = resolved.modules.get(id(part))
    if module is None:
        if CUSTOM in part.options:
            raise RecipeError(
                f"{slot} '{part.name}' was handed in as a module ({part.options[CUSTOM]}) and "
                f"cannot be rebuilt from data: pass it again, {slot}=..."
            )
        module = _build_part(slot, part, context)
    _check_size(slot, part, module, context)
    return _checked(slot, part.name, module)


def _build_part(slot: str, part: Part, context: Mapping[str, Any]) -> Any:
    """Call the factory with the part's options and whatever it asks for by argument name."""
    registry = Registry(slot)
    options = dict(part.options)
    for name, parameter in registry.options(part.name).items():
        if name in options:
            if name in context and CONTEXT.get(name) != slot and options[name] != context[name]:
                raise RecipeError(
                    f"{slot} '{part.name}' was given {name}={options[name]!r}, but the other "
                    f"parts provide {name}={context[name]!r}; leave {name} out"
                )
        elif name in context:
            options[name] = context[name]
        elif parameter.default is parameter.empty and name in CONTEXT:
            raise RecipeError(
                f"{slot} '{part.name}' needs `{name}`, which a {CONTEXT[name]} provides, and this "
                f"recipe has none: add a {CONTEXT[name]} or choose another {slot}"
            )
        elif parameter.default is parameter.empty:
            raise RecipeError(f"{slot} '{part.name}' needs the option `{name}`")
    return _made(slot, part.name, options)


def _made(slot: str, name: str, options: Mapping[str, Any]) -> Any:
    """The part. Options come from files: whatever they make it stumble over is told with them."""
    try:
        return Registry(slot).build(name, **options)
    except FewshotSegError:
        raise
    except Exception as error:
        told = ", ".join(f"{key}={value!r:.40}" for key, value in options.items()) or "its defaults"
        raise RecipeError(
            f"{slot} '{name}' cannot be made with {told}: {type(error).__name__}: {error}"
        ) from error


def _check_size(slot: str, part: Part, module: Any, context: Mapping[str, Any]) -> None:
    """A module handed in may say its `dim` or `latent`; it must be that of the other parts."""
    for name in ("dim", "latent"):
        have, want = getattr(module, name, None), context.get(name)
        if CONTEXT[name] != slot and isinstance(have, int) and want is not None and have != want:
            raise RecipeError(
                f"{slot} '{part.name}' works on {name}={have}, but the {CONTEXT[name]} "
                f"provides {name}={want}"
            )


def _checked(slot: str, name: str, module: Any) -> Any:
    """Raise PluginError when a part does not fill its role."""
    if isinstance(module, nn.Module) and isinstance(module, ROLES[slot]):
        return module
    role = ROLES[slot]
    public = [item for item in dir(role) if not item.startswith("_")]
    wanted = [*public, *getattr(role, "__annotations__", {})]
    lacks = [item for item in dict.fromkeys(wanted) if not hasattr(module, item)]
    what = f"lacks {', '.join(lacks)}" if lacks else "is no nn.Module"
    raise PluginError(
        f"{slot} '{name}' is a {type(module).__name__}, which {what}: "
        f"see fewshot_seg.interfaces.{role.__name__}"
    )
