"""A tiny checkpoint on disk, and faulty copies of it."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast, Wav2Vec2FeatureExtractor

from composites import VOCABULARY, composite

Weights = dict[str, torch.Tensor]


def save_tokenizer(directory: Path, words: int = VOCABULARY) -> None:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3} | {f"▁w{i}": i for i in range(4, words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(directory)


def save_tiny(directory: Path, decoder: str = "bert", encoder: str = "wav2vec2") -> Path:
    """A whole checkpoint: model, tokenizer and extractor."""
    composite(decoder, encoder).save_pretrained(directory)
    save_tokenizer(directory)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(directory)
    return directory


@dataclass(frozen=True)
class Copies:
    """Makes copies of `original` below `folder`, each with its own fault."""

    original: Path
    folder: Path

    def __call__(
        self,
        files: Mapping[str, Mapping[str, Any]] | None = None,
        weights: Callable[[Weights], Weights] | None = None,
    ) -> Path:
        """A copy with the fields of JSON `files` overlaid (nested ones too) and its `weights` changed."""
        copy = self.folder / f"copy-{len(list(self.folder.iterdir()))}"
        shutil.copytree(self.original, copy)
        for name, fields in (files or {}).items():
            path = copy / name
            known = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps(overlaid(known, fields)))
        if weights is not None:
            save_file(weights(load_file(copy / "model.safetensors")), copy / "model.safetensors", {"format": "pt"})
        return copy


def overlaid(known: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """`known` with `fields`, objects within objects too."""
    nested = {
        name: overlaid(known[name], value)
        for name, value in fields.items()
        if isinstance(value, Mapping) and isinstance(known.get(name), Mapping)
    }
    return {**known, **fields, **nested}
