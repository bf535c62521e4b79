"""`SpeechGenerator`: an exported model, from model input to token ids."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer

from ..audio.features import FeatureExtractor
from ..backends.base import Backend
from ..bundle.manifest import Manifest
from ..dataclass_json import shown
from ..errors import GenerationError
from ..neutral_arguments import takes_neutral
from .call import generate
from .call_options import OPTION_NAMES, CallOptions, SearchKeywords
from .config import GenerationConfig
from .decoding.caches.buffer_pool import StepBufferPool
from .decoding.decoder import CachedDecoder
from .encoder import EncoderOutput, SpeechEncoder
from .language import check_given_once, setting_of_language, with_language
from .likelihood import ForwardOutput, LabelTokens, cross_entropy
from .likelihood import decoder_input_ids as shifted_right
from .model_input import given_input, padded_rows
from .output import GenerateOutput
from .prompt_template import filled, no_source_language
from .prompts import Prompt, Prompts, check_tokens, prompts
from .search.base import rows_per_utterance
from .setting_help import with_setting_help
from .text import decoded, decoding_arguments
from .transformers_arguments import settings_of, without_arguments_of_transformers
from .transformers_names import missing
from .transition_scores import transition_scores

Language = str | Sequence[str]
"""One language for a batch, or one for each utterance."""


_OTHER_KEYWORDS = (
    *("inputs", "input_values", "input_features", "attention_mask", "encoder_outputs", "generation_config"),
    *("language", "source_language", "task", "decoder_input_ids", "sampling_rate", "batch_size", "limits"),
)
"""Other keywords of `generate` and `transcribe`, to suggest for misspelt ones."""


class SpeechGenerator:
    """The graphs of a bundle, and the searches that run them."""

    def __init__(
        self,
        backend: Backend,
        manifest: Manifest,
        generation_config: GenerationConfig,
        tokenizer: Tokenizer | None,
        label_tokens: LabelTokens | None = None,
        feature_extractor: FeatureExtractor | None = None,
    ) -> None:
        """Compose a generator of its parts. Languages, stop strings and text need a tokenizer."""
        self.manifest = manifest
        self.generation_config = generation_config
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer
        self._label_tokens = label_tokens or LabelTokens()
        self._backend = backend
        self._encoder = SpeechEncoder(backend, manifest.encoder)
        recorded = manifest.decoder.cache in ("static", "tree") and backend.recordings
        self._buffers = StepBufferPool(backend, manifest.decoder) if recorded else None

    def __reduce__(self) -> NoReturn:
        """Refuse pickling and copying with an error that has the remedy."""
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied, its graphs are in the memory of this process; give "
            "the other process the bundle's directory, and load it there with "
            "OnnxSpeechSeq2Seq.from_pretrained(directory). "
            "Threads can share one model"
        )

    def encode(
        self,
        inputs: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        *,
        input_values: ArrayLike | None = None,
        input_features: ArrayLike | None = None,
    ) -> EncoderOutput:
        """Run the encoder.

        Args:
            inputs: Samples float32 [batch, samples], normalised as the checkpoint expects, or features [batch, time,
                features]. A list of rows of several lengths is padded as the checkpoint's feature extractor pads.
            attention_mask: Mask int64 [batch, samples or time], 1 where there is audio, 0 for padding at the end; None
                for all ones, and for the lengths of the rows of a list.
            input_values: Samples, instead of `inputs`; the name that feature extractors have for them.
            input_features: Features, instead of `inputs`; the name that feature extractors have for them.

        Raises:
            AudioError: The inputs have another shape or dtype, are not finite, shorter than one frame, or too long for
                this machine.
            GenerationError: The inputs are missing, given twice, or those of another encoder.
        """
        name = self.manifest.encoder.input_name
        given = given_input(name, inputs=inputs, input_values=input_values, input_features=input_features)
        if given is None:
            raise GenerationError(f"the input is missing; give {name}, which model.processor makes of audio")
        return self._encoder(*padded_rows(given, attention_mask, self.feature_extractor, name))

    def frame_mask(self, encoded: EncoderOutput) -> NDArray[np.int64]:
        """Return the mask of an encoded batch: int64 [batch, frames], 1 where a frame holds audio."""
        return self._backend.download(encoded.attention_mask)

    @overload
    def generate(
        self,
        inputs: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        *,
        input_values: ArrayLike | None = None,
        input_features: ArrayLike | None = None,
        encoder_outputs: EncoderOutput | None = None,
        decoder_input_ids: Prompts | None = None,
        language: Language | None = None,
        source_language: Language | None = None,
        task: str | None = None,
        return_dict_in_generate: Literal[False] | None = None,
        **keywords: Unpack[SearchKeywords],
    ) -> NDArray[np.int64]: ...

    @overload
    def generate(
        self,
        inputs: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        *,
        input_values: ArrayLike | None = None,
        input_features: ArrayLike | None = None,
        encoder_outputs: EncoderOutput | None = None,
        decoder_input_ids: Prompts | None = None,
        language: Language | None = None,
        source_language: Language | None = None,
        task: str | None = None,
        return_dict_in_generate: Literal[True],
        **keywords: Unpack[SearchKeywords],
    ) -> GenerateOutput: ...

    @with_setting_help
    def generate(
        self,
        inputs: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        *,
        input_values: ArrayLike | None = None,
        input_features: ArrayLike | None = None,
        encoder_outputs: EncoderOutput | None = None,
        decoder_input_ids: Prompts | None = None,
        language: Language | None = None,
        source_language: Language | None = None,
        task: str | None = None,
        return_dict_in_generate: bool | None = None,
        **keywords: Unpack[SearchKeywords],
    ) -> NDArray[np.int64] | GenerateOutput:
        """Generate token ids, as `SpeechEncoderDecoderModel.generate` of transformers does.

        Args:
            inputs: As in `encode`.
            attention_mask: As in `encode`.
            input_values: As in `encode`.
            input_features: As in `encode`.
            encoder_outputs: Output of `encode`, instead of the input.
            decoder_input_ids: Prompts int64 [batch, tokens], or a list for each utterance, of any lengths. The start
                token is put in front where it is missing.
            language: Language to write in, or one for each utterance, as the tokenizer's language tokens name it (`de`,
                `de_DE`). Whisper has it in its prompt, and detects it if it is None. For others it sets the start token
                if they start with a language token, else the first new token, which is the same for all utterances of
                a call.
            source_language: Language of the speech, or one for each utterance, for a model that is told it, such as
                Canary; None for that of the text. Without `language`, the text is in this language.
            task: Task of a model that has several, such as "transcribe" and "translate" (into English) for Whisper.
            return_dict_in_generate: If true, return a `GenerateOutput` instead of the sequences alone; None for what
                `generation_config` says.
            keywords: The settings and options below, and `generation_config`, a `GenerationConfig` (ours or that of
                transformers) or a dictionary of settings. Keywords override it, and it overrides the bundle's
                `generation_config.json`, whose values hold in place of the defaults below.

        Returns:
            Sequences int64 [batch × num_return_sequences, length]: start token, tokens, end token, padding.

        Raises:
            AudioError: As in `encode`.
            GenerationError: A setting is unknown or out of range, settings contradict each other, or sequences do not
                fit the decoder.
        """
        own = {} if return_dict_in_generate is None else {"return_dict_in_generate": return_dict_in_generate}
        options, config = self._options_and_settings({**keywords, **own}, language)
        encoded = self._encoded(
            encoder_outputs, inputs, attention_mask, input_values=input_values, input_features=input_features
        )
        prompts, config = self._prompts(encoded, decoder_input_ids, language, source_language, task, config)
        found = self._search(encoded, prompts, options, config)
        return found if options.return_dict_in_generate else found.sequences

    def forward(
        self,
        inputs: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        *,
        input_values: ArrayLike | None = None,
        input_features: ArrayLike | None = None,
        encoder_outputs: EncoderOutput | None = None,
        decoder_input_ids: ArrayLike | None = None,
        labels: ArrayLike | None = None,
    ) -> ForwardOutput:
        """Return the decoder's logits after each of the given tokens, and the loss if labels are given.

        Args:
            inputs: As in `encode`.
            attention_mask: As in `encode`.
            input_values: As in `encode`.
            input_features: As in `encode`.
            encoder_outputs: Output of `encode`, instead of the input.
            decoder_input_ids: Token ids int64 [batch, tokens], the start token included.
            labels: Expected token ids int64 [batch, tokens], instead of `decoder_input_ids`; -100 is not counted. As in
                transformers, the start token in front of them is that of config.json, or of the settings if
                config.json has none.

        Raises:
            GenerationError: A token is not in the vocabulary, or both or neither of the two are given.
        """
        if labels is None and decoder_input_ids is None:
            raise GenerationError(
                "decoder_input_ids and labels are missing, and logits are computed for one of them; for text call "
                "transcribe(audio), with a file or samples, and for token ids generate(inputs)"
            )
        if labels is not None and decoder_input_ids is not None:
            raise GenerationError("give either decoder_input_ids or labels, and not both")
        encoded = self._encoded(
            encoder_outputs, inputs, attention_mask, input_values=input_values, input_features=input_features
        )
        config, vocabulary = self.generation_config, self.manifest.decoder.vocabulary
        if labels is None:
            tokens = check_tokens(decoder_input_ids, encoded.batch, vocabulary)  # type: ignore[arg-type]
            return ForwardOutput(self._decoder(encoded).logits(tokens))
        start, pad = self._label_tokens.resolved(config, encoded.batch, vocabulary)
        checked, tokens = shifted_right(labels, start, pad, vocabulary)
        logits = self._decoder(encoded).logits(tokens)
        return ForwardOutput(logits, cross_entropy(logits, checked))

    __call__ = forward  # as a model of transformers is called

    if not TYPE_CHECKING:  # a type checker must go on refusing unknown names

        def __getattr__(self, name: str) -> Any:
            raise missing(f"an {type(self).__name__}", name)

    def compute_transition_scores(
        self,
        sequences: ArrayLike,
        scores: Sequence[ArrayLike],
        beam_indices: ArrayLike | None = None,
        normalize_logits: bool = False,
    ) -> NDArray[np.float32]:
        """Return the score of each new token of an output of `generate`, as transformers does.

        `GenerateOutput.token_logprobs` has the model's own log-probabilities, without `output_scores`.

        Args:
            sequences: Sequences of the output.
            scores: Scores of the output, with `output_scores`.
            beam_indices: Beam indices of the output; None for one sequence and one beam per utterance.
            normalize_logits: If true, turn scores into log-probabilities first: greedy search and sampling have logits.

        Returns:
            float32 [rows, new tokens]; 0 after the end of a sequence if `beam_indices` are given.

        Raises:
            GenerationError: There are no scores, or the arrays do not fit together.
        """
        return transition_scores(sequences, scores, beam_indices, normalize_logits)

    @takes_neutral(lambda model: decoding_arguments(model.tokenizer), GenerationError)
    def decode(
        self, token_ids: ArrayLike | Sequence[ArrayLike], *, skip_special_tokens: bool = True
    ) -> str | list[str]:
        """Return the text of token ids [tokens], or the texts of [batch, tokens], by default without special tokens.

        Raises:
            BundleError: The bundle has no tokenizer.
            GenerationError: They are not integers, or an argument of transformers asks for what is not done here.
        """
        return decoded(self.tokenizer, token_ids, skip_special_tokens=skip_special_tokens)

    def _options_and_settings(
        self, keywords: Mapping[str, Any], language: Language | None = None, **defaults: Any
    ) -> tuple[CallOptions, GenerationConfig]:
        """Check the keywords of a search before anything runs, and return its options and settings.

        Defaults come before the settings of the bundle, but after all that the call gives.
        """
        own = {name: value for name, value in keywords.items() if name != "generation_config"}
        merged = {**defaults, **settings_of(keywords.get("generation_config")), **own}
        options, settings = CallOptions.split(without_arguments_of_transformers(merged))
        config = self.generation_config.updated(settings, (*OPTION_NAMES, *_OTHER_KEYWORDS))
        if config is not self.generation_config:
            config.check_vocabulary(self.manifest.decoder.vocabulary)
        if language is not None and self.tokenizer is not None and self.manifest.prompt is None:
            setting = setting_of_language(config, self.tokenizer)
            check_given_once(language, own, config, self.generation_config, setting)
        return options, config

    def _prompts(
        self,
        encoded: EncoderOutput,
        given: Prompts | None,
        language: Language | None,
        source_language: Language | None,
        task: str | None,
        config: GenerationConfig,
    ) -> tuple[list[Prompt], GenerationConfig]:
        """Return the prompts of a batch, and the settings of its search: a language may be one of them."""
        vocabulary, template = self.manifest.decoder.vocabulary, self.manifest.prompt
        choices = {"language": language, "source_language": source_language, "task": task}
        asked = [name for name, value in choices.items() if value is not None]
        if template is not None and given is None:
            given = filled(
                template,
                config.start_token_ids(encoded.batch),
                language,
                task,
                lambda starts: self._decoder(encoded).logits(starts)[:, -1],
                source_language,
            )
        elif template is not None and asked:
            raise GenerationError(
                f"decoder_input_ids and {asked[0]} are both given, and both set the prompt; give one of them"
            )
        elif source_language is not None:
            raise GenerationError(no_source_language(source_language))
        elif task is not None:
            raise GenerationError(f"task is {shown(task)}, and this model has one task only; leave it out")
        elif language is not None:
            config = with_language(config, self.tokenizer, language, encoded.batch, prompted=given is not None)
            config.check_vocabulary(vocabulary)
        return prompts(given, config.start_token_ids(encoded.batch), vocabulary), config

    def _search(
        self, encoded: EncoderOutput, prompts: list[Prompt], options: CallOptions, config: GenerationConfig
    ) -> GenerateOutput:
        facts = self.manifest.decoder

        def decoder(utterances: NDArray[np.int64], longest: int) -> CachedDecoder:
            chosen = self._encoder.select_utterances(encoded, utterances)
            return self._decoder(chosen, longest, rows_per_utterance(config))

        return generate(decoder, facts, self.tokenizer, config, prompts, options)

    def _encoded(
        self, encoder_outputs: EncoderOutput | None, *inputs: ArrayLike | None, **named: ArrayLike | None
    ) -> EncoderOutput:
        if encoder_outputs is None:
            return self.encode(*inputs, **named)
        if any(given is not None for given in (inputs[0], *named.values())):
            raise GenerationError(
                f"give either {self.manifest.encoder.input_name} or encoder_outputs, and not both of them"
            )
        if not isinstance(encoder_outputs, EncoderOutput):
            raise GenerationError(
                f"encoder_outputs is of type {type(encoder_outputs).__name__}, it must be the result of encode()"
            )
        return encoder_outputs

    def _decoder(self, encoded: EncoderOutput, longest: int | None = None, beams: int = 1) -> CachedDecoder:
        facts = self.manifest.decoder
        states, mask = encoded.hidden_states, encoded.attention_mask
        return CachedDecoder(self._backend, facts, encoded.batch, states, mask, self._buffers, longest, beams)
