"""Latency tables: spans → programs → ONNX graphs → measurements, which are kept and
reused."""

from dpcompress.latency.bench import bench
from dpcompress.latency.profile import profile
from dpcompress.latency.remote import (
    pack_runner,
    table_from_results,
    write_bundle,
    write_networks,
)
from dpcompress.latency.store import Store

__all__ = [
    "Store",
    "bench",
    "pack_runner",
    "profile",
    "table_from_results",
    "write_bundle",
    "write_networks",
]
