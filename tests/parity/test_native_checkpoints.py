"""Test saved checkpoints of speech models: from the checkpoint to the text of a file, against transformers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from transformers import AutoModel, AutoModelForSpeechSeq2Seq, AutoProcessor

from adapters import save_adapter
from conftest import CLIPS, ONE_THREAD, Saved
from native_checkpoints import save_native
from speech_export import export
from speech_runtime import GenerationError, OnnxSpeechSeq2Seq
from speech_runtime.cli.transcribe import main as transcribe_command

RATE = 16_000
SAMPLES = 14_001
"""Less than a second, which is the window of the tiny Whisper."""


@dataclass(frozen=True)
class Row:
    """A checkpoint, and a call of its model.

    Attributes:
        family: Model type.
        request: Name of the method of transformers' processor that makes the model's input.
        to_processor: Keywords of that method.
        to_generate: Keywords of transformers' `generate`.
        call: Keywords of `transcribe_iter` that ask for the same.
        whole: True for a SeamlessM4T with its parts for text and speech.
        by_default: False where another row speaks for it.
    """

    family: str
    request: str = "__call__"
    to_processor: dict[str, Any] = field(default_factory=dict)
    to_generate: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    whole: bool = False
    by_default: bool = True


IN_GERMAN: dict[str, Any] = {"to_generate": {"tgt_lang": "deu"}, "call": {"language": "deu"}}
WHOLE: dict[str, Any] = {"to_generate": {"tgt_lang": "deu", "generate_speech": False}, "call": {"language": "deu"}}
FROM_GERMAN: dict[str, Any] = {
    "request": "apply_transcription_request",
    "to_processor": {"source_language": "de", "target_language": "fr"},
    "call": {"source_language": "de", "language": "fr"},
}
ROWS = [
    Row("whisper", to_generate={"language": "de"}, call={"language": "de"}, by_default=False),
    Row("speech_to_text"),
    Row("speecht5", by_default=False),
    Row("moonshine"),
    Row("moonshine_streaming", by_default=False),
    Row("canary", **FROM_GERMAN),
    Row("cohere_asr", to_processor={"language": "de"}, call={"language": "de"}, by_default=False),
    Row("seamless_m4t", **IN_GERMAN, by_default=False),
    Row("seamless_m4t_v2", **IN_GERMAN, by_default=False),
    Row("seamless_m4t", **WHOLE, whole=True, by_default=False),
    Row("seamless_m4t_v2", **WHOLE, whole=True),
]


@pytest.fixture
def samples() -> NDArray[np.float32]:
    found: NDArray[np.float32]
    found, rate = soundfile.read(CLIPS / "02-espeak-us.wav", dtype="float32", frames=SAMPLES)
    assert rate == RATE
    return found


@pytest.fixture
def clip(samples: NDArray[np.float32], tmp_path: Path) -> Path:
    """A file with the samples."""
    path = tmp_path / "clip.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row,
            id=f"{row.family}, whole" if row.whole else row.family,
            marks=[] if row.by_default else [pytest.mark.full],
        )
        for row in ROWS
    ],
)
def test_a_saved_checkpoint_says_what_transformers_says(
    row: Row, native_checkpoint: Callable[..., Saved], samples: NDArray[np.float32], clip: Path
) -> None:
    saved = native_checkpoint(row.family, whole=row.whole)
    processor = AutoProcessor.from_pretrained(saved.checkpoint)
    model = (AutoModel if row.whole else AutoModelForSpeechSeq2Seq).from_pretrained(saved.checkpoint).eval()
    own = {"sampling_rate": RATE, "return_tensors": "pt"} if row.request == "__call__" else {}
    inputs = getattr(processor, row.request)(audio=samples, **own, **row.to_processor)
    exported = OnnxSpeechSeq2Seq.from_pretrained(saved.bundle, options=ONE_THREAD)
    for beams in (1, 5):
        search = {"num_beams": beams, "no_repeat_ngram_size": 1, "min_new_tokens": 8, "max_new_tokens": 20}
        with torch.no_grad():
            expected = model.generate(**inputs, **search, **row.to_generate)
        sequences = getattr(expected, "sequences", expected)
        (found,) = exported.transcribe_iter([clip], **search, **row.call)
        tokens = sequences[0].tolist()
        assert found.tokens[-len(tokens) :] == tokens  # Whisper returns none of its prompt in transformers
        assert found.text == processor.batch_decode(sequences, skip_special_tokens=True)[0] != ""


def test_canary_translates_in_every_call(
    native_checkpoint: Callable[..., Saved], samples: NDArray[np.float32], clip: Path
) -> None:
    saved = native_checkpoint("canary")
    exported = OnnxSpeechSeq2Seq.from_pretrained(saved.bundle, options=ONE_THREAD)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(saved.checkpoint).eval()
    processor = AutoProcessor.from_pretrained(saved.checkpoint)
    inputs = processor.apply_transcription_request(samples, source_language="de", target_language="fr")
    prompt = inputs.pop("decoder_input_ids")
    call: dict[str, Any] = {"source_language": "de", "language": "fr"}

    features = exported.processor([samples], sampling_rate=RATE)
    found = exported.generate(**features, **call, max_new_tokens=5)
    np.testing.assert_array_equal(found[:, : prompt.shape[1]], prompt)
    with pytest.raises(GenerationError, match="decoder_input_ids and source_language are both given"):
        exported.generate(**features, decoder_input_ids=prompt.numpy(), source_language="de")

    text = processor.tokenizer("w20 w21", add_special_tokens=False).input_ids
    tokens = torch.cat([prompt, torch.tensor([[*text, model.generation_config.eos_token_id]])], dim=1)
    with torch.no_grad():
        logprobs = model(**inputs, decoder_input_ids=tokens).logits.log_softmax(-1)[0, :-1]
    expected = logprobs.gather(-1, tokens[0, 1:, None])[prompt.shape[1] - 1 :].sum()
    assert exported.score(samples, ["w20 w21"], **call)[0] == pytest.approx(float(expected), abs=1e-3)

    each: dict[str, Any] = {"source_language": ["de", "en"], "language": ["fr", "de"], "max_new_tokens": 5}
    texts = exported.transcribe([clip, clip], **each)
    assert texts == [
        exported.transcribe(clip, source_language=source, language=language, max_new_tokens=5)
        for source, language in (("de", "fr"), ("en", "de"))
    ]
    flags = ["--source-language", "de", "--language", "fr", "--max-new-tokens", "5"]
    said = CliRunner().invoke(transcribe_command, [str(saved.bundle), str(clip), *flags])
    assert said.stdout == f"{texts[0]}\n", said.output


@pytest.mark.parametrize("family", ["whisper", "speech_to_text", pytest.param("moonshine", marks=pytest.mark.full)])
@pytest.mark.usefixtures("short_verification", "traced_once")
def test_an_adapter_computes_what_peft_computes(
    family: str, samples: NDArray[np.float32], clip: Path, tmp_path: Path
) -> None:
    checkpoint, adapter = tmp_path / "checkpoint", tmp_path / "adapter"
    checkpoint.mkdir()
    save_native(family, checkpoint)
    base, processor = AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    inputs = processor(audio=samples, sampling_rate=RATE, return_tensors="pt")
    tokens = torch.tensor([[base.generation_config.decoder_start_token_id, 5, 7, 9]])
    with torch.no_grad():
        unadapted = base(**inputs, decoder_input_ids=tokens).logits
        adapted = save_adapter(base, adapter, base=checkpoint).get_base_model()
        expected = adapted(**inputs, decoder_input_ids=tokens).logits
        sequences = adapted.generate(**inputs, max_new_tokens=10)
    assert (unadapted - expected).abs().max() > 0.01
    exported = OnnxSpeechSeq2Seq.from_pretrained(export(adapter, tmp_path / "bundle").directory, options=ONE_THREAD)
    arrays = {name: values.numpy() for name, values in inputs.items()}
    found = exported.forward(**arrays, decoder_input_ids=tokens.numpy()).logits
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    (said,) = exported.transcribe_iter([clip], max_new_tokens=10)
    assert said.tokens[-sequences.shape[1] :] == sequences[0].tolist()
