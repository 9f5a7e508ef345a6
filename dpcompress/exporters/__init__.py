"""Networks as files that inference engines read, and the check that they are equal."""

from dpcompress.exporters.onnx import ExportCheck, check_onnx, export_onnx

__all__ = ["ExportCheck", "check_onnx", "export_onnx"]
