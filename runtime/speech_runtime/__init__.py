"""Run exported speech encoder-decoder models: torch-free transcription on ONNX Runtime.

>>> from speech_runtime import OnnxSpeechSeq2Seq
>>> model = OnnxSpeechSeq2Seq.from_pretrained("bundle")
>>> model.transcribe("speech.wav", num_beams=4)
"""

import logging

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
