"""`OnnxSpeechSeq2Seq`: an exported speech encoder-decoder model, from audio to text."""

import logging
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .audio import Audio, AudioLimits, Clip, Samples, clip_of
from .audio.features import FeatureExtractor, feature_extractor_of
from .backends.base import Backend
from .backends.load import load_backend
from .backends.options import EngineOptions, SessionOptions, options_for
from .bundle.hub import bundle_directory
from .bundle.loading import Bundle, load_whole
from .bundle.manifest import GENERATION_CONFIG, PREPROCESSOR_CONFIG, TOKENIZER, Manifest
from .errors import AudioError, BundleError, GenerationError
from .generation.call_options import CallOptions
from .generation.config import GenerationConfig
from .generation.generator import Language, SpeechGenerator
from .generation.label_tokens import LabelTokens
from .generation.language import with_language
from .generation.likelihood import checked_texts, sequence_logprobs
from .generation.prompts import Prompts
from .generation.tokenizer import token_ids, tokenizer_of
from .input_checks import check_lengths, check_memory, fits_memory
from .transcribe.batching import ClipKeywords, transcribe_clips
from .transcribe.results import Transcription, transcriptions

logger = logging.getLogger(__name__)

BATCH_SIZE = 8
"""Clips of a list that are encoded and searched together."""


class OnnxSpeechSeq2Seq(SpeechGenerator):
    """An exported speech encoder-decoder model, from audio to text. `from_pretrained` loads one."""

    def __init__(
        self,
        backend: Backend,
        manifest: Manifest,
        generation_config: GenerationConfig,
        feature_extractor: FeatureExtractor | None,
        tokenizer: Tokenizer | None,
        label_tokens: LabelTokens | None = None,
    ) -> None:
        """Compose a model of its parts; without extractor or tokenizer it generates, but does not transcribe."""
        super().__init__(backend, manifest, generation_config, tokenizer, label_tokens)
        self.feature_extractor = feature_extractor

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | None = None,
        options: SessionOptions | EngineOptions | None = None,
        check_hashes: bool = True,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> "OnnxSpeechSeq2Seq":
        """Load a bundle.

        Args:
            name: the directory that `speech-export` wrote, or a Hub id.
            device: "cpu", "cuda", "cuda:1", "tensorrt", "tensorrt_rtx", or "engines" for the TensorRT engines in the
                bundle; shorthand for `options`.
            options: device, threads, and more.
            check_hashes: compare the SHA-256 of every file first.
            revision: of a Hub id: branch, tag or commit.
            token: for private repositories.
            cache_dir: where downloads are kept.
            local_files_only: take only what is in the cache.

        Raises:
            BundleError: there is no bundle, it is damaged, or its feature extractor is none that this release knows.
            EngineError: ONNX Runtime, the provider for the device, or engines for it are missing.
        """
        chosen = options_for(device, options)
        where = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        begin = time.perf_counter()
        directory = bundle_directory(name, **where, engines=isinstance(chosen, EngineOptions))  # type: ignore[arg-type]

        def load(bundle: Bundle) -> "OnnxSpeechSeq2Seq":
            checked = time.perf_counter()
            backend, manifest = load_backend(bundle, chosen, check_hashes=check_hashes)
            model = cls(
                backend,
                manifest,
                GenerationConfig.from_file(bundle.path(GENERATION_CONFIG), manifest.decoder.vocab_size),
                feature_extractor_of(bundle),
                tokenizer_of(bundle),
                LabelTokens.of(bundle),
            )
            logger.info(
                "%s: files found and checked in %.3f s, loaded in %.3f s",
                *(name, checked - begin, time.perf_counter() - checked),
            )
            return model

        return load_whole(directory, load, check_hashes=check_hashes)

    def score(
        self,
        audio: Audio,
        texts: Iterable[str],
        *,
        sampling_rate: int | None = None,
        limits: AudioLimits | None = None,
        language: str | None = None,
    ) -> NDArray[np.float32]:
        """How likely each of `texts` is as the transcription of a clip: to choose among the best of another system.

        Args:
            audio: see `transcribe`.
            texts: without special tokens; the start token, a forced first token and the end token are added.
            sampling_rate: see `transcribe`.
            limits: see `transcribe`.
            language: see `generate`.

        Returns:
            Log-probabilities float32 [texts] of all tokens of each, the end token included.

        Raises:
            AudioError: see `transcribe`.
            BundleError: the bundle has no tokenizer, or one that only decodes.
            GenerationError: `texts` is no list of texts, or one of them cannot be scored.
        """
        given = checked_texts(texts)
        if not given:
            return np.zeros(0, dtype=np.float32)
        config = self.generation_config
        if language is not None:
            config = with_language(config, self.tokenizer, language, 1)
            config.check_vocabulary(self.manifest.decoder.vocab_size)
        first = [*config.start_token_ids(1), *([] if (forced := config.forced_bos_token_id) is None else [forced])]
        last = list(config.eos_token_ids[:1])
        sequences = [[*first, *token_ids(self.tokenizer, text), *last] for text in given]
        encoded = self.encode(*self._extractor()([self.load(audio, sampling_rate, limits=limits)]))
        return sequence_logprobs(self._decoder(encoded), sequences, self.manifest.decoder.vocab_size)

    @overload
    def transcribe(
        self,
        audio: Audio,
        *,
        sampling_rate: int | None = None,
        batch_size: int = BATCH_SIZE,
        limits: AudioLimits | None = None,
        **keywords: Unpack[ClipKeywords],
    ) -> str: ...

    @overload
    def transcribe(
        self,
        audio: list[Any],  # of Audio; but a list[Path] is not a list[Audio]
        *,
        sampling_rate: int | None = None,
        batch_size: int = BATCH_SIZE,
        limits: AudioLimits | None = None,
        **keywords: Unpack[ClipKeywords],
    ) -> list[str]: ...

    def transcribe(
        self,
        audio: Audio | list[Any],
        *,
        sampling_rate: int | None = None,
        batch_size: int = BATCH_SIZE,
        limits: AudioLimits | None = None,
        **keywords: Unpack[ClipKeywords],
    ) -> str | list[str]:
        """Transcribe one clip, or a list of clips of any length; texts come in the order of the clips.

        Args:
            audio: paths of files, their bytes or open files; arrays of mono floating-point samples; dictionaries of
                samples and "sampling_rate", as `datasets` has them; or (rate, samples), as gradio has them.
            sampling_rate: of arrays, Hz; the model's own where it is None. All others know their own.
            limits: the most that a clip may ask for.
            batch_size: see `transcribe_iter`.
            keywords: see `generate`.

        Warns:
            UserWarning: a text is cut off, by its maximal length for example; once a call.

        Raises:
            AudioError: audio that cannot be transcribed; names the clip. `transcribe_iter` goes on after it.
        """
        clips = audio if isinstance(audio, list) else [audio]
        texts: list[str] = []
        warned = False
        settings: dict[str, Any] = {"sampling_rate": sampling_rate, "batch_size": batch_size, "limits": limits}
        for heard in self.transcribe_iter(clips, **settings, **keywords):
            if isinstance(heard, AudioError):
                raise heard
            if heard.cut and not warned:
                warnings.warn(f"audio[{len(texts)}]: {heard.cut}; transcribe_iter marks all such texts", stacklevel=2)
                warned = True
            texts.append(heard.text)
        return texts if isinstance(audio, list) else texts[0]

    def transcribe_iter(
        self,
        audio: Iterable[Audio],
        *,
        sampling_rate: int | None = None,
        batch_size: int = BATCH_SIZE,
        limits: AudioLimits | None = None,
        **keywords: Unpack[ClipKeywords],
    ) -> Iterator[Transcription | AudioError]:
        """Transcribe any number of clips, in batches of similar length and in bounded memory.

        Args:
            audio: see `transcribe`; it may be a generator: clips are taken as they are needed.
            sampling_rate: see `transcribe`.
            batch_size: clips that are encoded and searched together, at most.
            limits: see `transcribe`.
            keywords: see `generate`; lists have a value for each clip. `max_time` is that of a batch. After `cancel`,
                the clips that are left come back empty and marked as "stopped".

        Yields:
            What was heard, in the order of `audio`; for audio that cannot be transcribed, the error that says why.

        Raises:
            AudioError: `audio` is one clip and no list.
            GenerationError: settings that the model cannot follow.
        """
        _, limits = self._settings(keywords), AudioLimits.of(limits)
        return transcribe_clips(
            audio,
            load=lambda clip: self._load(clip, limits),
            fits=self._fits,
            transcribe=self._transcribe_batch,
            keywords=keywords,
            model_rate=self._extractor().sampling_rate,
            sampling_rate=sampling_rate,
            batch_size=batch_size,
        )

    def transcribe_all(self, audio: Iterable[Audio], **keywords: Any) -> Iterator[Transcription | AudioError]:
        """Call `transcribe_iter`, the new name of this method. Deprecated."""
        warnings.warn("transcribe_all is now called transcribe_iter", DeprecationWarning, stacklevel=2)
        return self.transcribe_iter(audio, **keywords)

    def load(
        self, audio: Audio, sampling_rate: int | None = None, name: str = "audio", limits: AudioLimits | None = None
    ) -> Samples:
        """Read or check one clip: float32 [samples] at the model's sampling rate.

        Raises:
            AudioError: it cannot be transcribed.
        """
        return self._load(clip_of(audio, sampling_rate, name), limits)

    def _transcribe_batch(self, clips: Sequence[Samples], **keywords: Unpack[ClipKeywords]) -> list[Transcription]:
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
            return []
        extractor = self._extractor()
        seconds = [clip.size / extractor.sampling_rate for clip in clips]
        options, asked, language, decoder_input_ids = self._settings(keywords)
        if options.cancel is not None and options.cancel.is_set():
            return [Transcription("", [], 0.0, "stopped", [], length, 0.0, 0.0) for length in seconds]
        begin = time.perf_counter()
        encoded = self._encoder.clips(clips, extractor)
        encode_seconds, begin = time.perf_counter() - begin, time.perf_counter()
        found, config = self._search(encoded, decoder_input_ids, language, options, asked)
        decode_seconds = time.perf_counter() - begin
        logger.info(
            "%d clips, %.1f s of audio: encoded in %.3f s, decoded in %.3f s and %d steps",
            *(len(clips), sum(seconds), encode_seconds, decode_seconds, found.steps),
        )
        return transcriptions(found, config, self.tokenizer, seconds, encode_seconds, decode_seconds)

    def _load(self, clip: Clip, limits: AudioLimits | None) -> Samples:
        extractor, begin = self._extractor(), time.perf_counter()
        samples = clip.load(extractor.sampling_rate, limits)
        extractor.check_level(samples, clip.name)
        length = extractor.input_length(samples.size, clip.name)
        check_lengths(np.array([length]), self.manifest.encoder, clip.name)
        check_memory(1, length, self.manifest.encoder, clip.name)
        seconds = samples.size / extractor.sampling_rate
        logger.info("%s: %.1f s of audio read in %.3f s", clip.name, seconds, time.perf_counter() - begin)
        return samples

    def _settings(
        self, keywords: ClipKeywords
    ) -> tuple[CallOptions, GenerationConfig, Language | None, Prompts | None]:
        """Keywords for a search, checked; what it returns is what was heard, and no more unless asked for."""
        settings: dict[str, Any] = {"num_return_sequences": 1, **keywords}
        language, decoder_input_ids = settings.pop("language", None), settings.pop("decoder_input_ids", None)
        options, config = self._asked(settings)
        if kept := [name for name in ("output_scores", "output_logits") if getattr(options, name)]:
            raise GenerationError(
                f"{' and '.join(kept)}: a transcription has no place for that; call generate() instead"
            )
        return options, config, language, decoder_input_ids

    def _fits(self, clips: Sequence[Samples]) -> bool:
        """Whether a batch fits this machine's memory."""
        longest = max(self._extractor().input_length(clip.size, "audio") for clip in clips)
        return fits_memory(len(clips), longest, self.manifest.encoder)

    def _extractor(self) -> FeatureExtractor:
        if self.feature_extractor is None:
            raise BundleError(f"the bundle has no {PREPROCESSOR_CONFIG}: only generate() works, on model input")
        return self.feature_extractor
