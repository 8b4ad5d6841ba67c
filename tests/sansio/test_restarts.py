"""The laws of restarts, each with the mutants of `restarts.py` that it kills.

| law | mutant |
|---|---|
| a row of failures ends after `attempts` openings | one too many or too few; no new row after a healthy one |
| healthy is `reset_after` seconds since the opening, or more | a strict comparison; time since the last failure |
| the waits are those of the policy, for the row's number | the same jitter in every row; a backoff that grows on |
"""

import math

from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio import Backoff, Retry
from funcpipe_trio._sansio.backoff import backoff_delay
from funcpipe_trio._sansio.restarts import Restarts

LASTED = st.lists(st.integers(0, 12), min_size=1, max_size=12)


@given(attempts=st.integers(1, 4), lasted=LASTED)
def test_each_row_of_failures_is_a_retry_of_its_own(attempts, lasted):
    """A failure after 8 s or more is the first of a new row, whatever came before."""
    backoff = Backoff(1, jitter=0.5)
    place = {"stage": "feed", "seed": 5}
    restarts, now, row, number = Restarts(Retry(attempts, backoff=backoff), 8, **place), 100.0, 0, 0
    for seconds in lasted:
        restarts.opened(now)
        now += seconds
        row, number = (row + 1, 1) if seconds >= 8 else (row, number + 1)
        wait = restarts.failed(OSError(), now)
        if number == attempts:
            assert (wait, restarts.number) == (None, attempts)
            return

        assert (wait, restarts.number) == (backoff_delay(backoff, row, number, **place), number + 1)
        now += wait


def test_an_error_that_is_not_meant_is_final_at_once():
    """Also the first of a new row."""
    restarts = Restarts(Retry(9, OSError), 1)
    restarts.opened(0)

    assert restarts.failed(ValueError(), 5) is None
    assert restarts.note() is None


def test_a_feed_without_a_name_waits_as_the_backoff_says():
    backoff = Backoff(1, jitter=0.5)
    restarts = Restarts(Retry(9, backoff=backoff), 8)
    restarts.opened(0)

    assert restarts.failed(OSError(), 1) == backoff_delay(backoff, 0, 1)


def test_without_a_limit_of_health_the_failures_of_a_whole_run_count():
    """`math.inf` says never."""
    restarts = Restarts(Retry(2, backoff=Backoff(1, jitter=0)), math.inf)
    restarts.opened(0)

    assert restarts.failed(OSError(), 1e9) == 1
    restarts.opened(1e9 + 1)
    assert restarts.failed(OSError(), 2e9) is None
    assert restarts.note() == "waited 1 s between its attempts"
