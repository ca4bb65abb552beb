"""What is installed, without importing any of it."""

from rich.table import Table
from rich.text import Text

from fewshot_seg.about import about, module_spec
from fewshot_seg.errors import PluginError, UnknownNameError, did_you_mean
from fewshot_seg.registry import KINDS, Provider, Registry


def kinds_of(word: str | None) -> list[str]:
    """The kinds to list: all, or the one named in singular or plural. Raises UnknownNameError."""
    if word is None:
        return list(KINDS)
    singular = {plural: kind for kind, plural in KINDS.items()}
    kind = singular.get(word, word)
    if kind not in KINDS:
        hint = did_you_mean(word, [*KINDS, *KINDS.values()]) or "."
        raise UnknownNameError(f"unknown kind '{word}'{hint} There are: {', '.join(KINDS)}.")
    return [kind]


def table_of(kind: str, *, load: bool) -> tuple[Table, int]:
    """A row for each name of a kind, and how many of them cannot be used.

    load: import each one to see whether that works.
    """
    registry = Registry(kind)
    table = Table(title=KINDS[kind], title_justify="left", title_style="bold")
    for heading in ("name", "provided by", "", "what it is"):
        table.add_column(heading)
    unusable = 0
    for name, claims in registry.providers().items():
        trouble = _trouble(registry, name, claims, load)
        unusable += trouble is not None
        table.add_row(
            Text(name),
            Text(" and ".join(map(str, claims))),
            Text(trouble or "", style="red"),
            _what(claims, stands_in=trouble is not None),
        )
    return table, unusable


def _what(claims: tuple[Provider, ...], *, stands_in: bool) -> Text:
    """The author's own words; reconstructed methods and their parts are marked as such.

    stands_in: where each claim's object stands instead, for one that cannot be used.
    """
    if stands_in:
        return Text(" and ".join(claim.value for claim in claims))
    summary, reconstructed = about(claims[0].entry)
    return Text(summary) + Text(" RECONSTRUCTED" if reconstructed else "", style="yellow")


def _trouble(registry: Registry, name: str, claims: tuple[Provider, ...], load: bool) -> str | None:
    if len(claims) > 1:
        return "claimed twice; uninstall one"
    if module_spec(claims[0].entry.module) is None:
        return "broken: its module is not there"
    if load:
        try:
            registry.factory(name)
        except PluginError as error:
            return f"broken: {error}"
    return None
