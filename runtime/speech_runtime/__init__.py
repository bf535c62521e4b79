"""Run exported speech encoder-decoder models: torch-free transcription on ONNX Runtime.

>>> from speech_runtime import OnnxSpeechSeq2Seq
>>> model = OnnxSpeechSeq2Seq.from_pretrained("bundle")
>>> model.transcribe("speech.wav", num_beams=4)
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .audio import AudioLimits
    from .bundle import Bundle
    from .encoder import EncoderOutput
    from .engines.engine_options import EngineOptions
    from .engines.gpu_options import CudaOptions, TensorRtOptions
    from .engines.profile_limits import ProfileLimits
    from .engines.session_options import SessionOptions
    from .errors import AudioError, BenchError, BundleError, EngineError, GenerationError, SpeechError
    from .generation.config import GenerationConfig
    from .generation.output import GenerateOutput
    from .hub import push_to_hub
    from .model import OnnxSpeechSeq2Seq
    from .transcription import Hypothesis, Transcription

_MODULES = {
    "AudioError": "errors",
    "AudioLimits": "audio",
    "BenchError": "errors",
    "Bundle": "bundle",
    "BundleError": "errors",
    "CudaOptions": "engines.gpu_options",
    "EncoderOutput": "encoder",
    "EngineError": "errors",
    "EngineOptions": "engines.engine_options",
    "GenerateOutput": "generation.output",
    "GenerationConfig": "generation.config",
    "GenerationError": "errors",
    "Hypothesis": "transcription",
    "OnnxSpeechSeq2Seq": "model",
    "ProfileLimits": "engines.profile_limits",
    "SessionOptions": "engines.session_options",
    "SpeechError": "errors",
    "TensorRtOptions": "engines.gpu_options",
    "Transcription": "transcription",
    "push_to_hub": "hub",
}
"""Where each name is."""

__all__ = [
    "AudioError",
    "AudioLimits",
    "BenchError",
    "Bundle",
    "BundleError",
    "CudaOptions",
    "EncoderOutput",
    "EngineError",
    "EngineOptions",
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


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: a command heeds Ctrl-C before anything is imported that takes long."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
