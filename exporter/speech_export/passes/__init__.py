"""Passes on the traced graphs: each takes an `onnx_ir.Model` and changes it in place. `pipeline` has their order."""
