"""`OnnxSpeechSeq2Seq`: an exported speech encoder-decoder model, from audio to text."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer

from .audio import Samples, prepare, read_audio
from .bundle import GENERATION_CONFIG, PREPROCESSOR_CONFIG, TOKENIZER, Bundle, Manifest
from .contract import ATTENTION_MASK, ENCODER, ENCODER_ATTENTION_MASK, ENCODER_HIDDEN_STATES
from .engines.engine import Engine, Value
from .engines.onnxruntime import OnnxRuntimeEngine, SessionOptions
from .errors import BundleError, GenerationError
from .features import FeatureExtractor, check_fit, read_feature_extractor
from .features.padding import pad
from .generation.config import GenerationConfig, GenerationSettings
from .generation.decoding import CachedDecoder, decode
from .generation.search import Hypotheses
from .inputs import check_inputs, check_lengths, check_memory

Audio = str | Path | NDArray[np.floating]
"""A file, or mono samples of full scale ±1."""


@dataclass(frozen=True)
class EncoderOutput:
    """What the encoder made of a batch, on the engine's device; decode it as often as you like."""

    hidden_states: Value
    attention_mask: Value
    batch: int


@dataclass(frozen=True)
class Transcription:
    """What was heard in one clip: its best hypothesis.

    Attributes:
        text: without special tokens.
        tokens: ids of the best sequence, start and end tokens included, padding not.
        score: log-probability of the new tokens / (their number ** length_penalty).
        audio_seconds: length of the clip.
        encode_seconds: of the clip's batch, shared out among its clips.
        decode_seconds: likewise.
    """

    text: str
    tokens: list[int]
    score: float
    audio_seconds: float
    encode_seconds: float
    decode_seconds: float


class OnnxSpeechSeq2Seq:
    """An exported speech encoder-decoder model. `from_pretrained` loads one."""

    def __init__(
        self,
        engine: Engine,
        manifest: Manifest,
        generation_config: GenerationConfig,
        feature_extractor: FeatureExtractor | None,
        tokenizer: Tokenizer | None,
    ) -> None:
        """Compose a model of its parts; without extractor or tokenizer it generates, but does not transcribe."""
        self.manifest = manifest
        self.generation_config = generation_config
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer
        self._engine = engine

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, *, options: SessionOptions | None = None, check_hashes: bool = True
    ) -> "OnnxSpeechSeq2Seq":
        """Load the bundle in `directory`.

        Args:
            directory: written by `speech-export`.
            options: device and threads.
            check_hashes: compare the SHA-256 of every file first.

        Raises:
            BundleError: there is no bundle, it is damaged, or its feature extractor is none that this release knows.
            EngineError: ONNX Runtime, or the provider for the device, is missing.
        """
        bundle = Bundle.open(directory, check_hashes=check_hashes)
        tokenizer = bundle.path(TOKENIZER)
        return cls(
            OnnxRuntimeEngine(bundle, options or SessionOptions()),
            bundle.manifest,
            GenerationConfig.from_file(bundle.path(GENERATION_CONFIG)),
            _read_extractor(bundle),
            Tokenizer.from_file(str(tokenizer)) if bundle.has(TOKENIZER) else None,
        )

    def encode(self, inputs: ArrayLike, attention_mask: ArrayLike | None = None) -> EncoderOutput:
        """Run the encoder.

        Args:
            inputs: float32 [batch, samples], padded and normalised as the checkpoint wants it, or
                [batch, time, features].
            attention_mask: int64 [batch, samples or time], 1 where there is audio, padding at the end; all ones
                where it is None.

        Raises:
            AudioError: another shape or dtype, not finite, shorter than one frame, or too long for this machine.
        """
        values, mask = check_inputs(inputs, attention_mask, self.manifest.encoder)
        check_memory(values.shape[0], values.shape[1], self.manifest.encoder)
        outputs = self._engine.run(
            ENCODER,
            {self.manifest.encoder.input_name: self._engine.upload(values), ATTENTION_MASK: self._engine.upload(mask)},
            [ENCODER_HIDDEN_STATES, ENCODER_ATTENTION_MASK],
        )
        return EncoderOutput(outputs[ENCODER_HIDDEN_STATES], outputs[ENCODER_ATTENTION_MASK], len(values))

    def generate(
        self,
        inputs: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        *,
        encoder_outputs: EncoderOutput | None = None,
        decoder_input_ids: ArrayLike | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> NDArray[np.int64]:
        """Generate token ids, as `SpeechEncoderDecoderModel.generate` of transformers does.

        Args:
            inputs: see `encode`.
            attention_mask: see `encode`.
            encoder_outputs: of `encode`, instead of `inputs`.
            decoder_input_ids: int64 [batch, tokens], a prompt; the start token is put in front where it is missing.
            settings: see `GenerationConfig`; what is not given comes from the bundle's `generation_config.json`.

        Returns:
            int64 [batch × num_return_sequences, length]: start token, tokens, end token, padding.

        Raises:
            AudioError: see `encode`.
            GenerationError: settings that are unknown, contradictory or beyond the decoder's positions.
        """
        config = self.generation_config.updated(settings)
        if (inputs is None) == (encoder_outputs is None):
            raise GenerationError("give either inputs or encoder_outputs, and not both")
        encoded = encoder_outputs or self.encode(inputs, attention_mask)  # type: ignore[arg-type]
        return self._search(encoded, config, decoder_input_ids).sequences

    def forward(self, encoder_outputs: EncoderOutput, decoder_input_ids: ArrayLike) -> NDArray[np.float32]:
        """Logits of given tokens: what the decoder expects after each of them.

        Args:
            encoder_outputs: of `encode`.
            decoder_input_ids: int64 [batch, tokens], the start token included.

        Returns:
            float32 [batch, tokens, vocabulary].
        """
        tokens = _check_tokens(decoder_input_ids, encoder_outputs.batch, self.manifest.decoder.vocab_size)
        return self._decoder(encoder_outputs).logits(tokens)

    @overload
    def transcribe(
        self, audio: Audio, *, sampling_rate: int | None = None, **settings: Unpack[GenerationSettings]
    ) -> str: ...

    @overload
    def transcribe(
        self, audio: list[Audio], *, sampling_rate: int | None = None, **settings: Unpack[GenerationSettings]
    ) -> list[str]: ...

    def transcribe(
        self,
        audio: Audio | list[Audio],
        *,
        sampling_rate: int | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> str | list[str]:
        """Transcribe one clip, or a list of clips as one padded batch.

        Args:
            audio: files, or arrays of mono floating-point samples.
            sampling_rate: of arrays, Hz; the model's own where it is None. Files know their own.
            settings: see `generate`.

        Raises:
            AudioError: audio that cannot be transcribed; names the clip.
        """
        clips = audio if isinstance(audio, list) else [audio]
        samples = [self.load(clip, sampling_rate, name=f"audio[{i}]") for i, clip in enumerate(clips)]
        texts = [transcription.text for transcription in self.transcriptions(samples, **settings)]
        return texts if isinstance(audio, list) else texts[0]

    def load(self, audio: Audio, sampling_rate: int | None = None, name: str = "audio") -> Samples:
        """Read or check one clip: float32 [samples] at the model's sampling rate.

        Raises:
            AudioError: it cannot be transcribed.
        """
        extractor = self._extractor()
        if isinstance(audio, (str, Path)):
            samples, name = read_audio(audio, extractor.sampling_rate), str(audio)
        else:
            rate = extractor.sampling_rate if sampling_rate is None else sampling_rate
            samples = prepare(audio, rate, extractor.sampling_rate, name)
        length = extractor.input_length(samples.size, name)
        check_lengths(np.array([length]), self.manifest.encoder, name)
        check_memory(1, length, self.manifest.encoder, name)
        return samples

    def transcriptions(
        self, clips: Sequence[Samples], **settings: Unpack[GenerationSettings]
    ) -> Iterator[Transcription]:
        """Transcribe clips of `load` as one batch, with all that is known about each.

        A clip's answer does not depend on the others. Where padding changes what the encoder makes of a clip, clips
        are encoded one by one; they are searched together all the same. The exception are checkpoints whose feature
        extractor gives no mask: they take padding for audio, as in transformers.

        Raises:
            BundleError: the bundle has no tokenizer or feature extractor.
        """
        if self.tokenizer is None:
            raise BundleError(f"the bundle has no {TOKENIZER}: only generate() works, on token ids")
        if not clips:
            return
        config = self.generation_config.updated({**settings, "num_return_sequences": 1})
        extractor = self._extractor()
        begin = time.perf_counter()
        encoded = self._encode_clips(clips, extractor)
        encode_seconds, begin = time.perf_counter() - begin, time.perf_counter()
        found = self._search(encoded, config)
        decode_seconds = time.perf_counter() - begin
        for samples, sequence, score in zip(clips, found.sequences, found.scores, strict=True):
            tokens = _without_padding(sequence, config)
            yield Transcription(
                text=self.tokenizer.decode(tokens, skip_special_tokens=True),
                tokens=tokens,
                score=float(score),
                audio_seconds=samples.size / extractor.sampling_rate,
                encode_seconds=encode_seconds / len(clips),
                decode_seconds=decode_seconds / len(clips),
            )

    def _encode_clips(self, clips: Sequence[Samples], extractor: FeatureExtractor) -> EncoderOutput:
        inputs, mask = extractor(clips)
        if mask.all() or self.manifest.encoder.padding_neutral:
            return self.encode(inputs, mask)
        alone = [self.encode(*extractor([clip])) for clip in clips]
        hidden_states, _ = pad([self._engine.download(encoded.hidden_states)[0] for encoded in alone], value=0.0)
        masks, _ = pad([self._engine.download(encoded.attention_mask)[0] for encoded in alone], value=0)
        return EncoderOutput(self._engine.upload(hidden_states), self._engine.upload(masks), len(clips))

    def _search(
        self, encoded: EncoderOutput, config: GenerationConfig, decoder_input_ids: ArrayLike | None = None
    ) -> Hypotheses:
        facts = self.manifest.decoder
        prompt = np.full((encoded.batch, 1), config.start_token_id, dtype=np.int64)
        if decoder_input_ids is not None:
            given = _check_tokens(decoder_input_ids, encoded.batch, facts.vocab_size)
            starts = bool((given[:, :1] == prompt).any())
            prompt = given if starts else np.concatenate([prompt, given], axis=1)
        return decode(self._decoder(encoded), facts, prompt, config)

    def _decoder(self, encoded: EncoderOutput) -> CachedDecoder:
        facts = self.manifest.decoder
        return CachedDecoder(self._engine, facts, encoded.batch, encoded.hidden_states, encoded.attention_mask)

    def _extractor(self) -> FeatureExtractor:
        if self.feature_extractor is None:
            raise BundleError(f"the bundle has no {PREPROCESSOR_CONFIG}: only generate() works, on model input")
        return self.feature_extractor


def _read_extractor(bundle: Bundle) -> FeatureExtractor | None:
    if not bundle.has(PREPROCESSOR_CONFIG):
        return None
    extractor = read_feature_extractor(bundle.path(PREPROCESSOR_CONFIG))
    check_fit(extractor, bundle.manifest.encoder)
    return extractor


def _check_tokens(given: ArrayLike, batch: int, vocab_size: int) -> NDArray[np.int64]:
    tokens = np.asarray(given)
    if tokens.ndim != 2 or tokens.shape[0] != batch or tokens.shape[1] == 0 or tokens.dtype.kind not in "iu":
        raise GenerationError(
            f"decoder_input_ids must be integers [{batch}, tokens], got {tokens.dtype} {list(tokens.shape)}"
        )
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        raise GenerationError(f"decoder_input_ids must be 0 … {vocab_size - 1}, got {tokens.min()} … {tokens.max()}")
    return tokens.astype(np.int64)


def _without_padding(sequence: NDArray[np.int64], config: GenerationConfig) -> list[int]:
    tokens: list[int] = sequence.tolist()
    ends = [i for i, token in enumerate(tokens[1:], start=1) if token in config.eos_token_ids]
    return tokens[: ends[0] + 1] if ends else tokens
