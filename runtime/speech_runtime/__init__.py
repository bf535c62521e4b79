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
    from .audio import Audio, AudioLimits, Samples
    from .audio.features import FeatureExtractor
    from .backends.options import (
        ArenaGrowth,
        ConvolutionSearch,
        CudaOptions,
        Device,
        EngineOptions,
        GraphOptimization,
        LogSeverity,
        Provider,
        SessionOptions,
        TensorRtOptions,
    )
    from .bundle.graph_io import Cache
    from .bundle.hub import push_to_hub
    from .bundle.loading import Bundle
    from .bundle.manifest import EngineSet, Flavor, Manifest, Quantization, Trimming, Verification
    from .bundle.model_facts import DecoderFacts, EncoderFacts, PromptTemplate
    from .bundle.profile_limits import ProfileLimits, Range
    from .bundle.safe_files import FileFacts
    from .bundle.vocabulary import Vocabulary
    from .errors import (
        AudioError,
        BenchError,
        BundleError,
        EngineError,
        EngineMemoryError,
        GenerationError,
        QueueFull,
        SchedulerClosed,
        SpeechError,
    )
    from .generation.call_options import SearchKeywords
    from .generation.config import GenerationConfig, GenerationSettings
    from .generation.encoder import EncoderOutput
    from .generation.generator import Language
    from .generation.likelihood import ForwardOutput
    from .generation.output import GenerateOutput
    from .generation.prompts import Prompts
    from .generation.search.stopping import Finish, StoppingCriterion
    from .generation.streaming import Streamer
    from .generation.token_scores.maths import LogitsProcessor
    from .generation.transformers_arguments import GenerationConfigLike, TransformersConfig
    from .model import OnnxSpeechSeq2Seq
    from .processor import ModelInput, SpeechProcessor
    from .transcribe.batching import ClipKeywords
    from .transcribe.results import Hypothesis, Transcription
    from .transcribe.scheduler import Scheduler, SchedulerStats
    from .transcribe.text_stream import TextStream

_MODULES = {
    "ArenaGrowth": "backends.options",
    "Audio": "audio",
    "AudioError": "errors",
    "AudioLimits": "audio",
    "BenchError": "errors",
    "Bundle": "bundle.loading",
    "BundleError": "errors",
    "Cache": "bundle.graph_io",
    "ClipKeywords": "transcribe.batching",
    "ConvolutionSearch": "backends.options",
    "CudaOptions": "backends.options",
    "DecoderFacts": "bundle.model_facts",
    "Device": "backends.options",
    "EncoderFacts": "bundle.model_facts",
    "EncoderOutput": "generation.encoder",
    "EngineError": "errors",
    "EngineMemoryError": "errors",
    "EngineOptions": "backends.options",
    "EngineSet": "bundle.manifest",
    "FeatureExtractor": "audio.features",
    "FileFacts": "bundle.safe_files",
    "Finish": "generation.search.stopping",
    "Flavor": "bundle.manifest",
    "ForwardOutput": "generation.likelihood",
    "GenerateOutput": "generation.output",
    "GenerationConfig": "generation.config",
    "GenerationConfigLike": "generation.transformers_arguments",
    "GenerationError": "errors",
    "GenerationSettings": "generation.config",
    "GraphOptimization": "backends.options",
    "Hypothesis": "transcribe.results",
    "Language": "generation.generator",
    "LogSeverity": "backends.options",
    "LogitsProcessor": "generation.token_scores.maths",
    "Manifest": "bundle.manifest",
    "ModelInput": "processor",
    "OnnxSpeechSeq2Seq": "model",
    "ProfileLimits": "bundle.profile_limits",
    "PromptTemplate": "bundle.model_facts",
    "Prompts": "generation.prompts",
    "Provider": "backends.options",
    "Quantization": "bundle.manifest",
    "QueueFull": "errors",
    "Range": "bundle.profile_limits",
    "Samples": "audio",
    "Scheduler": "transcribe.scheduler",
    "SchedulerClosed": "errors",
    "SchedulerStats": "transcribe.scheduler",
    "SearchKeywords": "generation.call_options",
    "SessionOptions": "backends.options",
    "SpeechError": "errors",
    "SpeechProcessor": "processor",
    "StoppingCriterion": "generation.search.stopping",
    "Streamer": "generation.streaming",
    "TensorRtOptions": "backends.options",
    "TextStream": "transcribe.text_stream",
    "Transcription": "transcribe.results",
    "TransformersConfig": "generation.transformers_arguments",
    "Trimming": "bundle.manifest",
    "Verification": "bundle.manifest",
    "Vocabulary": "bundle.vocabulary",
    "push_to_hub": "bundle.hub",
}
"""Module of each public name."""

__all__ = [
    "ArenaGrowth",
    "Audio",
    "AudioError",
    "AudioLimits",
    "BenchError",
    "Bundle",
    "BundleError",
    "Cache",
    "ClipKeywords",
    "ConvolutionSearch",
    "CudaOptions",
    "DecoderFacts",
    "Device",
    "EncoderFacts",
    "EncoderOutput",
    "EngineError",
    "EngineMemoryError",
    "EngineOptions",
    "EngineSet",
    "FeatureExtractor",
    "FileFacts",
    "Finish",
    "Flavor",
    "ForwardOutput",
    "GenerateOutput",
    "GenerationConfig",
    "GenerationConfigLike",
    "GenerationError",
    "GenerationSettings",
    "GraphOptimization",
    "Hypothesis",
    "Language",
    "LogSeverity",
    "LogitsProcessor",
    "Manifest",
    "ModelInput",
    "OnnxSpeechSeq2Seq",
    "ProfileLimits",
    "PromptTemplate",
    "Prompts",
    "Provider",
    "Quantization",
    "QueueFull",
    "Range",
    "Samples",
    "Scheduler",
    "SchedulerClosed",
    "SchedulerStats",
    "SearchKeywords",
    "SessionOptions",
    "SpeechError",
    "SpeechProcessor",
    "StoppingCriterion",
    "Streamer",
    "TensorRtOptions",
    "TextStream",
    "Transcription",
    "TransformersConfig",
    "Trimming",
    "Verification",
    "Vocabulary",
    "push_to_hub",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
disable_telemetry()


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: a command handles Ctrl-C before it imports anything slow."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
