"""A flag of the command line for every setting of `generate()`."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..bundle.safe_files import parse_json
from .numbers import NUMBER, WHOLE_NUMBER, is_plain_integer

Command = TypeVar("Command", bound=Callable[..., Any])


def ids(value: str) -> list[int]:
    """Token ids, as "5,6,7"."""
    parts = [part.strip() for part in value.split(",")]
    if not all(map(is_plain_integer, parts)):
        raise click.BadParameter(f"{value[:80]!r} is no list of token ids; write them as 5,6,7")
    return [int(part) for part in parts]


def nested(value: str) -> Any:
    """A nested list, as JSON."""
    try:
        return parse_json(value)
    except ValueError as error:
        raise click.BadParameter(f"{value[:80]!r} is no JSON: {error}") from None


_EARLY_STOPPING = {"true": True, "false": False, "never": "never"}

_FLAGS: tuple[tuple[str, Any, str], ...] = (
    ("max-new-tokens", WHOLE_NUMBER, "New tokens at most."),
    ("max-length", WHOLE_NUMBER, "Tokens at most, those given included."),
    ("min-new-tokens", WHOLE_NUMBER, "New tokens at least."),
    ("min-length", WHOLE_NUMBER, "Tokens at least, those given included."),
    ("max-time", NUMBER, "Seconds after which a batch is ended with what it has."),
    ("stop-strings", str, "Text ends where it says this; repeatable."),
    ("num-beams", WHOLE_NUMBER, "Hypotheses kept alive; 1 is greedy search."),
    ("length-penalty", NUMBER, "Above 0 favours long text, below 0 short text (beam search)."),
    (
        "early-stopping",
        click.Choice(list(_EARLY_STOPPING)),
        "True: at num-beams finished hypotheses.",
    ),
    ("do-sample", bool, "Draw tokens by their probabilities."),
    ("temperature", NUMBER, "Below 1 favours likely tokens (sampling, like all up to top-h)."),
    ("top-k", WHOLE_NUMBER, "Draw from so many of the likeliest tokens; 0: from all."),
    ("top-p", NUMBER, "Draw from the likeliest tokens with this probability together."),
    ("min-p", NUMBER, "Draw from tokens with this share of the likeliest one's probability."),
    ("typical-p", NUMBER, "Draw from tokens of the expected information, with this probability together."),
    ("epsilon-cutoff", NUMBER, "Draw from tokens of this probability at least."),
    ("eta-cutoff", NUMBER, "The same, lower where the distribution is flat."),
    ("top-h", NUMBER, "Draw from the likeliest tokens with this share of the entropy together."),
    ("repetition-penalty", NUMBER, "Above 1 makes tokens rarer that came before."),
    ("no-repeat-ngram-size", WHOLE_NUMBER, "So many tokens in a row come once only."),
    ("exponential-decay-length-penalty", nested, "[START, FACTOR]: after START new tokens the end gets likelier."),
    ("suppress-tokens", ids, "Never written."),
    ("begin-suppress-tokens", ids, "Not written first."),
    ("bad-words-ids", nested, "Sequences of tokens never written: [[5, 6], [7]]."),
    ("sequence-bias", nested, "Added to the scores of sequences: [[[5, 6], -2.0]]."),
    ("forced-bos-token-id", WHOLE_NUMBER, "The first new token."),
    ("forced-eos-token-id", ids, "The last token of text that reaches its maximal length."),
    ("decoder-start-token-id", WHOLE_NUMBER, "The token that every text starts from."),
    ("decoder-input-ids", ids, "Tokens that every text goes on from."),
    ("eos-token-id", ids, "Tokens that end a text."),
    ("pad-token-id", WHOLE_NUMBER, "What follows the end in a batch."),
    ("renormalize-logits", bool, "Make probabilities of what the other settings left."),
    ("remove-invalid-values", bool, "Take NaN for 0, infinities for the largest numbers."),
)


def setting_flags(command: Command) -> Command:
    """Decorate a command with all of them; what is not given is None."""
    for name, kind, text in reversed(_FLAGS):
        several = name == "stop-strings"
        declared = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
        command = click.option(declared, type=kind, help=text, default=None, multiple=several)(command)
    return command


def given(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given, as keywords."""
    chosen = {name: value for name, value in settings.items() if value is not None and value != ()}
    if "early_stopping" in chosen:
        chosen["early_stopping"] = _EARLY_STOPPING[chosen["early_stopping"]]
    return chosen
