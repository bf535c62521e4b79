"""`SpeechProcessor`: audio to model input and token ids to text, called as the processors of transformers are."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from tokenizers import Tokenizer

from .audio import Audio, Samples, is_clip
from .audio.features import FeatureExtractor
from .bundle.manifest import PREPROCESSOR_CONFIG
from .dataclass_json import shown
from .errors import AudioError, BundleError
from .generation.text import decoded


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

    def __call__(
        self,
        audio: Audio | Sequence[Any] = (),
        *,
        sampling_rate: int | None = None,
        padding: bool | Literal["longest", "do_not_pad"] = True,
        return_tensors: Literal["np"] | None = "np",
        text: None = None,
    ) -> ModelInput:
        """Turn clips into model input, for `model.generate(**inputs)`.

        Args:
            audio: A clip, or a list of clips, in any form that `transcribe` takes.
            sampling_rate: Sampling rate of arrays, Hz; that of the model if None. At another rate they are resampled.
            padding: True or "longest": clips are padded to the longest. False or "do_not_pad": they are not.
            return_tensors: "np" for arrays; None also allows lists of arrays of several lengths, without padding.
            text: Refused: this turns audio into model input only.

        Returns:
            `input_values` float32 [batch, samples] or `input_features` float32 [batch, time, features], and
            `attention_mask` int64 [batch, samples or time]: all ones for a checkpoint that was trained without a mask.

        Raises:
            AudioError: A clip cannot be transcribed, or clips of several lengths are to be an array without padding.
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
        clips: list[Any] = [audio] if is_clip(audio) else list(audio)  # type: ignore[arg-type]
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

    def decode(
        self, token_ids: ArrayLike | Sequence[ArrayLike], *, skip_special_tokens: bool = False
    ) -> str | list[str]:
        """Return the text of token ids [tokens], or the texts of [batch, tokens].

        Args:
            token_ids: Token ids; negative ones, which fill a batch of a model without padding token, are left out.
            skip_special_tokens: If true, leave out special tokens, such as those of start, end and padding.

        Raises:
            BundleError: The bundle has no tokenizer.
        """
        return decoded(self.tokenizer, token_ids, skip_special_tokens=skip_special_tokens)

    def batch_decode(
        self, sequences: ArrayLike | Sequence[ArrayLike], *, skip_special_tokens: bool = False
    ) -> list[str]:
        """Return the text of each sequence of token ids; see `decode`."""
        texts = self.decode(sequences, skip_special_tokens=skip_special_tokens)
        return texts if isinstance(texts, list) else [texts]
