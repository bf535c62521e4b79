"""`Composite`: a model with its feature extractor and tokenizer, as every source returns it."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig, SpeechEncoderDecoderModel

from speech_runtime.bundle.model_facts import PromptTemplate

from ..errors import ExportError, shortened
from .special_tokens import FLAGS, start_token
from .weights import FOR_TRAINING_ONLY


@dataclass(frozen=True)
class Composite:
    """A model and what an export needs beside it.

    Attributes:
        model: Composite of a speech encoder and a text decoder.
        feature_extractor: Feature extractor of transformers; None for a bundle that takes model input only.
        tokenizer: Tokenizer of transformers; None for a bundle that returns token ids only.
        source: Name for messages and the manifest.
        random_weights: Names of the tensors that no checkpoint had.
        native_config: Configuration of a model with a decoder of its own, such as Whisper; None for any other.
        prompt: Tokens in front of every text; None for a start token alone.
    """

    model: SpeechEncoderDecoderModel
    feature_extractor: Any | None
    tokenizer: Any | None
    source: str
    random_weights: tuple[str, ...] = ()
    native_config: PretrainedConfig | None = None
    prompt: PromptTemplate | None = None

    @property
    def config(self) -> PretrainedConfig:
        """Configuration of the checkpoint."""
        return self.native_config or self.model.config

    @property
    def is_random(self) -> bool:
        """Whether all parameters are random, as for configurations alone: the texts mean nothing."""
        return all(name in self.random_weights for name, _ in self.model.named_parameters())


def source_name(name: str, adapter: str | None, target_lang: str | None) -> str:
    """Return the name of a model for messages and the manifest, with what was put into it."""
    added = {"adapter": adapter, "language": target_lang}
    return ", ".join([name, *(f"{what} {given}" for what, given in added.items() if given is not None)])


def check_model(composite: Composite) -> None:
    """Check that a model can be exported as it is in memory.

    Raises:
        ExportError: The weights are not float32 on the CPU, some are NaN or infinite, or there is no start token.
    """
    model = composite.model
    if any(tensor.dtype != torch.float32 or tensor.device.type != "cpu" for tensor in model.parameters()):
        raise ExportError("the model must be float32 on the CPU to be exported: model.float().cpu()")
    broken = [
        name
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and not name.endswith(FOR_TRAINING_ONLY) and not bool(tensor.isfinite().all())
    ]
    if broken:
        raise ExportError(
            f"{len(broken)} of the model's weights are not finite (NaN or infinite): {shortened(broken)}; the "
            "checkpoint is damaged or its training has diverged: export an earlier one"
        )
    if start_token(model.generation_config) is None:
        raise ExportError(
            f"{composite.source}: decoder_start_token_id is not set, and neither is bos_token_id, so that no text can "
            f"begin; give {FLAGS['decoder_start_token_id']} ID, or set it in the checkpoint's generation_config.json "
            "(in Python: model.generation_config.decoder_start_token_id = tokenizer.cls_token_id for a BERT decoder, "
            "tokenizer.bos_token_id for most others)"
        )
