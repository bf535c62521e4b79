"""Word error rates of a checkpoint, and of the ONNX bundle exported from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import PreTrainedTokenizerFast, SpeechEncoderDecoderModel, Wav2Vec2FeatureExtractor
from transformers.utils.logging import disable_progress_bar

from corpus import Samples, test_strings
from scoring import transcribe, word_error_rate
from speech_runtime import OnnxSpeechSeq2Seq
from synthetic import held_out_strings

_FOLDER = Path(__file__).resolve().parent
_BATCH_SIZE = 12
_BEAMS = {"greedy": 1, "4 beams": 4}

Strings = list[tuple[Samples, str]]
"""Float32 16 kHz utterances with their texts."""
Transcriber = Callable[[Sequence[Samples], int], list[str]]
"""From float32 16 kHz utterances and a number of beams to their texts."""


def torch_transcriber(checkpoint: Path) -> Transcriber:
    """The checkpoint as PyTorch runs it."""
    model = SpeechEncoderDecoderModel.from_pretrained(checkpoint)
    feature_extractor = Wav2Vec2FeatureExtractor.from_pretrained(checkpoint)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    return lambda audio, num_beams: transcribe(model, feature_extractor, tokenizer, audio, num_beams)


def onnx_transcriber(bundle: Path) -> Transcriber:
    """The bundle as the runtime package runs it."""
    model = OnnxSpeechSeq2Seq.from_pretrained(bundle)

    def transcribe_in_batches(audio: Sequence[Samples], num_beams: int) -> list[str]:
        texts: list[str] = []
        for first in range(0, len(audio), _BATCH_SIZE):
            texts += model.transcribe(list(audio[first : first + _BATCH_SIZE]), num_beams=num_beams)
        return texts

    return transcribe_in_batches


def evaluation_sets(archive: Path, strings: int, synthetic: int, seed: int) -> dict[str, Strings]:
    """Return the recordings to transcribe, by their name in the table."""
    familiar, other = held_out_strings(synthetic, seed), held_out_strings(synthetic, seed, "unseen")
    return {
        "FSDD test recordings": test_strings(archive, strings, seed),
        "synthetic, voices of training": [(string.samples, string.text) for string in familiar],
        "synthetic, other voices": [(string.samples, string.text) for string in other],
    }


@click.command()
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=_FOLDER / "checkpoint",
    help="Folder of the checkpoint.",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of an ONNX bundle to evaluate as well.",
)
@click.option(
    "--archive",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=_FOLDER / "../../../shared/data/fsdd.tar.gz",
    help="Archive of the Free Spoken Digit Dataset.",
)
@click.option("--strings", default=480, show_default=True, help="Strings of test recordings.")
@click.option("--synthetic", default=240, show_default=True, help="Synthetic strings of each kind.")
@click.option("--seed", default=2024, show_default=True, help="Seed of the strings.")
@click.option("--show-errors", is_flag=True, help="List what was misheard.")
def main(
    checkpoint: Path,
    bundle: Path | None,
    archive: Path,
    strings: int,
    synthetic: int,
    seed: int,
    show_errors: bool,
) -> None:
    """Print a table of word error rates, greedy and with 4 beams."""
    disable_progress_bar()
    console = Console()
    transcribers = {"PyTorch": torch_transcriber(checkpoint)}
    if bundle is not None:
        transcribers["ONNX"] = onnx_transcriber(bundle)
    runs = [(runner, search) for search in _BEAMS for runner in transcribers]
    table = Table("strings", "count", "words", *(f"{runner}, {search}" for runner, search in runs))
    for name, spoken in evaluation_sets(archive, strings, synthetic, seed).items():
        audio, references = [samples for samples, _ in spoken], [text for _, text in spoken]
        words = sum(len(text.split()) for text in references)
        rates: list[str] = []
        for runner, search in track(runs, description=name, console=console, transient=True):
            transcripts = transcribers[runner](audio, _BEAMS[search])
            rates.append(f"{word_error_rate(references, transcripts):.2%}")
            for reference, transcript in zip(references, transcripts, strict=True):
                if show_errors and transcript != reference:
                    console.print(f"{name}, {runner}, {search}: {reference} -> {transcript}")
        table.add_row(name, str(len(spoken)), str(words), *rates)
    console.print(table)


if __name__ == "__main__":
    main()
