"""The command line, `fewshot-seg`: every command is one call into the library.

What is heavy (torch above all) is imported within the commands, so that help and `list` are quick.
"""

from fewshot_seg.cli.app import app, main

__all__ = ["app", "main"]
