"""Latency and importance tables: validated CSV files with provenance ↔ frozen objects.

A file is `# key: value` lines, then a CSV header, then rows. Keys and columns that this
version does not know are preserved. The column layouts that were published with Kim et
al. 2023 are read as well.
"""

from dpcompress.tables.importance_table import ImportanceTable
from dpcompress.tables.keys import MERGE, Key, ScoreKey
from dpcompress.tables.latency_table import LatencyTable

__all__ = ["MERGE", "ImportanceTable", "Key", "LatencyTable", "ScoreKey"]
