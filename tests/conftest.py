"""What all tests share."""

import gc
import os
import signal
from collections import Counter

import pytest
from hypothesis import Phase, given, settings
from hypothesis.strategies import none

settings.register_profile("mutation", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None)
settings.register_profile("ci", derandomize=True, deadline=None, database=None)
settings.register_profile("few", settings.get_profile("ci"), max_examples=20)

EVERY = int(os.environ.get("FUNCPIPE_EVERY", "1"))
"""Of the cases of one test, how many apart those are that run: in CI, most run on one Python only."""

if "CI" in os.environ:  # newer ones than the oldest that is allowed load such a profile by themselves
    settings.load_profile("ci" if EVERY == 1 else "few")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seen: Counter[str] = Counter()
    kept, left_out = [], []
    for item in items:
        test = item.nodeid.partition("[")[0]
        (kept if seen[test] % EVERY == 0 else left_out).append(item)
        seen[test] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@given(none())
def _begin(nothing: None) -> None:
    """Let Hypothesis make what is global to it, and find out who refers to that; frozen objects would not be found."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the garbage collector leave out the tests themselves: there are tens of thousands, and some tests collect."""
    _begin()
    gc.collect()
    gc.freeze()


@pytest.fixture
def interrupts():
    """A program that was started in the background has the signal ignored, and trio then leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
