"""Leave out what the tracer writes about itself: source lines and module paths are larger than a small model."""

import onnx_ir as ir


def strip_metadata(model: ir.Model) -> None:
    """Remove metadata and comments of the model, its nodes and its values."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
