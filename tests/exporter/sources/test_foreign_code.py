"""Test that Python code beside a checkpoint never runs: the planted code would leave a file behind."""

import builtins
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speech_export import ExportError
from speech_export.sources.checkpoint import load_checkpoint
from speech_export.sources.configs import load_configs
from speech_export.sources.hub import DEFAULT_HUB, load
from speech_export.sources.pair import load_pair
from tiny_checkpoint import Copies, save_tiny

OWN = "own.Own"
AUTO_MAP: dict[str, Any] = {
    "AutoConfig": OWN,
    "AutoModel": OWN,
    "AutoModelForCausalLM": OWN,
    "AutoModelForSpeechSeq2Seq": OWN,
    "AutoTokenizer": [OWN, OWN],
    "AutoFeatureExtractor": OWN,
    "AutoProcessor": OWN,
}
FOREIGN = {"auto_map": AUTO_MAP, "model_type": "own"}
NEVER_RUN = "never runs a checkpoint's code"
UNKNOWN = "Unrecognized model type"

FAULTS: dict[str, tuple[dict[str, dict[str, Any]], str | None]] = {
    "config of a known model": ({"config.json": {"auto_map": AUTO_MAP}}, None),
    "config of an unknown model": ({"config.json": FOREIGN}, NEVER_RUN),
    "encoder of a known model": ({"config.json": {"encoder": {"auto_map": AUTO_MAP}}}, None),
    "encoder of an unknown model": ({"config.json": {"encoder": FOREIGN}}, UNKNOWN),
    "decoder of a known model": ({"config.json": {"decoder": {"auto_map": AUTO_MAP}}}, None),
    "decoder of an unknown model": ({"config.json": {"decoder": FOREIGN}}, UNKNOWN),
    "known tokenizer": ({"tokenizer_config.json": {"auto_map": AUTO_MAP}}, None),
    "unknown tokenizer": ({"tokenizer_config.json": {"auto_map": AUTO_MAP, "tokenizer_class": "Own"}}, NEVER_RUN),
    "tokenizer, as a list": ({"tokenizer_config.json": {"auto_map": [OWN, None], "tokenizer_class": "Own"}}, NEVER_RUN),
    "known extractor": ({"preprocessor_config.json": {"auto_map": AUTO_MAP}}, None),
    "unknown extractor": (
        {"preprocessor_config.json": {"auto_map": AUTO_MAP, "feature_extractor_type": "Own"}},
        NEVER_RUN,
    ),
    "processor": ({"processor_config.json": {"auto_map": AUTO_MAP, "processor_class": "Own"}}, None),
    "generation": ({"generation_config.json": {"auto_map": AUTO_MAP, "custom_generate": "own"}}, None),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def copies(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copies:
    monkeypatch.setattr(builtins, "input", lambda _="": "y")
    (tmp_path / "copies").mkdir()
    return Copies(tiny, tmp_path / "copies")


def with_payload(copy: Path) -> Path:
    """The copy, with modules that create `ran` beside it when they are imported."""
    payload = f"from pathlib import Path\nPath({str(copy.parent.parent / 'ran')!r}).touch()\nclass Own: pass\n"
    (copy / "own.py").write_text(payload)
    (copy / "custom_generate").mkdir()
    (copy / "custom_generate" / "generate.py").write_text(f"{payload}def generate(*_, **__): pass\n")
    return copy


@pytest.mark.parametrize("fault", FAULTS)
def test_code_beside_a_checkpoint_never_runs(fault: str, copies: Copies, tmp_path: Path) -> None:
    files, refusal = FAULTS[fault]
    copy = with_payload(copies(files))
    loads: list[Callable[[], object]] = [
        lambda: load_checkpoint(str(copy)),
        lambda: load_checkpoint(str(copies.original), processor=str(copy)) if refusal != UNKNOWN else None,
    ]
    for load_it in loads if "config.json" not in files else loads[:1]:
        if refusal is None:
            load_it()
        else:
            with pytest.raises(ExportError, match=refusal):
                load_it()
    assert not (tmp_path / "ran").exists()


def test_nor_does_code_beside_halves_or_configurations(copies: Copies, tmp_path: Path) -> None:
    copy = str(with_payload(copies({"config.json": FOREIGN})))
    for load_it in (load_pair, load_configs):
        with pytest.raises(ExportError, match=NEVER_RUN):
            load_it(copy, copy)
    assert not (tmp_path / "ran").exists()


def test_every_loader_is_told() -> None:
    class Loader:
        @staticmethod
        def from_pretrained(name: str, **options: object) -> object:
            return options["trust_remote_code"]

    assert load(Loader, "someone/digits", "a model", DEFAULT_HUB) is False


def test_yes_does_not_help(copies: Copies, tmp_path: Path) -> None:
    copy = with_payload(copies({"tokenizer_config.json": {"auto_map": AUTO_MAP, "tokenizer_class": "Own"}}))
    command = [str(Path(sys.executable).parent / "speech-export"), str(copy), "-o", str(tmp_path / "bundle")]
    refused = subprocess.run(command, input="y\n" * 1000, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert NEVER_RUN in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "ran").exists()


def test_pickled_side_files_are_not_opened(copies: Copies, tmp_path: Path) -> None:
    copy = copies()
    ran = str(tmp_path / "ran")
    pickled = b"cposix\nsystem\n(S'touch " + ran.encode() + b"'\ntR."
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "vocab.pkl", "tokenizer.pkl", "cache.npy"):
        (copy / name).write_bytes(pickled)
    load_checkpoint(str(copy))
    for name in ("model.safetensors", "pytorch_model.bin"):
        (copy / "model.safetensors").unlink(missing_ok=True)
        (copy / name).write_bytes(pickled)
        with pytest.raises(ExportError, match="weights could not be loaded"):
            load_checkpoint(str(copy))
    assert not (tmp_path / "ran").exists()
    assert json.loads((copy / "config.json").read_text())["model_type"] == "speech-encoder-decoder"
