"""Test speech models that have a decoder of their own against their own `generate` in transformers."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    SeamlessM4TConfig,
    SeamlessM4TModel,
    SpeechT5ForTextToSpeech,
    Wav2Vec2FeatureExtractor,
    WhisperForConditionalGeneration,
)

from native_models import (
    END,
    GERMAN,
    INPUT_SHAPES,
    NATIVE,
    NO_TIMESTAMPS,
    START,
    TRANSCRIBE,
    TRANSLATE,
    native,
    save_whisper,
    whisper_tokenizer,
)
from speech_export import ExportError, export
from speech_export.limits import Limits
from speech_export.precision.options import PrecisionOptions
from speech_export.sources.checkpoint import load_checkpoint
from speech_runtime import AudioError, GenerationError, OnnxSpeechSeq2Seq
from speech_runtime.bundle.loading import Bundle

pytestmark = pytest.mark.usefixtures("short_verification", "traced_once")

SEARCHES: list[dict[str, Any]] = [{"num_beams": 1}, {"num_beams": 5}, {"num_beams": 5, "length_penalty": -1.0}]
BY_DEFAULT = {"canary", "moonshine", "seamless_m4t_v2", "speecht5"}
"""The other families differ little from one of these; `make test-all` compares all."""
CALLS: list[dict[str, Any]] = [
    {},
    {"language": "de"},
    {"language": "french", "task": "translate"},
    {"task": "translate"},
    {"language": ["en", "de", "fr"]},
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whisper")


@pytest.fixture(scope="module")
def whisper(checkpoint: Path) -> WhisperForConditionalGeneration:
    return save_whisper(checkpoint)


@pytest.fixture(scope="module")
def exported(
    whisper: WhisperForConditionalGeneration, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> OnnxSpeechSeq2Seq:
    bundle = export(checkpoint, tmp_path_factory.mktemp("bundle") / "whisper")
    return OnnxSpeechSeq2Seq.from_pretrained(bundle.directory)


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(native("moonshine_streaming"), tmp_path_factory.mktemp("streaming") / "bundle").directory


@pytest.fixture(scope="module")
def clips() -> list[NDArray[np.float32]]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal(length).astype(np.float32) * 0.1 for length in (16000, 9001, 4000)]


def without_prompt(row: list[int], prompt: int = 0) -> list[int]:
    """A row without its prompt, and without end tokens and padding, which are the same token."""
    row = row[prompt:]
    return row[: row.index(END)] if END in row else row


@pytest.mark.parametrize("search", SEARCHES, ids=str)
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_whisper_writes_what_transformers_writes(
    call: dict[str, Any],
    search: dict[str, Any],
    whisper: WhisperForConditionalGeneration,
    exported: OnnxSpeechSeq2Seq,
    clips: list[NDArray[np.float32]],
) -> None:
    inputs = exported.processor(clips, sampling_rate=16000)
    features = torch.from_numpy(inputs["input_features"]).transpose(1, 2)
    with torch.no_grad():
        expected = whisper.generate(features, max_new_tokens=20, **call, **search).tolist()
    found = exported.generate(**inputs, max_new_tokens=20, **call, **search)
    prompt = 1 + found[0].tolist().index(NO_TIMESTAMPS)
    assert [without_prompt(row, prompt) for row in found.tolist()] == [without_prompt(row) for row in expected]
    # transformers' own layout of the features serves as well.
    assert np.array_equal(exported.generate(features.numpy(), max_new_tokens=20, **call, **search), found)


def test_texts_do_not_depend_on_the_batch(exported: OnnxSpeechSeq2Seq, clips: list[NDArray[np.float32]]) -> None:
    together = exported.transcribe(clips, language=["en", "de", "fr"], max_new_tokens=20)
    alone = [
        exported.transcribe(clip, language=language, max_new_tokens=20)
        for clip, language in zip(clips, ("en", "de", "fr"), strict=True)
    ]
    assert together == alone


def test_a_score_leaves_out_the_prompt(
    whisper: WhisperForConditionalGeneration, exported: OnnxSpeechSeq2Seq, clips: list[NDArray[np.float32]]
) -> None:
    tokens = torch.tensor([[START, GERMAN, TRANSLATE, NO_TIMESTAMPS, 5, 7, END]])
    features = torch.from_numpy(exported.processor(clips[:1], sampling_rate=16000)["input_features"])
    with torch.no_grad():
        logits = whisper(features.transpose(1, 2), decoder_input_ids=tokens).logits
    logprobs = logits.log_softmax(-1)[0, :-1].gather(-1, tokens[0, 1:, None])
    found = exported.score(clips[0], ["fh"], language="de", task="translate")
    assert found[0] == pytest.approx(float(logprobs[3:].sum()), abs=1e-3)


def test_a_generation_config_of_whisper_is_taken(
    whisper: WhisperForConditionalGeneration, exported: OnnxSpeechSeq2Seq, clips: list[NDArray[np.float32]]
) -> None:
    """It carries facts of the prompt, which the bundle has; a language and a task are keywords of the call."""
    inputs = exported.processor(clips, sampling_rate=16000)
    config = deepcopy(whisper.generation_config)
    assert config.lang_to_id
    config.language = config.task = None
    config.num_beams = 3
    given = exported.generate(**inputs, generation_config=config, language="de", max_new_tokens=9)
    np.testing.assert_array_equal(given, exported.generate(**inputs, num_beams=3, language="de", max_new_tokens=9))
    config.language = "de"
    with pytest.raises(GenerationError, match=r"generation_config has language 'de': give it as language="):
        exported.generate(**inputs, generation_config=config)


def test_the_bundle_has_the_settings_of_the_checkpoint(exported: OnnxSpeechSeq2Seq) -> None:
    prompt = exported.manifest.prompt
    assert prompt is not None
    assert prompt.by_default == ("language", NO_TIMESTAMPS)
    assert prompt.languages["german"] == prompt.languages["de"] == prompt.languages["<|de|>"]
    assert exported.manifest.decoder.layers == 1


def test_a_prompt_of_the_caller_takes_the_place_of_the_template(
    exported: OnnxSpeechSeq2Seq, clips: list[NDArray[np.float32]]
) -> None:
    inputs = exported.processor(clips[:1], sampling_rate=16000)
    found = exported.generate(**inputs, decoder_input_ids=[[START, TRANSCRIBE]], max_new_tokens=3)
    assert found[0, :2].tolist() == [START, TRANSCRIBE]
    with pytest.raises(GenerationError, match="decoder_input_ids and language are both given"):
        exported.generate(**inputs, decoder_input_ids=[[START]], language="de")


def test_audio_beyond_the_window_is_refused_by_name(exported: OnnxSpeechSeq2Seq) -> None:
    long = np.random.default_rng(0).standard_normal(16001).astype(np.float32) * 0.1
    (found,) = exported.transcribe_iter([long])
    assert "audio[0]" in str(found)
    assert "split the audio" in str(found)
    with pytest.raises(
        AudioError, match=r"audio\[0\]: lasts 1\.00 s \(16,001 samples\), the model takes at most 1\.00 s"
    ):
        exported.transcribe([long])
    for shape in ((1, 101, 20), (1, 20, 101)):  # transformers' own layout, too
        with pytest.raises(
            AudioError, match="has 101 feature frames, the encoder has positions for 100 at most; split"
        ):
            exported.generate(np.zeros(shape, dtype=np.float32))


def test_a_language_that_the_model_lacks_is_answered_with_those_that_it_has(
    exported: OnnxSpeechSeq2Seq, clips: list[NDArray[np.float32]]
) -> None:
    with pytest.raises(GenerationError, match="language is 'klingon', this model has de, en, fr"):
        exported.transcribe(clips[0], language="klingon")


def test_a_checkpoint_without_generation_config_has_a_prompt_of_its_vocabulary(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_whisper(tmp_path / "whole")
    whole = load_checkpoint(str(tmp_path / "whole"))
    save_whisper(tmp_path / "old", words=51865)  # the number of words tells that it is multilingual
    (tmp_path / "old" / "generation_config.json").unlink()
    caplog.clear()
    found = load_checkpoint(str(tmp_path / "old"))
    (record,) = caplog.records
    missing = "lang_to_id and no task_to_id and no no_timestamps_token_id; they are read from its vocabulary"
    assert record.getMessage() == f"The generation settings of {tmp_path / 'old'} have no {missing}."
    assert found.prompt == whole.prompt


def test_a_model_in_memory_is_exported_too(
    whisper: WhisperForConditionalGeneration, exported: OnnxSpeechSeq2Seq, tmp_path: Path
) -> None:
    bundle = export(whisper, tmp_path / "bundle", tokenizer=whisper_tokenizer())
    assert bundle.manifest.prompt == exported.manifest.prompt
    assert Bundle.open(tmp_path / "bundle").manifest.decoder == exported.manifest.decoder
    assert whisper.generation_config.lang_to_id  # the model is left as it was


def test_a_stored_language_that_the_model_lacks_is_refused_by_name(tmp_path: Path) -> None:
    settings = {"is_multilingual": False, "no_timestamps_token_id": NO_TIMESTAMPS, "language": "en"}
    save_whisper(tmp_path, settings)
    with pytest.raises(ExportError, match="prompt.language is 'en', which has no token; correct its generation_config"):
        load_checkpoint(str(tmp_path))


def test_int8_keeps_the_prompt(whisper: WhisperForConditionalGeneration, tmp_path: Path) -> None:
    options = PrecisionOptions("int8")
    bundle = export(whisper, tmp_path / "b", tokenizer=whisper_tokenizer(), precision=options, limits=Limits(99.0, 0.0))
    assert bundle.manifest.prompt is not None


@pytest.mark.parametrize("lengths", [(8001, 5000), (8079, 8000), (8080, 3999)])
def test_moonshine_streaming_takes_audio_that_ends_within_a_frame(lengths: tuple[int, int], streaming: Path) -> None:
    exported, model = OnnxSpeechSeq2Seq.from_pretrained(streaming), native("moonshine_streaming")
    generator = np.random.default_rng(0)
    clips = [generator.standard_normal(length).astype(np.float32) * 0.3 for length in lengths]
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    # As MoonshineStreamingProcessor calls it.
    padded = extractor(clips, sampling_rate=16000, padding=True, pad_to_multiple_of=80, return_tensors="pt")
    with torch.no_grad():
        expected = model.generate(**padded, max_new_tokens=20)
    mask = np.array([np.arange(max(lengths)) < length for length in lengths], dtype=np.int64)
    inputs = padded["input_values"].numpy()[:, : max(lengths)]
    np.testing.assert_array_equal(exported.generate(inputs, mask, max_new_tokens=20), expected)


def test_moonshine_streaming_takes_as_much_audio_as_its_decoder_has_positions_for(streaming: Path) -> None:
    exported, model = OnnxSpeechSeq2Seq.from_pretrained(streaming), native("moonshine_streaming")
    longest = model.get_decoder().pos_emb.num_embeddings * 320
    inputs = np.random.default_rng(0).standard_normal((1, longest)).astype(np.float32)
    with torch.no_grad():
        expected = model.generate(torch.from_numpy(inputs), attention_mask=torch.ones(1, longest), max_new_tokens=5)
    np.testing.assert_array_equal(exported.generate(inputs, max_new_tokens=5), expected)
    with pytest.raises(AudioError, match=f"{longest:,}"):
        exported.generate(np.pad(inputs, ((0, 0), (0, 1))), max_new_tokens=5)


def test_a_whole_seamless_is_loaded_without_its_parts_for_text_and_speech(tmp_path: Path) -> None:
    vocoder = {"lang_embed_dim": 8, "spkr_embed_dim": 8, "unit_embed_dim": 16, "upsample_initial_channel": 32}
    units = {"t2u_encoder_layers": 1, "t2u_decoder_layers": 1, "t2u_encoder_ffn_dim": 8, "t2u_decoder_ffn_dim": 8}
    whole = SeamlessM4TModel(SeamlessM4TConfig(**native("seamless_m4t").config.to_dict() | vocoder | units))
    whole.save_pretrained(tmp_path)
    loaded = load_checkpoint(str(tmp_path), without=("feature-extractor", "tokenizer")).model
    for found, expected in ((loaded.encoder, whole.speech_encoder), (loaded.decoder.decoder, whole.text_decoder)):
        weights = expected.state_dict()
        assert found.state_dict().keys() == weights.keys()
        assert all(torch.equal(found.state_dict()[name], weight) for name, weight in weights.items())


def test_a_model_that_makes_speech_is_refused_by_name(tmp_path: Path) -> None:
    SpeechT5ForTextToSpeech(native("speecht5").config).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="is a SpeechT5ForTextToSpeech, which lacks .* of a SpeechT5ForSpeechToText"):
        load_checkpoint(str(tmp_path), without=("feature-extractor", "tokenizer"))


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in BY_DEFAULT else pytest.mark.full) for name in NATIVE]
)
def test_a_family_writes_what_transformers_writes(family: str, tmp_path: Path) -> None:
    model = native(family)
    export(model, tmp_path / "bundle")
    exported = OnnxSpeechSeq2Seq.from_pretrained(tmp_path / "bundle")
    longest, *width = INPUT_SHAPES[family]
    mask = (np.arange(longest) < np.array([[longest], [longest * 7 // 10], [longest * 2 // 5]])).astype(np.int64)
    noise = np.random.default_rng(0).standard_normal((3, longest, *width)).astype(np.float32) * 0.3
    inputs = noise * mask.reshape(3, longest, *([1] * len(width))).astype(np.float32)
    given = {"attention_mask": torch.from_numpy(mask)}
    for beams in (1, 5):
        with torch.no_grad():
            expected = model.generate(torch.from_numpy(inputs), **given, num_beams=beams, max_new_tokens=20)
        found = exported.generate(inputs, mask, num_beams=beams, max_new_tokens=20)
        np.testing.assert_array_equal(found, expected)
    tokens = expected[:, :8]
    with torch.no_grad():
        logits = model(torch.from_numpy(inputs), **given, decoder_input_ids=tokens).logits
    logprobs = torch.from_numpy(exported.forward(inputs, mask, decoder_input_ids=tokens.numpy()).logits).log_softmax(-1)
    assert (logprobs - logits.log_softmax(-1)).abs().max() < 1e-4
