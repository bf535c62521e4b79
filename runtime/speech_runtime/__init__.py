"""Run exported speech encoder-decoder models on ONNX Runtime or TensorRT, without torch.

Examples:
    >>> from speech_runtime import OnnxSpeechSeq2Seq
    >>> model = OnnxSpeechSeq2Seq.from_pretrained("bundle")
    >>> text = model.transcribe("speech.wav", num_beams=4)
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .telemetry import disable_telemetry

if TYPE_CHECKING:
    from .audio import AudioLimits
    from .backends.options import CudaOptions, EngineOptions, SessionOptions, TensorRtOptions
    from .bundle.hub import push_to_hub
    from .bundle.loading import Bundle
    from .bundle.profile_limits import ProfileLimits
    from .errors import (
        AudioError,
        BenchError,
        BundleError,
        EngineError,
        EngineMemoryError,
        GenerationError,
        SpeechError,
    )
    from .generation.config import GenerationConfig
    from .generation.encoder import EncoderOutput
    from .generation.likelihood import ForwardOutput
    from .generation.output import GenerateOutput
    from .model import OnnxSpeechSeq2Seq
    from .transcribe.results import Hypothesis, Transcription

_MODULES = {
    "AudioError": "errors",
    "AudioLimits": "audio",
    "BenchError": "errors",
    "Bundle": "bundle.loading",
    "BundleError": "errors",
    "CudaOptions": "backends.options",
    "EncoderOutput": "generation.encoder",
    "EngineError": "errors",
    "EngineMemoryError": "errors",
    "EngineOptions": "backends.options",
    "ForwardOutput": "generation.likelihood",
    "GenerateOutput": "generation.output",
    "GenerationConfig": "generation.config",
    "GenerationError": "errors",
    "Hypothesis": "transcribe.results",
    "OnnxSpeechSeq2Seq": "model",
    "ProfileLimits": "bundle.profile_limits",
    "SessionOptions": "backends.options",
    "SpeechError": "errors",
    "TensorRtOptions": "backends.options",
    "Transcription": "transcribe.results",
    "push_to_hub": "bundle.hub",
}
"""Module of each public name."""

__all__ = [
    "AudioError",
    "AudioLimits",
    "BenchError",
    "Bundle",
    "BundleError",
    "CudaOptions",
    "EncoderOutput",
    "EngineError",
    "EngineMemoryError",
    "EngineOptions",
    "ForwardOutput",
    "GenerateOutput",
    "GenerationConfig",
    "GenerationError",
    "Hypothesis",
    "OnnxSpeechSeq2Seq",
    "ProfileLimits",
    "SessionOptions",
    "SpeechError",
    "TensorRtOptions",
    "Transcription",
    "push_to_hub",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
disable_telemetry()


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: a command handles Ctrl-C before it imports anything slow."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
