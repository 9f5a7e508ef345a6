"""Latency tables: spans → unique ops → ONNX graphs → measurements, kept and reused."""

from dpcompress.latency.engines import ENGINES, engine_of, open_engine
from dpcompress.latency.networks import bench_networks
from dpcompress.latency.remote import (
    pack_runner,
    table_from_results,
    write_bundle,
    write_networks,
)
from dpcompress.latency.store import Store
from dpcompress.latency.table import profile

__all__ = [
    "ENGINES",
    "Store",
    "bench_networks",
    "engine_of",
    "open_engine",
    "pack_runner",
    "profile",
    "table_from_results",
    "write_bundle",
    "write_networks",
]
