"""Test decoders with rows for a part of their vocabulary: the logits of torch for these tokens, for every family."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from composites import DECODERS, VOCABULARY, decoder_model
from native_models import NATIVE, native
from speech_export import ExportError
from speech_export.families import decoder_family
from speech_export.sources.native import joined_halves
from speech_export.tracing.kept_rows import embedding_and_head, only_kept_rows, weights_left_out
from speech_runtime.bundle.vocabulary import Vocabulary

WIDTH, FRAMES = 24, 7
KEPT = st.sets(st.integers(0, VOCABULARY - 1), min_size=2, max_size=VOCABULARY - 1)


def family(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    decoder: PreTrainedModel = joined_halves(native(name)).decoder if name in NATIVE else decoder_model(name)
    return decoder.eval()


def logits(decoder: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Logits [1, tokens, rows] after all tokens but the last, then after that one alone."""
    width = getattr(decoder.config, "cross_attention_hidden_size", None) or decoder.config.hidden_size
    states = torch.randn(1, FRAMES, width, generator=torch.Generator().manual_seed(1))
    mask, found = torch.ones(1, FRAMES, dtype=torch.int64), []
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    adapted = decoder_family(decoder)
    with adapted.adapt(decoder), torch.no_grad():
        for part in torch.split(tokens, adapted.max_tokens or tokens.shape[1] - 1, dim=1):
            output = decoder(
                input_ids=part,
                encoder_hidden_states=states,
                encoder_attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
            )
            found.append(output.logits)
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("name", [*DECODERS, *NATIVE])
def test_a_family_with_few_rows_has_the_logits_of_torch(name: str) -> None:
    decoder = family(name)
    state = {key: value.clone() for key, value in decoder.state_dict().items()}

    @settings(max_examples=3, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(KEPT)
    def check(kept: set[int]) -> None:
        ids = np.array(sorted(kept))
        tokens = torch.from_numpy(np.random.default_rng(0).choice(ids, (1, 5)))
        expected = logits(decoder, tokens)
        with only_kept_rows(decoder, Vocabulary.keeping(VOCABULARY, kept)):
            found = logits(decoder, tokens)
        torch.testing.assert_close(found, expected[..., ids], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(logits(decoder, tokens), expected, atol=0, rtol=0)

    check()
    assert decoder.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in decoder.state_dict().items())


@pytest.mark.parametrize(("name", "tables"), [("bert", 1), ("bert, untied head", 2), ("gpt2", 1)])
def test_what_is_shared_stays_shared_and_counts_once(name: str, tables: int) -> None:
    decoder, vocabulary = family(name), Vocabulary.keeping(VOCABULARY, range(30))
    biases = VOCABULARY - 30 if name.startswith("bert") else 0
    assert weights_left_out(decoder, vocabulary) == tables * (VOCABULARY - 30) * WIDTH + biases
    with only_kept_rows(decoder, vocabulary):
        embedding, head = decoder.get_input_embeddings(), decoder.get_output_embeddings()
        assert (embedding.weight is head.weight) == (tables == 1)


def test_a_decoder_without_a_plain_head_is_refused_by_name() -> None:
    decoder = family("gpt2")
    decoder.lm_head = nn.Sequential(decoder.lm_head)
    with pytest.raises(ExportError, match="the vocabulary of gpt2 cannot be made smaller: .* leave --vocabulary out"):
        embedding_and_head(decoder, VOCABULARY)
    with pytest.raises(ExportError, match="the vocabulary of bert cannot be made smaller"):
        embedding_and_head(family("bert"), VOCABULARY + 1)
