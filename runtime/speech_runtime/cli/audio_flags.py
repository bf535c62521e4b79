"""A flag of the command line for every budget of `AudioLimits`."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..audio import AudioLimits
from ..audio.limits import flag_name

Command = TypeVar("Command", bound=Callable[..., Any])

_DEFAULTS = AudioLimits()
_HELP = {
    "max_seconds": "Longest file to accept, in seconds.",
    "max_samples": "Most samples to accept in one file, all channels together.",
    "max_channels": "Most channels to accept in one file.",
    "min_rate": "Lowest sampling rate to accept, in Hz.",
    "max_rate": "Highest sampling rate to accept, in Hz.",
    "max_bytes": "Most bytes to read from stdin or a pipe.",
    "max_wait": "Longest wait for the next bytes of a pipe, in seconds.",
}


def audio_limit_flags(command: Command) -> Command:
    """Decorate a command with all of them."""
    for limit, text in reversed(_HELP.items()):
        default = getattr(_DEFAULTS, limit)
        option = click.option(
            f"--{flag_name(limit)}", type=type(default), default=default, show_default=True, help=text
        )
        command = option(command)
    return command


def take_audio_limits(options: dict[str, Any]) -> AudioLimits:
    """Take the budgets out of a command's options.

    Raises:
        AudioError: they are not positive.
    """
    return AudioLimits(**{limit: options.pop(flag_name(limit).replace("-", "_")) for limit in _HELP})
