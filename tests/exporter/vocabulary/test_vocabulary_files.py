"""Test files of tokens: each kind is read as what its name says, and what cannot be used is refused by name."""

import os
import pickle
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from speech_export import ExportError
from speech_export.vocabulary.files import check_vocabulary_files, kept_by_file
from vocabularies import TOKENIZERS

TOKENS = ["[UNK]", "one", "two", "##s", "7", "a b", "three", "beyond"]
SIZE = TOKENS.index("beyond")


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordPiece({token: number for number, token in enumerate(TOKENS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("kept.ids", "1\n6\r\n\n 2 \n1\n", {1, 2, 6}),
        ("kept.tokens", "##s\r\na b\n\n7\n", {3, 4, 5}),
        ("kept.txt", "one twos\n\nthree 7\n", {1, 2, 3, 4, 6}),
        ("kept.txt", "\ufeffone\nbeyond words", {0, 1}),
    ],
)
def test_the_name_says_what_is_in_a_file(
    name: str, text: str, expected: set[int], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    check_vocabulary_files([path], None)
    assert kept_by_file(path, tokenizer, SIZE) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("kept.ids", b"1\none\n", "line 2: 'one' is no token id; tokens go into a file that ends in .tokens"),
        ("kept.ids", b"-1\n", "line 1: '-1' is no token id"),
        ("kept.ids", "٣\n".encode(), "line 1: '٣' is no token id"),
        ("kept.ids", b"7\n", "line 1: the model has no token 7, its token ids are 0 … 6"),
        ("kept.ids", b"9" * 5000, "line 1: the model has no token 9"),
        ("kept.ids", b"\n \n", "has no token ids"),
        ("kept.tokens", b"one\nfour\n", "line 2: 'four' is no token of the tokenizer; correct it, or give text in"),
        ("kept.tokens", b"beyond\n", "line 1: 'beyond' is no token"),
        ("kept.txt", b"\n\n", "has no text"),
        ("kept.txt", b"12\n7\n", "has a number on each line and no word.*token ids go into a file that ends in .ids"),
        ("kept.txt", b"one\n\xff\xfe\x00", "is not text in UTF-8"),
        ("kept.txt", b"one\ntwo\0\n", "line 2, has a zero byte: it is no text file"),
        ("kept.ids", pickle.dumps([1, 2]), "is not text in UTF-8|zero byte"),
    ],
)
def test_what_cannot_be_read_is_refused(
    name: str, content: bytes, message: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ExportError, match=message) as error:
        kept_by_file(path, tokenizer, SIZE)
    assert f"--vocabulary {path}" in str(error.value)


@pytest.mark.parametrize("name", ["kept.tokens", "kept.txt"])
def test_tokens_and_text_need_the_tokenizer(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("one")
    with pytest.raises(ExportError, match="the model is exported without its tokenizer; give token ids in a file"):
        kept_by_file(tmp_path / name, None, SIZE)


@pytest.mark.parametrize("kind", ["m2m100", "marian", "roc-bert", "wav2vec2", "speech-to-text"])
def test_text_is_split_without_a_language(kind: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[kind](tmp_path)
    (tmp_path / "kept.txt").write_text("THE quick n\n")
    kept = kept_by_file(tmp_path / "kept.txt", tokenizer, len(tokenizer))
    assert kept >= {*tokenizer("THE quick n", add_special_tokens=False)["input_ids"]}


def test_text_needs_a_tokenizer_that_encodes(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("the quick")
    tokenizer = TOKENIZERS["speech-to-text-2"](tmp_path)
    with pytest.raises(ExportError, match="Speech2Text2Tokenizer only decodes, .*a file that ends in .tokens"):
        kept_by_file(tmp_path / "kept.txt", tokenizer, len(tokenizer))


def test_names_and_places_are_checked_before_a_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "vocab.json").write_text("[1]")
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.ids")
    for name, message in {
        "vocab.json": r"its name says nothing about what is in it; it must end in \.ids .*, \.tokens .* or \.txt",
        "nowhere.txt": "there is no such file",
        "empty.txt": "is empty",
        "folder.txt": "is not a file",
        "pipe.ids": "is not a file",
    }.items():
        with pytest.raises(ExportError, match=message):
            check_vocabulary_files([tmp_path / name], None)
    (tmp_path / "text.txt").write_text("one")
    (tmp_path / "kept.ids").write_text("1")
    with pytest.raises(ExportError, match=r"--vocabulary-check .*kept\.ids: its name says nothing.*must end in \.txt"):
        check_vocabulary_files([tmp_path / "text.txt"], tmp_path / "kept.ids")
    with pytest.raises(ExportError, match=r"--vocabulary-check .*text\.txt is given without --vocabulary"):
        check_vocabulary_files([], tmp_path / "text.txt")
