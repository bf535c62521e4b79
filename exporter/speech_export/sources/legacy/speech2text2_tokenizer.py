"""The tokenizer of Speech2Text2, which transformers 5 no longer has, and for which it silently loads another."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizer
from transformers import __version__ as transformers_version
from transformers.models.auto.tokenization_auto import get_tokenizer_config, tokenizer_class_from_name
from transformers.tokenization_utils_base import FULL_TOKENIZER_FILE
from transformers.utils import cached_file

from speech_runtime.bundle.safe_files import read_json, unreadable

from ...errors import ExportError

_REMEDY = "take the vocab.json that the tokenizer was saved with"


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
            ValueError: transformers does not have its class. `AutoTokenizer` would load it as another one.
        """
        settings = get_tokenizer_config(name, **options)
        kind = settings.get("tokenizer_class")
        if kind == Speech2Text2Tokenizer.__name__:
            return Speech2Text2Tokenizer.from_pretrained(name, **options)
        if kind is not None and "auto_map" not in settings and tokenizer_class_from_name(kind) is None:
            _require_tokenizer_json(name, kind, options)
        return AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code, **options)


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
