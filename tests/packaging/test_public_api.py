"""The public names of the two packages: these and no others; type checkers accept a script that uses them."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import speech_export
import speech_runtime

PUBLIC = {
    "speech_export": [
        "BuildOptions",
        "Composite",
        "ExportError",
        "HubOptions",
        "Limits",
        "PrecisionOptions",
        "VerificationError",
        "__version__",
        "add_engines",
        "export",
        "load_checkpoint",
        "load_configs",
        "load_pair",
    ],
    "speech_runtime": [
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
    ],
}

USE_OF_THE_RUNTIME = """
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from speech_runtime import AudioError, AudioLimits, EncoderOutput, ForwardOutput, GenerateOutput, Hypothesis
from speech_runtime import OnnxSpeechSeq2Seq, SessionOptions, SpeechError, Transcription, push_to_hub
from speech_runtime import Audio, ClipKeywords, Finish, GenerationConfig, Language, LogitsProcessor, ModelInput, Prompts
from speech_runtime import Samples, SpeechProcessor, StoppingCriterion, Streamer


def transcribe(model: OnnxSpeechSeq2Seq, files: list[Path]) -> tuple[str, list[str], list[str]]:
    text: str = model.transcribe(files[0], num_beams=4, limits=AudioLimits(max_seconds=60))
    mixed: list[str] = model.transcribe(["a.wav", np.zeros(16000, dtype=np.float32)], sampling_rate=16000)
    texts: list[str] = model.transcribe(files, do_sample=True, top_p=0.9)
    model.transcribe(files[0], stream=sys.stdout.write)
    return text, mixed, texts


def transcribe_sequences(
    model: OnnxSpeechSeq2Seq, names: list[str], pair: tuple[str, Path], contents: list[bytes], clips: list[Samples]
) -> list[str]:
    texts: list[str] = model.transcribe(names)
    texts += model.transcribe(pair) + model.transcribe(contents) + model.transcribe(clips)
    rows = [{"array": clips[0], "sampling_rate": 16000}]
    return texts + model.transcribe(rows) + model.transcribe([(16000, clips[0])]) + [model.transcribe(rows[0])]


class Printer:
    def put(self, value: NDArray[np.int64]) -> None:
        print(value)

    def end(self) -> None:
        print()


def as_with_transformers(model: OnnxSpeechSeq2Seq, clips: list[Audio], language: Language | None) -> list[str]:
    processor: SpeechProcessor = model.processor
    inputs: ModelInput = processor(clips, sampling_rate=16000, padding=True, return_tensors="np")
    streamer: Streamer = Printer()
    without_5: LogitsProcessor = lambda ids, scores: np.where(np.arange(scores.shape[-1]) == 5, -np.inf, scores)
    long: StoppingCriterion = lambda ids: np.full(len(ids), ids.shape[1] > 9)
    prompts: Prompts = [[5], [6, 7]]
    ids: NDArray[np.int64] = model.generate(
        **inputs, language=language, logits_processor=[without_5], stopping_criteria=[long], decoder_input_ids=prompts
    )
    model.generate(input_values=inputs["input_values"], generation_config=GenerationConfig(num_beams=2))
    model.generate([np.zeros(900), np.zeros(800)], streamer=streamer, generation_config={"num_beams": 2})
    output = model.generate(**inputs, return_dict_in_generate=True, output_scores=True)
    scores: NDArray[np.float32] = model.compute_transition_scores(output.sequences, output.scores or ())
    print(scores, output["sequences"], model.decode(ids))
    return processor.batch_decode(ids, skip_special_tokens=True)


def wrapped(model: OnnxSpeechSeq2Seq, file: Audio, **keywords: Unpack[ClipKeywords]) -> dict[Finish, str]:
    return {found.finished: found.text for found in model.transcribe_iter([file], **keywords)
            if isinstance(found, Transcription)}


def transcribe_many(model: OnnxSpeechSeq2Seq, files: Iterable[str]) -> list[str]:
    texts: list[str] = []
    for found in model.transcribe_iter(files, batch_size=4, num_beams=3, num_return_sequences=3, language="de"):
        if isinstance(found, AudioError):
            print(found)
            continue
        heard: Transcription = found
        others: list[Hypothesis] = heard.alternatives
        texts += [heard.text, *(other.text for other in others)]
    return texts


def score(model: OnnxSpeechSeq2Seq, file: str) -> NDArray[np.float32]:
    return model.score(file, ["one two", "nine"])


def generate(model: OnnxSpeechSeq2Seq, audio: NDArray[np.float32]) -> tuple[NDArray[np.int64], float | None]:
    encoded: EncoderOutput = model.encode(audio)
    ids: NDArray[np.int64] = model.generate(encoder_outputs=encoded, max_new_tokens=20, bad_words_ids=[[5]])
    output: GenerateOutput = model.generate(audio, return_dict_in_generate=True, output_scores=True)
    forward: ForwardOutput = model.forward(audio, labels=output.sequences[:, 1:])
    return ids, forward.loss


def main() -> None:
    try:
        model = OnnxSpeechSeq2Seq.from_pretrained("bundle", options=SessionOptions(intra_op_threads=2))
        print(transcribe(model, [Path("a.wav")]), transcribe_many(model, ["a.wav"]), score(model, "a.wav"))
        print(generate(model, np.zeros((1, 16000), dtype=np.float32)))
        push_to_hub("bundle", "someone/bundle")
    except SpeechError as error:
        print(error)
"""

USE_OF_THE_EXPORTER = """
from pathlib import Path

from speech_export import BuildOptions, Composite, ExportError, HubOptions, Limits, PrecisionOptions, VerificationError
from speech_export import __version__, add_engines, export, load_checkpoint, load_configs, load_pair
from speech_runtime import Bundle, OnnxSpeechSeq2Seq


def convert(checkpoint: str, output: Path) -> Bundle:
    model: Composite = load_checkpoint(checkpoint, hub=HubOptions(revision="main"))
    int8 = PrecisionOptions(precision="int8")
    return export(model, output, precision=int8, calibration_audio="speech", limits=Limits(), on_stage=print)


def join(encoder: str, decoder: str) -> Composite:
    load_checkpoint(encoder, adapter="adapter", target_lang="fra")
    return load_pair(encoder, decoder, decoder_start_token_id=2, processor="processor", adapter="adapter")


def main() -> str:
    try:
        bundle = convert("checkpoint", Path("bundle"))
        export(join("encoder", "decoder"), "pair", overwrite=True)
        export(load_configs("encoder.json", "decoder.json", seed=4), "random", static_cache=64)
        add_engines(bundle.directory, options=BuildOptions(tf32=True))
    except (ExportError, VerificationError) as error:
        return f"{__version__}: {error}"
    return OnnxSpeechSeq2Seq.from_pretrained(bundle.directory).transcribe("a.wav", num_beams=4)
"""


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_is_a_command(package: str) -> None:
    command = [sys.executable, "-m", package, "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.startswith(f"Usage: python -m {package} [OPTIONS]")


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_these(package: str) -> None:
    module = importlib.import_module(package)
    imported: dict[str, Any] = {}
    exec(f"from {package} import *", imported)  # noqa: S102
    assert sorted(set(imported) - {"__builtins__"}) == sorted(PUBLIC[package]) == sorted(module.__all__)


@pytest.mark.parametrize(
    ("script", "mistakes"),
    [
        (USE_OF_THE_RUNTIME, {"num_beams=4": "num_beams='four'", "float | None]:": "str]:"}),
        (USE_OF_THE_EXPORTER, {'precision="int8"': 'precision="int9"', "static_cache=64": "static_cache='64'"}),
    ],
    ids=["runtime", "exporter"],
)
def test_type_checkers_accept_a_script(script: str, mistakes: dict[str, str], tmp_path: Path) -> None:
    assert check(script, tmp_path) == "Success: no issues found in 1 source file"
    for right, wrong in mistakes.items():
        assert right in script
        script = script.replace(right, wrong)
    assert "Found 2 errors" in check(script, tmp_path)


def check(script: str, directory: Path) -> str:
    """Return the output of `mypy --strict` for a script."""
    (directory / "script.py").write_text(script)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "script.py"]
    packages = [str(Path(package.__file__).parents[1]) for package in (speech_export, speech_runtime)]
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(packages)}
    said: Any = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    return str(said.stdout.strip())
