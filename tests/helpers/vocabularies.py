"""Tiny tokenizers of every kind that transformers has only in Python, each with what is awkward in its vocabulary."""

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import sentencepiece
from transformers import (
    BartphoTokenizer,
    BertGenerationTokenizer,
    BertJapaneseTokenizer,
    BertweetTokenizer,
    BlenderbotSmallTokenizer,
    ByT5Tokenizer,
    CTRLTokenizer,
    GPTSw3Tokenizer,
    M2M100Tokenizer,
    MarianTokenizer,
    PerceiverTokenizer,
    PhobertTokenizer,
    PLBartTokenizer,
    ProphetNetTokenizer,
    RoCBertTokenizer,
    SiglipTokenizer,
    Speech2TextTokenizer,
    SpeechT5Tokenizer,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2PhonemeCTCTokenizer,
)

from speech_export.sources.legacy.speech2text2 import Speech2Text2Tokenizer

_TEXT = """the quick brown fox jumps over the lazy dog . | don't you say it 's fine , isn't it ? | we 've been there
häuser und bäume — schöne grüße ! | xin chào các bạn việt nam | 日本語 の 文章 です 。 | HELLO World 123 ; i 'm here"""
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
_WORDS = [
    *["the", "quick", "n", ".", ",", "?", "!", "'", "'s", "n't", "'m", "'ve", "don", "日", "本", "ä"],
    "\u3000",
    "\xa0x\x1c",
]
_CONTINUING = [*_WORDS, "##ly", "##'", "##語", "##ß", "##", "#", "###x"]
_CONTINUED = [*_WORDS, "qu@@", "x@@", "@@", "@", "b@@", "ạn", "ü@@"]
_LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", "'", "AB", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ.?"]


def sentencepiece_model(path: Path, **settings: Any) -> str:
    """Train a model of some hundred pieces; returns its path."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXT.replace("|", "\n").splitlines() * 5),
        model_writer=model,
        minloglevel=2,
        hard_vocab_limit=False,
        **{"vocab_size": 150, "model_type": "unigram", **settings},
    )
    path.write_bytes(model.getvalue())
    return str(path)


def _pieces(model: str) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_file=model)
    pieces = (processor.id_to_piece(piece) for piece in range(processor.get_piece_size()))
    return [*_SPECIAL, *(piece for piece in pieces if piece not in _SPECIAL)]


def _json(path: Path, tokens: Iterable[str], step: int = 1) -> str:
    path.write_text(json.dumps({token: place * step for place, token in enumerate(tokens)}))
    return str(path)


def _lines(path: Path, tokens: Iterable[str], ending: str = "") -> str:
    path.write_text("".join(f"{token}{ending}\n" for token in tokens))
    return str(path)


def _bartpho(path: Path) -> Any:
    model = sentencepiece_model(path / "model")
    pieces = [piece for piece in _pieces(model)[4:] if piece != "▁"]
    return BartphoTokenizer(model, _lines(path / "dict.txt", pieces, ending=" 1"))


def _m2m100(path: Path) -> Any:
    model = sentencepiece_model(path / "model")
    return M2M100Tokenizer(_json(path / "vocab.json", _pieces(model)), model)


def _marian(path: Path) -> Any:
    model = sentencepiece_model(path / "model")
    return MarianTokenizer(model, model, _json(path / "vocab.json", _pieces(model)))


def _speech_to_text(path: Path, **settings: Any) -> Any:
    model = sentencepiece_model(path / "model")
    return Speech2TextTokenizer(_json(path / "vocab.json", _pieces(model)), model, **settings)


def _word_pieces(kind: Any, **settings: Any) -> Callable[[Path], Any]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[X_SEP]"]
    return lambda path: kind(_lines(path / "vocab.txt", [*special, *_CONTINUING]), **settings)


def _roc_bert(path: Path) -> Any:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_CONTINUING]
    files = [_lines(path / "vocab.txt", tokens), *(_json(path / f"{name}.json", tokens) for name in ("shape", "sound"))]
    return RoCBertTokenizer(*files)


def _fairseq_pieces(kind: Any) -> Callable[[Path], Any]:
    def make(path: Path) -> Any:
        words = [token for token in _CONTINUED if token.isprintable() and not token.isspace()]
        return kind(_lines(path / "dict.txt", words, ending=" 1"), _lines(path / "bpe.codes", ["q u 1"]))

    return make


def _json_pieces(kind: Any, special: list[str], **settings: Any) -> Callable[[Path], Any]:
    def make(path: Path) -> Any:
        vocabulary = _json(path / "vocab.json", [*special, *_CONTINUED])
        return kind(vocabulary, _lines(path / "merges.txt", ["#version: 0.2", "t h"]), **settings)

    return make


def _letters(step: int = 1, **settings: Any) -> Callable[[Path], Any]:
    return lambda path: Wav2Vec2CTCTokenizer(_json(path / "vocab.json", _LETTERS, step), **settings)


TOKENIZERS: dict[str, Callable[[Path], Any]] = {
    "bartpho": _bartpho,
    "bert-generation": lambda path: BertGenerationTokenizer(sentencepiece_model(path / "model")),
    "bert-generation-bytes": lambda path: BertGenerationTokenizer(
        sentencepiece_model(path / "model", byte_fallback=True, vocab_size=400)
    ),
    "bert-japanese": _word_pieces(BertJapaneseTokenizer, word_tokenizer_type="basic"),
    "bertweet": _fairseq_pieces(BertweetTokenizer),
    "blenderbot-small": _json_pieces(BlenderbotSmallTokenizer, ["__start__", "__end__", "__unk__", "__null__"]),
    "byt5": lambda _: ByT5Tokenizer(),
    "ctrl": _json_pieces(CTRLTokenizer, ["<unk>"]),
    "gpt-sw3": lambda path: GPTSw3Tokenizer(sentencepiece_model(path / "model")),
    "m2m100": _m2m100,
    "marian": _marian,
    "perceiver": lambda _: PerceiverTokenizer(),
    "phobert": _fairseq_pieces(PhobertTokenizer),
    "plbart": lambda path: PLBartTokenizer(sentencepiece_model(path / "model")),
    "prophetnet": _word_pieces(ProphetNetTokenizer),
    "roc-bert": _roc_bert,
    "siglip": lambda path: SiglipTokenizer(sentencepiece_model(path / "model")),
    "speech-to-text": _speech_to_text,
    "speech-to-text-upper-case": lambda path: _speech_to_text(path, do_upper_case=True),
    "speech-to-text-2": lambda path: Speech2Text2Tokenizer(_json(path / "vocab.json", [*_SPECIAL, *_CONTINUED])),
    "speecht5": lambda path: SpeechT5Tokenizer(sentencepiece_model(path / "model", model_type="char")),
    "wav2vec2": _letters(),
    "wav2vec2-lower-case": _letters(do_lower_case=True),
    "wav2vec2-cleaned": _letters(clean_up_tokenization_spaces=True),
    "wav2vec2-phoneme": lambda path: Wav2Vec2PhonemeCTCTokenizer(
        _json(path / "vocab.json", _LETTERS), do_phonemize=False
    ),
    "wav2vec2-with-gaps": _letters(step=2),
}
