"""`python -m speech_runtime BUNDLE`: describe a bundle."""

import json
from typing import Any

import click

from .bundle.hub import bundle_directory
from .bundle.loading import Bundle, load_whole
from .cli.describe import describe, summarize
from .cli.entry import oserrors_named
from .cli.flags import hub_flags
from .errors import SpeechError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all details.")
@hub_flags
@click.version_option(package_name="speech-export")
def main(bundle: str, as_json: bool, **hub: Any) -> None:
    """Describe BUNDLE, a directory or a Hub id: source, encoder, decoder, languages, settings, files and verification.

    All files are checked first. The exit code is 1 if the bundle is damaged.
    """
    try:
        text = load_whole(bundle_directory(bundle, **hub), _json if as_json else describe)
    except SpeechError as error:
        raise click.ClickException(str(error)) from error
    click.echo(text)


def _json(bundle: Bundle) -> str:
    return json.dumps(summarize(bundle), indent=2, ensure_ascii=False)


if __name__ == "__main__":
    with oserrors_named():
        main(prog_name="python -m speech_runtime")
