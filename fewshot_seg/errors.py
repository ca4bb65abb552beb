"""The errors a user can meet. Each message says what was given and what would have been right."""

import difflib
from collections.abc import Iterable


class FewshotSegError(Exception):
    """Base of errors whose message is meant for the user; the command line prints it plainly."""


class UnknownNameError(FewshotSegError, LookupError):
    """A name that nobody has registered."""


class PluginError(FewshotSegError, RuntimeError):
    """A plugin that does not load, does not fit its role, or claims a name twice."""


class RecipeError(FewshotSegError, ValueError):
    """Parts that cannot work together, or a recipe that cannot be read."""


class OptionError(FewshotSegError, TypeError):
    """An option that a part does not have, or a value it does not take."""


class DataError(FewshotSegError, ValueError):
    """A file or folder that cannot be used; the message names the file and the remedy."""


class EpisodeError(FewshotSegError, ValueError):
    """An episode that lacks something the method needs; the message says who provides it."""


class CheckpointError(FewshotSegError, ValueError):
    """A checkpoint that is damaged or belongs to something else."""


class TrainingError(FewshotSegError, RuntimeError):
    """Training cannot go on, for example because a loss is not a number."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` did you mean 'x'?` when one of `known` is close to `name`, else an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def check_choice(option: str, value: object, allowed: Iterable[object]) -> None:
    """Raise OptionError unless `value` is one of `allowed`."""
    choices = list(allowed)
    if value not in choices or isinstance(value, bool):
        words = [str(item) for item in choices]
        raise OptionError(
            f"{option}={value!r} is not one of {', '.join(words)}{did_you_mean(str(value), words)}"
        )
