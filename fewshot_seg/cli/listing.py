"""What is installed, without importing any of it."""

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from fewshot_seg.about import about, module_spec
from fewshot_seg.cli.trial import Name, troubles
from fewshot_seg.errors import UnknownNameError, did_you_mean
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


def tried(kinds: Sequence[str]) -> dict[Name, str]:
    """What keeps the names of these kinds from being loaded, each tried in another process; names
    that are in trouble without loading have no entry."""
    return troubles(
        [
            (kind, name)
            for kind in kinds
            for name, claims in Registry(kind).providers().items()
            if _trouble(claims) is None
        ]
    )


def table_of(kind: str, unloadable: Mapping[Name, str]) -> tuple[Table, int]:
    """A row for each name of a kind, and how many of them cannot be used.

    unloadable: what `tried` found.
    """
    table = Table(title=KINDS[kind], title_justify="left", title_style="bold")
    for heading in ("name", "provided by", "", "what it is"):
        table.add_column(heading)
    unusable = 0
    for name, claims in Registry(kind).providers().items():
        trouble = _trouble(claims) or unloadable.get((kind, name))
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


def _trouble(claims: tuple[Provider, ...]) -> str | None:
    """What shows without loading."""
    if len(claims) > 1:
        return "claimed twice; uninstall one"
    if module_spec(claims[0].module) is None:
        return "broken: its module is not there"
    return None
