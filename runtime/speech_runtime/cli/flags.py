"""Flags that several commands share, and their types: numbers in ASCII digits, token ids and JSON."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_type_hints

import click

from ..audio import AudioLimits
from ..audio.limits import flag_name
from ..bundle.safe_files import parse_json
from ..generation.config import GenerationConfig
from ..generation.setting_help import descriptions

Command = TypeVar("Command", bound=Callable[..., Any])

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
"""ASCII digits, at most 40, more than any setting has. Python's `int` also accepts 1_0 and digits of other scripts."""


class _Integer(click.types.IntParamType):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not _INTEGER.fullmatch(value.strip()):
            self.fail(f"{value[:80]!r} is not an integer; write it in the digits 0 to 9", param, ctx)
        return super().convert(value, param, ctx)


class IntegerRange(_Integer, click.IntRange):
    """Integers in a range."""


class _Float(click.types.FloatParamType):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and (not value.isascii() or "_" in value):
            self.fail(f"{value[:80]!r} is not a number; write it in the digits 0 to 9", param, ctx)
        return super().convert(value, param, ctx)


INTEGER = _Integer()
FLOAT = _Float()


def number_list(kind: _Integer | _Float) -> Callable[[str], tuple[Any, ...]]:
    """Return a type of flag that takes numbers separated by commas, such as "10,1,60"."""

    def numbers(value: str) -> tuple[Any, ...]:
        try:
            return tuple(kind.convert(part, None, None) for part in value.split(","))
        except click.BadParameter:
            reason = f"{value[:80]!r} is not a list of numbers; separate them by commas, as in 10,1,60"
            raise click.BadParameter(reason) from None

    return numbers


def token_ids(value: str) -> list[int]:
    """Parse token ids such as "5,6,7"."""
    parts = [part.strip() for part in value.split(",")]
    if not all(map(_INTEGER.fullmatch, parts)):
        raise click.BadParameter(f"{value[:80]!r} is not a list of token ids; write them as 5,6,7")
    return [int(part) for part in parts]


def json_value(value: str) -> Any:
    """Parse JSON, such as a nested list."""
    try:
        return parse_json(value)
    except ValueError as error:
        raise click.BadParameter(f"{value[:80]!r} is not JSON: {error}") from None


_EARLY_STOPPING = {"true": True, "false": False, "never": "never"}

_TYPES: dict[Any, Any] = {
    bool: bool,
    int: INTEGER,
    int | None: INTEGER,
    float: FLOAT,
    float | None: FLOAT,
    str | tuple[str, ...] | None: str,
    tuple[int, ...] | None: token_ids,
    int | tuple[int, ...] | None: token_ids,
    bool | Literal["never"]: click.Choice(list(_EARLY_STOPPING)),
}
"""Type of a flag, by the type of its field in `GenerationConfig`. Flags for other types take JSON."""

_METAVARS = {token_ids: "IDS", json_value: "JSON"}
_SETTINGS = [field.name for field in fields(GenerationConfig) if field.name != "bos_token_id"]
_ARGUMENTS = (*_SETTINGS, "decoder_input_ids", "source_language", "batch_size", "cache_dir")
_FLAGS = {
    **{name: f"--{name.replace('_', '-')}" for name in _ARGUMENTS},
    "num_return_sequences": "--n-best",
    "local_files_only": "--offline",
    "cuda.cuda_graphs": "--cuda-graphs",
    "cuda_graphs": "--cuda-graphs",
    "device='cuda'": "--device cuda",
}
"""Flags by Python argument. `bos_token_id` has none, because `--decoder-start-token-id` overrides it."""

_ARGUMENT = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, _FLAGS))})(?!\w)")


def setting_flags(command: Command) -> Command:
    """Add a flag for every setting of `generate()` to a command; flags that are not given are None."""
    for option in reversed(_setting_options()):
        command = option(command)
    return command


def _setting_options() -> list[Callable[[Command], Command]]:
    types, texts = get_type_hints(GenerationConfig), descriptions(GenerationConfig)
    types["decoder_start_token_id"] = int  # a command has one token for all files
    names = [name for name in _SETTINGS if name != "num_return_sequences"]  # --n-best has a default of its own
    prompt = click.option(
        "--decoder-input-ids", type=token_ids, metavar="IDS", help="Tokens that every text continues."
    )
    return [*(_setting_option(name, types[name], texts.get(name, "")) for name in names), prompt]


def _setting_option(name: str, kind: Any, description: str) -> Callable[[Command], Command]:
    flag, chosen = _FLAGS[name], _TYPES.get(kind, json_value)
    text = re.sub(r"`(\w+)`", lambda match: _FLAGS.get(match[1], match[1]), description).removeprefix("If true, ")
    repeatable = chosen is str
    return click.option(
        f"{flag}/--no-{flag[2:]}" if chosen is bool else flag,
        type=chosen,
        help=text[:1].upper() + text[1:] + (" Repeatable." if repeatable else ""),
        default=None,
        multiple=repeatable,
        metavar=_METAVARS.get(chosen),
    )


def given_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that were given on the command line, as keywords of `generate()`."""
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    if "early_stopping" in given:
        given["early_stopping"] = _EARLY_STOPPING[given["early_stopping"]]
    return given


def with_flags(message: str, own: Mapping[str, str] | None = None) -> str:
    """Return an error message of the library with the names of arguments replaced by their flags.

    A command's `own` flags, by argument, come before those of all commands. No flag takes None, which is left out.
    Messages about generation_config.json stay as they are, since they name its keys.
    """
    if "generation_config.json" in message:
        return message
    flags = {**_FLAGS, **(own or {})}
    return _ARGUMENT.sub(lambda match: flags[match[0]], message.replace(", or None", ""))


_AUDIO_DEFAULTS = AudioLimits()
_AUDIO_HELP = {
    "max_seconds": "Largest length of a file, in seconds.",
    "max_samples": "Largest number of samples in a file, over all channels.",
    "max_channels": "Largest number of channels in a file.",
    "min_rate": "Lowest sampling rate of a file, in Hz.",
    "max_rate": "Highest sampling rate of a file, in Hz.",
    "max_bytes": "Largest number of bytes to read from stdin or a pipe.",
    "max_wait": "Longest wait for the next bytes of a pipe, in seconds.",
}


def audio_limit_flags(command: Command) -> Command:
    """Add a flag for every limit of `AudioLimits` to a command."""
    for limit, text in reversed(_AUDIO_HELP.items()):
        default = getattr(_AUDIO_DEFAULTS, limit)
        kind = INTEGER if isinstance(default, int) else FLOAT
        command = click.option(f"--{flag_name(limit)}", type=kind, default=default, show_default=True, help=text)(
            command
        )
    return command


def take_audio_limits(options: dict[str, Any]) -> AudioLimits:
    """Remove the limits from a command's options and return them.

    Raises:
        AudioError: A limit is not positive.
    """
    return AudioLimits(**{limit: options.pop(flag_name(limit).replace("-", "_")) for limit in _AUDIO_HELP})


_HUB_FLAGS = (
    click.option("--revision", help="Branch, tag or commit on the Hub."),
    click.option("--token", help="Access token for private repositories. [default: that of `hf auth login`]"),
    click.option("--cache-dir", type=click.Path(), help="Directory for downloads. [default: the Hub's cache]"),
    click.option("--offline", "local_files_only", is_flag=True, help="Use only files that are in the cache."),
)


def hub_flags(command: Command) -> Command:
    """Add the keywords of `bundle_directory` to a command as flags."""
    for flag in reversed(_HUB_FLAGS):
        command = flag(command)
    return command


cuda_graphs_flag = click.option(
    "--cuda-graphs",
    type=INTEGER,
    metavar="SIZES",
    help=(
        "Number of sizes of batch, beams and audio whose steps a GPU records as CUDA graphs; 0 for none. [default: 64 "
        "with --device cuda where the bundle allows it, else 0]"
    ),
)
