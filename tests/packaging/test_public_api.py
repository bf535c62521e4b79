"""The public names of the two packages: these and no others; type checkers accept a script that uses them."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import speech_runtime

PUBLIC = {
    "speech_runtime": [
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
    ],
}

USE_OF_THE_RUNTIME = """
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speech_runtime import AudioError, AudioLimits, EncoderOutput, ForwardOutput, GenerateOutput, Hypothesis
from speech_runtime import OnnxSpeechSeq2Seq, SessionOptions, SpeechError, Transcription, push_to_hub


def transcribe(model: OnnxSpeechSeq2Seq, files: list[Path]) -> tuple[str, list[str], list[str]]:
    text: str = model.transcribe(files[0], num_beams=4, limits=AudioLimits(max_seconds=60))
    mixed: list[str] = model.transcribe(["a.wav", np.zeros(16000, dtype=np.float32)], sampling_rate=16000)
    texts: list[str] = model.transcribe(files, do_sample=True, top_p=0.9)
    model.transcribe(files[0], stream=sys.stdout.write)
    return text, mixed, texts


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


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_these(package: str) -> None:
    module = importlib.import_module(package)
    imported: dict[str, Any] = {}
    exec(f"from {package} import *", imported)  # noqa: S102
    assert sorted(set(imported) - {"__builtins__"}) == sorted(PUBLIC[package]) == sorted(module.__all__)


@pytest.mark.parametrize("script", [USE_OF_THE_RUNTIME], ids=["runtime"])
def test_type_checkers_accept_a_script(script: str, tmp_path: Path) -> None:
    assert check(script, tmp_path) == "Success: no issues found in 1 source file"
    wrong = script.replace("num_beams=4", "num_beams='four'").replace("float | None]:", "str]:")
    assert "Found 2 errors" in check(wrong, tmp_path)


def check(script: str, directory: Path) -> str:
    """Return the output of `mypy --strict` for a script."""
    (directory / "script.py").write_text(script)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "script.py"]
    environment = {**os.environ, "MYPYPATH": str(Path(speech_runtime.__file__).parents[1])}
    said: Any = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    return str(said.stdout.strip())
