"""The table of docs/half_precision.md: the convolutions of every encoder family at its real width, as cuDNN gets them.

Models are built without weights, so that this takes seconds. `python tools/convolutions.py` writes the table.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from transformers import (
    ASTConfig,
    AutoModel,
    Data2VecAudioConfig,
    HubertConfig,
    PretrainedConfig,
    PreTrainedModel,
    SEWConfig,
    SEWDConfig,
    Speech2TextConfig,
    UniSpeechConfig,
    UniSpeechSatConfig,
    Wav2Vec2BertConfig,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    WavLMConfig,
    WhisperConfig,
)

import markdown_table
from markdown_table import Cells
from speech_export.passes.half.float32_nodes import float32_nodes
from speech_export.passes.half.kernels import CUDA

PAGE = Path(__file__).resolve().parents[1] / "docs" / "half_precision.md"
MARK = "<!-- the convolutions begin here; `make convolutions` writes them -->"
END = "<!-- the convolutions end here -->"
COLUMNS = ("channels", "kernel", "stride", "groups", "in a fp16 graph", "models")

_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}

REAL: dict[str, Callable[[], PretrainedConfig]] = {
    "wav2vec2, base": lambda: Wav2Vec2Config(),
    "wav2vec2, XLS-R-300M with adapter": lambda: Wav2Vec2Config(**_LARGE, **_LAYER_NORM, add_adapter=True),
    "wav2vec2, XLS-R-2B": lambda: Wav2Vec2Config(
        **_LARGE | {"hidden_size": 1920, "num_hidden_layers": 48, "intermediate_size": 7680}, **_LAYER_NORM
    ),
    "hubert, base": lambda: HubertConfig(),
    "hubert, large": lambda: HubertConfig(**_LARGE, **_LAYER_NORM),
    "wavlm, base": lambda: WavLMConfig(),
    "wavlm, large": lambda: WavLMConfig(**_LARGE, **_LAYER_NORM),
    "unispeech, large": lambda: UniSpeechConfig(**_LARGE, **_LAYER_NORM),
    "unispeech-sat, base": lambda: UniSpeechSatConfig(),
    "unispeech-sat, large": lambda: UniSpeechSatConfig(**_LARGE, **_LAYER_NORM),
    "data2vec-audio, base": lambda: Data2VecAudioConfig(),
    "data2vec-audio, large": lambda: Data2VecAudioConfig(**_LARGE),
    "sew, tiny": lambda: SEWConfig(),
    "sew-d, tiny": lambda: SEWDConfig(),
    "wav2vec2-conformer, large": lambda: Wav2Vec2ConformerConfig(**_LARGE, feat_extract_norm="layer", conv_bias=True),
    "wav2vec2-bert, 2.0 with adapter": lambda: Wav2Vec2BertConfig(add_adapter=True),
    "speech_to_text, medium": lambda: Speech2TextConfig(d_model=512, encoder_layers=12, encoder_attention_heads=8),
    "whisper, small": lambda: WhisperConfig(
        d_model=768,
        encoder_layers=12,
        encoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_attention_heads=12,
    ),
    "audio-spectrogram-transformer": lambda: ASTConfig(),
}
"""Configurations of published models, by family; transformers' defaults are those of the base models."""


@dataclass(frozen=True)
class Convolution:
    """A convolution that cuDNN computes.

    Attributes:
        name: Name of the module, without the number of its layer.
        channels: Channels in and out.
        kernel: Size of the kernel.
        stride: Step of the kernel.
        groups: Groups of channels.
    """

    name: str
    channels: tuple[int, int]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    groups: int

    @property
    def dtype(self) -> ir.DataType:
        """Type that a half-precision graph for CUDA computes it in; asked of the pass."""
        sizes = [f"size{axis}" for axis in range(len(self.kernel))]
        given = _value("x", ("batch", self.channels[0], *sizes))
        weight = _value("w", (self.channels[1], self.channels[0] // self.groups, *self.kernel))
        node = ir.node("Conv", [given, weight], {"group": self.groups, "strides": list(self.stride)}, name=self.name)
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        graph = ir.Graph([given, weight], node.outputs, nodes=[node], opset_imports={"": 24})
        return ir.DataType.FLOAT if node in float32_nodes(graph, kernels=CUDA) else ir.DataType.FLOAT16


def convolutions(name: str) -> dict[Convolution, int]:
    """Return the convolutions that an entry of `REAL` computes, each with the number of times, in their order."""
    model, found = _model(REAL[name]()), dict[Convolution, int]()

    def count(name: str, module: Any, *_: object) -> None:
        channels = (module.in_channels, module.out_channels)
        convolution = Convolution(name, channels, module.kernel_size, module.stride, module.groups)
        found[convolution] = found.get(convolution, 0) + 1

    for path, module in model.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d):
            module.register_forward_hook(
                partial(count, ".".join(part for part in path.split(".") if not part.isdigit()))
            )
    with torch.no_grad(), torch.device("meta"):
        model(torch.zeros(_input_shape(model.config)))
    return found


def _model(config: PretrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    return (model.get_encoder() if config.is_encoder_decoder else model).eval()


def _input_shape(config: PretrainedConfig) -> tuple[int, ...]:
    """Return the shape of an utterance of a few seconds."""
    return {
        "audio-spectrogram-transformer": lambda: (1, config.max_length, config.num_mel_bins),
        "speech_to_text": lambda: (1, 400, config.input_feat_per_channel),
        "whisper": lambda: (1, config.num_mel_bins, 2 * config.max_source_positions),
        "wav2vec2-bert": lambda: (1, 200, config.feature_projection_input_dim),
    }.get(config.model_type, lambda: (1, 64_000))()


def _value(name: str, shape: tuple[int | str, ...]) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


def rows() -> Iterator[tuple[str, Cells]]:
    """Yield the rows of the table: a convolution, and the models that have it."""
    models: dict[Convolution, list[str]] = {}
    for name in REAL:
        for convolution, count in convolutions(name).items():
            models.setdefault(convolution, []).append(name if count == 1 else f"{name} ({count} times)")
    for convolution in sorted(models, key=lambda each: (each.name, each.groups == 1)):
        cells = {
            "channels": " → ".join(map(str, convolution.channels)),
            "kernel": " × ".join(map(str, convolution.kernel)),
            "stride": " × ".join(map(str, convolution.stride)),
            "groups": str(convolution.groups),
            "in a fp16 graph": "float32" if convolution.dtype == ir.DataType.FLOAT else "float16",
            "models": "; ".join(models[convolution]),
        }
        yield f"`{convolution.name}`", cells


def table() -> str:
    """Return the table."""
    return markdown_table.write(COLUMNS, rows())


def main() -> None:
    """Write the table into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{MARK}\n\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
