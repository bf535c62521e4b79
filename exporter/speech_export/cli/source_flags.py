"""Flags of the `speech-export` command that name the model: a checkpoint, two halves, or two configurations."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from speech_runtime.cli.console import complain
from speech_runtime.cli.flags import INTEGER, IntegerRange, hub_flags

from ..sources.directories import check_adapter, check_configured, check_directory

if TYPE_CHECKING:
    from ..sources.composite import Composite

Command = TypeVar("Command", bound=Callable[..., Any])

_FLAGS = (
    click.argument("model", required=False),
    click.option("--encoder", help="Speech encoder to join with --decoder: directory or Hub id."),
    click.option("--decoder", help="Text decoder to join with --encoder: directory or Hub id."),
    click.option(
        "--encoder-config", help="Configuration in place of --encoder: file, directory, Hub id or JSON object."
    ),
    click.option("--decoder-config", help="Configuration in place of --decoder."),
    click.option("--random-weights", is_flag=True, help="Give the two configurations random weights."),
    click.option("--seed", type=INTEGER, default=0, show_default=True, help="Seed of weights that no checkpoint has."),
    click.option(
        "--processor",
        help="Directory or Hub id of feature extractor and tokenizer, if they are not beside the model.",
    ),
    click.option("--adapter", help="Adapter of peft, such as LoRA, to merge into the model: directory or Hub id."),
    click.option(
        "--target-lang",
        metavar="LANG",
        help="Language of an encoder that has an adapter for each, such as MMS. [default: as stored]",
    ),
    click.option(
        "--without",
        multiple=True,
        type=click.Choice(["feature-extractor", "tokenizer"]),
        help="Leave a part out of the bundle, which then takes model input, or returns token ids; repeatable.",
    ),
    click.option(
        "--decoder-start-token-id",
        type=IntegerRange(0),
        metavar="ID",
        help="Token id that every text begins with. [default: as stored, or the tokenizer's bos or cls token]",
    ),
    click.option(
        "--eos-token-id",
        type=IntegerRange(0),
        metavar="ID",
        help="Token id that ends a text. [default: as stored, or the tokenizer's eos or sep token]",
    ),
    click.option(
        "--pad-token-id",
        type=IntegerRange(0),
        metavar="ID",
        help="Token id that fills a batch. [default: as stored, or the tokenizer's]",
    ),
    hub_flags,
)


def source_flags(command: Command) -> Command:
    """Add MODEL and the flags of a source to a command, which gets them as `source`: a `Source`."""

    @functools.wraps(command)
    def wrapper(**options: Any) -> None:
        source = Source(**{field.name: options.pop(field.name) for field in fields(Source)})
        command(source=source, **options)

    wrapped: Any = wrapper
    for flag in reversed(_FLAGS):
        wrapped = flag(wrapped)
    result: Command = wrapped
    return result


@dataclass(frozen=True)
class Source:
    """The flags that name the model to load."""

    model: str | None
    encoder: str | None
    decoder: str | None
    encoder_config: str | None
    decoder_config: str | None
    random_weights: bool
    seed: int
    processor: str | None
    adapter: str | None
    target_lang: str | None
    without: tuple[str, ...]
    decoder_start_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    revision: str | None
    token: str | None
    cache_dir: str | None
    local_files_only: bool

    def check(self) -> None:
        """Check that the model is named in one way, and completely, and that directories have a configuration.

        Raises:
            click.UsageError: The flags do not name one model.
            ExportError: A directory is not a checkpoint's.
        """
        ways = ((self.model,), (self.encoder, self.decoder), (self.encoder_config, self.decoder_config))
        named = [way for way in ways if any(name is not None for name in way)]
        if len(named) != 1 or any(name is None for name in named[0]):
            raise click.UsageError(
                "give either MODEL, or both --encoder and --decoder, or both --encoder-config and --decoder-config"
            )
        if self.random_weights != (named[0] is ways[2]):
            raise click.UsageError(
                "configurations have no weights: --random-weights goes with --encoder-config and --decoder-config, "
                "and only with them"
            )
        for flag, value in (("--adapter", self.adapter), ("--target-lang", self.target_lang)):
            if value is not None and named[0] is ways[2]:
                raise click.UsageError(f"{flag} goes with MODEL or a pair: configurations have no weights to change")
        if self.processor is not None and named[0] is ways[2]:
            raise click.UsageError(
                "--processor goes with MODEL or a pair: a bundle of configurations has no feature extractor and no "
                "tokenizer"
            )
        if named[0] is not ways[2]:
            for name in filter(None, named[0]):
                check_configured(name)
        if self.processor is not None:
            check_directory(self.processor)
        if self.adapter is not None:
            check_adapter(self.adapter)

    def load(self) -> "Composite":
        """Load the model, and warn of random weights."""
        composite = self._load()
        _warn_of_random_weights(composite)
        return composite

    def _load(self) -> "Composite":
        from ..sources.checkpoint import load_checkpoint
        from ..sources.configs import load_configs
        from ..sources.hub import HubOptions
        from ..sources.pair import load_pair
        from ..sources.special_tokens import TokenIds

        hub = HubOptions(self.revision, self.token, self.cache_dir, self.local_files_only)
        token_ids: TokenIds = {
            "decoder_start_token_id": self.decoder_start_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
        }
        if self.encoder and self.decoder:
            halves = (self.encoder, self.decoder)
            return load_pair(
                *halves, self.seed, hub, self.without, self.processor, self.adapter, self.target_lang, **token_ids
            )
        if self.encoder_config and self.decoder_config:
            return load_configs(self.encoder_config, self.decoder_config, self.seed, hub, **token_ids)
        return load_checkpoint(
            str(self.model), self.processor, hub, self.without, self.adapter, self.target_lang, **token_ids
        )


def _warn_of_random_weights(composite: "Composite") -> None:
    if not composite.random_weights:
        return
    parameters: dict[str, Any] = dict(composite.model.named_parameters())
    count = sum(parameters[name].numel() for name in composite.random_weights if name in parameters)
    if count == sum(parameter.numel() for parameter in parameters.values()):
        complain(f"\nAll {count:,} parameters are random: this model measures time, its texts mean nothing.")
        return
    complain(
        f"\nWarning: {len(composite.random_weights)} tensors ({count:,} parameters) are in neither checkpoint, "
        f"{composite.random_weights[0]} for example: mostly the new cross-attention. They are random: this model must "
        "be fine-tuned before its texts mean anything."
    )
