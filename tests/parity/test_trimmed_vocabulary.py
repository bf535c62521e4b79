"""Test bundles that keep a part of the vocabulary: the answers of torch with the logits of all other tokens at -inf."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, note, seed
from hypothesis import settings as examples
from numpy.typing import NDArray

from composites import EOS, PAD, START, VOCABULARY, composite
from conftest import ONE_THREAD, ExportOnce, Pair
from matrix import engine_bytes
from native_models import whisper
from parity.agreement import Batch, reference, verdicts
from parity.cases import Case, Noise, cases
from recorded_gpu import OnDevice
from short_audio import verified_on_short_audio
from speech_export import Limits, export
from speech_export.precision.options import PrecisionOptions
from speech_export.verification.trimmed_torch import only_kept_tokens
from speech_runtime import Bundle, GenerationError, OnnxSpeechSeq2Seq
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST
from speech_runtime.generation.output import GenerateOutput
from speech_runtime.generation.token_scores.maths import LogitsProcessor, Scores, Sequences
from tally import Tally, TallyUp

CASES = 60
KEPT = sorted({START, PAD, EOS, 0, *np.random.default_rng(5).choice(VOCABULARY, 40, replace=False).tolist()})
LEFT_OUT = [token for token in range(VOCABULARY) if token not in KEPT]
NOISE = Noise((1603, 977, 2411)).batch()
SAID = ("eos_token_id", "forced_bos_token_id", "forced_eos_token_id", "decoder_start_token_id")


@pytest.fixture(scope="session")
def ids(shared: Path) -> Path:
    path = shared / "kept.ids"
    path.write_text("".join(f"{token}\n" for token in KEPT))
    return path


@pytest.fixture(scope="session")
def trimmed(export_once: ExportOnce, ids: Path) -> Callable[..., Pair]:
    """A tiny random composite, and a bundle of it that keeps `KEPT`."""

    def make(family: str, **options: Any) -> Pair:
        model = composite(family)
        name = "-".join([family, "trimmed", *options.values()])
        directory = export_once(name, model, vocabulary=[ids], precision=PrecisionOptions(**options))
        return Pair(model, OnnxSpeechSeq2Seq.from_pretrained(directory, options=ONE_THREAD), directory)

    return make


@pytest.fixture(scope="module")
def bert(trimmed: Callable[..., Pair]) -> Iterator[Pair]:
    """The pair of BERT, of which torch too says only what is kept."""
    pair = trimmed("bert")
    with only_kept_tokens(pair.reference, pair.exported.manifest.decoder.vocabulary):
        yield pair


def found(pair: Pair, batch: Batch, settings: dict[str, Any], *processors: LogitsProcessor) -> GenerateOutput:
    return pair.exported.generate(
        batch.inputs, batch.mask, return_dict_in_generate=True, logits_processor=processors, **settings
    )


def logprobs(pair: Pair, tokens: NDArray[np.int64]) -> torch.Tensor:
    with torch.no_grad():
        logits = pair.reference(
            torch.from_numpy(NOISE.inputs),
            attention_mask=torch.from_numpy(NOISE.mask),
            decoder_input_ids=torch.from_numpy(tokens),
        ).logits
    return torch.log_softmax(logits, dim=-1)


def unchanged(_: Sequences, scores: Scores) -> Scores:
    return scores


def test_any_setting_gives_the_tokens_of_torch_with_these_rows(
    bert: Pair, pytestconfig: pytest.Config, tally_up: TallyUp
) -> None:
    tally, asked_for = Tally(), pytestconfig.getoption("--cases")

    @seed(random.getrandbits(64) if asked_for else "trimmed")
    @examples(
        max_examples=asked_for or CASES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases([token for token in KEPT if token > PAD]))
    def check(case: Case) -> None:
        settings = with_kept_prompts(case.settings)
        assume(not {token for name in SAID for token in np.ravel(settings.get(name, START))}.intersection(LEFT_OUT))
        note(f"{case.noise}, {settings}")
        batch = case.noise.batch()
        expected = reference(bert, batch, settings)
        both = [found(bert, batch, settings, *own) for own in ([], [unchanged])]
        judged = [each for ours in both for each in verdicts(bert, batch, settings, expected, ours)]
        tally.add("near tie" if "near tie" in judged else "same")

    check()
    tally_up(tally)


def with_kept_prompts(settings: dict[str, Any]) -> dict[str, Any]:
    """The same settings, with tokens that are kept in their prompts and at their start."""

    def kept(value: Any) -> Any:
        return [kept(each) for each in value] if isinstance(value, list) else KEPT[value % len(KEPT)]

    names = ("decoder_input_ids", "decoder_start_token_id")
    return settings | {name: kept(settings[name]) for name in names if name in settings}


def test_the_softmax_is_that_of_the_kept_tokens(bert: Pair) -> None:
    tokens = np.random.default_rng(1).choice(KEPT, (3, 11))
    logits = bert.exported.forward(NOISE.inputs, NOISE.mask, decoder_input_ids=tokens).logits
    assert logits.shape == (3, 11, VOCABULARY)
    assert (logits[..., LEFT_OUT] == -np.inf).all()
    ours, theirs = torch.log_softmax(torch.from_numpy(logits), dim=-1), logprobs(bert, tokens)
    torch.testing.assert_close(ours[..., KEPT], theirs[..., KEPT], atol=1e-4, rtol=0)
    labels = np.random.default_rng(2).choice(KEPT, (3, 6))
    with torch.no_grad():
        expected = bert.reference(
            torch.from_numpy(NOISE.inputs),
            attention_mask=torch.from_numpy(NOISE.mask),
            decoder_input_ids=torch.from_numpy(np.insert(labels, 0, START, axis=1)[:, :-1]),
        ).logits
    loss = torch.nn.functional.cross_entropy(expected.flatten(0, 1), torch.from_numpy(labels).flatten())
    assert bert.exported.forward(NOISE.inputs, NOISE.mask, labels=labels).loss == pytest.approx(float(loss), abs=1e-4)
    whole = composite("bert")
    assert abs(logprobs(Pair(whole, bert.exported, bert.directory), tokens)[..., KEPT] - theirs[..., KEPT]).max() > 0.1


@pytest.mark.parametrize("beams", [1, 4])
def test_scores_of_every_step_are_those_of_torch(bert: Pair, beams: int) -> None:
    settings = {"num_beams": beams, "max_new_tokens": 6, "output_scores": True, "output_logits": True}
    ours = found(bert, NOISE, settings)
    with torch.no_grad():
        theirs = bert.reference.generate(
            torch.from_numpy(NOISE.inputs),
            attention_mask=torch.from_numpy(NOISE.mask),
            return_dict_in_generate=True,
            **settings,
        )
    for name in ("scores", "logits"):
        for one, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            np.testing.assert_allclose(one, other.numpy(), atol=1e-4, rtol=1e-5)


def test_no_processor_makes_a_token_sayable_that_is_left_out(bert: Pair) -> None:
    ours = found(bert, NOISE, {"max_new_tokens": 8, "num_beams": 3}, lambda _, scores: np.nan_to_num(scores) - 5)
    assert not np.isin(ours.sequences, LEFT_OUT).any()
    ours = found(bert, NOISE, {"max_new_tokens": 8, "remove_invalid_values": True, "do_sample": True, "top_k": 0})
    assert not np.isin(ours.sequences, LEFT_OUT).any()

    def force(_: Sequences, scores: Scores) -> Scores:
        forced = np.full_like(scores, -np.inf)
        forced[..., LEFT_OUT[0]] = 0
        return forced

    with pytest.raises(GenerationError, match="no token is possible|nothing can be drawn|ban"):
        found(bert, NOISE, {"max_new_tokens": 8}, force)


def test_to_ban_a_token_that_is_left_out_changes_nothing(bert: Pair) -> None:
    plain = found(bert, NOISE, {"max_new_tokens": 8, "num_beams": 3})
    for banned in (
        {"suppress_tokens": LEFT_OUT},
        {"begin_suppress_tokens": LEFT_OUT},
        {"bad_words_ids": [LEFT_OUT[:1], LEFT_OUT[1:3]]},
        {"sequence_bias": [[LEFT_OUT[:1], 5.0]]},
    ):
        ours = found(bert, NOISE, {"max_new_tokens": 8, "num_beams": 3, **banned})
        np.testing.assert_array_equal(ours.sequences, plain.sequences)
        np.testing.assert_allclose(ours.sequences_scores, plain.sequences_scores, atol=1e-5)


@pytest.mark.parametrize(
    "setting",
    [
        {"forced_bos_token_id": LEFT_OUT[0]},
        {"forced_eos_token_id": LEFT_OUT[0]},
        {"decoder_start_token_id": LEFT_OUT[0]},
        {"eos_token_id": [EOS, LEFT_OUT[0]]},
        {"decoder_input_ids": [[START, LEFT_OUT[0]]] * 3},
    ],
)
def test_to_force_a_token_that_is_left_out_is_an_error(bert: Pair, setting: dict[str, Any]) -> None:
    (name,) = setting
    message = (
        f"{name} has {LEFT_OUT[0]}, which this bundle leaves out: it keeps {len(KEPT)} of 90 tokens; .*--vocabulary"
    )
    with pytest.raises(GenerationError, match=message):
        found(bert, NOISE, setting)


@pytest.mark.parametrize("name", ["decoder_input_ids", "labels"])
def test_to_score_a_token_that_is_left_out_is_an_error(bert: Pair, name: str) -> None:
    tokens: dict[str, Any] = {name: [[START, LEFT_OUT[3], KEPT[-1]]] * 3}
    with pytest.raises(GenerationError, match=f"{name} has {LEFT_OUT[3]}, which this bundle leaves out"):
        bert.exported.forward(NOISE.inputs, NOISE.mask, **tokens)


@pytest.mark.parametrize(
    ("family", "options"), [("mbart", {"target": "cuda"}), ("gpt2", {"target": "tensorrt"}), ("trocr", {})]
)
def test_other_graphs_and_families_find_the_same(
    trimmed: Callable[..., Pair], family: str, options: dict[str, str]
) -> None:
    pair = trimmed(family, **options)
    tokens = np.random.default_rng(1).choice(KEPT, (3, 11))
    with only_kept_tokens(pair.reference, pair.exported.manifest.decoder.vocabulary):
        for settings in (
            {"num_beams": 1},
            {"num_beams": 4, "num_return_sequences": 2},
            {"num_beams": 5, "suppress_tokens": KEPT[8:36]},  # needs the whole vocabulary
        ):
            settings = {**settings, "max_new_tokens": 16}
            ours, expected = found(pair, NOISE, settings), reference(pair, NOISE, settings)
            assert set(verdicts(pair, NOISE, settings, expected, ours)) == {"same"}
        theirs = logprobs(pair, tokens)
    logits = pair.exported.forward(NOISE.inputs, NOISE.mask, decoder_input_ids=tokens).logits
    ours_ = torch.log_softmax(torch.from_numpy(logits), dim=-1)
    torch.testing.assert_close(ours_[..., KEPT], theirs[..., KEPT], atol=1e-4, rtol=0)


def test_int8_says_only_what_is_kept(trimmed: Callable[..., Pair]) -> None:
    model = trimmed("bart", precision="int8")
    verification = model.exported.manifest.verification
    assert verification is not None
    assert verification.token_agreement is not None
    assert verification.token_agreement >= 0.98
    ours = found(model, NOISE, {"num_beams": 4, "max_new_tokens": 16})
    assert not np.isin(ours.sequences, LEFT_OUT).any()


def test_the_prompt_of_whisper_stays(export_once: ExportOnce, shared: Path) -> None:
    model, kept = whisper(), shared / "whisper.ids"
    kept.write_text("5\n6\n")
    directory = export_once("whisper-trimmed", model, vocabulary=[kept])
    exported = OnnxSpeechSeq2Seq.from_pretrained(directory, options=ONE_THREAD)
    prompt, vocabulary = exported.manifest.prompt, exported.manifest.decoder.vocabulary
    assert prompt is not None
    assert prompt.token_ids
    assert vocabulary.is_kept[[5, 6, *prompt.token_ids]].all()
    assert vocabulary.count < vocabulary.size
    features = np.random.default_rng(0).standard_normal((1, exported.manifest.encoder.min_length, 20))
    languages = {exported.generate(features.astype(np.float32), language=name)[0, 1] for name in prompt.languages}
    assert languages == {*prompt.languages.values()}


@pytest.mark.parametrize(
    "settings", [{"num_beams": 4}, {"num_beams": 3, "repetition_penalty": 1.3}, {"num_beams": 3, "output_logits": True}]
)
def test_recorded_steps_find_the_same(trimmed: Callable[..., Pair], settings: dict[str, Any]) -> None:
    plain = trimmed("mbart", target="cuda")
    model = plain.exported
    parts = (model.manifest, model.generation_config, model.feature_extractor, model.tokenizer)
    recorded = OnnxSpeechSeq2Seq(OnDevice(Bundle.open(plain.directory)), *parts)
    inputs = np.random.default_rng(0).standard_normal((2, 500)).astype(np.float32)
    for _ in range(2):  # recorded, then replayed
        ours, expected = (
            each.generate(inputs, max_new_tokens=12, return_dict_in_generate=True, **settings)
            for each in (recorded, model)
        )
        np.testing.assert_array_equal(ours.sequences, expected.sequences)
        for one, other in zip(ours.logits or (), expected.logits or (), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_an_engine_of_a_step_is_built(trimmed: Callable[..., Pair]) -> None:
    bundle = Bundle.open(trimmed("gpt2", target="tensorrt").directory)
    assert engine_bytes(bundle, DECODER_WITH_PAST) > 0


def test_of_words_that_tie_the_smallest_id_is_said(ids: Path, tmp_path: Path) -> None:
    model, equal = composite("bert, untied head"), KEPT[-9::3]
    head = model.decoder.get_output_embeddings()
    head.weight.data[equal] = 0
    head.bias.data[equal] = 50
    with verified_on_short_audio():
        export(model, tmp_path / "bundle", vocabulary=[ids], limits=Limits(agreement=0))  # torch takes any of them
    exported = OnnxSpeechSeq2Seq.from_pretrained(tmp_path / "bundle", options=ONE_THREAD)
    for batch in (1, 3):
        found = exported.generate(NOISE.inputs[:batch], max_new_tokens=4)
        assert (found[:, 1:] == equal[0]).all()
    first = exported.generate(NOISE.inputs[:1], num_beams=3, num_return_sequences=3, max_new_tokens=1)
    assert first[:, 1].tolist() == equal
