"""Which parts of a graph are quantised, and how: the precision options applied to a traced model."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx_ir as ir

from ..errors import ExportError, shortened
from ..precision.options import PrecisionOptions
from .int8.dynamic import quantize_projections
from .int8.embedding_table import embedding_gathers, quantize_embedding, quantize_shared_table
from .int8.explicit import ExplicitInt8
from .int8.groups import grouped_products, quantize_groups
from .int8.int4 import quantize_projections_to_int4
from .int8.packed_queries import pack_queries
from .int8.quantized_windows import quantize_before_windows
from .patterns.projections import Projection, projections


@dataclass(frozen=True)
class Part:
    """A piece of a graph that is converted or left alone as a whole.

    Attributes:
        name: of its module.
        kind: a projection, an embedding, or one table that is both; a whole module in half precision.
        parameters: weights in it that can be smaller.
    """

    name: str
    kind: str
    parameters: int


def parts(model: ir.Model, options: PrecisionOptions, vocab_size: int) -> list[Part]:
    """What the options quantise in a graph if nothing is kept in float32."""
    heads, others, gathers = _candidates(model.graph, options, vocab_size)
    groups = _groups(model.graph, options)
    return [
        *(Part(each.name, "table", each.size) for each in heads),
        *(Part(each.name, "projection", each.size) for each in others),
        *(Part(str(each.name), "projection", each.inputs[1].const_value.size) for each in groups),
        *(Part(str(each.name), "embedding", each.inputs[0].const_value.size) for each in gathers),
    ]


def quantize(
    model: ir.Model, graph: str, options: PrecisionOptions, vocab_size: int, kept: Collection[str] = ()
) -> None:
    """Quantise `model` in place.

    Args:
        model: a traced graph with its nodes named after modules.
        graph: its name in the contract.
        options: what to quantise, and how.
        vocab_size: words of the decoder; an embedding of so many rows is one of words.
        kept: names of parts that stay float32.
    """
    precision = options.of(graph)
    if precision not in ("int8", "int4"):
        return
    heads, others, gathers = _candidates(model.graph, options, vocab_size)
    for head in heads:
        if head.name not in kept:
            quantize_shared_table(model, head)
    for gather in gathers:
        if gather.name not in kept:
            quantize_embedding(model, gather)
    chosen = [each for each in others if each.name not in kept]
    if precision == "int4":
        heads_of_their_own = [each for each in chosen if each.matrix().shape[1] == vocab_size]
        within = [each for each in chosen if each not in heads_of_their_own]
        quantize_projections_to_int4(model, within, options.block_size, options.accuracy_level)
        chosen = heads_of_their_own
    quantize_projections(model, chosen)
    quantize_groups(model, [each for each in _groups(model.graph, options) if each.name not in kept])
    quantize_before_windows(model)
    pack_queries(model)


def quantize_explicitly(
    model: ir.Model,
    options: PrecisionOptions,
    vocab_size: int,
    largest: Mapping[str, float],
    kept: Collection[str] = (),
) -> frozenset[str]:
    """Quantise `model` to int8 in place, for engines that make products of bytes of standard ONNX.

    Args:
        model: see `quantize`.
        options: see `quantize`.
        vocab_size: see `quantize`.
        largest: magnitudes of the model's tensors, by name.
        kept: see `quantize`.

    Returns:
        Names of the parts that cannot be quantised: what they read was never anything but zero, or was no number.
    """
    heads, others, gathers = _candidates(model.graph, options, vocab_size)
    unknown = {each.name for each in (*heads, *others) if not 0 < largest[str(each.x.name)] < math.inf}
    left = unknown.union(kept)
    explicit = ExplicitInt8(model.graph, largest)
    for head in heads:
        if head.name not in left:
            explicit.shared_table(head)
    for projection in others:
        if projection.name not in left:
            explicit.projection(projection)
    for gather in gathers:
        if str(gather.name) not in left:
            explicit.embedding(gather)
    explicit.finish()
    return frozenset(unknown)


def matching(patterns: Collection[str], names: Collection[str]) -> frozenset[str]:
    """The `names` that match any of `patterns`.

    Raises:
        ExportError: a pattern that matches nothing.
    """
    found = {pattern: [name for name in names if fnmatchcase(name, pattern)] for pattern in patterns}
    for pattern, matched in found.items():
        if not matched:
            raise ExportError(
                f"--keep-float32 {pattern!r} matches nothing that is converted; there are {shortened(sorted(names), 8)}"
            )
    return frozenset(name for matched in found.values() for name in matched)


def _candidates(
    graph: ir.Graph, options: PrecisionOptions, vocab_size: int
) -> tuple[list[Projection], list[Projection], list[ir.Node]]:
    """Projections whose weight is an embedding too, other projections, and embeddings of words."""
    matmul, embedding = "matmul" in options.op_kinds, "embedding" in options.op_kinds
    found = list(projections(graph)) if matmul else []
    heads = [each for each in found if embedding and embedding_gathers(each.weight)]
    others = [each for each in found if each not in heads]
    return heads, others, list(_word_embeddings(graph, vocab_size)) if embedding else []


def _groups(graph: ir.Graph, options: PrecisionOptions) -> list[ir.Node]:
    """Products of groups of channels: what a grouped convolution is traced into for the CPU."""
    return list(grouped_products(graph)) if options.target == "cpu" and "matmul" in options.op_kinds else []


def _word_embeddings(graph: ir.Graph, vocab_size: int) -> Iterator[ir.Node]:
    """Gathers that are alone in reading a table of `vocab_size` rows."""
    for node in graph:
        if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 0:
            continue
        table = node.inputs[0]
        if table is None or not table.is_initializer() or table.const_value.dtype != ir.DataType.FLOAT:
            continue
        shape = table.const_value.shape.numpy()
        if len(shape) == 2 and shape[0] == vocab_size and len(table.uses()) == 1:
            yield node
