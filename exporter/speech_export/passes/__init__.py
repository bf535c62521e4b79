"""ONNX-level passes after tracing: each takes an `onnx_ir.Model` and changes it in place."""
