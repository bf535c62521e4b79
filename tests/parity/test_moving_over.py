"""Test that calls written for transformers work as they are, and give what transformers gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, AutoTokenizer, TextIteratorStreamer, TextStreamer
from transformers import GenerationConfig as TorchConfig

from composites import EOS
from conftest import CHECKPOINT, Pair
from parity.test_generate import padded_batch
from speech_runtime import AudioError, BundleError, GenerationConfig, GenerationError
from speech_runtime.audio import Samples
from speech_runtime.audio.features import WaveformExtractor
from speech_runtime.generation.model_input import padded_rows
from speech_runtime.processor import SpeechProcessor

LENGTHS = [1603, 977, 2411]


@pytest.fixture(scope="module")
def clips(digits: Pair, references: dict[Path, str]) -> list[Samples]:
    return [digits.exported.load(file) for file in list(references)[:3]]


@pytest.fixture(scope="module")
def extractor() -> Any:
    return AutoFeatureExtractor.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def torch_inputs(clips: list[Samples], extractor: Any) -> Any:
    return extractor(clips, sampling_rate=16000, padding=True, return_tensors="pt")


def expected(digits: Pair, inputs: Any, **settings: Any) -> Any:
    with torch.no_grad():
        return digits.reference.generate(**inputs, **settings)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3, "num_return_sequences": 2}])
def test_the_input_has_its_own_name(digits: Pair, torch_inputs: Any, settings: dict[str, Any]) -> None:
    wanted = expected(digits, torch_inputs, **settings)
    arrays = {name: tensor.numpy() for name, tensor in torch_inputs.items()}
    for inputs in (arrays, dict(torch_inputs)):
        np.testing.assert_array_equal(digits.exported.generate(**inputs, **settings), wanted)
    encoded = digits.exported.encode(**arrays)
    np.testing.assert_array_equal(digits.exported.generate(encoder_outputs=encoded, **settings), wanted)
    labels = wanted[:3, 1:].numpy()
    with torch.no_grad():
        loss = digits.reference(**torch_inputs, labels=torch.from_numpy(labels)).loss
    assert digits.exported.forward(**arrays, labels=labels)["loss"] == pytest.approx(float(loss), abs=1e-4)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["input_features"], "input_features is the input of other models, this one takes input_values"),
        (["inputs", "input_values"], "inputs and input_values are both given; give one of them"),
        (["input_values", "encoder_outputs"], "give either input_values or encoder_outputs, and not both"),
        ([], "the input is missing; give input_values"),
    ],
)
def test_one_input_is_given(pair: Callable[[str], Pair], names: list[str], message: str) -> None:
    given = {name: padded_batch([1603])[0] for name in names}
    with pytest.raises(GenerationError, match=message):
        pair("bert").exported.generate(**given)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("numbers", [np.asarray, torch.tensor, lambda row: [float(value) for value in row]])
def test_rows_of_several_lengths_are_padded(
    digits: Pair, clips: list[Samples], extractor: Any, masked: bool, numbers: Callable[[Any], Any]
) -> None:
    rows = extractor(clips, sampling_rate=16000, return_attention_mask=masked)
    wanted = expected(digits, extractor.pad(rows, padding=True, return_tensors="pt"))
    given = {name: [numbers(row) if name == "input_values" else row for row in value] for name, value in rows.items()}
    assert len({len(row) for row in given["input_values"]}) == 3
    np.testing.assert_array_equal(digits.exported.generate(**given), wanted)


@pytest.mark.parametrize("masked", [True, False])
def test_rows_are_padded_as_their_extractor_pads(masked: bool) -> None:
    settings = {"return_attention_mask": masked, "padding_value": 0.5}
    theirs = AutoFeatureExtractor.from_pretrained(CHECKPOINT, **settings)
    rows = [np.full(length, 2.0, dtype=np.float32) for length in (3, 5)]
    values, mask = padded_rows(rows, None, WaveformExtractor(**settings), "input_values")
    wanted = theirs.pad({"input_values": rows}, padding=True, return_tensors="np")
    np.testing.assert_array_equal(values, wanted.input_values)
    np.testing.assert_array_equal(mask, wanted.attention_mask if masked else np.ones((2, 5)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([np.zeros(3), np.zeros((4, 2))], r"input_values\[1\] has the shape \[4, 2\], and input_values\[0\] \[3\]"),
        ([np.zeros(3), np.zeros(4, dtype=np.int16)], r"input_values\[1\] must be floating-point, got int16"),
        ([np.zeros(3), 1.0], r"input_values\[1\] has the shape \[\]"),
        ([[0.0], [0.0, [1.0]]], r"input_values\[1\]: is not an array"),
    ],
)
def test_rows_that_are_no_batch_are_refused(rows: list[Any], message: str) -> None:
    with pytest.raises(AudioError, match=message):
        padded_rows(rows, None, None, "input_values")


SETTINGS = {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5, "suppress_tokens": [9]}


@pytest.mark.parametrize("made", [lambda **given: TorchConfig(**given), lambda **given: given])
def test_a_generation_config_is_followed(digits: Pair, torch_inputs: Any, made: Callable[..., Any]) -> None:
    config, inputs = made(**SETTINGS), dict(torch_inputs)
    wanted = expected(digits, inputs, generation_config=TorchConfig(**SETTINGS))
    assert not np.array_equal(wanted, expected(digits, inputs)[:6])
    np.testing.assert_array_equal(digits.exported.generate(**inputs, generation_config=config), wanted)
    greedy = digits.exported.generate(
        **inputs, generation_config=config, num_beams=1, num_return_sequences=1, length_penalty=1.0
    )
    np.testing.assert_array_equal(greedy, expected(digits, inputs, suppress_tokens=[9]))


def test_a_generation_config_of_the_checkpoint_changes_nothing(digits: Pair, torch_inputs: Any) -> None:
    config = TorchConfig.from_pretrained(CHECKPOINT)
    found = digits.exported.generate(**torch_inputs, generation_config=config)
    np.testing.assert_array_equal(found, digits.exported.generate(**torch_inputs))


def test_our_own_generation_config_has_all_settings(digits: Pair, torch_inputs: Any) -> None:
    model, inputs = digits.exported, dict(torch_inputs)
    plain = model.generate(**inputs)
    whole = model.generation_config.updated({"num_beams": 3, "length_penalty": 0.5})
    np.testing.assert_array_equal(
        model.generate(**inputs, generation_config=whole), model.generate(**inputs, num_beams=3, length_penalty=0.5)
    )
    np.testing.assert_array_equal(model.generate(**inputs, generation_config=GenerationConfig()), plain)
    text = model.transcribe(inputs["input_values"][0].numpy(), generation_config=whole)
    assert text == model.transcribe(inputs["input_values"][0].numpy(), num_beams=3, length_penalty=0.5)


def test_a_generation_config_chooses_the_form_of_the_output(digits: Pair, torch_inputs: Any) -> None:
    config = TorchConfig(return_dict_in_generate=True, output_scores=True)
    found = digits.exported.generate(**torch_inputs, generation_config=config)
    assert len(found.scores) == found.steps
    alone = digits.exported.generate(**torch_inputs, generation_config=config, return_dict_in_generate=False)
    np.testing.assert_array_equal(alone, found.sequences)
    with pytest.raises(GenerationError, match=r"output_attentions is not possible: .* get them from transformers"):
        digits.exported.generate(**torch_inputs, generation_config=TorchConfig(output_attentions=True))


@pytest.mark.parametrize("wrong", [4, "greedy", TorchConfig, GenerationConfig])
def test_other_generation_configs_are_refused(digits: Pair, torch_inputs: Any, wrong: object) -> None:
    with pytest.raises(GenerationError, match=r"generation_config is .*, it must be a GenerationConfig"):
        digits.exported.generate(**torch_inputs, generation_config=wrong)


def test_several_results_come_with_a_generation_config(digits: Pair, clips: list[Samples]) -> None:
    config = TorchConfig(num_beams=3, num_return_sequences=3)
    (heard,) = digits.exported.transcribe_iter(clips[:1], generation_config=config)
    assert [len(heard.alternatives), heard.text] == [2, digits.exported.transcribe(clips[0], num_beams=3)]


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("output_attentions", True, "get them from transformers"),
        ("output_hidden_states", True, r"encode\(\) returns those of the encoder"),
        ("return_timestamps", "word", "transcribe the recording in pieces"),
        ("assistant_model", object(), "leave it out"),
        ("prefix_allowed_tokens_fn", print, "logits_processor"),
        ("custom_generate", "someone/search", "leave it out"),
        ("synced_gpus", True, "leave it out"),
        ("negative_prompt_ids", [[1]], "leave it out"),
    ],
)
def test_what_is_not_there_is_named(digits: Pair, clips: list[Samples], name: str, value: Any, instead: str) -> None:
    model = digits.exported
    for call in (lambda **given: model.generate([clips[0]], **given), lambda **given: model.transcribe(clips, **given)):
        with pytest.raises(GenerationError, match=f"{name} is not possible: .*{instead}"):
            call(**{name: value})
        np.testing.assert_array_equal(call(**{name: None}), call())
        if isinstance(value, bool):
            np.testing.assert_array_equal(call(**{name: False}), call())


def test_stop_strings_may_come_with_their_tokenizer(digits: Pair, torch_inputs: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    one = {name: value[:1] for name, value in torch_inputs.items()}
    wanted = expected(digits, one, stop_strings=["e"], tokenizer=tokenizer)
    assert wanted.shape[1] < expected(digits, one).shape[1]
    np.testing.assert_array_equal(digits.exported.generate(**one, stop_strings=["e"], tokenizer=tokenizer), wanted)


class Recorder:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.values: list[NDArray[np.int64]] = []
        self.ends = 0

    def put(self, value: Any) -> None:
        assert not self.ends
        self.values.append(np.asarray(value))

    def end(self) -> None:
        self.ends += 1


def one_clip(inputs: Any, position: int = 1) -> dict[str, Any]:
    length = int(inputs["attention_mask"][position].sum())
    return {name: value[position : position + 1, :length] for name, value in inputs.items()}


@pytest.mark.parametrize("settings", [{}, {"max_new_tokens": 4}, {"decoder_input_ids": torch.tensor([[0, 9, 13]])}])
def test_a_streamer_gets_what_transformers_gives_it(digits: Pair, torch_inputs: Any, settings: dict[str, Any]) -> None:
    theirs, ours, inputs = Recorder(), Recorder(), one_clip(torch_inputs)
    expected(digits, inputs, streamer=theirs, **settings)
    found = digits.exported.generate(**inputs, streamer=ours, **settings)
    assert [theirs.ends, ours.ends] == [1, 1]
    assert len(ours.values) > 3
    for value, wanted in zip(ours.values, theirs.values, strict=True):
        np.testing.assert_array_equal(value, wanted)
    np.testing.assert_array_equal(np.concatenate([value.ravel() for value in ours.values]), found[0])


@pytest.mark.parametrize("skip_prompt", [True, False])
@pytest.mark.parametrize("skip_special_tokens", [True, False])
def test_text_streamers_of_transformers_work_as_they_are(
    digits: Pair,
    torch_inputs: Any,
    capsys: pytest.CaptureFixture[str],
    skip_prompt: bool,
    skip_special_tokens: bool,
) -> None:
    tokenizer, inputs = AutoTokenizer.from_pretrained(CHECKPOINT), one_clip(torch_inputs)
    settings = {"skip_prompt": skip_prompt, "skip_special_tokens": skip_special_tokens}
    expected(digits, inputs, streamer=TextStreamer(tokenizer, **settings))
    wanted = capsys.readouterr().out
    digits.exported.generate(**inputs, streamer=TextStreamer(tokenizer, **settings))
    assert capsys.readouterr().out == wanted != ""
    queue = TextIteratorStreamer(tokenizer, **settings)
    digits.exported.generate(**inputs, streamer=queue)
    assert "".join(queue) == wanted.removesuffix("\n")


def test_a_streamer_gets_the_tokens_of_a_beam_search(digits: Pair, torch_inputs: Any) -> None:
    streamer = Recorder()
    found = digits.exported.generate(**one_clip(torch_inputs), streamer=streamer, num_beams=4, num_return_sequences=2)
    streamed = np.concatenate([value.ravel() for value in streamer.values])
    np.testing.assert_array_equal(streamed, found[0][: len(streamed)])
    assert streamer.ends == 1
    assert streamed[-1] == 2
    assert (found[0][len(streamed) :] != 2).all()


def test_streamers_are_checked(digits: Pair, torch_inputs: Any) -> None:
    inputs, streamer = one_clip(torch_inputs), Recorder()
    for given, message in (
        ({"streamer": print}, r"streamer is .*, it must be an object with the methods put and end"),
        ({"streamer": streamer, "stream": print}, "stream and streamer are both given"),
        ({"streamer": streamer, "do_sample": True, "num_return_sequences": 2}, "num_return_sequences is 2"),
    ):
        with pytest.raises(GenerationError, match=message):
            digits.exported.generate(**inputs, **given)
    with pytest.raises(GenerationError, match="streamer takes the tokens of one utterance, this batch has 3"):
        digits.exported.generate(**torch_inputs, streamer=streamer)
    assert streamer.values == []


def test_outputs_have_items(digits: Pair, torch_inputs: Any) -> None:
    settings = {"num_beams": 2, "return_dict_in_generate": True, "output_scores": True}
    wanted, found = expected(digits, torch_inputs, **settings), digits.exported.generate(**torch_inputs, **settings)
    for name in ("sequences", "sequences_scores"):
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-4)
        assert found[name] is getattr(found, name)
    assert wanted.keys() - found.keys() <= {"past_key_values", "encoder_outputs"}
    assert "scores" in found
    assert "logits" not in found
    assert dict(found).keys() == found.keys()
    with pytest.raises(KeyError):
        found["logits"]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_beams": 4},
        {"num_beams": 4, "num_return_sequences": 3, "max_new_tokens": 30},
        {"repetition_penalty": 1.7, "suppress_tokens": [11]},
    ],
)
def test_transition_scores_are_those_of_transformers(
    pair: Callable[[str], Pair], settings: dict[str, Any], normalize: bool
) -> None:
    model, (inputs, mask) = pair("bart"), padded_batch(LENGTHS)
    kept = {"return_dict_in_generate": True, "output_scores": True, "max_new_tokens": 12, **settings}
    with torch.no_grad():
        theirs = model.reference.generate(torch.from_numpy(inputs), attention_mask=torch.from_numpy(mask), **kept)
    ours = model.exported.generate(inputs, mask, **kept)
    np.testing.assert_array_equal(ours.sequences, theirs.sequences)
    indices = getattr(theirs, "beam_indices", None)
    wanted = model.reference.compute_transition_scores(theirs.sequences, theirs.scores, indices, normalize).numpy()
    beams = None if indices is None else ours.beam_indices
    found = model.exported.compute_transition_scores(ours.sequences, ours.scores, beams, normalize_logits=normalize)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    # and of the very same arrays, to the last digit that a sum in another order leaves
    same = model.exported.compute_transition_scores(theirs.sequences, theirs.scores, indices, normalize)
    np.testing.assert_allclose(same, wanted, atol=1e-5)


def test_transition_scores_need_what_belongs_together(pair: Callable[[str], Pair]) -> None:
    model, batch = pair("bart").exported, padded_batch(LENGTHS)
    found = model.generate(*batch, num_beams=2, max_new_tokens=5, return_dict_in_generate=True, output_scores=True)
    with pytest.raises(GenerationError, match="the scores have 6 rows"):
        model.compute_transition_scores(found.sequences, found.scores)
    with pytest.raises(GenerationError, match="output_scores=True"):
        model.compute_transition_scores(found.sequences, None)
    assert found.scores is not None
    with pytest.raises(GenerationError, match="do not fit the scores of 2 steps"):
        model.compute_transition_scores(found.sequences, found.scores[:2], found.beam_indices)


@pytest.mark.parametrize("padding", [True, "longest"])
def test_a_processor_makes_the_input_of_transformers(
    digits: Pair, clips: list[Samples], extractor: Any, padding: Any
) -> None:
    processor = digits.exported.processor
    wanted = extractor(clips, sampling_rate=16000, padding=padding, return_tensors="np")
    found = processor(clips, sampling_rate=16000, padding=padding, return_tensors="np")
    assert found.keys() == wanted.keys()
    for name in found:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-5)
    np.testing.assert_array_equal(found.input_values, found["input_values"])
    with pytest.raises(AttributeError, match="has no 'input_features'; it has input_values, attention_mask"):
        _ = found.input_features
    np.testing.assert_array_equal(digits.exported.generate(**found), digits.exported.generate(**wanted))


def test_a_processor_does_not_have_to_pad(digits: Pair, clips: list[Samples], extractor: Any) -> None:
    processor = digits.exported.processor
    wanted = extractor(clips, sampling_rate=16000, padding=False)
    found = processor(clips, sampling_rate=16000, padding=False, return_tensors=None)
    for name in ("input_values", "attention_mask"):
        for row, theirs in zip(found[name], wanted.get(name, [None] * 3), strict=True):
            np.testing.assert_allclose(row, np.ones_like(row) if theirs is None else theirs, atol=1e-5)
    np.testing.assert_array_equal(digits.exported.generate(**found), digits.exported.generate(**processor(clips)))
    alone, theirs = processor(clips[0], padding=False), extractor(clips[0], sampling_rate=16000, return_tensors="np")
    np.testing.assert_allclose(alone.input_values, theirs.input_values, atol=1e-5)
    with pytest.raises(AudioError, match="no array; give padding=True"):
        processor(clips, padding=False)


def test_a_processor_takes_what_transcribe_takes(digits: Pair, references: dict[Path, str]) -> None:
    processor, file = digits.exported.processor, next(iter(references))
    samples = digits.exported.load(file)
    forms: list[Any] = [str(file), file.read_bytes(), {"array": samples, "sampling_rate": 16000}, [file]]
    for audio in forms:
        np.testing.assert_array_equal(processor(audio).input_values, processor(samples).input_values)
    half = processor(samples[::2], sampling_rate=8000).input_values
    assert half.shape[1] == pytest.approx(samples.size, abs=2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"return_tensors": "pt"}, "return_tensors is 'pt'; give 'np'"),
        ({"padding": "max_length"}, "padding is 'max_length'; give True"),
        ({"audio": []}, "audio is an empty list"),
        ({"audio": None}, "audio is missing"),
        ({"raw_speech": [np.ones(800)]}, "audio and raw_speech are both given"),
        ({"audio": [np.zeros(800, dtype=np.float32)]}, r"audio\[0\]: is silent"),
    ],
)
def test_a_processor_is_checked(digits: Pair, clips: list[Samples], given: dict[str, Any], message: str) -> None:
    with pytest.raises(AudioError, match=message):
        digits.exported.processor(**{"audio": clips, **given})


@pytest.mark.parametrize(
    ("name", "neutral", "other", "remedy"),
    [
        ("truncation", [False, "do_not_truncate"], True, r"cut the samples, with samples\[:length\]"),
        ("max_length", [], 16000, "cut or pad the arrays yourself"),
        ("pad_to_multiple_of", [1], 8, "pad the arrays that are returned"),
        ("return_attention_mask", [True], False, "leave it out of generate"),
        ("do_normalize", [], True, "the bundle's preprocessor_config.json decides"),
        ("device", ["cpu"], "cuda", "features are computed on the CPU"),
    ],
)
def test_arguments_of_feature_extractors_are_taken_or_answered(
    digits: Pair, clips: list[Samples], torch_inputs: Any, name: str, neutral: list[Any], other: Any, remedy: str
) -> None:
    processor: Any = digits.exported.processor
    for value in (None, *neutral):
        found = processor(raw_speech=clips, sampling_rate=16000, padding=True, **{name: value})
        np.testing.assert_allclose(found.input_values, torch_inputs.input_values, atol=1e-5)
    with pytest.raises(AudioError, match=f"^{name} is {other!r}, which is not possible: .*{remedy}"):
        processor(clips, **{name: other})


def test_unknown_arguments_stay_unknown(digits: Pair, clips: list[Samples]) -> None:
    processor: Any = digits.exported.processor
    with pytest.raises(TypeError, match="truncate"):
        processor(clips, truncate=False)
    with pytest.raises(TypeError, match="group_token"):
        processor.decode([9], group_token=False)


@pytest.mark.parametrize(
    ("name", "neutral", "other", "remedy"),
    [
        ("clean_up_tokenization_spaces", [True, False], "all", "keeps spaces before punctuation; leave it out"),
        ("group_tokens", [True, False], "all", "leave it out"),
        ("spaces_between_special_tokens", [], True, "leave it out"),
        ("output_word_offsets", [False], True, "transcribe pieces of a recording"),
        ("normalize", [False], True, "normalise the text that is returned"),
    ],
)
def test_arguments_of_decoding_are_taken_or_answered(
    digits: Pair, torch_inputs: Any, name: str, neutral: list[Any], other: Any, remedy: str
) -> None:
    tokenizer, ids = AutoTokenizer.from_pretrained(CHECKPOINT), digits.exported.generate(**torch_inputs)
    model, processor = digits.exported, digits.exported.processor
    for value in (None, *neutral):
        wanted = tokenizer.batch_decode(ids, skip_special_tokens=True, **{name: value})
        for decode in (model.decode, processor.decode, processor.batch_decode):
            assert decode(ids, skip_special_tokens=True, **{name: value}) == wanted
            with pytest.raises(GenerationError, match=f"^{name} is {other!r}, which is not possible: .*{remedy}"):
                decode(ids, **{name: other})


def test_text_is_decoded_as_transformers_decodes_it(digits: Pair, torch_inputs: Any) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(CHECKPOINT), digits.exported
    ids = digits.exported.generate(**torch_inputs)
    for settings in ({}, {"skip_special_tokens": True}, {"skip_special_tokens": False}):
        wanted = tokenizer.batch_decode(ids, **settings)
        assert model.processor.batch_decode(ids, **settings) == wanted
        assert model.processor.batch_decode(ids.tolist(), **settings) == wanted
        assert model.processor.batch_decode([row[:4] for row in ids], **settings) == [
            tokenizer.decode(row[:4], **settings) for row in ids
        ]
        assert model.processor.decode(ids[0], **settings) == tokenizer.decode(ids[0], **settings)
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert model.decode(ids) == texts
    assert [model.decode(row) for row in ids] == texts
    assert model.decode(torch.from_numpy(ids)) == texts
    assert model.decode([ids[0].tolist(), ids[1].tolist()[:3]])[0] == texts[0]
    assert model.decode(ids[:1], skip_special_tokens=False) == tokenizer.batch_decode(ids[:1])
    assert model.decode(int(ids[0, 1])) == tokenizer.decode(int(ids[0, 1]))


def test_ids_that_fill_a_batch_are_left_out(digits: Pair) -> None:
    assert digits.exported.decode([9, 13, -1, -1]) == digits.exported.decode([9, 13])
    assert digits.exported.decode([]) == ""
    with pytest.raises(GenerationError, match=r"token ids must be integers .* float64 \[2\]"):
        digits.exported.decode([0.5, 1.5])


def test_parts_that_a_bundle_lacks_are_named(pair: Callable[[str], Pair]) -> None:
    model = pair("bert").exported
    assert isinstance(model.processor, SpeechProcessor)
    with pytest.raises(BundleError, match=r"no tokenizer\.json: token ids cannot be decoded"):
        model.decode([EOS])
    with pytest.raises(BundleError, match=r"no preprocessor_config\.json: make the model input yourself"):
        model.processor(np.ones(800, dtype=np.float32))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("generate_kwargs", "give its settings as keywords"),
        ("chunk_length_s", "cut it into pieces"),
        ("forced_decoder_ids", "give the tokens that a text begins with as decoder_input_ids"),
        ("sampling_rate", "give it to model.processor or to transcribe"),
    ],
)
def test_arguments_of_pipelines_are_answered(digits: Pair, name: str, remedy: str) -> None:
    with pytest.raises(GenerationError, match=f"^{name} is not possible: .*{remedy}"):
        digits.exported.generate(np.zeros((1, 4000), np.float32), **{name: 16000})


def test_a_model_is_no_pipeline(digits: Pair) -> None:
    for audio in ("clip.wav", np.ones(4000, np.float32), {"raw": np.ones(4000), "sampling_rate": 8000}):
        with pytest.raises(GenerationError, match=r"for text call transcribe\(audio\)"):
            digits.exported(audio)
    model_input = digits.exported.processor(np.random.default_rng(0).standard_normal(4000).astype(np.float32))
    with pytest.raises(GenerationError, match=r"is a dictionary, as a processor returns it; put \*\* before it"):
        digits.exported.generate(model_input)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [("num_beam", "num_beams"), ("input_value", "input_values"), ("attention_masks", "attention_mask")],
)
def test_a_misspelt_argument_is_answered_with_the_nearest(digits: Pair, misspelt: str, meant: str) -> None:
    with pytest.raises(GenerationError, match=rf"^{misspelt} is not a known setting; did you mean {meant}\?$"):
        digits.exported.generate(**{misspelt: 4})
