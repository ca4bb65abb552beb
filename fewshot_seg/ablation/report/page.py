"""The report as one page that needs nothing beside itself: no network, no other file."""

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot_seg._version import __version__
from fewshot_seg.ablation.report.chapters import group_chapter
from fewshot_seg.ablation.report.groups import Group, groups
from fewshot_seg.ablation.report.runs import asked, facts, runs_chapter, warnings
from fewshot_seg.ablation.report.tables import write_tables
from fewshot_seg.ablation.study import Study, read_study
from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.errors import OptionError

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("tables.js", "slices.js")
SLICE_BYTES = 4_500_000
"""What the slices of all chapters may take of the page."""


def write_report(study: Study | Path | str, out: Path | str) -> Path:
    """Write `out`/index.html, and the tables beside it as Markdown, LaTeX and CSV.

    study: or the folder of one, finished or not.
    Returns the page's path. Raises DataError for a folder without a study or an `out` that cannot
    be written, OptionError when a package of the extra `ablation` is not installed.
    """
    if not isinstance(study, Study):
        study = read_study(study)
    found = groups(study)
    page = render_page(study, found)  # first: what cannot be shown leaves nothing half-written
    write_tables(study, Path(out), found=found)
    path = Path(out) / "index.html"
    write_bytes(path, page.encode())
    return path


def render_page(study: Study, found: tuple[Group, ...] | None = None) -> str:
    """The page as HTML. Everything that a study's files say is escaped.

    found: the study's `groups`, to use the statistics that they have already; made unless given.
    """
    template = _environment().get_template("page.html")  # first: its lack is told at once
    found = groups(study) if found is None else found
    chapters = [
        group_chapter(group, number, slice_bytes=SLICE_BYTES // len(found))
        for number, group in enumerate(found, start=1)
    ]
    style = _read("style.css")
    script = "\n".join(map(_read, SCRIPTS))
    return template.render(
        title=study.title or study.name,
        asked=asked(study),
        warnings=warnings(study, found),
        facts=facts(study, found),
        chapters=[*chapters, runs_chapter(study)],
        style=style,
        script=script,
        policy=_policy(style, script),
        version=__version__,
    )


def _policy(style: str, script: str) -> str:
    """The browser is told to run and load nothing but what stands in the page itself."""
    return (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _environment() -> "Environment":
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise OptionError('the report needs jinja2: pip install "fewshot-seg[ablation]"') from error
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["code"] = _code
    return found


def _code(words: str) -> "Markup":
    """Words for the page; what stands in `these marks` is set as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(words))))
