"""The examples in the docstrings of the room hold."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("module", ["activations", "examine", "plan"])
def test_docstrings_tell_the_truth(module: str) -> None:
    found = doctest.testmod(import_module(f"dpcompress.blueprint.{module}"))
    assert found.attempted > 0 and found.failed == 0
