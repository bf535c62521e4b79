"""A refusal is deserved: what torch rounds is allowed, what it does not say is not, and its own faults are named.

The exported bundle is held against a torch model in which something was changed since, as if the graphs were wrong.
"""

import copy
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import SpeechEncoderDecoderModel

from composites import CORE_DECODERS, DECODERS, ENCODERS, composite
from conftest import Pair
from short_audio import short_audio
from speech_export import VerificationError, export
from speech_export.limits import Limits
from speech_export.precision.options import PrecisionOptions, Target
from speech_export.tracing.facts import encoder_facts
from speech_export.verification.compare import Comparison, judge, verification, verify
from speech_export.verification.evaluation_audio import audio_set
from speech_export.verification.reference import Expectation, Oracle, expectations
from speech_export.verification.self_agreement import SelfAgreement, in_proportion, self_agreement
from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.bundle.manifest import Verification
from speech_runtime.cli.describe import verification_lines
from speech_runtime.generation.decoding.decoder import CachedDecoder

TOKENS = 12
_QUERIES = ("q_proj", "query", "query_proj", "linear_q", "c_attn")
_POSITIONS = ("position_embeddings", "embed_positions", "wpe", "rel_attn_embed", "distance_embedding", "pos_conv_embed")


def queries(part: nn.Module) -> Any:
    """The first self-attention's projection to queries, or to queries, keys and values."""
    return next(
        module
        for name, module in part.named_modules()
        if name.rpartition(".")[2] in _QUERIES and "cross" not in name and "encoder_attn" not in name
    )


def heads_of(part: nn.Module) -> int:
    return int(getattr(part.config, "num_attention_heads", 0) or part.config.decoder_attention_heads)


def swap_heads(part: nn.Module) -> None:
    layer = queries(part)
    packed = type(layer).__name__ == "Conv1D"  # [in, queries and keys and values]
    weight = layer.weight.data.T if packed else layer.weight.data
    width = len(weight) // (3 if packed else 1) // heads_of(part)
    weight[: 2 * width] = torch.cat([weight[width : 2 * width], weight[:width]])


def scale_queries(part: nn.Module) -> None:
    """A tenth too much; of packed queries, keys and values all."""
    for parameter in queries(part).parameters():
        parameter.data *= 1.1


def loosen_norms(part: nn.Module) -> None:
    for module in part.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps *= 1000


def drop_positions(part: nn.Module) -> None:
    for name, module in part.named_modules():
        if name.rpartition(".")[2] in _POSITIONS:
            for parameter_name, parameter in module.named_parameters():
                if not parameter_name.endswith("original1"):  # the direction of a normed weight; 0 has none
                    parameter.data.zero_()


PLANTED: dict[str, Callable[[nn.Module], None]] = {
    "swapped head": swap_heads,
    "wrong scale": scale_queries,
    "epsilon × 1000": loosen_norms,
    "dropped position bias": drop_positions,
}


def check(model: SpeechEncoderDecoderModel, exported: OnnxSpeechSeq2Seq, limits: Limits | None = None) -> Verification:
    audio = short_audio(exported.manifest.encoder)
    return verify(model, exported, audio, TOKENS, limits or Limits(), lambda _: None)


# BERT's epsilon is 1e-12: a thousand times that is still less than float32 tells from 0, and changes nothing.
ERRORS = sorted({*product(PLANTED, ("encoder", "decoder"), CORE_DECODERS)} - {("epsilon × 1000", "decoder", "bert")})
BY_DEFAULT = {*product(PLANTED, ("encoder",), ("bert",)), *product(PLANTED, ("decoder",), ("bart",))}


@pytest.mark.parametrize(
    ("planted", "half", "family"),
    [pytest.param(*error, marks=[] if error in BY_DEFAULT else [pytest.mark.full]) for error in ERRORS],
)
def test_a_planted_error_is_refused(planted: str, half: str, family: str, pair: Callable[[str], Pair]) -> None:
    bundle = pair(family)
    wrong = copy.deepcopy(bundle.reference)
    PLANTED[planted](getattr(wrong, half))
    with pytest.raises(VerificationError, match=r"log-probabilities differ by up to .*; torch's own, float32 against"):
        check(wrong, bundle.exported)


@pytest.mark.parametrize(
    "family", ["bert", *(pytest.param(family, marks=pytest.mark.full) for family in CORE_DECODERS if family != "bert")]
)
def test_a_mask_that_is_off_by_one_frame_is_refused(family: str, pair: Callable[[str], Pair]) -> None:
    bundle = pair(family)
    wrong = copy.deepcopy(bundle.reference)
    right = wrong.encoder._get_feature_vector_attention_mask
    # The limits of log-probabilities and words are off: the frames alone must show it.
    wrong.encoder._get_feature_vector_attention_mask = lambda frames, attention_mask, **others: (
        right(frames, attention_mask, **others).roll(-1, dims=-1) & (torch.arange(frames) < frames - 1)
    )
    with pytest.raises(VerificationError, match=r"a clip has \d+ frames in the encoder's mask, \d+ in torch's"):
        check(wrong, bundle.exported, Limits(logprob_difference=10, agreement=0))


@pytest.mark.parametrize(
    "family", ["bert", *(pytest.param(family, marks=pytest.mark.full) for family in CORE_DECODERS if family != "bert")]
)
def test_a_cache_with_swapped_beams_is_refused(
    family: str, pair: Callable[[str], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, step = pair(family), CachedDecoder.step

    def swapped(self: CachedDecoder, tokens: Any, beam_idx: Any, *wanted: bool) -> Any:
        return step(self, tokens, [list(row)[::-1] for row in beam_idx], *wanted)

    monkeypatch.setattr(CachedDecoder, "step", swapped)
    with pytest.raises(VerificationError, match=r"log-probabilities differ by up to|of the tokens are the same"):
        check(bundle.reference, bundle.exported)


@pytest.mark.parametrize(
    ("encoder", "decoder", "target"),
    [
        ("hubert", "bert", "cpu"),
        pytest.param("hubert", "xlm-roberta", "cpu", marks=pytest.mark.full),
        pytest.param("unispeech-sat", "electra", "tensorrt", marks=pytest.mark.full),
        pytest.param("wav2vec2-conformer, rotary", "roformer", "tensorrt", marks=pytest.mark.full),
    ],
)
def test_what_rounds_as_torch_does_passes(encoder: str, decoder: str, target: Target, tmp_path: Path) -> None:
    model = composite(decoder, encoder, spread=0.4)
    verified = export(model, tmp_path / "bundle", precision=PrecisionOptions(target=target)).manifest.verification
    assert verified is not None
    assert verified.greedy_agreement == verified.beam_agreement == 1
    if verified.torch_rounding is None:
        assert verified.max_logprob_difference <= 3e-4  # 1e-4 in proportion
    else:
        assert verified.max_logprob_difference <= 16 * verified.torch_rounding
        assert "; torch's own, float32 against float64, " in verification_lines(verified)[0]


PLAIN, TRAINED = 1e-4, 0.1
"""Limit without regard to torch's rounding, and a spread of weights above which attention matters."""


@pytest.mark.full
@pytest.mark.parametrize("spread", [0.02, 0.2, 0.5])
@pytest.mark.parametrize(
    ("encoder", "decoder", "half"),
    [("wav2vec2", name, "decoder") for name in DECODERS] + [(name, "bert", "encoder") for name in ENCODERS],
)
def test_every_family_rounds_less_than_an_error_makes(encoder: str, decoder: str, half: str, spread: float) -> None:
    """The least of the planted errors is beyond what is allowed, in torch alone: a swapped head and a wrong scale."""
    model = composite(decoder, encoder, spread=spread)
    audio = audio_set(encoder_facts(model.encoder), None, ())
    (expected, *_) = expectations(model, audio, TOKENS, whole=True)
    own = self_agreement(model, [expected])
    allowed = np.fmax(PLAIN, Limits().torch_roundings * own.rounding_in_proportion)
    assert own.caching_in_proportion <= allowed
    for plant in (swap_heads, scale_queries):
        wrong = copy.deepcopy(model)
        plant(getattr(wrong, half))
        batch = expected.batch.inputs, expected.batch.attention_mask
        found = Oracle(wrong, *batch).logprobs(expected.tokens)
        difference = float(in_proportion(expected.logprobs, found).max())
        # Weights as small as a new model's hide an error from any limit; the wider one must not hide more of them.
        assert difference > allowed or difference <= PLAIN, plant.__name__
        assert difference > allowed or spread < TRAINED, plant.__name__


def comparison(difference: float) -> tuple[Comparison, Verification]:
    result = Comparison(largest=difference, in_proportion=difference, differences=[np.zeros(1, dtype=np.float32)])
    result.equal = {beams: [1, 1] for beams in result.equal}
    return result, verification(result, "noise", 1)


@pytest.mark.parametrize(
    ("difference", "rounding", "passes"),
    [
        (9e-5, 0.0, True),
        (1.5e-3, 1e-4, True),
        (1.7e-3, 1e-4, False),
        (1.1e-4, 1e-6, False),
        (1.1e-4, float("nan"), False),
        (float("nan"), 1.0, False),
        (9e-5, float("nan"), True),
    ],
)
def test_sixteen_times_what_torch_rounds_is_allowed(difference: float, rounding: float, passes: bool) -> None:
    decide = partial(judge, *comparison(difference), Limits(), free_searches=True)
    own = SelfAgreement(rounding, rounding, 0.0)
    if passes:
        decide(own=own)
    else:
        with pytest.raises(VerificationError, match="torch's own"):
            decide(own=own)


def test_a_tolerance_that_is_given_holds_as_it_is() -> None:
    own = SelfAgreement(1.0, 1.0, 0.0)
    with pytest.raises(VerificationError, match="the limit is 0.001 .*differ by 1$"):
        judge(*comparison(2e-3), Limits(1e-3, torch_roundings=0), free_searches=True, own=own)


def test_torch_that_contradicts_itself_is_named(pair: Callable[[str], Pair]) -> None:
    """Positions that start anew at every step, as some releases of transformers had them: only the cache shows it."""
    bundle = pair("bert")
    wrong = copy.deepcopy(bundle.reference)
    embeddings = wrong.decoder.bert.embeddings
    right = embeddings.forward
    embeddings.forward = lambda *given, **others: right(*given, **others | {"past_key_values_length": 0})
    with pytest.raises(VerificationError, match=r"the torch model does not agree with itself in transformers \d+\.\d+"):
        check(wrong, bundle.exported)
    assert _caching(bundle.reference) < 1e-4 < 0.1 < _caching(wrong)


def _caching(model: SpeechEncoderDecoderModel) -> float:
    audio = short_audio(encoder_facts(model.encoder))
    expected: Expectation = next(expectations(model, audio, TOKENS, whole=True))
    return self_agreement(model, [expected]).caching_in_proportion
