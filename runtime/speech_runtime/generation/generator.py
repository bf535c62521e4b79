"""`SpeechGenerator`: an exported model from model input to token ids."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer

from ..backends.base import Backend
from ..bundle.manifest import Manifest
from ..dataclass_json import shown
from ..errors import GenerationError
from .call import Extras, SearchKeywords, generate
from .config import GenerationConfig
from .decoding.caches.step_memories import StepMemories
from .decoding.decoder import CachedDecoder
from .encoder import EncoderOutput, SpeechEncoder
from .label_tokens import LabelTokens
from .language import with_language
from .likelihood import ForwardOutput, cross_entropy
from .likelihood import decoder_input_ids as shifted_right
from .output import GenerateOutput
from .prompts import Prompts, check_tokens, prompts
from .search.state import Tokens

Language = str | Sequence[str]
"""One for a batch, or one for each utterance."""


class SpeechGenerator:
    """The graphs of a bundle with their searches."""

    def __init__(
        self,
        backend: Backend,
        manifest: Manifest,
        generation_config: GenerationConfig,
        tokenizer: Tokenizer | None,
        label_tokens: LabelTokens | None = None,
    ) -> None:
        """Compose it of its parts; without tokenizer there are no languages, stop strings and streams."""
        self.manifest = manifest
        self.generation_config = generation_config
        self.tokenizer = tokenizer
        self._label_tokens = label_tokens or LabelTokens()
        self._backend = backend
        self._encoder = SpeechEncoder(backend, manifest.encoder)
        recorded = manifest.decoder.cache == "static" and backend.recordings
        self._memories = StepMemories(backend, manifest.decoder) if recorded else None

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied, and say what to do instead."""
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied, its graphs are in the memory of this process; give "
            "the other process the bundle's directory, and load it there with "
            "OnnxSpeechSeq2Seq.from_pretrained(directory). "
            "Threads can share one model"
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
        return self._encoder(inputs, attention_mask)

    def frame_mask(self, encoded: EncoderOutput) -> NDArray[np.int64]:
        """Return which frames of an encoded batch hold audio: int64 [batch, frames], 1 where they do."""
        return self._backend.download(encoded.attention_mask)

    @overload
    def generate(
        self,
        inputs: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        *,
        encoder_outputs: EncoderOutput | None = None,
        decoder_input_ids: Prompts | None = None,
        language: Language | None = None,
        return_dict_in_generate: Literal[False] = False,
        **keywords: Unpack[SearchKeywords],
    ) -> NDArray[np.int64]: ...

    @overload
    def generate(
        self,
        inputs: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        *,
        encoder_outputs: EncoderOutput | None = None,
        decoder_input_ids: Prompts | None = None,
        language: Language | None = None,
        return_dict_in_generate: Literal[True],
        **keywords: Unpack[SearchKeywords],
    ) -> GenerateOutput: ...

    def generate(
        self,
        inputs: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        *,
        encoder_outputs: EncoderOutput | None = None,
        decoder_input_ids: Prompts | None = None,
        language: Language | None = None,
        return_dict_in_generate: bool = False,
        **keywords: Unpack[SearchKeywords],
    ) -> NDArray[np.int64] | GenerateOutput:
        """Generate token ids, as `SpeechEncoderDecoderModel.generate` of transformers does.

        Args:
            inputs: see `encode`.
            attention_mask: see `encode`.
            encoder_outputs: of `encode`, instead of `inputs`.
            decoder_input_ids: int64 [batch, tokens], a prompt, or a list for each utterance, of any lengths; the start
                token is put in front where it is missing.
            language: to write in, or one for each utterance, as the tokenizer's language tokens name it (`de`,
                `de_DE`): the start token where the model starts with a language token, the first new one elsewhere.
            return_dict_in_generate: return all that is known about the sequences.
            keywords: settings, see `GenerationConfig`, what is not given comes from the bundle's
                `generation_config.json`; and functions and outputs of this call, see `Extras`.

        Returns:
            int64 [batch × num_return_sequences, length]: start token, tokens, end token, padding; or the whole output.

        Raises:
            AudioError: see `encode`.
            GenerationError: settings that are unknown, contradictory or beyond the decoder's positions.
        """
        if not isinstance(return_dict_in_generate, bool | np.bool_ | None):
            raise GenerationError(f"return_dict_in_generate is {shown(return_dict_in_generate)}; give True or False")
        extras, config = self._asked(keywords)
        encoded = self._encoded(inputs, attention_mask, encoder_outputs)
        found, _ = self._search(encoded, decoder_input_ids, language, extras, config)
        return found if return_dict_in_generate else found.sequences

    def forward(
        self,
        inputs: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        *,
        encoder_outputs: EncoderOutput | None = None,
        decoder_input_ids: ArrayLike | None = None,
        labels: ArrayLike | None = None,
    ) -> ForwardOutput:
        """What the decoder expects after each of given tokens, and the loss of labels.

        Args:
            inputs: see `encode`.
            attention_mask: see `encode`.
            encoder_outputs: of `encode`, instead of `inputs`.
            decoder_input_ids: int64 [batch, tokens], the start token included.
            labels: int64 [batch, tokens], instead of `decoder_input_ids`: what should be said; -100 does not count. As
                in transformers they start from the token that config.json names; where it names none, from that of
                the settings.

        Raises:
            GenerationError: tokens that there are not, or both or neither of the two.
        """
        if (labels is None) == (decoder_input_ids is None):
            raise GenerationError("give either decoder_input_ids or labels, and not both")
        encoded = self._encoded(inputs, attention_mask, encoder_outputs)
        config, vocab_size = self.generation_config, self.manifest.decoder.vocab_size
        if labels is None:
            tokens = check_tokens(decoder_input_ids, encoded.batch, vocab_size)  # type: ignore[arg-type]
            return ForwardOutput(self._decoder(encoded).logits(tokens))
        start, pad = self._label_tokens.resolved(config, encoded.batch, vocab_size)
        checked, tokens = shifted_right(labels, start, pad, vocab_size)
        logits = self._decoder(encoded).logits(tokens)
        return ForwardOutput(logits, cross_entropy(logits, checked))

    def _asked(self, keywords: Mapping[str, Any]) -> tuple[Extras, GenerationConfig]:
        """The keywords of a search, checked before anything runs."""
        extras, settings = Extras.split(keywords)
        config = self.generation_config.updated(settings)
        if config is not self.generation_config:
            config.check_vocabulary(self.manifest.decoder.vocab_size)
        return extras, config

    def _search(
        self,
        encoded: EncoderOutput,
        decoder_input_ids: Prompts | None,
        language: Language | None,
        extras: Extras,
        config: GenerationConfig,
    ) -> tuple[GenerateOutput, GenerationConfig]:
        """Search, and the settings that were searched with."""
        facts = self.manifest.decoder
        if language is not None:
            config = with_language(config, self.tokenizer, language, encoded.batch)
            config.check_vocabulary(facts.vocab_size)
        given = prompts(decoder_input_ids, config.start_token_ids(encoded.batch), facts.vocab_size)

        def decoder(rows: Tokens, longest: int) -> CachedDecoder:
            return self._decoder(self._encoder.rows(encoded, rows), longest)

        return generate(decoder, facts, self.tokenizer, config, given, extras), config

    def _encoded(
        self, inputs: ArrayLike | None, attention_mask: ArrayLike | None, encoder_outputs: EncoderOutput | None
    ) -> EncoderOutput:
        if (inputs is None) == (encoder_outputs is None):
            raise GenerationError("give either inputs or encoder_outputs, and not both")
        if encoder_outputs is not None and not isinstance(encoder_outputs, EncoderOutput):
            raise GenerationError(
                f"encoder_outputs is of type {type(encoder_outputs).__name__}, it must be what encode() returned"
            )
        return encoder_outputs or self.encode(inputs, attention_mask)  # type: ignore[arg-type]

    def _decoder(self, encoded: EncoderOutput, longest: int | None = None) -> CachedDecoder:
        facts = self.manifest.decoder
        states, mask = encoded.hidden_states, encoded.attention_mask
        return CachedDecoder(self._backend, facts, encoded.batch, states, mask, self._memories, longest)
