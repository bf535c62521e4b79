"""Turn a Whisper model in CTranslate2's format into a checkpoint of transformers with the same weights.

The format of `model.bin` is that of CTranslate2's `ModelSpec.save`: little-endian, and each string has its length in
front and a zero at its end. See
https://github.com/OpenNMT/CTranslate2/blob/master/python/ctranslate2/specs/model_spec.py.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
_HEAD_DIM = 64
"""Width of a head in all models of Whisper."""
_END = "<|endoftext|>"


def convert(source: Path, target: Path) -> None:
    """Write the checkpoint `target` out of the directory `source`, which has model.bin, config.json and tokenizer.json.

    Raises:
        ValueError: A weight of the model is missing.
    """
    tensors = _read(source / "model.bin")
    settings = json.loads((source / "config.json").read_text(encoding="utf-8"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(source / "tokenizer.json"), eos_token=_END, bos_token=_END, pad_token=_END
    )
    model = WhisperForConditionalGeneration(_config(tensors, tokenizer))
    weights = dict(_weights(tensors))
    left = model.load_state_dict(weights, strict=False)
    if problems := [*left.missing_keys, *left.unexpected_keys]:
        raise ValueError(f"{source} is no Whisper model: {', '.join(problems)}")
    model.generation_config = _generation_config(model.config, settings, tokenizer)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    WhisperFeatureExtractor(feature_size=model.config.num_mel_bins).save_pretrained(target)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a model by their names."""
    data, place = memoryview(path.read_bytes()), 0

    def take(kind: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{kind}", data, place)
        place += struct.calcsize(f"<{kind}")
        return int(value)

    def block(length: int) -> memoryview:
        nonlocal place
        place += length
        return data[place - length : place]

    def text() -> str:
        return bytes(block(take("H"))[:-1]).decode()

    take("I")  # version of the format
    text()  # kind of model
    take("I")  # its revision
    tensors: dict[str, NDArray[Any]] = {}
    for _ in range(take("I")):
        name, rank = text(), take("B")
        shape, dtype = [take("I") for _ in range(rank)], _DTYPES[take("B")]
        tensors[name] = np.frombuffer(block(take("I")), dtype).reshape(shape)
    for _ in range(take("I")):
        alias = text()
        tensors[alias] = tensors[text()]
    return tensors


def _config(tensors: dict[str, NDArray[Any]], tokenizer: PreTrainedTokenizerFast) -> WhisperConfig:
    width, bands, _ = tensors["encoder/conv1/weight"].shape
    end = tokenizer.convert_tokens_to_ids(_END)
    heads, feed_forward = width // _HEAD_DIM, 4 * width
    return WhisperConfig(
        vocab_size=len(tensors["decoder/embeddings/weight"]),
        num_mel_bins=bands,
        d_model=width,
        encoder_layers=_layers(tensors, "encoder"),
        decoder_layers=_layers(tensors, "decoder"),
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=feed_forward,
        decoder_ffn_dim=feed_forward,
        max_source_positions=len(tensors["encoder/position_encodings/encodings"]),
        max_target_positions=len(tensors["decoder/position_encodings/encodings"]),
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),
    )


def _generation_config(
    config: WhisperConfig, settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> GenerationConfig:
    """Return the settings of an English model: `settings` are those of CTranslate2."""
    return GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        max_length=config.max_target_positions,
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        is_multilingual=False,
        no_timestamps_token_id=tokenizer.convert_tokens_to_ids("<|notimestamps|>"),
        return_timestamps=False,
    )


def _layers(tensors: dict[str, NDArray[Any]], half: str) -> int:
    numbers = {name.split("/")[1].removeprefix("layer_") for name in tensors if name.startswith(f"{half}/layer_")}
    return len([number for number in numbers if number.isdigit()])


def _weights(tensors: dict[str, NDArray[Any]]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights with their names in transformers."""

    def weight(name: str) -> Tensor:
        return torch.from_numpy(tensors[name].astype(np.float32))

    def norm(theirs: str, ours: str) -> Iterator[tuple[str, Tensor]]:
        yield f"{ours}.weight", weight(f"{theirs}/gamma")
        yield f"{ours}.bias", weight(f"{theirs}/beta")

    def linear(theirs: str, ours: str) -> Iterator[tuple[str, Tensor]]:
        yield f"{ours}.weight", weight(f"{theirs}/weight")
        yield f"{ours}.bias", weight(f"{theirs}/bias")

    def attention(theirs: str, ours: str, *, crossed: bool) -> Iterator[tuple[str, Tensor]]:
        """Yield the projections, which CTranslate2 stores together: all three, or those of keys and values."""
        packed = ("linear_1", ("k_proj", "v_proj")) if crossed else ("linear_0", ("q_proj", "k_proj", "v_proj"))
        if crossed:
            yield from linear(f"{theirs}/linear_0", f"{ours}.q_proj")
        name, projections = packed
        parts = (weight(f"{theirs}/{name}/{kind}").chunk(len(projections)) for kind in ("weight", "bias"))
        for projection, matrix, bias in zip(projections, *parts, strict=True):
            yield f"{ours}.{projection}.weight", matrix
            if projection != "k_proj":  # Whisper's keys have no bias
                yield f"{ours}.{projection}.bias", bias
        yield from linear(f"{theirs}/linear_{2 if crossed else 1}", f"{ours}.out_proj")

    for half in ("encoder", "decoder"):
        yield f"model.{half}.embed_positions.weight", weight(f"{half}/position_encodings/encodings")
        yield from norm(f"{half}/layer_norm", f"model.{half}.layer_norm")
        for number in range(_layers(tensors, half)):
            theirs, ours = f"{half}/layer_{number}", f"model.{half}.layers.{number}"
            yield from norm(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm")
            yield from attention(f"{theirs}/self_attention", f"{ours}.self_attn", crossed=False)
            if half == "decoder":
                yield from norm(f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm")
                yield from attention(f"{theirs}/attention", f"{ours}.encoder_attn", crossed=True)
            yield from norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
            for theirs_linear, ours_linear in (("linear_0", "fc1"), ("linear_1", "fc2")):
                yield from linear(f"{theirs}/ffn/{theirs_linear}", f"{ours}.{ours_linear}")
    for number in (1, 2):
        yield from linear(f"encoder/conv{number}", f"model.encoder.conv{number}")
    embedding = weight("decoder/embeddings/weight")
    yield "model.decoder.embed_tokens.weight", embedding
    yield "proj_out.weight", embedding
