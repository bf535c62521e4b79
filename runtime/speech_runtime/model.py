"""`OnnxSpeechSeq2Seq`: an exported speech encoder-decoder model, from audio to text."""

import logging
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .audio import Audio, AudioLimits, Clip, Samples, clip_of, is_clip
from .audio.features import FeatureExtractor, feature_extractor_of
from .backends.base import Backend
from .backends.load import load_backend
from .backends.options import EngineOptions, SessionOptions, options_for
from .bundle.hub import bundle_directory
from .bundle.loading import Bundle, load_whole
from .bundle.manifest import GENERATION_CONFIG, PREPROCESSOR_CONFIG, TOKENIZER, Manifest
from .errors import AudioError, BundleError, GenerationError
from .generation.call import utterances_of
from .generation.call_options import CallOptions
from .generation.config import GenerationConfig
from .generation.generator import Language, SpeechGenerator
from .generation.likelihood import LabelTokens, checked_texts, sequence_logprobs
from .generation.prompts import Prompts
from .generation.text import token_ids, token_name, tokenizer_of
from .input_checks import check_lengths, check_memory, fits_memory
from .processor import SpeechProcessor
from .transcribe.batching import OF_PROMPTS, PER_CLIP, ClipKeywords, transcribe_clips
from .transcribe.results import Transcription, transcriptions
from .transcribe.scheduled_clips import EncodedClip, SubmittedClip
from .transcribe.scheduler import Scheduler

logger = logging.getLogger(__name__)

BATCH_SIZE = 8
"""Number of clips that are encoded and searched together."""


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
        """Compose a model of its parts. Without feature extractor or tokenizer it cannot transcribe."""
        super().__init__(backend, manifest, generation_config, tokenizer, label_tokens, feature_extractor)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | int | None = None,
        options: SessionOptions | EngineOptions | None = None,
        check_hashes: bool = True,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> "OnnxSpeechSeq2Seq":
        """Load a bundle.

        Args:
            name: Directory that `speech-export` wrote, or Hub id.
            device: "cpu", "cuda", "cuda:1", "tensorrt", "tensorrt_rtx", or "engines" for the TensorRT engines in the
                bundle; or a GPU's number, and -1 for the CPU. Shorthand for `options`.
            options: Device, threads and further options.
            check_hashes: If true, compare the SHA-256 of every file first.
            revision: Branch, tag or commit of a Hub id.
            token: Access token for private repositories.
            cache_dir: Directory for downloads.
            local_files_only: If true, use only files that are in the cache.

        Raises:
            BundleError: There is no bundle, it is damaged, or this release does not know its feature extractor.
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
                GenerationConfig.from_file(bundle.path(GENERATION_CONFIG), manifest.decoder.vocabulary),
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

    @property
    def processor(self) -> SpeechProcessor:
        """Feature extractor and tokenizer, to be called as a processor of transformers is."""
        return SpeechProcessor(self.manifest.encoder.input_name, self.feature_extractor, self.tokenizer, self.load)

    def score(
        self,
        audio: Audio,
        texts: Iterable[str],
        *,
        sampling_rate: int | None = None,
        limits: AudioLimits | None = None,
        language: str | None = None,
        source_language: str | None = None,
        task: str | None = None,
    ) -> NDArray[np.float32]:
        """Return the log-probability of each text as the transcription of a clip, to rank texts of another system.

        Args:
            audio: Clip, as in `transcribe`.
            texts: Texts without special tokens; the prompt, a forced first token and the end token are added.
            sampling_rate: Sampling rate, as in `transcribe`.
            limits: Limits, as in `transcribe`.
            language: Language of the texts, as in `generate`.
            source_language: Language of the speech, as in `generate`.
            task: Task, as in `generate`.

        Returns:
            Sum of the log-probabilities of all tokens of each text, the end token included: float32 [texts].

        Raises:
            AudioError: The clip cannot be transcribed.
            BundleError: The bundle has no tokenizer, or its tokenizer only decodes.
            GenerationError: `texts` is not a list of strings, or one of them cannot be scored.
        """
        given = checked_texts(texts)
        if not given:
            return np.zeros(0, dtype=np.float32)
        tokens = [token_ids(self.tokenizer, text) for text in given]
        encoded = self.encode(*self._extractor()([self.load(audio, sampling_rate, limits=limits)]))
        (prompt,), config = self._prompts(encoded, None, language, source_language, task, self.generation_config)
        before = prompt.tokens[0].tolist()
        forced = [] if config.forced_bos_token_id is None or len(before) > 1 else [config.forced_bos_token_id]
        sequences = [[*before, *forced, *text, *config.eos_token_ids[:1]] for text in tokens]
        vocabulary, name = self.manifest.decoder.vocabulary, partial(token_name, self.tokenizer)
        return sequence_logprobs(self._decoder(encoded), sequences, vocabulary, len(before), name)

    @overload
    def transcribe(  # type: ignore[overload-overlap]  # a string is a sequence of strings too, and means one file
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
        audio: Sequence[Audio],
        *,
        sampling_rate: int | None = None,
        batch_size: int = BATCH_SIZE,
        limits: AudioLimits | None = None,
        **keywords: Unpack[ClipKeywords],
    ) -> list[str]: ...

    def transcribe(
        self,
        audio: Audio | Sequence[Audio],
        *,
        sampling_rate: int | None = None,
        batch_size: int = BATCH_SIZE,
        limits: AudioLimits | None = None,
        **keywords: Unpack[ClipKeywords],
    ) -> str | list[str]:
        """Transcribe one clip, or a list of clips. Texts come in the order of the clips.

        Args:
            audio: Path, bytes or open file; array of mono floating-point samples; dictionary of samples and
                "sampling_rate", as `datasets` has them; or (rate, samples), as gradio has them. Or a list or another
                sequence of these.
            sampling_rate: Sampling rate of arrays, Hz; that of the model if None: the text of an array at another rate
                is wrong, and only some are noticed, with a warning. Other forms have their own.
            batch_size: Largest number of clips that are encoded and searched together.
            limits: Largest size of a clip.
            keywords: Settings and options, see `generate`.

        Warns:
            UserWarning: A text is cut off, such as by its maximal length; once per call. Or an array without
                `sampling_rate` looks as if it had another rate than the model.

        Raises:
            AudioError: A clip, which is named, cannot be transcribed. `transcribe_iter` continues after it.
        """
        several = isinstance(audio, Sequence) and not is_clip(audio)
        clips: Any = audio if several else [audio]
        texts: list[str] = []
        warned = False
        settings: dict[str, Any] = {"sampling_rate": sampling_rate, "batch_size": batch_size, "limits": limits}
        for result in self.transcribe_iter(clips, **settings, **keywords):
            if isinstance(result, AudioError):
                raise result
            if result.cut and not warned:
                warnings.warn(f"audio[{len(texts)}]: {result.cut}; transcribe_iter marks all such texts", stacklevel=2)
                warned = True
            texts.append(result.text)
        return texts if several else texts[0]

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
            audio: Clips, as in `transcribe`. It may be a generator: clips are taken as they are needed.
            sampling_rate: Sampling rate of arrays, as in `transcribe`.
            batch_size: Largest number of clips that are encoded and searched together.
            limits: Limits, as in `transcribe`.
            keywords: Settings and options, see `generate`. Lists have a value for each clip. `max_time` holds for a
                batch. After `cancel`, the remaining clips are returned empty and marked as "stopped".

        Yields:
            Transcriptions in the order of `audio`; for a clip that cannot be transcribed, its error.

        Raises:
            AudioError: `audio` is one clip and not a list.
            GenerationError: The settings are wrong, or the model cannot follow them.
        """
        options, config = self._checked_call(keywords)
        limits = AudioLimits.of(limits)
        return transcribe_clips(
            audio,
            load=lambda clip: self._load(clip, limits),
            fits=self._fits,
            transcribe=lambda clips, **given: self._transcribe_batch(clips, options, config, **given),
            keywords={name: value for name, value in keywords.items() if name in {*PER_CLIP, *OF_PROMPTS}},
            model_rate=self._extractor().sampling_rate,
            sampling_rate=sampling_rate,
            batch_size=batch_size,
        )

    def transcribe_all(self, audio: Iterable[Audio], **keywords: Any) -> Iterator[Transcription | AudioError]:
        """Call `transcribe_iter`, the new name of this method. Deprecated."""
        warnings.warn("transcribe_all is now called transcribe_iter", DeprecationWarning, stacklevel=2)
        return self.transcribe_iter(audio, **keywords)

    def scheduler(self, *, max_utterances: int = BATCH_SIZE, max_waiting: int = 64) -> Scheduler:
        """Return a scheduler: a running batch that clips of any threads join and leave at any time.

        Args:
            max_utterances: Largest number of clips that are decoded at a time.
            max_waiting: Largest number of clips that wait for that; one more is refused.

        Raises:
            BundleError: The bundle has no tokenizer or feature extractor.
            GenerationError: A number is below 1.
        """
        extractor, tokenizer = self._extractor(), self._text_tokenizer()

        def prepare(clip: SubmittedClip) -> EncodedClip:
            begin = time.perf_counter()
            encoded = self._encoder.clips([clip.samples], extractor)
            seconds = time.perf_counter() - begin
            given = clip.of_prompt.get
            (prompt,), config = self._prompts(
                encoded,
                given("decoder_input_ids"),
                given("language"),
                given("source_language"),
                given("task"),
                clip.config,
            )
            (utterance,) = utterances_of(
                prompt, self.manifest.decoder, tokenizer, config, clip.options, clip.deadline, ["the clip"]
            )
            decoder = self._decoder(encoded, utterance.longest, utterance.beams)
            audio_seconds = clip.samples.size / extractor.sampling_rate
            return EncodedClip(utterance, decoder, config, tokenizer, audio_seconds, seconds)

        return Scheduler(self.load, self._checked_call, prepare, max_utterances, max_waiting)

    def load(
        self, audio: Audio, sampling_rate: int | None = None, name: str = "audio", limits: AudioLimits | None = None
    ) -> Samples:
        """Read or check one clip.

        Args:
            audio: Clip, as in `transcribe`.
            sampling_rate: Sampling rate of an array, as in `transcribe`.
            name: Name of the clip for messages.
            limits: Limits, as in `transcribe`.

        Returns:
            Samples float32 [samples] at the model's sampling rate.

        Raises:
            AudioError: The clip cannot be transcribed.
        """
        return self._load(clip_of(audio, sampling_rate, name), limits)

    def _transcribe_batch(
        self,
        clips: Sequence[Samples],
        options: CallOptions,
        config: GenerationConfig,
        *,
        language: Language | None = None,
        source_language: Language | None = None,
        task: str | None = None,
        decoder_input_ids: Prompts | None = None,
        decoder_start_token_id: int | Sequence[int] | None = None,
    ) -> list[Transcription]:
        """Transcribe clips that `load` returned, as one batch, with checked options and settings.

        A clip's transcription does not depend on the others: where padding changes the encoder's output, clips are
        encoded one by one and searched together. The exception is a checkpoint whose feature extractor returns no mask:
        it treats padding as audio, as in transformers.

        Raises:
            BundleError: The bundle has no tokenizer or feature extractor.
        """
        tokenizer = self._text_tokenizer()
        if not clips:
            return []
        extractor = self._extractor()
        seconds = [clip.size / extractor.sampling_rate for clip in clips]
        if options.cancel is not None and options.cancel.is_set():
            return [Transcription("", [], 0.0, "stopped", [], length, 0.0, 0.0) for length in seconds]
        if decoder_start_token_id is not None:
            config = config.updated({"decoder_start_token_id": decoder_start_token_id})
        begin = time.perf_counter()
        encoded = self._encoder.clips(clips, extractor)
        encode_seconds, begin = time.perf_counter() - begin, time.perf_counter()
        prompts, config = self._prompts(encoded, decoder_input_ids, language, source_language, task, config)
        found = self._search(encoded, prompts, options, config)
        decode_seconds = time.perf_counter() - begin
        logger.info(
            "%d clips, %.1f s of audio: encoded in %.3f s, decoded in %.3f s and %d steps",
            *(len(clips), sum(seconds), encode_seconds, decode_seconds, found.steps),
        )
        return transcriptions(found, config, tokenizer, seconds, encode_seconds, decode_seconds)

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

    def _checked_call(self, keywords: ClipKeywords) -> tuple[CallOptions, GenerationConfig]:
        """Check the keywords of a call, and return its options and settings; by default one sequence is returned."""
        own = {name: value for name, value in keywords.items() if name not in OF_PROMPTS}
        options, config = self._options_and_settings(own, keywords.get("language"), num_return_sequences=1)
        if kept := [name for name in ("output_scores", "output_logits") if getattr(options, name)]:
            raise GenerationError(f"{' and '.join(kept)}: transcribe does not return them; call generate() instead")
        return options, config

    def _fits(self, clips: Sequence[Samples]) -> bool:
        """Return true if a batch fits into this machine's memory."""
        longest = max(self._extractor().input_length(clip.size, "audio") for clip in clips)
        return fits_memory(len(clips), longest, self.manifest.encoder)

    def _text_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise BundleError(f"the bundle has no {TOKENIZER}: only generate() works, on token ids")
        return self.tokenizer

    def _extractor(self) -> FeatureExtractor:
        if self.feature_extractor is None:
            raise BundleError(f"the bundle has no {PREPROCESSOR_CONFIG}: only generate() works, on model input")
        return self.feature_extractor
