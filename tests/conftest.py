"""What all tests share."""

import pytest
from hypothesis import Phase, settings

from funcpipe_trio.runtime import pool, run, stage

settings.register_profile("mutation", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None)


@pytest.fixture(scope="module")
def no_slices_by_real_time():
    """On a busy machine a slice of 10 ms may end early: the same schedule is then not the same run."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (pool, run, stage):
            patch.setattr(module, "SLICE", 1e9)
        yield
