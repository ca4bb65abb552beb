"""Saying which extra to install, before a missing package ends in a traceback."""

import importlib.util

from fewshot_seg.errors import OptionError


def need(what: str, *packages: str) -> None:
    """Raise OptionError when one of `packages`, all of the extra `ablation`, is not installed.

    what: what needs them, in the plural, as in "the statistics of a study".
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise OptionError(
                f"{what} need {package}, which is not installed: "
                'pip install "fewshot-seg[ablation]"'
            )
