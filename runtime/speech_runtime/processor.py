"""`SpeechProcessor`: audio to model input and token ids to text, called as the processors of transformers are."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from tokenizers import Tokenizer

from .audio import Audio, Samples, is_clip
from .audio.features import FeatureExtractor
from .bundle.manifest import PREPROCESSOR_CONFIG
from .dataclass_json import shown
from .errors import AudioError, BundleError, GenerationError
from .generation.text import decoded, decoding_arguments
from .generation.transformers_names import missing
from .neutral_arguments import NeutralArgument, takes_neutral

_INPUT_ARGUMENTS = {
    "truncation": NeutralArgument(
        (False, "do_not_truncate"), "clips are taken whole, or refused; cut the samples, with samples[:length]"
    ),
    "max_length": NeutralArgument((), "clips are padded to the longest; cut or pad the arrays yourself"),
    "pad_to_multiple_of": NeutralArgument((1,), "clips are padded to the longest; pad the arrays that are returned"),
    "return_attention_mask": NeutralArgument((True,), "the mask is always returned; leave it out of generate"),
    "do_normalize": NeutralArgument(
        (), f"the bundle's {PREPROCESSOR_CONFIG} decides; change it in the checkpoint, and export that again"
    ),
    "return_token_timestamps": NeutralArgument((False,), "tokens have no times here; transcribe pieces of a recording"),
    "device": NeutralArgument(("cpu",), "features are computed on the CPU, for every device; leave it out"),
}
"""Arguments of transformers' feature extractors."""

_INSTEAD = {
    **dict.fromkeys(("save_pretrained", "push_to_hub"), "its files are in the bundle; copy or upload that"),
    "from_pretrained": "it is model.processor, where model = OnnxSpeechSeq2Seq.from_pretrained(bundle)",
    "pad": "give all clips in one call, with padding=True",
    **dict.fromkeys(
        ("get_decoder_prompt_ids", "get_prompt_ids"),
        "generate takes language= and task=, or the tokens of a prompt as decoder_input_ids=",
    ),
    **dict.fromkeys(("as_target_processor", "encode"), "model.tokenizer.encode(text).ids has the token ids of a text"),
    "sampling_rate": "see feature_extractor.sampling_rate",
    "vocab_size": "see tokenizer.get_vocab_size()",
    "get_vocab": "see tokenizer.get_vocab()",
    "convert_ids_to_tokens": "tokenizer.id_to_token(number) has the token of an id",
    "convert_tokens_to_ids": "tokenizer.token_to_id(token) has the id of a token",
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), "see model.generation_config"),
}
"""What to do, by a name that transformers' processors, feature extractors and tokenizers have."""


class ModelInput(dict[str, Any]):
    """Model input of a batch by its names, `attention_mask` among them; each is an attribute too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the model input has no {name!r}; it has {', '.join(self)}") from None

    def to(self, *_: object, **__: object) -> "ModelInput":
        """Return it as it is: the runtime takes arrays of the host, and copies them to its device."""
        return self


class SpeechProcessor:
    """Turns audio into model input and token ids into text.

    Attributes:
        feature_extractor: Feature extractor of the bundle; None if it has none.
        tokenizer: Tokenizer of the bundle, of the library `tokenizers`; None if it has none.
    """

    def __init__(
        self,
        input_name: str,
        feature_extractor: FeatureExtractor | None,
        tokenizer: Tokenizer | None,
        load: Callable[[Audio, int | None, str], Samples],
    ) -> None:
        """Compose a processor of its parts; `load` reads a clip at the model's rate."""
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer
        self._input_name = input_name
        self._load = load

    @takes_neutral(lambda _: _INPUT_ARGUMENTS, AudioError)
    def __call__(
        self,
        audio: Audio | Sequence[Any] | None = None,
        *,
        raw_speech: Audio | Sequence[Any] | None = None,
        sampling_rate: int | None = None,
        padding: bool | Literal["longest", "do_not_pad"] = True,
        return_tensors: Literal["np"] | None = "np",
        text: None = None,
    ) -> ModelInput:
        """Turn clips into model input, for `model.generate(**inputs)`.

        Further arguments of transformers are taken where they ask for what is done anyway, such as `truncation=False`.

        Args:
            audio: A clip, or a list of clips, in any form that `transcribe` takes.
            raw_speech: Clips, instead of `audio`; the name that feature extractors have for them.
            sampling_rate: Sampling rate of arrays, Hz; that of the model if None. At another rate they are resampled.
            padding: True or "longest": clips are padded to the longest. False or "do_not_pad": they are not.
            return_tensors: "np" for arrays; None also allows lists of arrays of several lengths, without padding.
            text: Refused: this turns audio into model input only.

        Returns:
            `input_values` float32 [batch, samples] or `input_features` float32 [batch, time, features], and
            `attention_mask` int64 [batch, samples or time]: all ones for a checkpoint that was trained without a mask.

        Raises:
            AudioError: A clip cannot be transcribed, clips of several lengths are to be an array without padding, or an
                argument asks for what is not done here.
            BundleError: The bundle has no feature extractor.
        """
        if self.feature_extractor is None:
            raise BundleError(f"the bundle has no {PREPROCESSOR_CONFIG}: make the model input yourself")
        if text is not None:
            raise AudioError("texts are not taken here; model.tokenizer.encode(text).ids has their token ids")
        if return_tensors not in ("np", None):
            raise AudioError(f"return_tensors is {shown(return_tensors)}; give 'np', the model takes numpy arrays")
        if padding not in (True, False, "longest", "do_not_pad"):
            raise AudioError(f"padding is {shown(padding)}; give True, for the length of the longest clip, or False")
        if audio is not None and raw_speech is not None:
            raise AudioError("audio and raw_speech are both given; give one of them")
        given: Any = raw_speech if audio is None else audio
        if given is None:
            raise AudioError("audio is missing; give a clip or a list of clips")
        clips: list[Any] = [given] if is_clip(given) else list(given)
        if not clips:
            raise AudioError("audio is an empty list; give one clip or more")
        samples = [self._load(clip, sampling_rate, f"audio[{position}]") for position, clip in enumerate(clips)]
        if padding in (True, "longest"):
            values, mask = self.feature_extractor(samples)
            return ModelInput({self._input_name: values, "attention_mask": mask})
        rows, masks = zip(*(self.feature_extractor([clip]) for clip in samples), strict=True)
        lengths = {row.shape[1] for row in rows}
        if len(lengths) == 1:
            return ModelInput({self._input_name: np.concatenate(rows), "attention_mask": np.concatenate(masks)})
        if return_tensors is not None:
            raise AudioError("without padding, clips of several lengths are no array; give padding=True")
        names = (self._input_name, "attention_mask")
        return ModelInput({name: [row[0] for row in made] for name, made in zip(names, (rows, masks), strict=True)})

    @takes_neutral(lambda processor: decoding_arguments(processor.tokenizer), GenerationError)
    def decode(
        self, token_ids: ArrayLike | Sequence[ArrayLike], *, skip_special_tokens: bool = False
    ) -> str | list[str]:
        """Return the text of token ids [tokens], or the texts of [batch, tokens].

        Args:
            token_ids: Token ids; negative ones, which fill a batch of a model without padding token, are left out.
            skip_special_tokens: If true, leave out special tokens, such as those of start, end and padding.

        Raises:
            BundleError: The bundle has no tokenizer.
            GenerationError: They are not integers, or an argument of transformers asks for what is not done here.
        """
        return decoded(self.tokenizer, token_ids, skip_special_tokens=skip_special_tokens)

    @takes_neutral(lambda processor: decoding_arguments(processor.tokenizer), GenerationError)
    def batch_decode(
        self, sequences: ArrayLike | Sequence[ArrayLike], *, skip_special_tokens: bool = False
    ) -> list[str]:
        """Return the text of each sequence of token ids; see `decode`."""
        texts = self.decode(sequences, skip_special_tokens=skip_special_tokens)
        return texts if isinstance(texts, list) else [texts]

    if not TYPE_CHECKING:  # a type checker must go on refusing unknown names

        def __getattr__(self, name: str) -> Any:
            raise missing("a SpeechProcessor", name, _INSTEAD)
