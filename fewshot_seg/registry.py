"""Find parts by name through entry points. Nothing is imported before somebody asks for it."""

import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from typing import Any

from fewshot_seg.errors import OptionError, PluginError, UnknownNameError, did_you_mean

log = logging.getLogger(__name__)

KINDS: Mapping[str, str] = {
    "encoder": "encoders",
    "prior": "priors",
    "enrichment": "enrichments",
    "contrastive": "contrastives",
    "decoder": "decoders",
    "method": "methods",
    "dataset": "datasets",
}
"""What can be registered -> the last word of its entry-point group `fewshot_seg.<word>`."""


@dataclass(frozen=True)
class Provider:
    """One installed claim to a name: who makes it, and where the object stands."""

    name: str
    value: str
    distribution: str
    entry: EntryPoint

    @property
    def module(self) -> str:
        """The module that the value names, whether or not there can be such a one."""
        return self.value.partition(":")[0].strip()

    def __str__(self) -> str:
        return self.distribution


def _provider(entry: EntryPoint) -> Provider:
    dist = entry.dist
    owner = f"{dist.name} {dist.version}" if dist is not None else "an unknown distribution"
    return Provider(entry.name, entry.value, owner, entry)


@lru_cache(maxsize=64)
def _scan(group: str, path: tuple[str, ...]) -> Mapping[str, tuple[Provider, ...]]:
    """Claims by name; cached for one state of sys.path, as reading metadata takes milliseconds."""
    claims: dict[str, dict[tuple[str, str], Provider]] = {}
    for entry in _entries(group):
        provider = _provider(entry)
        claims.setdefault(entry.name, {})[provider.distribution, provider.value] = provider
    return {name: tuple(found.values()) for name, found in sorted(claims.items())}


def _entries(group: str) -> list[EntryPoint]:
    try:
        return list(entry_points(group=group))
    except Exception:  # one damaged file takes down them all
        return [entry for found in distributions() for entry in _readable(found, group)]


def _readable(found: Distribution, group: str) -> list[EntryPoint]:
    """A distribution's entries, none with a warning where they cannot be read."""
    try:
        return list(found.entry_points.select(group=group))
    except Exception as error:
        log.warning(
            "what %s provides cannot be read (%s: %s); install it again",
            found.metadata["Name"],
            type(error).__name__,
            error,
        )
        return []


def refresh() -> None:
    """Look at the installed distributions again (after an installation within this process)."""
    _scan.cache_clear()


class Registry:
    """The parts of one kind. `names` imports nothing, `get` imports one, `build` makes one."""

    def __init__(self, kind: str) -> None:
        if kind not in KINDS:
            raise UnknownNameError(
                f"unknown kind '{kind}'{did_you_mean(kind, KINDS)} There are: {', '.join(KINDS)}."
            )
        self.kind = kind
        self.group = f"fewshot_seg.{KINDS[kind]}"

    def providers(self) -> Mapping[str, tuple[Provider, ...]]:
        """Every claim by name, in alphabetical order; more than one makes the name unusable."""
        return _scan(self.group, tuple(sys.path))

    def names(self) -> list[str]:
        """The installed names in alphabetical order."""
        return list(self.providers())

    def provider(self, name: str) -> Provider:
        """Who provides `name`. Raises UnknownNameError, or PluginError for a name claimed twice."""
        claims = self.providers().get(name)
        if not claims:
            known = self.names()
            raise UnknownNameError(
                f"unknown {self.kind} '{name}'{did_you_mean(name, known)} "
                f"Installed: {', '.join(known) or 'none'}."
            )
        if len(claims) > 1:
            owners = " and ".join(f"{claim} ({claim.value})" for claim in claims)
            raise PluginError(
                f"{self.kind} '{name}' is provided by {owners}; uninstall one of them."
            )
        return claims[0]

    def get(self, name: str) -> Any:
        """The registered object itself. Raises also PluginError when it does not load."""
        provider = self.provider(name)
        try:
            return provider.entry.load()
        except (Exception, SystemExit) as error:  # a script imported as a module may leave
            raise PluginError(
                f"{self.kind} '{name}' from {provider} failed to load {provider.value}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def factory(self, name: str) -> Callable[..., Any]:
        """The registered callable. Raises PluginError when it is none or hides its options."""
        found = self.get(name)
        if not callable(found):
            raise PluginError(
                f"{self.kind} '{name}' from {self.provider(name)} is a "
                f"{type(found).__name__}; it must be a class or function that makes the part."
            )
        for parameter in inspect.signature(found).parameters.values():
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                raise PluginError(
                    f"{self.kind} '{name}' from {self.provider(name)} takes *{parameter.name}: "
                    "its signature must spell out every option."
                )
        return found

    def options(self, name: str) -> Mapping[str, inspect.Parameter]:
        """The options that `name` takes, as its signature spells them."""
        return inspect.signature(self.factory(name)).parameters

    def build(self, name: str, /, **options: Any) -> Any:
        """Make the part. Raises OptionError for an option that it does not have."""
        factory = self.factory(name)
        self.check_options(name, options)
        return factory(**options)

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Raise OptionError when `name` lacks one of the options."""
        known = list(self.options(name))
        for option in options:
            if option not in known:
                raise OptionError(
                    f"{self.kind} '{name}' has no option '{option}'{did_you_mean(option, known)} "
                    f"It takes: {', '.join(known) or 'none'}."
                )


def names(kind: str) -> list[str]:
    """Installed names of a kind, singular or plural: `names("decoders")`. Imports no plugin."""
    singular = {plural: kind for kind, plural in KINDS.items()}
    return Registry(singular.get(kind, kind)).names()
