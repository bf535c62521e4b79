"""The files of a training run: the state to resume from, and a checkpoint that others can load."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast, SpeechEncoderDecoderModel, Wav2Vec2FeatureExtractor

_STATE_FILE = "training_state.pt"


def save_state(folder: Path, step: int, parts: nn.ModuleDict, optimizer: torch.optim.Optimizer) -> None:
    """Write the state after `step` steps; an interruption leaves the previous one in place."""
    unfinished = folder / f"{_STATE_FILE}.unfinished"
    torch.save({"step": step, "parts": parts.state_dict(), "optimizer": optimizer.state_dict()}, unfinished)
    unfinished.replace(folder / _STATE_FILE)


def load_state(folder: Path, parts: nn.ModuleDict, optimizer: torch.optim.Optimizer) -> int:
    """Restore the saved state, if there is one, and return the number of steps it has behind it."""
    path = folder / _STATE_FILE
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    parts.load_state_dict(state["parts"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def export_checkpoint(
    target: Path,
    model: SpeechEncoderDecoderModel,
    feature_extractor: Wav2Vec2FeatureExtractor,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Write everything `from_pretrained` reads, each file moved into place when it is complete."""
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as unfinished:
        for part in (model, feature_extractor, tokenizer):
            part.save_pretrained(unfinished)
        for file in Path(unfinished).iterdir():
            file.replace(target / file.name)
