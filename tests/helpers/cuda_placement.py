"""The device, CPU or GPU, that ONNX Runtime's CUDA provider would give each node of a graph, computed without one.

It begins with all nodes on the GPU, and moves those to the CPU that compute with shapes: a node one of whose inputs is
in the host's memory, and all others in it too, or small constants, or inputs of the graph. What is left on the GPU and
wants something of theirs on the GPU gets a copy, and with one copy nothing can be recorded as a CUDA graph.
After `GetCpuPreferredNodes` of onnxruntime/core/framework/fallback_cpu_capability.cc, release 1.23.
"""

from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto

_SMALL = 100
"""Numbers of a constant that counts as nothing to copy."""

_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)

IN_HOST_MEMORY: dict[str, set[int]] = {
    "ConstantOfShape": {0},
    "CumSum": {1},
    "Expand": {1},
    "Pad": {1, 2, 3},
    "Range": {0, 1, 2},
    "ReduceMax": {1},
    "ReduceMean": {1},
    "ReduceMin": {1},
    "ReduceSum": {1},
    "Reshape": {1},
    "Slice": {1, 2, 3, 4},
    "Split": {1},
    "Squeeze": {1},
    "Tile": {1},
    "TopK": {1},
    "Unsqueeze": {1},
}
"""Inputs that kernels on the GPU read on the CPU (`InputMemoryType`)."""

ON_GPU_ALONE = {
    *("Add", "And", "Cast", "Concat", "Cos", "Div", "Equal", "Erf", "Exp", "Gather", "GatherElements", "Gelu", "Gemm"),
    *("Greater", "GreaterOrEqual", "Identity", "LayerNormalization", "Less", "LessOrEqual", "Log", "LogSoftmax"),
    *("MatMul", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Shape", "Sigmoid", "Sin"),
    *("Attention", "SkipLayerNormalization", "Softmax", "Sqrt", "Sub", "Tanh", "TensorScatter", "Transpose", "Where"),
}
"""Further operations with kernels for all types that decoders use them on, which read nothing on the CPU."""

COPIES_FROM_HOST = {"GatherND", "ScatterND", "NonZero", "Compress"}
"""Operations whose kernels on the GPU copy numbers of their own from or to the host while they run."""


OTHER_KERNELS = {
    *("Abs", "AveragePool", "BatchNormalization", "Ceil", "Clip", "Conv", "ConvTranspose", "Einsum", "Floor"),
    *("Mod", "ReduceL2", "Round", "Sign"),
}
"""Further operations with kernels for all types that encoders use them on, of the version that opset 24 has.

A kernel is taken for the version of an operation that it was registered for, and for no later one: `VerifyVersion` of
onnxruntime/core/framework/kernel_registry.cc. docs/OperatorKernels.md of release 1.30 has their versions. Those of
InstanceNormalization (6) and MaxPool (12) are older than the operations of opset 24 (22)."""


def has_kernel(op_type: str) -> bool:
    """Return true if ONNX Runtime has a kernel on the GPU for `op_type`, for all types that graphs use it on."""
    return op_type in IN_HOST_MEMORY.keys() | ON_GPU_ALONE | OTHER_KERNELS | COPIES_FROM_HOST


def obstacles(path: Path) -> list[str]:
    """Why ONNX Runtime would not record the graph as a CUDA graph, or replay it wrongly; empty where it would."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    small = {each.name for each in graph.initializer if prod(each.dims) <= _SMALL}
    constants, inputs = {each.name for each in graph.initializer}, {each.name for each in graph.input}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    types |= {each.name: each.data_type for each in graph.initializer}
    found = [
        f"{node.op_type} {node.name} has no kernel there that can be recorded"
        for node in graph.node
        if node.op_type not in IN_HOST_MEMORY.keys() | ON_GPU_ALONE or node.op_type in COPIES_FROM_HOST
    ]
    host: set[str] = set()
    on_cpu = []
    for node in graph.node:  # in topological order
        read = IN_HOST_MEMORY.get(node.op_type, set())
        if node.op_type == "Shape":
            host.update(node.output)
            continue
        given = [(index, name) for index, name in enumerate(node.input) if name]
        moved = any(name in host for _, name in given) and all(
            types.get(name) not in _HALF and (name in small or name in inputs or (name in host and index not in read))
            for index, name in given
        )
        if moved:
            host.update(node.output)
            on_cpu.append(node)
            found += [f"{node.op_type} {node.name} on the CPU reads {name}" for _, name in given if name in inputs]
            continue
        for index, name in given:
            if name in host and index not in read:
                found.append(f"{name} is made on the CPU, and {node.op_type} {node.name} reads it on the GPU")
            if name not in host and name not in constants and index in read:
                found.append(f"{name} is made on the GPU, and {node.op_type} {node.name} reads it on the CPU")
    outputs = {value.name for value in graph.output}
    return found + [f"the output {name} is made on the CPU" for name in sorted(host & outputs)]
