"""Prompts of models that are told the language and the task in front of the text, as Whisper is."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..bundle.model_facts import PromptTemplate
from ..dataclass_json import shown
from ..errors import GenerationError
from .language import codes, token_of_each
from .search.base import Tokens


def filled(
    template: PromptTemplate,
    start: Sequence[int],
    language: str | Sequence[str] | None,
    task: str | None,
    detect: Callable[[Tokens], NDArray[np.float32]],
    source_language: str | Sequence[str] | None = None,
) -> Tokens:
    """Return the prompts of a batch, the start tokens included: int64 [batch, tokens].

    Args:
        template: Template of the model's prompts.
        start: Start token of each utterance.
        language: Language of the text, or one for each utterance, by any of its names; None for the source language,
            for that of the template, or for the one that is detected.
        task: Task; None for that of the template.
        detect: Function that returns the logits [batch, vocabulary] after tokens [batch, 1]; called to detect
            languages.
        source_language: Language of the speech, or one for each utterance; None for that of the text.

    Raises:
        GenerationError: The model has no such language or task, a language is missing, their number is not that of
            the utterances, or the model is not told the language of the speech.
    """
    if source_language is not None:
        if "source_language" not in template.tokens:
            raise GenerationError(no_source_language(source_language))
        language = source_language if language is None else language
    language = template.language if language is None else language
    task = template.task if task is None else task
    places = template.by_default if language is None and task is None else template.tokens
    if language is not None and task is None:
        task = template.task_of_language
    task_token = None if task is None else _token(template.tasks, "task", task)
    if places is None:
        raise GenerationError(f"language is missing; this model needs one of {', '.join(codes(template.languages))}")
    starts = np.array(start, dtype=np.int64)
    answers: dict[str, Tokens | int | None] = {"language": None, "task": task_token}
    for name, given in (("source_language", source_language), ("language", language)):
        if given is not None:
            token_of = partial(_token, template.languages, name)
            answers[name] = np.array(token_of_each(given, len(start), token_of, name), dtype=np.int64)
    if language is None and "language" in places:
        known = np.unique(list(template.languages.values()))
        answers["language"] = known[detect(starts[:, None])[:, known].argmax(axis=-1)]
    answers.setdefault("source_language", answers["language"])
    filled_in = [answers[token] if isinstance(token, str) else token for token in places]
    columns = [np.broadcast_to(tokens, starts.shape) for tokens in (starts, *filled_in) if tokens is not None]
    return np.stack(columns, axis=1).astype(np.int64)


def no_source_language(source_language: object) -> str:
    """Return the error for a model whose prompt has no place for the language of the speech."""
    return (
        f"source_language is {shown(source_language)}, and this model is not told the language of the speech apart "
        "from language; leave it out"
    )


def _token(known: Mapping[str, int], kind: str, name: str) -> int:
    """Return the token of a language or a task, in any case of letters."""
    token = known.get(name, known.get(name.lower())) if isinstance(name, str) else None
    if token is None:
        raise GenerationError(f"{kind} is {shown(name)}, {_choice(known, kind)}")
    return token


def _choice(known: Mapping[str, int], kind: str) -> str:
    if not known:
        return f"and this model has none to choose from; leave {kind} out"
    return f"this model has {', '.join(codes(known))}"
