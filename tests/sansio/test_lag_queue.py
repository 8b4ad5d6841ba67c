"""The queue of one subscriber: what is kept, and what is dropped, when it is full."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.lag_queue import LagQueue

KEPT = {
    "drop_oldest": lambda items, capacity: items[-capacity:],
    "drop_newest": lambda items, capacity: items[:capacity],
    "fail": lambda items, capacity: items[:capacity],
}


@given(lag=st.sampled_from([*KEPT]), capacity=st.integers(1, 5), count=st.integers(0, 12))
def test_what_a_silent_subscriber_keeps(lag, capacity, count):
    queue = LagQueue(capacity, lag)
    for item in range(count):
        queue.put(item)

    assert list(queue.items) == KEPT[lag]([*range(count)], capacity)
    assert queue.dropped == max(0, count - capacity)
    assert queue.has_failed is (lag == "fail" and count > capacity)
    assert queue.is_full is (count >= capacity)


def test_nobody_puts_into_a_full_one_that_blocks():
    queue = LagQueue(1, "block")
    queue.put("a")
    with pytest.raises(AssertionError, match="waits for room"):
        queue.put("b")
