"""`Composite`: a model with all that goes with it, whichever source it came from."""

from dataclasses import dataclass
from typing import Any

from transformers import SpeechEncoderDecoderModel


@dataclass(frozen=True)
class Composite:
    """A model with what goes with it. `random_weights` names the tensors that no checkpoint had."""

    model: SpeechEncoderDecoderModel
    feature_extractor: Any | None
    tokenizer: Any | None
    source: str
    random_weights: tuple[str, ...] = ()
