"""What all tests share."""

import os
import signal

import pytest
from hypothesis import Phase, settings

settings.register_profile("mutation", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None)
settings.register_profile("ci", derandomize=True, deadline=None, database=None)
if "CI" in os.environ:  # newer ones than the oldest that is allowed load such a profile by themselves
    settings.load_profile("ci")


@pytest.fixture
def interrupts():
    """A program that was started in the background has the signal ignored, and trio then leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
