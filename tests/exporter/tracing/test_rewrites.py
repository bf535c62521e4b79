"""Test that modules which are rewritten for a target compute the same as the originals."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.activations import FastGELUActivation, NewGELUActivation
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2FeatureEncoder
from transformers.pytorch_utils import Conv1D

from composites import composite, decoder_model
from matrix import Array
from speech_export.errors import ExportError
from speech_export.passes.cpu.fast_mask_sum import count_mask_fast
from speech_export.passes.unmasked_attention import drop_needless_masks
from speech_export.tracing.attention import attention_implementation
from speech_export.tracing.rewrites.block_convolution import BlockConvolution
from speech_export.tracing.rewrites.channels_last import ChannelsLastConvolution
from speech_export.tracing.rewrites.conv_encoder import ChannelsLastExtractor, channels_last_extractor
from speech_export.tracing.rewrites.first_convolution import (
    ChannelsFirstConvolution,
    GroupNormedConvolution,
    LayerNormedConvolution,
)
from speech_export.tracing.rewrites.fourier_convolution import FourierConvolution
from speech_export.tracing.rewrites.onnx_attention import onnx_attention
from speech_export.tracing.rewrites.own_attention import is_one_operator, own_attention
from speech_export.tracing.rewrites.replacement import Replacement, replaced
from speech_export.tracing.rewrites.rewritten import rewritten_for_cpu
from speech_export.tracing.rewrites.single_operators import linear_layer, tanh_gelu

HEADS, HEAD_DIM, FRAMES = 2, 4, 7


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    padding=st.integers(0, 2),
    more=st.integers(0, 20),
    bias=st.booleans(),
)
def test_a_convolution_as_a_matrix_product(kernel: int, stride: int, padding: int, more: int, bias: bool) -> None:
    conv = nn.Conv1d(3, 5, kernel, stride, padding, bias=bias).requires_grad_(False)
    hidden_states = noise(2, kernel + more, 3)
    expected = conv(hidden_states.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(ChannelsLastConvolution(conv)(hidden_states), expected, atol=1e-5, rtol=1e-5)


@settings(deadline=None)
@given(more=st.integers(0, 60), volume=st.sampled_from([1e-3, 1.0, 30.0]), bias=st.booleans())
def test_the_first_convolution_and_its_layer_norm(more: int, volume: float, bias: bool) -> None:
    conv, norm = nn.Conv1d(1, 24, 10, 5, bias=bias).requires_grad_(False), nn.LayerNorm(24).requires_grad_(False)
    norm.weight.copy_(noise(24)), norm.bias.copy_(noise(24, seed=1))
    waveform = noise(2, 10 + more) * volume
    expected = norm(conv(waveform.unsqueeze(1)).transpose(1, 2))
    found = LayerNormedConvolution(conv, norm)(waveform)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.GroupNorm(8, 8)])
def test_a_first_convolution_of_few_channels_and_long_windows_stays_one(norm: nn.LayerNorm | nn.GroupNorm) -> None:
    layer = nn.Module()
    layer.conv, layer.layer_norm, layer.activation = nn.Conv1d(1, 8, 10, 5), norm, nn.GELU()
    extractor = nn.Module()
    extractor.conv_layers = nn.ModuleList([layer])
    replacement = channels_last_extractor(extractor)
    assert replacement is not None
    assert any(isinstance(module, ChannelsFirstConvolution) for module in replacement.module.modules())
    channels = layer.conv(noise(2, 1, 60))
    normed = norm(channels) if isinstance(norm, nn.GroupNorm) else norm(channels.transpose(1, 2)).transpose(1, 2)
    with torch.no_grad():
        found = replacement.module(noise(2, 1, 60)[:, 0])
    torch.testing.assert_close(found, nn.functional.gelu(normed))


@pytest.mark.parametrize("frequency", [0.001, 0.05, 0.4])
def test_the_first_convolution_and_its_norm_over_time_where_a_channel_hears_little(frequency: float) -> None:
    """A loud tone, and channels of which some are deaf to it: float32 would lose what they hear."""
    conv, norm = nn.Conv1d(1, 24, 10, 5, bias=False).requires_grad_(False), nn.GroupNorm(24, 24).requires_grad_(False)
    conv.weight[:8] -= conv.weight[:8].mean(dim=2, keepdim=True)
    norm.weight.copy_(noise(24)), norm.bias.copy_(noise(24, seed=1))
    time = torch.arange(4000)
    waveform = torch.stack([torch.sin(2 * torch.pi * frequency * time), noise(4000)]) + 1e-3 * noise(2, 4000, seed=2)
    expected = norm.double()(conv.double()(waveform.double().unsqueeze(1))).transpose(1, 2).float()
    found = GroupNormedConvolution(conv.float(), norm.float())(waveform)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@settings(deadline=None)
@given(kernel=st.integers(1, 20), groups=st.sampled_from([1, 2, 6]), frames=st.integers(1, 70))
@pytest.mark.parametrize("kind", [BlockConvolution, FourierConvolution])
def test_the_positional_convolution(kind: type[nn.Module], kernel: int, groups: int, frames: int) -> None:
    conv = nn.Conv1d(12, 12, kernel, padding=kernel // 2, groups=groups).requires_grad_(False)
    hidden_states = noise(2, frames, 12)
    expected = conv(hidden_states.transpose(1, 2))[:, :, :frames].transpose(1, 2)
    torch.testing.assert_close(kind(conv)(hidden_states), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("rule", "module"),
    [
        (tanh_gelu, NewGELUActivation()),
        (tanh_gelu, FastGELUActivation()),
        (linear_layer, Conv1D(6, 4)),
    ],
)
def test_a_module_of_several_operators_is_replaced_by_one_that_computes_the_same(
    rule: Callable[[nn.Module], Replacement | None], module: nn.Module
) -> None:
    parent = nn.Sequential(module, nn.GELU())
    x = noise(2, 3, 4)
    expected = parent(x)
    with replaced(parent, rule):
        assert type(parent[0]) is not type(module)
        torch.testing.assert_close(parent(x), expected, atol=1e-5, rtol=0)
    assert list(parent) == [module, parent[1]]


@pytest.mark.parametrize(("family", "own"), [("trocr", 4), ("roformer", 4), ("bert", 0)])
def test_attention_of_a_decoder_s_own_is_replaced_for_a_while(family: str, own: int) -> None:
    decoder = decoder_model(family)
    assert is_one_operator(decoder)

    def replaced_layers() -> int:
        return sum("forward" in vars(module) for module in decoder.modules())

    with own_attention(decoder, onnx_attention):
        assert replaced_layers() == own
    assert replaced_layers() == 0


def test_attention_that_nobody_knows_is_left_alone() -> None:
    assert not is_one_operator(decoder_model("prophetnet"))


def test_what_may_change_the_scores_is_refused_by_its_name() -> None:
    decoder = decoder_model("mvp")
    layer = next(module for name, module in decoder.named_modules() if name.endswith("self_attn"))
    with own_attention(decoder, onnx_attention), pytest.raises(ExportError, match="MvpAttention is given attn_prompt"):
        layer(noise(1, 2, 24), attn_prompt=noise(1, 2, 24))


def test_rewrites_are_undone() -> None:
    encoder = composite("bert", "wav2vec2, adapter").encoder
    before = [type(module) for module in encoder.modules()], encoder.config._attn_implementation
    with rewritten_for_cpu(encoder):
        assert isinstance(encoder.feature_extractor, ChannelsLastExtractor)
    assert ([type(module) for module in encoder.modules()], encoder.config._attn_implementation) == before


class Shifted(Wav2Vec2FeatureEncoder):
    def forward(self, input_values: Tensor) -> Tensor:
        return super().forward(input_values + 1)


def test_what_only_looks_like_something_known_stays_as_it_is() -> None:
    encoder = composite("bert").encoder
    encoder.feature_extractor.__class__ = Shifted
    with replaced(encoder, channels_last_extractor):
        assert type(encoder.feature_extractor) is Shifted


def test_every_layer_of_a_composite_s_encoder_calls_the_attention_that_is_set() -> None:
    encoder = composite("bert").encoder
    layer = encoder.encoder.layers[0].attention
    before = layer.config._attn_implementation
    with attention_implementation(encoder, "eager"):
        assert layer.config._attn_implementation == "eager" != before
    assert layer.config._attn_implementation == before


def attention_graph() -> ir.Model:
    """One self-attention with a mask of keys."""
    states = [ir.val(name, ir.DataType.FLOAT, [None, None, HEADS * HEAD_DIM]) for name in ("query", "key", "value")]
    mask = ir.val("mask", ir.DataType.INT32, [None, None])
    attributes = {"num_heads": HEADS, "scale": 0.7, "mask_filter_value": float(np.finfo(np.float32).min)}
    node = ir.node("MultiHeadAttention", [*states, None, mask], attributes, domain="com.microsoft", name="attention")
    node.outputs[0].name, node.outputs[0].type = "attended", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([*states, mask], node.outputs, nodes=[node], opset_imports={"": 20, "com.microsoft": 1}, name="g")
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize("lengths", [[FRAMES] * 3, [FRAMES, 1, 4], [0, FRAMES, 2], [FRAMES]])
def test_attention_says_the_same_without_a_needless_mask(lengths: list[int]) -> None:
    model = attention_graph()
    drop_needless_masks(model)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    query, key, value = (noise(len(lengths), FRAMES, HEADS * HEAD_DIM, seed=seed) * 3 for seed in range(3))
    mask = torch.arange(FRAMES) < torch.tensor(lengths).unsqueeze(1)
    inputs: dict[str, Array] = {"query": query.numpy(), "key": key.numpy(), "value": value.numpy()}
    (found,) = session.run(None, inputs | {"mask": mask.numpy().astype(np.int32)})
    split = [state.view(len(lengths), FRAMES, HEADS, HEAD_DIM).transpose(1, 2) for state in (query, key, value)]
    bias = torch.where(mask, 0.0, torch.finfo(torch.float32).min)[:, None, None]
    expected = nn.functional.scaled_dot_product_attention(*split, attn_mask=bias, scale=0.7).transpose(1, 2).flatten(2)
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-5)


@given(st.lists(st.integers(0, 300_000), min_size=1, max_size=4))
@settings(deadline=None, max_examples=20)
def test_samples_are_counted_exactly(lengths: list[int]) -> None:
    mask = ir.Value(name="attention_mask", shape=ir.Shape(["batch", "n"]), type=ir.TensorType(ir.DataType.INT64))
    axis = ir.tensor(np.array([1]), name="axis")
    axes = ir.Value(name="axis", const_value=axis, shape=axis.shape, type=ir.TensorType(ir.DataType.INT64))
    count = ir.node("ReduceSum", [mask, axes], {"keepdims": 0}, name="count")
    count.outputs[0].name, count.outputs[0].type = "count", ir.TensorType(ir.DataType.INT64)
    graph = ir.Graph([mask], count.outputs, nodes=[count], initializers=[axes], name="counting", opset_imports={"": 20})
    model = ir.Model(graph, ir_version=10)
    count_mask_fast(model)
    assert [node.op_type for node in model.graph] == ["Cast", "ReduceSum", "Cast"]
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    ones = (np.arange(300_000) < np.array(lengths)[:, None]).astype(np.int64)
    (found,) = session.run(None, {"attention_mask": ones})
    assert found.dtype == np.int64
    assert found.tolist() == lengths
