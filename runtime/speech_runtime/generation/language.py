"""Language tokens of multilingual models, found in the vocabulary by their form."""

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial

from tokenizers import Tokenizer

from ..dataclass_json import shown
from ..errors import BundleError, GenerationError
from .config import GenerationConfig

_FORMS = (
    re.compile(r"([a-z]{2,3})_[A-Z]{2}\Z"),  # mBART: de_DE
    re.compile(r"([a-z]{3})_[A-Z][a-z]{3}\Z"),  # NLLB: deu_Latn
    re.compile(r"__([a-z]{2,3})__\Z"),  # M2M100
    re.compile(r"<\|([a-z]{2,3})\|>\Z"),  # Whisper
    re.compile(r">>([a-z]{2,3})<<\Z"),  # Marian
    re.compile(r"<2([a-z]{2,3})>\Z"),  # T5, MADLAD
    re.compile(r"<lang:([a-z]{2,3})>\Z"),  # Speech2Text
)


def language_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the token id of each language, by its code (`de`) and by its token (`de_DE`)."""
    found: dict[str, int] = {}
    for token, number in sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1]):
        if (code := _code(token)) is not None:
            found.setdefault(code, number)
            found[token] = number
    return found


def codes(known: Mapping[str, int]) -> list[str]:
    """Return the shortest name of each token, sorted: the codes of languages."""
    shortest: dict[int, str] = {}
    for name in sorted(known, key=lambda name: (not name.isalpha(), len(name), name)):
        shortest.setdefault(known[name], name)
    return sorted(shortest.values())


def language_token(tokenizer: Tokenizer, language: str) -> int:
    """Return the token id of a language.

    Raises:
        GenerationError: The vocabulary has no token for it; the message lists the languages that it has.
    """
    known = language_tokens(tokenizer)
    if not isinstance(language, str) or language not in known:
        choice = ", ".join(codes(known)) or "none"
        raise GenerationError(f"the tokenizer has no token for the language {language!r}; it has {choice}")
    return known[language]


def token_of_each(
    language: str | Sequence[str], batch: int, token_of: Callable[[str], int], name: str = "language"
) -> list[int]:
    """Return the token of the language of each utterance.

    Args:
        language: Language of all utterances, or a list with one for each.
        batch: Number of utterances.
        token_of: Function that returns the token of a language, and refuses one that the model lacks.
        name: Argument of the call, for errors.

    Raises:
        GenerationError: It is neither, a language is refused, or their number is not `batch`.
    """
    if isinstance(language, bytes) or not isinstance(language, Iterable):
        raise GenerationError(
            f"{name} is {shown(language)}, it must be a language such as 'de', or a list with one for each clip"
        )
    tokens = [token_of(name) for name in ([language] * batch if isinstance(language, str) else language)]
    if len(tokens) != batch:
        raise GenerationError(f"{name} has {len(tokens)} languages for {batch} utterances; give one for each")
    return tokens


def setting_of_language(config: GenerationConfig, tokenizer: Tokenizer) -> str:
    """Return the name of the setting that `language` sets: the start token if that is a language token, as in mBART."""
    start = config.start_token_id
    tokens = start if isinstance(start, tuple) else () if start is None else (start,)
    starts = any(_code(tokenizer.id_to_token(token) or "") is not None for token in tokens)
    return "decoder_start_token_id" if starts else "forced_bos_token_id"


def check_given_once(
    language: str | Sequence[str],
    given: Container[str],
    config: GenerationConfig,
    of_bundle: GenerationConfig,
    setting: str,
) -> None:
    """Refuse a value of the call that its language would replace; a value of the bundle is there to be replaced.

    Args:
        language: Language of the call.
        given: Keywords of the call.
        config: Settings of the call.
        of_bundle: Settings of the bundle.
        setting: Name of the setting that the language sets.

    Raises:
        GenerationError: The call gives both.
    """
    value = getattr(config, setting)
    if value is not None and (setting in given or value != getattr(of_bundle, setting)):
        raise GenerationError(
            f"language is {shown(language)} and {setting} is {shown(value)}, and both set the same token; "
            "give one of them"
        )


def with_language(
    config: GenerationConfig,
    tokenizer: Tokenizer | None,
    language: str | Sequence[str],
    batch: int,
    *,
    prompted: bool = False,
) -> GenerationConfig:
    """Return settings for one language, or for one language for each utterance.

    A model whose start token is a language token starts with the token of the requested language. Other models have it
    forced as the first new token, so all their utterances must have the same language, and no prompt.

    Args:
        config: Settings of the call.
        tokenizer: Tokenizer of the bundle.
        language: Language, or one for each utterance.
        batch: Number of utterances.
        prompted: Whether the call has prompts.

    Raises:
        BundleError: The bundle has no tokenizer, whose vocabulary lists the languages.
        GenerationError: The tokenizer does not have them, their number is not `batch`, or they differ where one
            language is forced for all utterances; or a prompt takes the place of the forced token.
    """
    if tokenizer is None:
        raise BundleError("the bundle has no tokenizer.json: languages cannot be looked up; set their token instead")
    tokens = token_of_each(language, batch, partial(language_token, tokenizer))
    setting = setting_of_language(config, tokenizer)
    if setting == "decoder_start_token_id":
        return config.updated({setting: tokens})
    if prompted:
        raise GenerationError(
            f"language is {shown(language)} and decoder_input_ids is given, and both set what this model's texts begin "
            "with; give one of them: a prompt may have the language's token at its end"
        )
    if len(set(tokens)) > 1:
        raise GenerationError(
            f"language is {shown(language)}, and this model takes one language for a batch: its start token is no "
            "language token. Call it once for each language"
        )
    return config.updated({setting: tokens[0]})


def _code(token: str) -> str | None:
    """Return the code of a language token; None for other tokens."""
    return next((match[1] for form in _FORMS if (match := form.match(token))), None)
