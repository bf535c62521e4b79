"""Test the other inputs and outputs of a call: scores, losses, prompts of any length, streams, deadlines, threads."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models

from composites import EOS, PAD, START, VOCABULARY
from conftest import CHECKPOINT, Pair
from parity.test_generate import padded_batch
from speech_runtime import AudioError, AudioLimits, BundleError, GenerationError, OnnxSpeechSeq2Seq

LENGTHS = [1603, 977, 2411]


def reference(pair: Pair, batch: Any, **settings: Any) -> Any:
    inputs, mask = (torch.from_numpy(array) for array in batch)
    with torch.no_grad():
        return pair.reference.generate(inputs, attention_mask=mask, return_dict_in_generate=True, **settings)


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("extra", [{}, {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2}])
def test_scores_and_logits_are_those_of_transformers(
    pair: Callable[[str], Pair], beams: int, extra: dict[str, Any]
) -> None:
    model, batch = pair("bart"), padded_batch(LENGTHS)
    settings = {"num_beams": beams, "num_return_sequences": min(beams, 2), "max_new_tokens": 9, **extra}
    kept = {"output_scores": True, "output_logits": True}
    expected = reference(model, batch, **settings, **kept)
    found = model.exported.generate(*batch, return_dict_in_generate=True, **settings, **kept)
    np.testing.assert_array_equal(found.sequences, expected.sequences.numpy())
    assert found.steps == len(expected.scores)
    for ours, theirs in ((found.scores, expected.scores), (found.logits, expected.logits)):
        for step, (values, wanted) in enumerate(zip(ours, theirs, strict=True)):
            rows = slice(None, None, beams) if step == 0 else slice(None)  # the beams are alike at first
            np.testing.assert_allclose(values[rows], wanted.numpy()[rows], atol=1e-4)
    transitions = model.reference.compute_transition_scores(
        expected.sequences, expected.scores, getattr(expected, "beam_indices", None), normalize_logits=beams == 1
    ).numpy()
    if beams > 1:
        np.testing.assert_allclose(found.sequences_scores, expected.sequences_scores.numpy(), atol=1e-4)
        np.testing.assert_array_equal(found.beam_indices >= 0, expected.beam_indices.numpy() >= 0)
    if not extra:  # ours are the model's own, theirs those that were chosen by
        rows = np.isfinite(transitions)
        ended = np.cumsum(found.sequences[:, 1:] == EOS, axis=1) - (found.sequences[:, 1:] == EOS) > 0
        np.testing.assert_allclose(found.token_logprobs[rows & ~ended], transitions[rows & ~ended], atol=1e-4)


def torch_answer(model: Pair, inputs: NDArray[np.float32], mask: NDArray[np.int64], labels: NDArray[np.int64]) -> Any:
    """Return the loss and logits of transformers for given labels."""
    model.reference.config.pad_token_id, model.reference.config.decoder_start_token_id = PAD, START
    with torch.no_grad():
        return model.reference(
            torch.from_numpy(inputs), attention_mask=torch.from_numpy(mask), labels=torch.from_numpy(labels)
        )


def test_the_loss_of_labels_is_that_of_torch(pair: Callable[[str], Pair]) -> None:
    model, (inputs, mask) = pair("mbart"), padded_batch(LENGTHS)
    labels = np.random.default_rng(3).integers(4, VOCABULARY, (3, 7))
    labels[1, 4:] = -100
    expected = torch_answer(model, inputs, mask, labels)
    found = model.exported.forward(inputs, mask, labels=labels)
    assert found.loss == pytest.approx(float(expected.loss), abs=1e-4)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
    with pytest.raises(GenerationError, match="decoder_input_ids and labels are missing"):
        model.exported.forward(inputs, mask)
    with pytest.raises(GenerationError, match="either decoder_input_ids or labels, and not both"):
        model.exported.forward(inputs, mask, labels=labels, decoder_input_ids=labels)


def test_labels_of_any_length_together_are_those_alone(pair: Callable[[str], Pair]) -> None:
    model, (inputs, mask) = pair("mbart"), padded_batch([1603, 977, 2411, 1200])
    lengths, labels = [1, 3, 9, 20], np.random.default_rng(3).integers(4, VOCABULARY, (4, 20))
    for row, length in zip(labels, lengths, strict=True):
        row[length:] = -100
    expected = torch_answer(model, inputs, mask, labels)
    together = model.exported.forward(inputs, mask, labels=labels)
    assert together.loss == pytest.approx(float(expected.loss), abs=1e-4)
    alone = [
        model.exported.forward(inputs[row : row + 1], mask[row : row + 1], labels=labels[row : row + 1, :length]).loss
        for row, length in enumerate(lengths)
    ]
    assert together.loss == pytest.approx(np.average(alone, weights=lengths), abs=1e-5)


def test_tokens_beyond_the_positions_are_refused_by_name(pair: Callable[[str], Pair]) -> None:
    model, (inputs, mask) = pair("mbart").exported, padded_batch(LENGTHS)
    positions = model.manifest.decoder.max_positions
    assert positions is not None
    for name in ("labels", "decoder_input_ids"):
        tokens = np.full((3, positions), 5)
        assert model.forward(inputs, mask, **{name: tokens}).logits.shape == (3, positions, VOCABULARY)
        for longer in (positions + 1, 2 * positions):
            message = f"be given {longer} tokens, the start token included, and it takes {positions} at most"
            with pytest.raises(GenerationError, match=message):
                model.forward(inputs, mask, **{name: np.full((3, longer), 5)})


def test_texts_are_scored_as_torch_does(digits: Pair) -> None:
    model, clip = digits.exported, str(CHECKPOINT.parent / "audio" / "02-espeak-us.wav")
    heard = model.transcribe(clip)
    texts = [heard, "one two three", "nine"]
    found = model.score(clip, texts)
    assert found.argmax() == 0
    inputs, mask = (torch.from_numpy(array) for array in model.feature_extractor([model.load(clip)]))
    config = model.generation_config
    for text, score in zip(texts, found, strict=True):
        ids = [
            *config.start_token_ids(1),
            *model.tokenizer.encode(text, add_special_tokens=False).ids,
            *config.eos_token_ids,
        ]
        with torch.no_grad():
            logits = digits.reference(inputs, attention_mask=mask, decoder_input_ids=torch.tensor([ids[:-1]])).logits
        expected = torch.log_softmax(logits, -1)[0].gather(1, torch.tensor(ids[1:])[:, None]).sum()
        assert score == pytest.approx(float(expected), abs=1e-3)
    assert model.score(clip, []).size == 0


def test_the_limits_of_a_clip_hold_for_scores_too(digits: Pair) -> None:
    model, clip = digits.exported, str(CHECKPOINT.parent / "audio" / "02-espeak-us.wav")
    short, long = AudioLimits(max_seconds=0.5), AudioLimits(max_seconds=60)
    for call in (model.transcribe, lambda clip, limits: model.score(clip, ["nine"], limits=limits)):
        with pytest.raises(AudioError, match="the limit is 0.5 s"):
            call(clip, limits=short)
    np.testing.assert_array_equal(model.score(clip, ["nine"], limits=long), model.score(clip, ["nine"]))


def test_prompts_of_any_length_are_continued_as_alone(pair: Callable[[str], Pair]) -> None:
    model, (inputs, mask) = pair("bart"), padded_batch(LENGTHS)
    given = [[START, 30, 31, 32], [40], [START, 50, 51, 52]]
    for beams in (1, 3):
        found = model.exported.generate(inputs, mask, decoder_input_ids=given, num_beams=beams, max_new_tokens=8)
        for row, prompt in enumerate(given):
            alone = model.exported.generate(
                inputs[row : row + 1],
                mask[row : row + 1],
                decoder_input_ids=[prompt],
                num_beams=beams,
                max_new_tokens=8,
            )
            np.testing.assert_array_equal(found[row, : alone.shape[1]], alone[0])
    with pytest.raises(GenerationError, match="2 prompts for 3 utterances"):
        model.exported.generate(inputs, mask, decoder_input_ids=[[4], [5, 6]])


def test_every_utterance_has_its_start_token(pair: Callable[[str], Pair]) -> None:
    model, batch = pair("mbart"), padded_batch(LENGTHS)
    starts = [11, 12, 13]
    expected = reference(model, batch, decoder_start_token_id=torch.tensor(starts)[:, None], num_beams=3).sequences
    found = model.exported.generate(*batch, decoder_start_token_id=starts, num_beams=3, max_new_tokens=20)
    np.testing.assert_array_equal(found, expected)


def with_tokenizer(model: OnnxSpeechSeq2Seq, names: dict[int, str], **settings: Any) -> OnnxSpeechSeq2Seq:
    vocabulary = {names.get(token, f"▁w{token}"): token for token in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="▁w0"))
    tokenizer.decoder = decoders.Metaspace()
    return OnnxSpeechSeq2Seq(model._backend, model.manifest, model.generation_config.updated(settings), None, tokenizer)


def test_languages_are_found_in_the_vocabulary(pair: Callable[[str], Pair]) -> None:
    plain, batch = pair("mbart").exported, padded_batch(LENGTHS)
    model = with_tokenizer(plain, {20: "de_DE", 21: "fr_XX"})
    forced = model.generate(*batch, language="de", max_new_tokens=6)
    np.testing.assert_array_equal(forced, plain.generate(*batch, forced_bos_token_id=20, max_new_tokens=6))
    with pytest.raises(GenerationError, match="one language for a batch.*Call it once for each language"):
        model.generate(*batch, language=["de", "fr_XX", "de"], max_new_tokens=6)
    starting = with_tokenizer(plain, {20: "de_DE", 21: "fr_XX"}, decoder_start_token_id=21)
    each = starting.generate(*batch, language=["de", "fr_XX", "de"], max_new_tokens=6)
    np.testing.assert_array_equal(each, plain.generate(*batch, decoder_start_token_id=[20, 21, 20], max_new_tokens=6))
    np.testing.assert_array_equal(starting.generate(*batch, language="de", max_new_tokens=6)[:, 0], [20, 20, 20])
    with pytest.raises(GenerationError, match="no token for the language 'xx'; it has de, fr"):
        model.generate(*batch, language="xx")
    with pytest.raises(BundleError, match="languages cannot be looked up"):
        plain.generate(*batch, language="de")


@pytest.mark.parametrize("setting", ["forced_bos_token_id", "decoder_start_token_id"])
def test_a_language_replaces_no_value_of_the_same_call(pair: Callable[[str], Pair], setting: str) -> None:
    plain, batch = pair("mbart").exported, padded_batch(LENGTHS)
    of_bundle = {"max_length": 6, setting: 21}
    model = with_tokenizer(plain, {20: "de_DE", 21: "fr_XX"}, **of_bundle)
    wanted = plain.generate(*batch, **{**of_bundle, setting: 20})
    for neutral in ({}, {"generation_config": model.generation_config}):
        np.testing.assert_array_equal(model.generate(*batch, language="de", **neutral), wanted)
    for given in ({setting: 21}, {"generation_config": {setting: np.int64(20)}}):
        message = rf"^language is 'de' and {setting} is 2\d, and both set the same token; give one of them$"
        for call in (
            lambda **keywords: model.generate(*batch, **keywords),
            lambda **keywords: model.transcribe_iter([], **keywords),
        ):
            with pytest.raises(GenerationError, match=message):
                call(language="de", **given)


def test_a_prompt_leaves_no_room_for_a_language(pair: Callable[[str], Pair]) -> None:
    model, batch = with_tokenizer(pair("mbart").exported, {20: "de_DE"}), padded_batch(LENGTHS)
    with pytest.raises(GenerationError, match="language is 'de' and decoder_input_ids is given, .*; give one of them"):
        model.generate(*batch, language="de", decoder_input_ids=[[5, 6]] * 3)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_stream_is_the_text_in_whole_words(pair: Callable[[str], Pair], beams: int) -> None:
    model, (inputs, mask) = with_tokenizer(pair("bert").exported, {}), padded_batch([1603])
    parts: list[str] = []
    ids = model.generate(inputs, mask, num_beams=beams, max_new_tokens=20, stream=parts.append)
    assert "".join(parts) == model.tokenizer.decode(ids[0, 1:], skip_special_tokens=True)
    assert len(parts) > 2 or beams > 1
    assert all(part.lstrip().startswith("w") for part in parts)
    with pytest.raises(GenerationError, match="stream takes the text of one utterance, this batch has 3"):
        model.generate(*padded_batch(LENGTHS), stream=parts.append)


@pytest.mark.parametrize("beams", [1, 3])
def test_stop_strings_end_a_sequence(pair: Callable[[str], Pair], beams: int) -> None:
    model, batch = with_tokenizer(pair("bert").exported, {}), padded_batch(LENGTHS)
    whole = model.generate(*batch, max_new_tokens=12)
    row, column = next((i, j) for i, j in np.argwhere(whole >= 10) if j > 1)  # no number of two digits is in another
    word = f"w{whole[row, column]}"
    found = model.generate(*batch, max_new_tokens=12, num_beams=beams, stop_strings=[word])
    for sequence in found:
        text = model.tokenizer.decode(sequence[1:][sequence[1:] != PAD], skip_special_tokens=True)
        assert text.count(word) <= 1
        assert word not in text or text.endswith(word)
    if beams == 1:
        first = int((whole[row] == whole[row, column]).argmax())
        np.testing.assert_array_equal(found[row, : first + 1], whole[row, : first + 1])
        assert (found[row, first + 1 :] == PAD).all()


def test_a_search_is_ended_between_steps(pair: Callable[[str], Pair]) -> None:
    model, batch = pair("gpt2").exported, padded_batch(LENGTHS)
    cancel = threading.Event()
    cancel.set()
    for beams in (1, 3):
        found = model.generate(*batch, num_beams=beams, max_new_tokens=30, cancel=cancel, return_dict_in_generate=True)
        assert (set(found.finished), found.steps, found.sequences.shape[1]) == ({"stopped"}, 1, 2)
        late = model.generate(*batch, num_beams=beams, max_new_tokens=30, max_time=0, return_dict_in_generate=True)
        assert (set(late.finished), late.steps) == ({"time"}, 1)
    done = model.generate(*batch, max_new_tokens=3, max_time=60, return_dict_in_generate=True)
    assert set(done.finished) <= {"end", "length"}


def test_own_processors_and_criteria_are_followed(pair: Callable[[str], Pair]) -> None:
    model, batch = pair("bart").exported, padded_batch(LENGTHS)

    def only_even(_: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return np.where(np.arange(scores.shape[-1]) % 2 == 0, scores, -np.inf)

    def four_tokens(sequences: np.ndarray) -> np.ndarray:
        return np.full(len(sequences), sequences.shape[1] == 5)

    for beams in (1, 3):
        found = model.generate(
            *batch, num_beams=beams, logits_processor=[only_even], stopping_criteria=[four_tokens], max_new_tokens=20
        )
        assert found.shape[1] == 5
        assert ((found[:, 1:] % 2 == 0) | (found[:, 1:] == PAD)).all()


def test_a_seed_draws_the_same_samples_again(pair: Callable[[str], Pair]) -> None:
    model, batch = pair("bert").exported, padded_batch(LENGTHS)
    settings = {"do_sample": True, "num_return_sequences": 3, "max_new_tokens": 8, "temperature": 1.3, "top_k": 20}
    first, again, other = (
        model.generate(*batch, generator=np.random.default_rng(seed), **settings) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape[0] == 9
    assert not np.array_equal(first, other)
    beams = model.generate(*batch, do_sample=True, num_beams=3, max_new_tokens=8, generator=np.random.default_rng(1))
    assert beams.shape[0] == 3


def test_narrow_and_wide_candidates_give_the_same_tokens(pair: Callable[[str], Pair]) -> None:
    model, batch = pair("mbart").exported, padded_batch(LENGTHS)
    for settings in ({"num_beams": 3}, {"num_beams": 1}, {"do_sample": True, "top_k": 12, "top_p": 0.9}):
        narrow, wide = (
            model.generate(
                *batch, max_new_tokens=15, generator=np.random.default_rng(5), logits_processor=processors, **settings
            )
            for processors in ((), (lambda _, scores: scores,))
        )
        if "do_sample" not in settings:  # the candidates are in another order: other numbers draw them
            np.testing.assert_array_equal(narrow, wide)


def test_many_threads_give_the_answers_of_one(pair: Callable[[str], Pair]) -> None:
    model, random = pair("bart").exported, np.random.default_rng(0)
    calls: list[tuple[Any, dict[str, Any]]] = [
        (
            padded_batch(random.integers(300, 2500, random.integers(1, 4)).tolist(), seed),
            {
                "num_beams": int(random.integers(1, 5)),
                "max_new_tokens": int(random.integers(2, 20)),
                "repetition_penalty": float(random.choice([1.0, 1.4])),
            },
        )
        for seed in range(64)
    ]
    alone = [model.generate(*batch, **settings) for batch, settings in calls]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda call: model.generate(*call[0], **call[1]), calls))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("calls", [40, pytest.param(2000, marks=pytest.mark.full)])
def test_threads_share_a_tokenizer_and_leave_it_as_it_was(digits: Pair, calls: int) -> None:
    """16 threads mix texts that are scored, decoded and truncated by a user of the same tokenizer."""
    model, clip = digits.exported, str(CHECKPOINT.parent / "audio" / "02-espeak-us.wav")
    samples, random = model.load(clip), np.random.default_rng(0)
    words = ["one", "two", "three", "four", "five", "nine"]
    texts = [" ".join(random.choice(words, random.integers(1, 9))) for _ in range(32)]
    tokenizer = model.tokenizer

    def call(number: int) -> Any:
        text = texts[number % len(texts)]
        if number % 8 == 0:
            return model.score(samples, [text]).tolist()
        if number % 8 == 1:
            return model.transcribe(samples, num_beams=2, stop_strings="two")
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        return tokenizer.decode(ids), tokenizer.decode_batch([ids, ids[:1]], skip_special_tokens=True)

    before, alone = tokenizer.to_str(), [call(number) for number in range(64)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(call, range(16 * calls)))
    assert together == [alone[number % 64] for number in range(16 * calls)]
    assert tokenizer.to_str() == before
