"""Test that `tokenizer.json` decodes as transformers does, for every kind of tokenizer that transformers has."""

import json
import re
import shutil
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from conftest import CHECKPOINT
from native_models import END, ENGLISH, NO_TIMESTAMPS, PREVIOUS, START, TRANSCRIBE, whisper_tokenizer
from speech_export import ExportError
from speech_export.sources.hub import DEFAULT_HUB, load_tokenizer
from speech_export.tokenizers.evidence import decoded
from speech_export.tokenizers.runtime_tokenizer import runtime_tokenizer
from speech_runtime.generation.text import decoding_arguments
from vocabularies import TOKENIZERS

Both = tuple[Any, Tokenizer]

SPEECH2TEXT2 = ["<s>", "<pad>", "</s>", "<unk>", "hal@@", "lo", "hallo", "wel@@", "t", ",", ".", "?", "'", "s", "n't"]
SPEECH2TEXT2 += ["nicht", "'s", "ü@@", "ber", "@@", "a@@", "@", "l@@", "wir", "!", "schö@@", "ne"]

# What `Speech2Text2Tokenizer.decode(ids, skip_special_tokens=True)` of transformers 4.34.0 says.
CLEANED_BY_TRANSFORMERS_4 = [
    ([2, 4, 5, 9, 7, 8, 24, 2], "hallo, welt!"),
    ([2, 4, 2], "hal@@"),
    ([12, 13], "' s"),
    ([15, 14, 10], "nichtn't."),
    ([19, 20, 19], "a@@"),
    ([], ""),
    ([17, 18, 11, 1, 1], "über?"),
    ([0, 3, 21, 6], "@ hallo"),
    ([18, 17, 4, 11], "ber ühal?"),
    ([15, 20, 18, 2, 19, 0, 26, 15, 8, 17], "nicht aber ne nicht t ü@@"),
    ([15, 12, 20, 4, 7, 20, 4, 16, 12], "nicht'ahalwelahal's '"),
]
AS_IT_IS_BY_TRANSFORMERS_4 = [
    ([2, 4, 5, 9, 7, 8, 24, 2], "hallo , welt !"),
    ([15, 14, 10], "nicht n't ."),
    ([17, 18, 11, 1, 1], "über ?"),
    ([15, 12, 20, 4, 7, 20, 4, 16, 12], "nicht ' ahalwelahal's '"),
]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Both]:
    """A tokenizer of transformers, and what is made of it."""
    known: dict[str, Both] = {}

    def make(kind: str) -> Both:
        if kind not in known:
            tokenizer = TOKENIZERS[kind](tmp_path_factory.mktemp(kind))
            known[kind] = tokenizer, runtime_tokenizer(tokenizer)
        return known[kind]

    return make


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_tokens_are_the_same_text(both: Callable[[str], Both], kind: str, data: st.DataObject) -> None:
    tokenizer, written = both(kind)
    known = st.sampled_from(sorted(tokenizer.get_vocab().values()))
    ids = data.draw(st.lists(known | st.sampled_from([*tokenizer.all_special_ids, 5]), max_size=12))
    text = decoded(tokenizer, ids)
    assert text is None or written.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("clean_up", [False, True])
def test_whispers_text_has_no_times_and_no_earlier_text(clean_up: bool) -> None:
    tokenizer = whisper_tokenizer()
    tokenizer.add_tokens([AddedToken(f"<|{time}|>", normalized=False) for time in ("0.00", "0.02", "29.98")])
    tokenizer.clean_up_tokenization_spaces = clean_up
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = clean_up
    first = NO_TIMESTAMPS + 1
    prompt = [START, ENGLISH, TRANSCRIBE]
    written = runtime_tokenizer(tokenizer)
    for ids in ([*prompt, first, 3, 4, first + 1, first + 1, 5, first + 2, END], [*prompt, NO_TIMESTAMPS, 3, 4, END]):
        assert written.decode(ids, skip_special_tokens=True) == decoded(tokenizer, ids)
    assert decoded(tokenizer, [PREVIOUS, 3, *prompt, 4]) == "e"  # what the runtime never decodes
    assert written.encode("de", add_special_tokens=False).ids == [3, 4]


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_neutral_arguments_change_nothing(both: Callable[[str], Both], kind: str, data: st.DataObject) -> None:
    tokenizer, written = both(kind)
    ids = data.draw(st.lists(st.sampled_from(sorted(tokenizer.get_vocab().values())), max_size=12))
    if decoded(tokenizer, ids) is None:
        return
    for name in ("clean_up_tokenization_spaces", "group_tokens"):
        for value in (None, *decoding_arguments(written)[name].neutral):
            given = {} if value is None else {name: value}
            text = tokenizer.decode(ids, skip_special_tokens=True, **given)
            assert written.decode(ids, skip_special_tokens=True) == text


def test_what_only_decodes_refuses_to_encode(both: Callable[[str], Both]) -> None:
    with pytest.raises(Exception, match="Missing"):  # the library has no exception of its own
        both("phobert")[1].encode("the quick")


def fast(clean_up: bool, model: models.Model | None = None, decoder: Any = None) -> PreTrainedTokenizerFast:
    tokens = ["<s>", "</s>", "<unk>", "▁the", "▁n", "▁.", "▁?", "'", "▁'", "s", "'s", "▁n't", "▁!", ","]
    tokenizer = Tokenizer(model or models.WordLevel({token: place for place, token in enumerate(tokens)}, "<unk>"))
    tokenizer.decoder = decoder
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=clean_up, **special)


@pytest.mark.parametrize(
    ("decoder", "ids", "text"), [(decoders.Metaspace(), [3, 5, 11, 10], "the.n't's"), (None, [9, 13, 7, 9], "s,'s")]
)
def test_spaces_are_cleaned_up_where_transformers_does_it(decoder: Any, ids: list[int], text: str) -> None:
    tokenizer = fast(clean_up=True, decoder=decoder)
    before = tokenizer.backend_tokenizer.to_str()
    written = runtime_tokenizer(tokenizer)
    assert written.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.backend_tokenizer.decode(ids) != text
    assert written.get_vocab() == tokenizer.get_vocab()
    assert tokenizer.backend_tokenizer.to_str() == before


def test_what_agrees_already_is_kept() -> None:
    pairs = models.BPE({"▁": 0, ".": 1, "▁.": 2}, [("▁", ".")])  # transformers does not clean up after this model
    for tokenizer in (fast(clean_up=False, decoder=decoders.Metaspace()), fast(True, pairs, decoders.Metaspace())):
        assert runtime_tokenizer(tokenizer).to_str() == tokenizer.backend_tokenizer.to_str()


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("clean_up", [True, False])
@pytest.mark.parametrize("model", [None, models.BPE({"▁": 0, ".": 1, "▁.": 2}, [("▁", ".")])])
def test_a_clean_up_that_changes_something_is_not_neutral(model: Any, clean_up: bool, value: bool) -> None:
    tokenizer = fast(clean_up, model, decoders.Metaspace())
    written, ids = runtime_tokenizer(tokenizer), [1, 2] if model else [3, 5]
    changes = tokenizer.decode(ids, clean_up_tokenization_spaces=value) != written.decode(ids)
    neutral = decoding_arguments(written)["clean_up_tokenization_spaces"].neutral
    assert (value in neutral) is not changes


def test_what_no_decoder_says_is_refused() -> None:
    class Backwards(PreTrainedTokenizerFast):
        def _decode(self, token_ids: Any, **settings: Any) -> str:
            return super()._decode(token_ids, **settings)[::-1]

    tokenizer = Backwards(tokenizer_object=fast(clean_up=False, decoder=decoders.Metaspace()).backend_tokenizer)
    message = r"Backwards cannot .* decodes the ids \[.+\] to (.+), the nearest decoder to (.+); .*--without token"
    with pytest.raises(ExportError, match=message) as refused:
        runtime_tokenizer(tokenizer)
    match = re.search(message, str(refused.value))
    assert match is not None
    assert literal_eval(match[1]) == literal_eval(match[2])[::-1]


def save_speech2text2(directory: Path, **options: Any) -> None:
    (directory / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(SPEECH2TEXT2)}))
    named = {"tokenizer_class": "Speech2Text2Tokenizer", "do_lower_case": True, "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps({**named, **options}))


@pytest.mark.parametrize(
    ("options", "recorded"),
    [
        ({}, CLEANED_BY_TRANSFORMERS_4),
        ({"clean_up_tokenization_spaces": False}, AS_IT_IS_BY_TRANSFORMERS_4),
        ({"eos_token": {"content": "</s>", "__type": "AddedToken"}}, CLEANED_BY_TRANSFORMERS_4),
    ],
)
def test_speech2text2_is_read_as_transformers_4_read_it(
    options: dict[str, Any], recorded: list[tuple[list[int], str]], tmp_path: Path
) -> None:
    save_speech2text2(tmp_path, **options)
    tokenizer = load_tokenizer(str(tmp_path), DEFAULT_HUB)
    written = runtime_tokenizer(tokenizer)
    for ids, text in recorded:
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert written.decode(ids, skip_special_tokens=True) == text


def test_the_last_call_of_a_tokenizer_is_not_written(tmp_path: Path) -> None:
    used = PreTrainedTokenizerFast.from_pretrained(CHECKPOINT)
    used("five nine", truncation=True, max_length=8, padding="max_length")
    used.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "tokenizer.json").read_text())
    assert stored["truncation"]["max_length"] == 8
    assert stored["padding"]["strategy"] == {"Fixed": 8}
    tokenizer = load_tokenizer(str(tmp_path), DEFAULT_HUB)
    backend = tokenizer.backend_tokenizer
    before = backend.to_str()
    written = runtime_tokenizer(tokenizer)
    assert (written.truncation, written.padding, backend.to_str()) == (None, None, before)
    for text in ("five", "five nine eight two"):
        assert written.encode(text, add_special_tokens=False).ids == tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("family", ["bert", "gpt2", "bart", "mbart", "xlm-roberta", "electra"])
def test_a_tokenizer_without_a_vocabulary_is_missing(family: str, tmp_path: Path) -> None:
    """Beside such a configuration, transformers makes one of special tokens, of which the text would be empty."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    with pytest.raises(ExportError, match=r"it has no tokenizer\.json; it holds config\.json"):
        load_tokenizer(str(tmp_path), DEFAULT_HUB)


def test_a_tokenizer_that_transformers_does_not_have_is_not_taken_for_another(tmp_path: Path) -> None:
    save_speech2text2(tmp_path, tokenizer_class="OurOwnTokenizer")
    with pytest.raises(ExportError, match="has no OurOwnTokenizer, and there is no tokenizer.json"):
        load_tokenizer(str(tmp_path), DEFAULT_HUB)
    shutil.copy(CHECKPOINT / "tokenizer.json", tmp_path)
    assert load_tokenizer(str(tmp_path), DEFAULT_HUB).is_fast
