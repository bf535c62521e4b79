"""`OnnxSpeechSeq2Seq`: an exported speech encoder-decoder model, from audio to text."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack, overload

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .audio import Samples, prepare, read_audio
from .bundle import GENERATION_CONFIG, PREPROCESSOR_CONFIG, TOKENIZER, Bundle, Manifest
from .engines.engine import Engine
from .engines.onnxruntime import OnnxRuntimeEngine
from .engines.session_options import SessionOptions
from .errors import BundleError
from .features import FeatureExtractor, check_fit, read_feature_extractor
from .generation.config import GenerationConfig
from .generation.generate import SearchKeywords
from .generation.language import in_language
from .generation.likelihood import sequence_logprobs
from .generator import Language, SpeechGenerator
from .hub import bundle_directory
from .inputs import check_lengths, check_memory

Audio = str | Path | NDArray[np.floating]
"""A file, or mono samples of full scale ±1."""


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


class OnnxSpeechSeq2Seq(SpeechGenerator):
    """An exported speech encoder-decoder model, from audio to text. `from_pretrained` loads one."""

    def __init__(
        self,
        engine: Engine,
        manifest: Manifest,
        generation_config: GenerationConfig,
        feature_extractor: FeatureExtractor | None,
        tokenizer: Tokenizer | None,
    ) -> None:
        """Compose a model of its parts; without extractor or tokenizer it generates, but does not transcribe."""
        super().__init__(engine, manifest, generation_config, tokenizer)
        self.feature_extractor = feature_extractor

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        options: SessionOptions | None = None,
        check_hashes: bool = True,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> "OnnxSpeechSeq2Seq":
        """Load a bundle.

        Args:
            name: the directory that `speech-export` wrote, or a Hub id.
            options: device, threads, and more.
            check_hashes: compare the SHA-256 of every file first.
            revision: of a Hub id: branch, tag or commit.
            token: for private repositories.
            cache_dir: where downloads are kept.
            local_files_only: take only what is in the cache.

        Raises:
            BundleError: there is no bundle, it is damaged, or its feature extractor is none that this release knows.
            EngineError: ONNX Runtime, or the provider for the device, is missing.
        """
        where = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        bundle = Bundle.open(bundle_directory(name, **where), check_hashes=check_hashes)  # type: ignore[arg-type]
        tokenizer = bundle.path(TOKENIZER)
        return cls(
            OnnxRuntimeEngine(bundle, options or SessionOptions()),
            bundle.manifest,
            GenerationConfig.from_file(bundle.path(GENERATION_CONFIG)),
            _read_extractor(bundle),
            Tokenizer.from_file(str(tokenizer)) if bundle.has(TOKENIZER) else None,
        )

    def score(
        self,
        audio: Audio,
        texts: Sequence[str],
        *,
        sampling_rate: int | None = None,
        language: str | None = None,
    ) -> NDArray[np.float32]:
        """How likely each of `texts` is as the transcription of a clip: to choose among the best of another system.

        Args:
            audio: see `transcribe`.
            texts: without special tokens; the start token, a forced first token and the end token are added.
            sampling_rate: see `transcribe`.
            language: see `generate`.

        Returns:
            Log-probabilities float32 [texts] of all tokens of each, the end token included.

        Raises:
            AudioError: see `transcribe`.
            BundleError: the bundle has no tokenizer, or one that only decodes.
        """
        if not texts:
            return np.zeros(0, dtype=np.float32)
        config = self.generation_config
        if language is not None:
            config = in_language(config, self.tokenizer, language, 1)
        first = [*config.start_token_ids(1), *([] if (forced := config.forced_bos_token_id) is None else [forced])]
        last = list(config.eos_token_ids[:1])
        sequences = [[*first, *self._token_ids(text), *last] for text in texts]
        encoded = self.encode(*self._extractor()([self.load(audio, sampling_rate)]))
        return sequence_logprobs(self._decoder(encoded), sequences, self.manifest.decoder.vocab_size)

    @overload
    def transcribe(
        self,
        audio: Audio,
        *,
        sampling_rate: int | None = None,
        language: Language | None = None,
        **keywords: Unpack[SearchKeywords],
    ) -> str: ...

    @overload
    def transcribe(
        self,
        audio: list[Audio],
        *,
        sampling_rate: int | None = None,
        language: Language | None = None,
        **keywords: Unpack[SearchKeywords],
    ) -> list[str]: ...

    def transcribe(
        self,
        audio: Audio | list[Audio],
        *,
        sampling_rate: int | None = None,
        language: Language | None = None,
        **keywords: Unpack[SearchKeywords],
    ) -> str | list[str]:
        """Transcribe one clip, or a list of clips as one padded batch.

        Args:
            audio: files, or arrays of mono floating-point samples.
            sampling_rate: of arrays, Hz; the model's own where it is None. Files know their own.
            language: see `generate`.
            keywords: see `generate`.

        Raises:
            AudioError: audio that cannot be transcribed; names the clip.
        """
        clips = audio if isinstance(audio, list) else [audio]
        samples = [self.load(clip, sampling_rate, name=f"audio[{i}]") for i, clip in enumerate(clips)]
        texts = [transcription.text for transcription in self.transcriptions(samples, language=language, **keywords)]
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
        self, clips: Sequence[Samples], *, language: Language | None = None, **keywords: Unpack[SearchKeywords]
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
        extractor = self._extractor()
        begin = time.perf_counter()
        encoded = self._encoder.clips(clips, extractor)
        encode_seconds, begin = time.perf_counter() - begin, time.perf_counter()
        found, config = self._search(encoded, None, language, {**keywords, "num_return_sequences": 1})
        decode_seconds = time.perf_counter() - begin
        for samples, sequence, score in zip(clips, found.sequences, found.sequences_scores, strict=True):
            tokens = _without_padding(sequence, config)
            yield Transcription(
                text=self.tokenizer.decode(tokens, skip_special_tokens=True),
                tokens=tokens,
                score=float(score),
                audio_seconds=samples.size / extractor.sampling_rate,
                encode_seconds=encode_seconds / len(clips),
                decode_seconds=decode_seconds / len(clips),
            )

    def _token_ids(self, text: str) -> list[int]:
        if self.tokenizer is None:
            raise BundleError(f"the bundle has no {TOKENIZER}: texts cannot be scored")
        try:
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library's own, where a tokenizer only decodes
            raise BundleError(f"the bundle's {TOKENIZER} only decodes, it cannot encode {text!r}") from error
        return ids

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


def _without_padding(sequence: NDArray[np.int64], config: GenerationConfig) -> list[int]:
    tokens: list[int] = sequence.tolist()
    ends = [i for i, token in enumerate(tokens[1:], start=1) if token in config.eos_token_ids]
    return tokens[: ends[0] + 1] if ends else tokens
