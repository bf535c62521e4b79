"""Speech2Text2, the decoder of `facebook/s2t-wav2vec2-large-en-de` and others, and its tokenizer, for transformers 5.

transformers 5 no longer has the model, and silently loads another tokenizer for it. The model is TrOCR's decoder with
sinusoidal positions and without a layer norm after the embeddings. The two position tables differ only in length: both
number positions from the padding token's id onwards, and skip padding.
"""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizer, SpeechEncoderDecoderConfig
from transformers import __version__ as transformers_version
from transformers.models.auto.tokenization_auto import get_tokenizer_config, tokenizer_class_from_name
from transformers.tokenization_utils_base import FULL_TOKENIZER_FILE
from transformers.utils import cached_file

from speech_runtime.bundle.safe_files import read_json, unreadable

from ...errors import ExportError
from ...tokenizers.runtime_tokenizer import has_words

_MODEL_TYPE = "speech_to_text_2"
_HEAD = {r"^decoder\.lm_head\.": "decoder.output_projection."}
_REMEDY = "take the vocab.json that the tokenizer was saved with"


def speech2text2_config(settings: dict[str, Any]) -> PretrainedConfig | None:
    """Return the configuration of a composite with a Speech2Text2 decoder, described as TrOCR's.

    Args:
        settings: Content of the config.json of any checkpoint.

    Returns:
        The configuration; None if `settings` are another model's.
    """
    decoder = settings.get("decoder")
    if not isinstance(decoder, dict) or decoder.get("model_type") != _MODEL_TYPE:
        return None
    return SpeechEncoderDecoderConfig.from_dict({**settings, "decoder": _as_trocr(decoder)})


def renamed_weights(config: PretrainedConfig) -> dict[str, str] | None:
    """Return the patterns that rename the weights of a Speech2Text2 decoder to TrOCR's.

    Args:
        config: Configuration of any composite.

    Returns:
        Pattern → replacement, the `key_mapping` of `from_pretrained`; None for other decoders.
    """
    return _HEAD if config.decoder.model_type == "trocr" else None


class Speech2Text2Tokenizer(PreTrainedTokenizer):  # type: ignore[misc]  # transformers has no types
    """`transformers.Speech2Text2Tokenizer` as it was in transformers 4, for decoding.

    Args:
        vocab_file: `vocab.json`, token → id; a token that ends in "@@" is not the last of its word.
        kwargs: Keywords of any tokenizer.

    Raises:
        ExportError: The file cannot be read, or is not a vocabulary.
    """

    vocab_files_names = {"vocab_file": "vocab.json"}  # noqa: RUF012 - declared so by the base class

    def __init__(self, vocab_file: str | None, **kwargs: Any) -> None:
        self._ids: dict[str, int] = _read_vocabulary(vocab_file)
        self._tokens = {token_id: token for token, token_id in self._ids.items()}
        special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        # transformers 4 cleaned up spaces by default; transformers 5 does not.
        super().__init__(**{"clean_up_tokenization_spaces": True, **special, **kwargs})

    @property
    def vocab_size(self) -> int:
        """Number of tokens, without those added later."""
        return len(self._ids)

    def get_vocab(self) -> dict[str, int]:
        """Return token → id."""
        return {**self._ids, **self.added_tokens_encoder}

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join tokens to a text, with spaces between words only."""
        return " ".join(tokens).replace("@@ ", "")

    def _convert_token_to_id(self, token: str) -> int | None:
        return self._ids.get(token, self._ids.get(str(self.unk_token)))

    def _convert_id_to_token(self, index: int) -> str:
        return self._tokens.get(index) or str(self.unk_token)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        raise NotImplementedError(f"{type(self).__name__} decodes only, it cannot encode {text!r}")


class TextTokenizer:
    """`AutoTokenizer` that also knows the tokenizer of Speech2Text2."""

    @staticmethod
    def from_pretrained(name: str, *, trust_remote_code: bool = False, **options: Any) -> Any:
        """Return the tokenizer of a directory or Hub id.

        Args:
            name: Directory or Hub id.
            trust_remote_code: If true, code beside it may run.
            options: More keywords of `AutoTokenizer.from_pretrained`.

        Raises:
            OSError: There is no tokenizer; `AutoTokenizer` raises other errors too.
            ValueError: transformers does not have its class, and `AutoTokenizer` would load it as another one; its
                unknown token is not one of its tokens; or there is no vocabulary.
        """
        settings = get_tokenizer_config(name, **options)
        kind = settings.get("tokenizer_class")
        if kind == Speech2Text2Tokenizer.__name__:
            return Speech2Text2Tokenizer.from_pretrained(name, **options)
        if kind is not None and "auto_map" not in settings and tokenizer_class_from_name(kind) is None:
            _require_tokenizer_json(name, kind, options)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code, **options)
        try:
            _ = tokenizer.all_special_ids
        except RecursionError:  # transformers looks for the unknown token in place of the unknown token
            raise ValueError(f"its unk_token is {tokenizer.unk_token!r}, which is not one of its tokens") from None
        if not has_words(tokenizer):
            raise ValueError("it has no vocabulary, only special tokens")
        return tokenizer


def _as_trocr(decoder: dict[str, Any]) -> dict[str, Any]:
    """Return a `Speech2Text2Config` as a `TrOCRConfig`; missing settings get the defaults of Speech2Text2."""
    defaults = {
        "vocab_size": 10000,
        "d_model": 256,
        "decoder_layers": 6,
        "decoder_ffn_dim": 2048,
        "decoder_attention_heads": 4,
        "activation_function": "relu",
        "scale_embedding": True,
    }
    positions = decoder.get("max_target_positions", 1024)
    fixed = {
        "model_type": "trocr",
        "max_position_embeddings": positions,
        "use_learned_position_embeddings": False,
        "layernorm_embedding": False,
    }
    return defaults | {key: value for key, value in decoder.items() if key != "max_target_positions"} | fixed


def _read_vocabulary(file: str | None) -> dict[str, int]:
    if file is None:  # transformers found no file of that name
        raise ExportError(f"there is no file vocab.json; {_REMEDY}")
    try:
        ids = read_json(Path(file))
    except (OSError, ValueError) as error:
        raise ExportError(f"{file} cannot be read: {unreadable(error)}; {_REMEDY}") from error
    if not isinstance(ids, dict) or not all(type(token_id) is int and token_id >= 0 for token_id in ids.values()):
        raise ExportError(f"{file} is not a vocabulary, an object of tokens and their ids; {_REMEDY}")
    return ids


def _require_tokenizer_json(name: str, kind: str, options: dict[str, Any]) -> None:
    if cached_file(name, FULL_TOKENIZER_FILE, _raise_exceptions_for_missing_entries=False, **options) is None:
        raise ValueError(
            f"transformers {transformers_version} has no {kind}, and there is no {FULL_TOKENIZER_FILE}; save it as a "
            "fast tokenizer with a version that has it"
        )
