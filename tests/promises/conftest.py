"""What several modules of promises share."""

import pytest

from funcpipe_trio.runtime import pool, run, stage


@pytest.fixture(scope="module")
def no_slices_by_real_time():
    """On a busy machine a slice of 10 ms may end early: an input then refills in two turns, a run has more steps."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (stage, pool, run):
            patch.setattr(module, "SLICE", 1e9)
        yield
