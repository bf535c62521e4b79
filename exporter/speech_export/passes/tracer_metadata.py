"""The tracer's metadata: name nodes after the modules in it, then remove it.

Module names, such as `decoder.lm_head` instead of `node_linear_16`, are the names that a user knows, and the names that
`--keep-float32` takes. The metadata itself, source lines and module paths, is larger than a small model.
"""

import ast
from collections import Counter
from collections.abc import Iterator, Sequence

import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_after_modules(model: ir.Model) -> None:
    """Rename every node whose module the tracer recorded.

    A MatMul, Gemm or Gather with a constant input gets the name of its module. Any other node gets that name, a slash
    and its operator. From the second node of the same name on, a slash and a number follow.
    """
    seen: Counter[str] = Counter()
    for node in model.graph:
        module = next(_modules(node), None)
        if module is None:
            continue
        weighted = node.op_type in ("MatMul", "Gemm", "Gather") and any(
            value is not None and value.is_initializer() for value in node.inputs
        )
        name = module if weighted else f"{module}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}/{seen[name]}"


def module_of(node: ir.Node) -> str:
    """Return the module that `name_after_modules` named a node after, or the node's own name if it has none."""
    return str(node.name).partition("/")[0]


def packed_name(modules: Sequence[str]) -> str:
    """Return the name of one product for several modules with the same parent, such as `layers.0.q_proj+k_proj`."""
    return "+".join([modules[0], *(module.rpartition(".")[2] for module in modules[1:])])


def packed_modules(name: str) -> list[str]:
    """Return the modules that `packed_name` made `name` of; any other name stands for itself."""
    first, *others = name.split("+")
    parent, dot, _ = first.rpartition(".")
    return [first, *(f"{parent}{dot}{other}" for other in others)]


def strip_metadata(model: ir.Model) -> None:
    """Remove metadata and comments from the model, its nodes and its values."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _modules(node: ir.Node) -> Iterator[str]:
    """Yield the modules around `node`, innermost first. The last scope is skipped: it is the operation itself."""
    scopes = node.metadata_props.get(_SCOPES)
    if scopes is not None:
        yield from (scope for scope in reversed(ast.literal_eval(scopes)[:-1]) if scope)
