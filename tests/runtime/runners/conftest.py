"""What the tests of runners share that start processes of the package."""

import sys

import pytest


@pytest.fixture
def quick_start(monkeypatch):
    """Have no main module: a worker would load it, all of pytest, before it can begin."""
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
