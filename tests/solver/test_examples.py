"""The examples in the docstrings of the room hold."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("module", ["solve", "stage1"])
def test_docstrings_tell_the_truth(module: str) -> None:
    found = doctest.testmod(import_module(f"dpcompress.solver.{module}"))
    assert found.attempted > 0 and found.failed == 0
