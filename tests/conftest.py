"""Hypothesis profiles, the shared data folder, and skipping of what cannot run here."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Threads that wait for each other and for another process are slower than one.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Ahead of the other processes of a test run, measurements would starve those.
os.environ["DPCOMPRESS_REAL_TIME"] = "0"

settings.register_profile("fast", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "fast")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data beside the repository; tests skip where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no folder of shared data at ../{folder.name}")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
