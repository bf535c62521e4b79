"""Flags of the command line for bundles on the Hub."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_FLAGS = (
    click.option("--revision", help="Branch, tag or commit on the Hub."),
    click.option("--token", help="For private repositories. [default: that of `hf auth login`]"),
    click.option("--cache-dir", type=click.Path(), help="Where downloads are kept."),
    click.option("--offline", "local_files_only", is_flag=True, help="Take only what is in the cache."),
)


def hub_flags(command: Command) -> Command:
    """Decorate a command with the keywords of `bundle_directory`."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command
