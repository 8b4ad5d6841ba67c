"""The laws of the latency sketch, against the definition over all durations.

Mutants that die here: a rank one too low or too high; buckets that are not ordered; the middle of the wrong bucket; a
zero that has no bucket; a longest that is the last; a snapshot that goes on counting.
"""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from funcpipe_trio._sansio.latencies import ERROR, Latencies, quantile

SECONDS = st.floats(0, 1e9, allow_nan=False)


def counted(durations):
    latencies = Latencies()
    for seconds in durations:
        latencies.add(seconds)
    return latencies


@given(st.lists(SECONDS, min_size=1, max_size=60), st.floats(0.01, 1))
@example([0.0], 1.0)
@example([1e-9], 1.0)
@example([1e-9, 2e-9], 1.0)
@example([1.0, 2.0, 3.0, 4.0], 0.5)
@example([1.0, 2.0, 3.0, 4.0], 0.51)
def test_a_quantile_is_near_the_true_one(durations, part):
    """The duration that this part of all does not exceed; wrong by 5 % at most, and 0 where it is 0."""
    true = sorted(durations)[math.ceil(part * len(durations)) - 1]

    found = quantile(counted(durations).snapshot(), part)

    if true <= 1e-9:
        assert found == 0
    else:
        assert abs(found - true) <= ERROR * true * (1 + 1e-9)


@given(st.lists(SECONDS, max_size=60))
def test_the_number_and_the_longest_are_exact(durations):
    latencies = counted(durations)

    assert sum(latencies.snapshot().values()) == len(durations)
    assert latencies.longest == max(durations, default=0.0)


@given(st.lists(SECONDS, max_size=30), st.lists(SECONDS, max_size=30))
def test_the_difference_of_two_snapshots_is_what_came_between(before, after):
    """Bucket by bucket; a snapshot does not change."""
    latencies = counted(before)
    first = latencies.snapshot()
    for seconds in after:
        latencies.add(seconds)

    grown = {bucket: count - first.get(bucket, 0) for bucket, count in latencies.snapshot().items()}

    assert {bucket: count for bucket, count in grown.items() if count} == counted(after).snapshot()


def test_without_durations_there_is_no_quantile():
    assert quantile({}, 0.5) == 0.0


@pytest.mark.parametrize("part", [0.5, 0.9, 0.99, 1.0])
def test_its_memory_is_bounded(part):
    """From a nanosecond to thirty years: some four hundred buckets."""
    latencies = Latencies()
    for number in range(100_000):
        latencies.add(10 ** (number / 100_000 * 18 - 9))

    assert len(latencies._durations) < 64
    assert len(latencies.snapshot()) < 420
    assert quantile(latencies.snapshot(), part) > 0


def test_durations_are_counted_64_at_a_time():
    """Until then they are kept as they are."""
    latencies = counted([1.0] * 63)
    assert len(latencies._durations) == 63

    latencies.add(1.0)

    assert latencies._durations == []
    assert sum(latencies.snapshot().values()) == 64
