"""Summary of a bundle: as JSON for programs, in words for people."""

import json
from dataclasses import asdict
from textwrap import wrap
from typing import Any

from tokenizers import Tokenizer

from ..audio.features import EXTRACTORS, FeatureExtractor, feature_extractor_of
from ..backends.tensorrt.library import NAMES
from ..backends.tensorrt.supported_gpus import RTX_GPUS
from ..bundle.loading import Bundle
from ..bundle.manifest import GENERATION_CONFIG, MANIFEST, Manifest, Trimming, Verification
from ..bundle.model_facts import DecoderFacts, EncoderFacts, PromptTemplate
from ..bundle.safe_files import read_json
from ..generation.config import GenerationConfig
from ..generation.language import codes, language_tokens
from ..generation.text import tokenizer_of
from ..system import MIB

_LABEL_WIDTH = 15
_LIST_WIDTH = 100
_KIND = "feature_extractor_type"


def summarize(bundle: Bundle) -> dict[str, Any]:
    """Return all facts of `bundle` as JSON values.

    Returns:
        The manifest's fields and `directory`; `size` in bytes; `input_seconds`, the shortest and longest input of a
        waveform encoder (longest is None for no limit); `feature_extractor` and `tokenizer`, None for a bundle without;
        `languages` and `tasks` to choose from, which may be none; `generation_config`, the settings that differ from
        the defaults.

    Raises:
        BundleError: A file of the bundle cannot be read.
        GenerationError: This release does not support its generation settings.
    """
    extractor, tokenizer, prompt = feature_extractor_of(bundle), tokenizer_of(bundle), bundle.manifest.prompt
    return {
        "directory": str(bundle.directory),
        "size": bundle.size,
        **bundle.manifest.content(),
        "input_seconds": _input_seconds(bundle.manifest.encoder, extractor),
        "feature_extractor": _extractor_settings(extractor),
        "tokenizer": _tokenizer_facts(tokenizer),
        "languages": _languages(prompt, tokenizer),
        "tasks": [] if prompt is None else sorted(prompt.tasks),
        "generation_config": _generation_settings(bundle),
    }


def describe(bundle: Bundle) -> str:
    """Describe `bundle` in words, with one or more lines for each part.

    Raises:
        SpeechError: See `summarize`.
    """
    facts, manifest = summarize(bundle), bundle.manifest
    extractor, tokenizer = facts["feature_extractor"], facts["tokenizer"]
    size_width = max(len(f"{file.size:,}") for file in manifest.files.values())
    parts = {
        "bundle": [f"{bundle.directory} ({bundle.size / MIB:,.2f} MiB, {_format(bundle)})"],
        "source": [manifest.source],
        "made by": [", ".join(f"{name} {version}" for name, version in manifest.producer.items())],
        "precision": _precision_lines(manifest),
        "encoder": _encoder_lines(manifest.encoder, extractor, facts["input_seconds"]),
        "decoder": _decoder_lines(manifest.decoder),
        **({} if manifest.trimming is None else {"vocabulary": trimming_lines(manifest, manifest.trimming)}),
        "features": _extractor_lines(extractor),
        "tokenizer": [
            f"{tokenizer['model']}, {tokenizer['vocab_size']:,} tokens"
            if tokenizer
            else "none: the bundle returns token ids"
        ],
        "languages": _language_lines(facts["languages"], manifest.prompt),
        "tasks": [", ".join(facts["tasks"])] if facts["tasks"] else [],
        "generation": [_settings(facts["generation_config"]) or "the defaults"],
        "verification": _verification_lines(manifest),
        "engines": _engine_lines(manifest) or ["none"],
        "files": [f"{file.size:>{size_width},} bytes  {name}" for name, file in sorted(manifest.files.items())],
    }
    return "\n".join(
        f"{'' if index else label:<{_LABEL_WIDTH}}{line}"
        for label, lines in parts.items()
        for index, line in enumerate(lines)
    )


def _format(bundle: Bundle) -> str:
    """Return the format of `bundle` on disk, and the format that it was converted to in memory if that differs."""
    on_disk, current = read_json(bundle.path(MANIFEST))["format_version"], bundle.manifest.format_version
    return f"format {on_disk}" if on_disk == current else f"format {on_disk}, read as {current}"


def _extractor_settings(extractor: FeatureExtractor | None) -> dict[str, Any] | None:
    if extractor is None:
        return None
    kind = next(name for name, known in EXTRACTORS.items() if type(extractor) is known)
    return {_KIND: kind, **asdict(extractor)}  # type: ignore[call-overload]  # each is a dataclass


def _tokenizer_facts(tokenizer: Tokenizer | None) -> dict[str, Any] | None:
    if tokenizer is None:
        return None
    return {"model": type(tokenizer.model).__name__, "vocab_size": tokenizer.get_vocab_size()}


def _languages(prompt: PromptTemplate | None, tokenizer: Tokenizer | None) -> list[str]:
    """Return the languages that a call may ask for."""
    if prompt is not None:
        return codes(prompt.languages)
    return [] if tokenizer is None else codes(language_tokens(tokenizer))


def _generation_settings(bundle: Bundle) -> dict[str, Any]:
    given, defaults = asdict(GenerationConfig.from_file(bundle.path(GENERATION_CONFIG))), asdict(GenerationConfig())
    return {name: value for name, value in given.items() if value != defaults[name]}


def _input_seconds(encoder: EncoderFacts, extractor: FeatureExtractor | None) -> dict[str, float | None] | None:
    if extractor is None or encoder.feature_size is not None:
        return None
    rate, longest = extractor.sampling_rate, encoder.max_length
    return {"shortest": encoder.min_length / rate, "longest": None if longest is None else longest / rate}


def _encoder_lines(
    encoder: EncoderFacts, extractor: dict[str, Any] | None, seconds: dict[str, float | None] | None
) -> list[str]:
    waveform = encoder.feature_size is None
    content = "a waveform" if waveform else f"frames of {encoder.feature_size} features"
    rate = f" at {extractor['sampling_rate']:,} Hz" if extractor and waveform else ""
    counts = {"shortest": encoder.min_length, "longest": encoder.max_length}
    unit = "samples" if waveform else "feature frames"
    lengths = {
        end: "any length"
        if count is None
        else (f"{seconds[end]:.3f} s ({count:,} {unit})" if seconds else f"{count:,} {unit}")
        for end, count in counts.items()
    }
    return [
        f"takes {encoder.input_name}: {content}{rate}",
        f"shortest {lengths['shortest']}, longest {lengths['longest']}",
        f"{encoder.heads} heads of self-attention, a frame every {encoder.stride:,} {unit}",
        "padding is neutral: a clip is encoded alike alone and in a batch"
        if encoder.padding_neutral
        else "padding changes the encoding of a clip: clips are encoded one by one",
    ]


def _decoder_lines(decoder: DecoderFacts) -> list[str]:
    positions = "any number of" if decoder.max_positions is None else f"{decoder.max_positions:,}"
    step = "any number of tokens" if decoder.max_tokens is None else f"at most {decoder.max_tokens} tokens"
    cache = [] if decoder.cache_length is None else [f"a static cache of {decoder.cache_length:,} tokens"]
    if decoder.cache == "tree":
        cache = ["beams share a cache, which gets more room when it is full"]
    return [
        f"{decoder.layers} layers, {decoder.heads} heads of width {decoder.head_dim}",
        f"vocabulary of {decoder.vocab_size:,}, {positions} positions",
        f"a step takes {step} and returns {decoder.top_k} candidates for each beam",
        *cache,
    ]


def _language_lines(languages: list[str], prompt: PromptTemplate | None) -> list[str]:
    if not languages:
        return []
    lines = wrap(", ".join(languages), _LIST_WIDTH)
    if prompt is None:
        return [*lines, "without one: as the generation settings say"]
    if "source_language" in prompt.tokens:
        lines.append("of the text, and of the speech as source_language")
    default = prompt.language
    if default is None:
        places = prompt.by_default
        default = "an error" if places is None else "detected in each clip" if "language" in places else "none"
    return [*lines, f"without one: {default}"]


def _extractor_lines(settings: dict[str, Any] | None) -> list[str]:
    if settings is None:
        return ["none: the bundle takes model input, not audio"]
    return [settings[_KIND], _settings({name: value for name, value in settings.items() if name != _KIND})]


def measured_on(manifest: Manifest, verification: Verification) -> str:
    """Return a phrase that names the audio on which a bundle was compared with torch."""
    quantization = manifest.quantization
    half = quantization is not None and "fp16" in (quantization.encoder, quantization.decoder)
    how = ", rounded as a GPU rounds" if half else ""
    return f"against torch on {verification.clips} clips ({verification.audio}){how}"


def verification_lines(verification: Verification) -> list[str]:
    """Return the measurements in words: a line each for log-probabilities, tokens and words."""
    difference = f"largest log-probability difference {verification.max_logprob_difference:.1e}"
    if verification.mean_logprob_difference is not None and verification.p99_logprob_difference is not None:
        mean, high = verification.mean_logprob_difference, verification.p99_logprob_difference
        difference += f" (mean {mean:.1e}, 99 % below {high:.1e})"
    if verification.torch_rounding is not None:
        difference += f"; torch's own, float32 against float64, {verification.torch_rounding:.1e}"
    agreement = f"greedy {verification.greedy_agreement:.2%}"
    agreement += f", {verification.beams} beams {verification.beam_agreement:.2%}"
    if verification.token_agreement is not None:
        agreement += f", next token {verification.token_agreement:.2%}"
    lines = [difference, f"equal tokens: {agreement}"]
    if verification.word_error_rate is not None and verification.reference_word_error_rate is not None:
        lines.append(
            f"word error rate: {verification.word_error_rate:.2%}, torch {verification.reference_word_error_rate:.2%}"
        )
    return lines


def trimming_lines(manifest: Manifest, trimming: Trimming) -> list[str]:
    """Return what was left out of the vocabulary, in words: a line each for tokens, a text, and the verification."""
    vocabulary = manifest.decoder.vocabulary
    kept = f"{vocabulary.count:,} of {vocabulary.size:,} tokens, by {', '.join(trimming.files)}"
    lines = [f"{kept}: {trimming.weights:,} weights fewer, {trimming.bytes_saved / MIB:,.2f} MiB"]
    if trimming.text_words is not None and trimming.lost_words is not None:
        examples = f", such as {', '.join(trimming.lost_examples)}" if trimming.lost_examples else ""
        share = trimming.lost_words / trimming.text_words
        lines.append(
            f"{trimming.lost_words:,} of {trimming.text_words:,} words of the text lost ({share:.2%}){examples}"
        )
    if trimming.changed_words is not None:
        changed = f"words that change on the audio: {trimming.changed_words:.2%}"
        if trimming.full_word_error_rate is not None:
            changed += f"; word error rate of torch with all tokens: {trimming.full_word_error_rate:.2%}"
        lines.append(changed)
    return lines


def _precision_lines(manifest: Manifest) -> list[str]:
    lines = [f"{manifest.precision}, for {manifest.target}"]
    if (quantization := manifest.quantization) is not None:
        lines += [f"encoder {quantization.encoder}, decoder {quantization.decoder}"]
        lines += [f"in float32: {', '.join(quantization.kept_float32)}"] if quantization.kept_float32 else []
    return lines


def _verification_lines(manifest: Manifest) -> list[str]:
    if manifest.verification is None:
        return ["none: this bundle was not compared with its model"]
    return [measured_on(manifest, manifest.verification), *verification_lines(manifest.verification)]


def _engine_lines(manifest: Manifest) -> list[str]:
    return [
        f"{NAMES[built.flavor]} {built.version}, for compute capability "
        f"{', '.join(built.compute_capabilities) or RTX_GPUS}: up to {built.limits.batch[2]} × "
        f"{built.limits.seconds[2]:g} s, {built.limits.beams[2]} beams, {built.limits.tokens[2]} tokens "
        f"({sum(file.size for file in built.files.values()) / MIB:,.2f} MiB)"
        for built in manifest.engines
    ]


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in values.items())
