"""The parts of a graph that int8 and int4 apply to."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from ...precision.options import PrecisionOptions
from ..patterns.projections import Projection, projections
from .dynamic_int8 import grouped_products
from .embedding_table import embedding_gathers


@dataclass(frozen=True)
class Quantizable:
    """The parts of one graph that can be quantised, each as a whole.

    Attributes:
        shared_tables: Output projections whose weight is the embedding too.
        projections: All other matrix products with a constant weight.
        groups: MatMul nodes with one weight for each group of channels, made from a grouped convolution; CPU only.
        embeddings: Gather nodes that read a table with one row for each word, if nothing else reads the table.
    """

    shared_tables: list[Projection]
    projections: list[Projection]
    groups: list[ir.Node]
    embeddings: list[ir.Node]

    @classmethod
    def find(cls, graph: ir.Graph, options: PrecisionOptions, words: int) -> "Quantizable":
        """Find the parts of a traced graph that `options.op_kinds` names.

        Args:
            graph: Graph whose nodes are named after modules.
            options: Operator kinds to quantise, and the target.
            words: Number of words. A table with that many rows is an embedding of words.
        """
        matmul, embedding = "matmul" in options.op_kinds, "embedding" in options.op_kinds
        found = list(projections(graph)) if matmul else []
        shared = [each for each in found if embedding and embedding_gathers(each.weight)]
        return cls(
            shared_tables=shared,
            projections=[each for each in found if each not in shared],
            groups=list(grouped_products(graph)) if matmul and options.target == "cpu" else [],
            embeddings=list(_word_embeddings(graph, words)) if embedding else [],
        )

    def without(self, names: Collection[str]) -> "Quantizable":
        """Return the parts that are not in `names`."""
        return Quantizable(
            [each for each in self.shared_tables if each.name not in names],
            [each for each in self.projections if each.name not in names],
            [each for each in self.groups if each.name not in names],
            [each for each in self.embeddings if each.name not in names],
        )

    def sizes(self) -> list[tuple[str, int]]:
        """Return the name and the number of weights of each part."""
        return [
            *((each.name, each.size) for each in (*self.shared_tables, *self.projections)),
            *((str(each.name), each.inputs[1].const_value.size) for each in self.groups),
            *((str(each.name), each.inputs[0].const_value.size) for each in self.embeddings),
        ]

    def without_scale(self, largest: Mapping[str, float]) -> frozenset[str]:
        """Return the names of the products whose input has no scale: only zeros were measured in it, or NaN or ∞.

        Args:
            largest: Largest magnitude of each tensor, by name.
        """
        products = (*self.shared_tables, *self.projections)
        return frozenset(each.name for each in products if not 0 < largest[str(each.x.name)] < math.inf)


def _word_embeddings(graph: ir.Graph, words: int) -> Iterator[ir.Node]:
    """Yield the Gather nodes that are the only reader of a table of `words` rows."""
    for node in graph:
        if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 0:
            continue
        table = node.inputs[0]
        if table is None or not table.is_initializer() or table.const_value.dtype != ir.DataType.FLOAT:
            continue
        shape = table.const_value.shape.numpy()
        if len(shape) == 2 and shape[0] == words and len(table.uses()) == 1:
            yield node
