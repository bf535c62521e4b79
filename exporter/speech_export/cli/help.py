"""Help of the `speech-export` command: options under headings, examples, and the list of families."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import click

from .console import export_libraries

HEADINGS = {
    "Source of the model": (
        *("encoder", "decoder", "encoder_config", "decoder_config", "random_weights", "seed", "processor"),
        *("adapter", "target_lang", "without", "decoder_start_token_id", "eos_token_id", "pad_token_id"),
    ),
    "Hub": ("revision", "token", "cache_dir", "local_files_only"),
    "Output": ("output", "overwrite"),
    "Precision": (
        *("precision", "encoder_precision", "decoder_precision", "op_kinds", "keep_float32", "block_size"),
        "accuracy_level",
    ),
    "Target and graphs": ("target", "static_cache", "growing_cache", "top_k", "max_length"),
    "Vocabulary": ("vocabulary", "vocabulary_check"),
    "TensorRT engines": ("engines", "trt_"),
    "Verification": ("audio", "calibration_audio", "tolerance", "min_agreement"),
}
"""Heading → names of parameters. A name that ends in `_` stands for all that begin with it."""

EXAMPLES = """\b
Examples:
  A fine-tuned checkpoint, for the CPU:
    speech-export checkpoint -o bundle
  The same in int8, with the accuracy measured on your own speech:
    speech-export checkpoint -o bundle --precision int8 --calibration-audio speech/
  For an NVIDIA GPU, in half precision:
    speech-export checkpoint -o bundle --precision fp16 --target cuda
  With TensorRT engines, in one step or for a bundle that was exported with --target tensorrt:
    speech-export checkpoint -o bundle --engines
    speech-export bundle --engines
  The same with an adapter of peft, such as LoRA, merged into it:
    speech-export checkpoint --adapter adapter -o bundle
  Two halves that are to be fine-tuned later:
    speech-export --encoder facebook/wav2vec2-base --decoder google-bert/bert-base-uncased -o bundle
  A study of latency, without any weights:
    speech-export --encoder-config encoder.json --decoder-config decoder.json --random-weights -o bundle
"""


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings, in the order given; it takes one argument, MODEL."""

    def __init__(self, *arguments: Any, headings: Mapping[str, Sequence[str]], **keywords: Any) -> None:
        """Make a command.

        Args:
            arguments: Arguments of `click.Command`.
            headings: Headings and names, see `HEADINGS`.
            keywords: Keywords of `click.Command`.
        """
        super().__init__(*arguments, **keywords)
        self.headings = headings

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; a second argument is answered with the option that was meant."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if not error.message.startswith("Got unexpected extra argument"):
                raise
            raise click.UsageError(
                f"{error.message}; the directory of the bundle follows -o: speech-export MODEL -o BUNDLE", ctx
            ) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings; those that no heading names come last."""
        records = {
            str(option.name): record
            for option in self.get_params(ctx)
            if isinstance(option, click.Option) and (record := option.get_help_record(ctx)) is not None
        }
        for heading, names in self.headings.items():
            keys = [
                key for name in names for key in records if key == name or (name[-1] == "_" and key.startswith(name))
            ]
            with formatter.section(heading):
                formatter.write_dl([records.pop(key) for key in keys])
        with formatter.section("Other"):
            formatter.write_dl(list(records.values()))


def _list_families(context: click.Context, _: click.Parameter, given: bool) -> None:
    """Print the families that can be exported, and end the command."""
    if not given or context.resilient_parsing:
        return
    with export_libraries():
        from ..families.listing import supported_families
    families = supported_families()
    for title, names in (
        ("Encoders", families.encoders),
        ("Decoders", families.decoders),
        ("Speech models with a decoder of their own", families.natives),
        ("Audio models that cannot be an encoder: they do not downsample an attention mask", families.other_audio),
    ):
        listed = fill(", ".join(names), 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        click.echo(f"{title}:\n{listed}\n")
    click.echo("Decoders and speech models that are refused:")
    for name, reason in families.refused.items():
        click.echo(f"  {name}: {reason}")
    context.exit()


list_families_flag = click.option(
    "--list-families",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_families,
    help="List the model families that can be exported, and those that are refused.",
)
