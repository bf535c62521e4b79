"""Test which tokens always stay, with every kind of tokenizer."""

import logging
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import ByteFallback, Fuse, Sequence
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

from composites import EOS, PAD, START, VOCABULARY, composite
from speech_export import ExportError
from speech_export.sources.composite import Composite
from speech_export.tokenizers.runtime_tokenizer import runtime_tokenizer
from speech_export.vocabulary.lost_words import lost_words
from speech_export.vocabulary.selection import kept_vocabulary, short_tokens
from speech_runtime.bundle.vocabulary import Vocabulary
from vocabularies import TOKENIZERS

SPECIAL = {"unk_token": "<unk>", "eos_token": "</s>"}


def words_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with a token for each word, the first three of them special."""
    vocabulary = {token: number for number, token in enumerate(["<unk>", "</s>", "<extra>", *words])}
    model = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=model, **SPECIAL, additional_special_tokens=["<extra>"])


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_single_characters_stay(kind: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[kind](tmp_path)
    kept = short_tokens(tokenizer.get_vocab(), runtime_tokenizer(tokenizer))
    for token, number in tokenizer.get_vocab().items():
        plain = token.removeprefix("▁").removeprefix("##").removesuffix("@@").strip()
        if len(plain) == 1 or (plain and all(unicodedata.category(each)[0] in "NP" for each in plain)):
            assert number in kept, token


def test_bytes_stay() -> None:
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), "word", "w", "or", "日", "é", "2024", "..."]
    tokenizer = Tokenizer(BPE({piece: number for number, piece in enumerate(pieces)}, [], byte_fallback=True))
    tokenizer.decoder = Sequence([ByteFallback(), Fuse()])
    kept = {pieces[token] for token in short_tokens(tokenizer.get_vocab(), tokenizer)}
    assert kept == {*pieces} - {"word", "or"}
    assert tokenizer.decode(tokenizer.encode("ü").ids) == "ü"


def test_characters_of_byte_level_tokenizers_stay(tmp_path: Path) -> None:
    pieces = ["a", "Ġ", "Ã", "¼", "Ã¼", "Ġa", "Ġab", "<|endoftext|>"]
    tokenizer = GPT2Tokenizer({piece: number for number, piece in enumerate(pieces)}, [])
    kept = {pieces[token] for token in short_tokens(tokenizer.get_vocab(), runtime_tokenizer(tokenizer))}
    assert kept >= {"a", "Ġ", "Ã", "¼", "Ã¼", "Ġa"}
    assert "Ġab" not in kept


def test_special_tokens_and_languages_stay_wherever_they_are_named(tmp_path: Path) -> None:
    words = [*(f"word{number}" for number in range(VOCABULARY - 5)), "de_DE", ">>fr<<"]
    tokenizer = words_tokenizer(words)
    model = composite("bert")
    model.config.decoder_start_token_id = 20
    model.decoder.config.sep_token_id = 21
    model.generation_config.forced_eos_token_id = [22, 23]
    (tmp_path / "kept.ids").write_text("30")
    given = Composite(model, None, tokenizer, "a model")
    kept = kept_vocabulary(given, [tmp_path / "kept.ids"], runtime_tokenizer(tokenizer), VOCABULARY)
    languages = {VOCABULARY - 2, VOCABULARY - 1}
    assert {*kept.ids.tolist()} >= {0, 1, 2, START, PAD, EOS, 20, 21, 22, 23, 30, *languages}
    assert kept.count < 20


def test_ids_are_kept_that_the_vocabulary_has_otherwise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = words_tokenizer([f"word{number}" for number in range(VOCABULARY - 3)])
    vocabulary = tokenizer.get_vocab() | {"</s>": 50}
    tokenizer.get_vocab = lambda: vocabulary
    (tmp_path / "kept.ids").write_text("30")
    with caplog.at_level(logging.WARNING):
        kept = kept_vocabulary(
            Composite(composite("bert"), None, tokenizer, "a model"),
            [tmp_path / "kept.ids"],
            Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
            VOCABULARY,
        )
    assert kept.is_kept[[1, 50]].all()
    assert "has other ids than it uses, and both are kept: '</s>' (1, there 50)" in caplog.text


def test_all_or_one_token_is_no_choice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = composite("bert")
    all_of_them, one = tmp_path / "all.ids", tmp_path / "one.ids"
    all_of_them.write_text("\n".join(map(str, range(VOCABULARY))))
    one.write_text("0")
    given = Composite(model, None, None, "a model")
    with caplog.at_level(logging.WARNING):
        assert kept_vocabulary(given, [all_of_them], None, VOCABULARY) == Vocabulary(VOCABULARY)
    assert "name all 90 tokens of the model: none is left out" in caplog.text
    assert kept_vocabulary(given, [], None, VOCABULARY) == Vocabulary(VOCABULARY)
    bare = replace(given, model=without_tokens(model))
    with pytest.raises(ExportError, match="--vocabulary keeps 1 of 90 tokens; name more in its files"):
        kept_vocabulary(bare, [one], None, VOCABULARY)


def without_tokens(model: Any) -> Any:
    for settings in (model.generation_config, model.config, model.decoder.config, model.config.encoder):
        for name in vars(settings):
            if name.endswith("_token_id"):
                setattr(settings, name, None)
    return model


def test_words_of_a_text_that_are_lost_are_counted(tmp_path: Path) -> None:
    tokenizer = words_tokenizer(["one", "two", "three"])
    text = tmp_path / "text.txt"
    text.write_text("one two two\nthree  two one\nfour\n")
    found = lost_words(text, tokenizer, Vocabulary(6, "0-3"))
    assert (found.words, found.lost, found.examples) == (7, 4, ("two", "three"))
    text.write_text(" \n")
    with pytest.raises(ExportError, match="has no words"):
        lost_words(text, tokenizer, Vocabulary(6, "0-3"))
    with pytest.raises(ExportError, match="exported without its tokenizer; leave it out"):
        lost_words(text, None, Vocabulary(6, "0-3"))
