"""Help of the command, with its options under headings."""

from collections.abc import Mapping, Sequence
from typing import Any

import click


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings, in the order given."""

    def __init__(self, *arguments: Any, headings: Mapping[str, Sequence[str]], **keywords: Any) -> None:
        """Make a command.

        Args:
            arguments: Arguments of `click.Command`.
            headings: Heading → names of parameters. A name that ends in `_` stands for all that begin with it.
            keywords: Keywords of `click.Command`.
        """
        super().__init__(*arguments, **keywords)
        self.headings = headings

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
