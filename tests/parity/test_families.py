"""Test every family of encoders and decoders against transformers: the numbers of docs/support.md hold."""

import re

import pytest
from click.testing import CliRunner

import half_table
import markdown_table
from half_table import FP16_ENGINES, FP32_ENGINES
from matrix import (
    DECODER_ROWS,
    ENCODER_ROWS,
    NATIVE_ROWS,
    Pairing,
    measure,
    model_type,
    traced_engine_bytes,
)
from speech_export import ExportError
from speech_export.cli.export import main
from speech_export.families import refusals
from speech_export.families.listing import supported_families
from speech_export.sources.configs import load_configs
from support_table import TABLE

pytestmark = pytest.mark.usefixtures("short_verification", "traced_once")

BY_DEFAULT = {
    "sew-d",  # disentangled attention
    "wav2vec2-bert, adapter",  # frames of features, and fewer frames after the adapter
    "audio-spectrogram-transformer",  # clips of one length
    "prophetnet",  # attention of its own, with two streams
    "roformer",  # rotary positions
}
"""One row for each mechanism that no other test compares with torch.

The encoders of `test_encoder_lengths`, the decoders of `CORE_DECODERS` and those of the static caches have tests of
their own; the other rows differ little from one of these. `make test-all` runs every row.
"""

ROWS = [
    pytest.param(row, id=row.name, marks=[] if row.name in BY_DEFAULT else [pytest.mark.full])
    for row in [*ENCODER_ROWS, *DECODER_ROWS]
]


@pytest.mark.parametrize("row", ROWS)
def test_a_family_gives_the_tokens_of_transformers(row: Pairing) -> None:
    found = measure(row)
    assert found.logprob_difference <= 1e-4
    assert (found.greedy, found.beams) == (1, 1)
    assert found.padding <= found.torch_padding + 1e-4


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.name, marks=[] if row.name == "roformer" else [pytest.mark.full])
        for row in [*ENCODER_ROWS, *DECODER_ROWS]
    ],
)
def test_the_engines_of_a_family_are_built(row: Pairing) -> None:
    assert traced_engine_bytes(row) > 0


def test_the_default_rows_are_in_the_table() -> None:
    assert {row.name for row in (*ENCODER_ROWS, *DECODER_ROWS)} >= BY_DEFAULT


def test_every_row_of_the_table_has_engines_of_both_precisions() -> None:
    table, half = markdown_table.read(TABLE.read_text(encoding="utf-8")), half_table.read()
    for row in (*ENCODER_ROWS, *DECODER_ROWS):
        engines = [table[row.name][column] for column in (FP32_ENGINES, FP16_ENGINES)]
        assert all(re.fullmatch(r"\d+\.\d MiB", size) for size in engines), f"{row.name}: run `make half`"
        assert engines == [half[row.name][column] for column in (FP32_ENGINES, FP16_ENGINES)]


def test_every_family_that_transformers_registers_is_in_the_table() -> None:
    table = TABLE.read_text(encoding="utf-8")
    rows = {model_type(name) for name in re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)}
    named = re.findall(r"[\w-]+", table.rpartition("They are refused:")[2])
    families = supported_families()
    supported = {model_type(row.name) for row in (*ENCODER_ROWS, *DECODER_ROWS)}
    assert {row.encoder for row in NATIVE_ROWS} == {*families.natives}, "add it to tests/helpers/native_models.py"
    assert {*families.encoders, *families.decoders} == supported, "add what is missing to tests/helpers/composites.py"
    assert rows >= {*supported, *families.refused}, "run `make matrix`"
    assert rows_of_whole_models(table) == {row.name for row in NATIVE_ROWS}, "run `make matrix`"
    assert named == list(families.other_audio), "run `make matrix`"


def rows_of_whole_models(table: str) -> set[str]:
    return {name for name in re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE) if name.endswith(", whole")}


def test_the_command_lists_the_families_of_the_table() -> None:
    listed = CliRunner().invoke(main, ["--list-families"])
    assert listed.exit_code == 0, listed.output
    families = supported_families()
    for names in (families.encoders, families.decoders, families.natives, families.other_audio):
        assert ", ".join(names) in " ".join(listed.stdout.split())
    for name, reason in families.refused.items():
        assert f"  {name}: {reason}\n" in listed.stdout


@pytest.mark.parametrize("family", sorted(refusals()))
def test_what_cannot_work_is_refused_by_name_with_why(family: str) -> None:
    with pytest.raises(ExportError, match=re.escape(f"{family} cannot be exported: {refusals()[family]}")):
        load_configs('{"model_type": "wav2vec2"}', f'{{"model_type": "{family}"}}')
