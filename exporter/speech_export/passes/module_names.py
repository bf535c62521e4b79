"""Name nodes after the module of the torch model that they come from: `decoder.lm_head` instead of `node_linear_16`.

These are the names that a user can know, and excludes from quantisation by.
"""

import ast
from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_after_modules(model: ir.Model) -> None:
    """Rename every node that the tracer knows the module of; must run before the metadata is stripped.

    A module's only MatMul, Gemm or Gather of a constant gets the module's name, so does the first of several; all
    else gets that name with the operator behind a slash, and a number where it is not the first.
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
    """The module that `name_after_modules` named a node after; the node's own name where it knew none."""
    return str(node.name).partition("/")[0]


def _modules(node: ir.Node) -> Iterator[str]:
    """Modules around `node`, the innermost first; the last scope is the operation itself."""
    scopes = node.metadata_props.get(_SCOPES)
    if scopes is not None:
        yield from (scope for scope in reversed(ast.literal_eval(scopes)[:-1]) if scope)
