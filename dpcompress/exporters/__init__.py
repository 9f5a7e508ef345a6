"""Export of networks to files for inference engines, and the check against torch."""

from dpcompress.exporters.check import ExportCheck
from dpcompress.exporters.export import check_onnx, export
from dpcompress.exporters.openvino import export_openvino
from dpcompress.exporters.tensorrt import export_tensorrt

__all__ = [
    "ExportCheck",
    "check_onnx",
    "export",
    "export_openvino",
    "export_tensorrt",
]
