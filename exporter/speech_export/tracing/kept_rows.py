"""A decoder whose embedding and head have rows for the tokens that a bundle keeps, and for no others."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from speech_runtime.bundle.vocabulary import Vocabulary

from ..errors import ExportError


@contextmanager
def only_kept_rows(decoder: PreTrainedModel, vocabulary: Vocabulary) -> Iterator[None]:
    """Within this context, `decoder` has no rows but those of `vocabulary`; afterwards it is unchanged.

    It takes token ids of the model, as all of its parts but the embedding do. Its logits [..., rows] are those of the
    kept tokens, in order. What the embedding and the head share stays shared.

    Raises:
        ExportError: The decoder has no plain embedding and head.
    """
    if vocabulary.kept is None:
        yield
        return
    embedding, head = embedding_and_head(decoder, vocabulary.size)
    kept = torch.from_numpy(vocabulary.ids)
    # A token without a row is never chosen; beams that cannot win may still have one, and take any row.
    rows = torch.zeros(vocabulary.size, dtype=torch.int64)
    rows[kept] = torch.arange(len(kept))
    whole = {(module, name): part for module in (embedding, head) for name, part in module.named_parameters()}
    parts = {part: nn.Parameter(part.detach()[kept], requires_grad=False) for part in whole.values()}
    padding, embedding.padding_idx = embedding.padding_idx, None  # it has no effect but on training
    for (module, name), part in whole.items():
        setattr(module, name, parts[part])
    lookup = embedding.register_forward_pre_hook(lambda _, arguments: (rows[arguments[0]],))
    try:
        yield
    finally:
        lookup.remove()
        embedding.padding_idx = padding
        for (module, name), part in whole.items():
            setattr(module, name, part)


def weights_left_out(decoder: PreTrainedModel, vocabulary: Vocabulary) -> int:
    """Return the number of weights in the rows that `vocabulary` leaves out; those that are shared count once."""
    parts = {part for module in embedding_and_head(decoder, vocabulary.size) for part in module.parameters()}
    return sum(part.numel() - vocabulary.count * part[0].numel() for part in parts)


def embedding_and_head(decoder: PreTrainedModel, vocab_size: int) -> tuple[nn.Embedding, nn.Linear]:
    """Return the modules of a decoder that have a row for each token.

    Raises:
        ExportError: It has others than an embedding and a linear layer.
    """
    embedding, head = decoder.get_input_embeddings(), decoder.get_output_embeddings()
    if (
        not isinstance(embedding, nn.Embedding)
        or not isinstance(head, nn.Linear)
        or len(embedding.weight) < vocab_size
        or len(head.weight) != vocab_size
    ):
        raise ExportError(
            f"the vocabulary of {decoder.config.model_type} cannot be made smaller: it has no plain embedding and no "
            "plain output projection with a row for each token; leave --vocabulary out"
        )
    return embedding, head
