"""The torch model that says only what a bundle keeps: the reference of such a bundle, and what that costs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import SpeechEncoderDecoderModel
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

from speech_runtime.bundle.model_facts import PromptTemplate
from speech_runtime.bundle.vocabulary import Vocabulary

from .evaluation_audio import AudioSet
from .reference import BEAMS, Oracle
from .word_errors import word_error_rate


@contextmanager
def only_kept_tokens(model: SpeechEncoderDecoderModel, vocabulary: Vocabulary) -> Iterator[None]:
    """Within this context, the logits of `model` are -inf for the tokens that `vocabulary` leaves out."""
    if vocabulary.kept is None:
        yield
        return
    left_out = torch.from_numpy(~vocabulary.is_kept)

    def masked(_: Any, __: Any, output: CausalLMOutputWithCrossAttentions) -> CausalLMOutputWithCrossAttentions:
        output.logits = output.logits.masked_fill(left_out, -torch.inf)
        return output

    hook = model.decoder.register_forward_hook(masked)
    try:
        yield
    finally:
        hook.remove()


def transcripts(
    model: SpeechEncoderDecoderModel, audio: AudioSet, new_tokens: int, template: PromptTemplate | None, tokenizer: Any
) -> list[str]:
    """Return the texts of all clips of `audio` by beam search, as the gate searches; see `expectations`."""
    texts: list[str] = []
    for batch in audio.batches:
        oracle = Oracle(model, batch.inputs, batch.attention_mask)
        given = {} if template is None else {"decoder_input_ids": torch.from_numpy(oracle.prompts(template))}
        tokens = oracle.generate(num_beams=BEAMS, num_return_sequences=1, max_new_tokens=new_tokens, **given)
        texts += tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return texts


def word_error_rate_of(texts: Sequence[str], audio: AudioSet) -> float | None:
    """Return the word error rate of the texts of clips whose transcript is known; None if none is."""
    references = [text for batch in audio.batches for text in batch.texts]
    known = [(reference, text) for reference, text in zip(references, texts, strict=True) if reference is not None]
    return word_error_rate(*zip(*known, strict=True)) if known else None
