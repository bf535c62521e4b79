"""Make the models to compare, in `build/bench`: one checkpoint of the reference shape, and what each peer loads of it.

Each is made once, in a process of its own: `python benchmarks/prepare.py NAME DIRECTORY`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn
from transformers import SpeechEncoderDecoderModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.models.mbart.modeling_mbart import MBartEncoder

from peers.protocol import missing
from speech_export.sources.configs import load_configs
from speech_runtime.atomic.writing import publish, staging_directory

ENCODER_CONFIG = {
    "model_type": "wav2vec2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
    "add_adapter": True,
    "num_adapter_layers": 3,
    "feat_proj_dropout": 0.0,
}
DECODER_CONFIG = {
    "model_type": "mbart",
    "vocab_size": 250_054,
    "d_model": 1024,
    "decoder_layers": 12,
    "decoder_attention_heads": 16,
    "decoder_ffn_dim": 4096,
    "encoder_layers": 1,
    "encoder_ffn_dim": 4,
    "max_position_embeddings": 1024,
    "scale_embedding": True,
    "decoder_start_token_id": 250_004,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "forced_eos_token_id": 2,
}
"""XLS-R-300M with three adapter layers, and the decoder of mBART-50."""

KeyValue = tuple[Tensor, Tensor]


def ensure(name: str, directory: Path) -> str | None:
    """Make `directory` if it is not there.

    Returns:
        Why it cannot be had; None where it is there.
    """
    if directory.exists():
        return None
    directory.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-W", "ignore", __file__, name, str(directory)]
    done = subprocess.run(  # noqa: S603 - ourselves
        command, env={**os.environ, "TRANSFORMERS_VERBOSITY": "error"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said: list[str] = done.stderr.strip().splitlines()
        return said[-1] if said else f"it ended with exit code {done.returncode}"
    return None


def export_bundle(checkpoint: Path, directory: Path, precision: str, speech: Path | None = None) -> str | None:
    """Export `checkpoint` at `precision`, measured on `speech`, to `directory` if it is not there; see `ensure`."""
    if directory.exists():
        return None
    without = [] if (checkpoint / "tokenizer.json").exists() else ["feature-extractor", "tokenizer"]
    flags = [flag for part in without for flag in ("--without", part)]
    command = [str(Path(sys.executable).with_name("speech-export")), str(checkpoint), "-o", str(directory), *flags]
    command += [] if precision == "fp32" else ["--precision", precision]
    command += [] if speech is None else ["--calibration-audio", str(speech)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ourselves
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def reference_shape() -> SpeechEncoderDecoderModel:
    """Return the reference shape with random weights."""
    return load_configs(json.dumps(ENCODER_CONFIG), json.dumps(DECODER_CONFIG)).model


def checkpoint(directory: Path, _: Path) -> None:
    """The reference shape with random weights."""
    reference_shape().save_pretrained(directory)


def configuration(directory: Path, _: Path) -> None:
    """The reference shape without weights, for peers that make them up."""
    with torch.device("meta"):
        model = reference_shape()
    model.config.save_pretrained(directory)
    model.generation_config.save_pretrained(directory)


def plain_onnx(directory: Path, others: Path) -> None:
    """The three graphs of `peers.plain_onnx`: transformers' modules as they are, through `torch.onnx.export`."""
    model = SpeechEncoderDecoderModel.from_pretrained(others / "checkpoint").eval()
    config = model.decoder.config
    heads, width = config.decoder_attention_heads, config.d_model
    layers = config.decoder_layers

    def cache(length: int) -> list[KeyValue]:
        shape = (3, heads, length, width // heads)
        return [(torch.randn(shape), torch.randn(shape)) for _ in range(layers)]

    def dynamic(name: str) -> list[tuple[dict[int, str], ...]]:
        return [({0: "rows", 2: name}, {0: "rows", 2: name})] * layers

    token = torch.zeros(3, 1, dtype=torch.int64)
    _export(_PlainEncoder(model), (torch.randn(2, 40_000),), ({0: "batch", 1: "samples"},), directory / "encoder.onnx")
    _export(
        _PlainDecoder(model),
        (token, torch.randn(3, 23, width)),
        ({0: "rows"}, {0: "rows", 1: "frames"}),
        directory / "decoder.onnx",
    )
    _export(
        _PlainDecoderWithPast(model),
        (token, cache(5), cache(23)),
        ({0: "rows"}, dynamic("past"), dynamic("frames")),
        directory / "decoder_with_past.onnx",
    )


def plain_onnx_int8(directory: Path, others: Path) -> None:
    """The same after `quantize_dynamic` of ONNX Runtime, with its defaults."""
    from onnxruntime.quantization import quantize_dynamic

    for graph in ("encoder", "decoder", "decoder_with_past"):
        source = others / "plain-onnx" / f"{graph}.onnx"
        quantize_dynamic(
            source, directory / f"{graph}.onnx", op_types_to_quantize=["MatMul"], use_external_data_format=True
        )


def ctranslate2_model(directory: Path, others: Path) -> None:
    """The decoder for CTranslate2, int8, behind a text encoder of one layer that shares its embedding.

    What `ctranslate2-transformers-converter` would do; that takes an `MBartForConditionalGeneration` only.
    """
    from ctranslate2.converters.transformers import MBartLoader
    from ctranslate2.specs import common_spec, transformer_spec

    model = SpeechEncoderDecoderModel.from_pretrained(others / "checkpoint").eval()
    decoder, loader = model.decoder.model.decoder, MBartLoader()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = MBartEncoder(model.decoder.config)
    encoder.embed_tokens = decoder.embed_tokens
    spec = transformer_spec.TransformerSpec.from_config(
        (1, len(decoder.layers)),
        model.decoder.config.decoder_attention_heads,
        pre_norm=True,
        activation=common_spec.Activation.GELU,
        layernorm_embedding=True,
    )
    loader.set_encoder(spec.encoder, encoder)
    loader.set_decoder(spec.decoder, decoder)
    loader.set_linear(spec.decoder.projection, model.decoder.lm_head)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *(f"t{i}" for i in range(4, model.decoder.config.vocab_size))]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "<s>", "</s>", "<unk>"
    spec.config.decoder_start_token = "</s>"  # noqa: S105
    spec.validate()
    spec.optimize(quantization="int8")
    spec.save(str(directory))


RECIPES: dict[str, tuple[Callable[[Path, Path], None], tuple[str, ...]]] = {
    "checkpoint": (checkpoint, ()),
    "configuration": (configuration, ()),
    "plain-onnx": (plain_onnx, ()),
    "plain-onnx-int8": (plain_onnx_int8, ()),
    "ctranslate2": (ctranslate2_model, ("ctranslate2",)),
}
"""For each model, the function that makes it in an empty directory, and its packages besides those of `dev`."""


class _PlainEncoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.projection = model.encoder, getattr(model, "enc_to_dec_proj", nn.Identity())

    def forward(self, input_values: Tensor) -> Tensor:
        encoded: Tensor = self.projection(self.encoder(input_values)[0])
        return encoded


class _PlainDecoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(
        self, input_ids: Tensor, encoder_hidden_states: Tensor
    ) -> tuple[Tensor, list[KeyValue], list[KeyValue]]:
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        logits: Tensor = self.decoder(
            input_ids=input_ids, encoder_hidden_states=encoder_hidden_states, past_key_values=cache, use_cache=True
        ).logits
        return logits, _pairs(cache.self_attention_cache), _pairs(cache.cross_attention_cache)


class _PlainDecoderWithPast(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder = model.decoder
        self.width = model.decoder.config.d_model

    def forward(self, input_ids: Tensor, past: list[KeyValue], cross: list[KeyValue]) -> tuple[Tensor, list[KeyValue]]:
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for layer, ((key, value), (cross_key, cross_value)) in enumerate(zip(past, cross, strict=True)):
            cache.self_attention_cache.update(key, value, layer)
            cache.cross_attention_cache.update(cross_key, cross_value, layer)
        cache.is_updated = dict.fromkeys(range(len(past)), True)
        logits: Tensor = self.decoder(
            input_ids=input_ids,
            encoder_hidden_states=torch.zeros(1, 1, self.width),  # in the cache already; only asked for None
            past_key_values=cache,
            use_cache=True,
        ).logits
        return logits, _pairs(cache.self_attention_cache)


def _pairs(cache: DynamicCache) -> list[KeyValue]:
    return [(layer.keys, layer.values) for layer in cache.layers]


def _export(module: nn.Module, examples: tuple[Any, ...], dynamic_shapes: tuple[Any, ...], path: Path) -> None:
    with torch.no_grad():
        program = torch.onnx.export(module, examples, dynamo=True, dynamic_shapes=dynamic_shapes, verbose=False)
    assert program is not None  # noqa: S101 - only dynamo=False returns None
    program.save(str(path), external_data=True)


@click.command()
@click.argument("name", type=click.Choice(sorted(RECIPES)))
@click.argument("directory", type=click.Path(path_type=Path))
def main(name: str, directory: Path) -> None:
    """Make NAME in DIRECTORY, beside the checkpoint; it appears when it is complete."""
    recipe, packages = RECIPES[name]
    if absent := missing(packages):
        raise click.ClickException(f"{', '.join(absent)} not installed: pip install 'speech-export[bench]'")
    with staging_directory(directory) as staging:
        recipe(staging, directory.parent)
        with suppress(FileExistsError):  # somebody else was faster
            publish(staging, directory)


if __name__ == "__main__":
    main()
