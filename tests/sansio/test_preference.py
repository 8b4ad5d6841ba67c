"""One flow is preferred, and the others get one of each window.

Mutants that die here: a window that is one too long or too short; a preferred flow that is served at the expense of
one that is ready alone; a count that goes on while nobody else was ready; others that do not take turns.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.preference import PreferenceQueue


def served(queue: PreferenceQueue, count: int) -> list[int]:
    """Serve so often; all that are ready stay ready."""
    found = []
    for _ in range(count):
        flow = queue.select()
        assert flow is not None
        assert queue.select() is flow
        queue.charge(flow, still_ready=True)
        found.append(flow.key)
    return found


def made(window: int, count: int) -> tuple[PreferenceQueue, list]:
    queue = PreferenceQueue(window)
    return queue, [queue.add(number, 1) for number in range(count)]


def test_one_of_each_window_is_for_the_others_in_turn():
    queue, flows = made(3, 3)
    for flow in flows:
        queue.ready(flow)

    assert served(queue, 9) == [0, 0, 1, 0, 0, 2, 0, 0, 1]


def test_who_is_ready_alone_is_served_at_once():
    queue, (first, other, _) = made(3, 3)
    assert queue.select() is None

    queue.ready(other)
    assert served(queue, 4) == [1, 1, 1, 1]

    queue.ready(first)
    queue.idle(other)
    assert served(queue, 4) == [0, 0, 0, 0]

    queue.ready(other)  # which the preferred one has not waited for
    assert served(queue, 4) == [1, 0, 0, 1]

    queue.idle(first)
    queue.idle(other)
    assert queue.select() is None


Step = tuple[str, int]


@given(
    st.integers(2, 5),
    st.lists(st.tuples(st.sampled_from(("ready", "idle", "serve", "serve", "serve")), st.integers(0, 2)), max_size=99),
)
def test_in_each_window_in_which_both_are_ready_exactly_one_is_the_others(window, steps: list[Step]):
    queue, flows = made(window, 3)
    ready: set[int] = set()
    history: list[tuple[int, bool]] = []  # who was served, and whether both sides were ready

    for what, key in steps:
        if what == "ready":
            queue.ready(flows[key])
            ready.add(key)
        elif what == "idle":
            queue.idle(flows[key])
            ready.discard(key)
        elif ready:
            both = 0 in ready and len(ready) > 1
            (number,) = served(queue, 1)
            assert number in ready
            history.append((number, both))
        else:
            assert queue.select() is None

    for row in windows(history, window):
        if all(both for _, both in row):
            assert sum(number > 0 for number, _ in row) == 1


def windows(history: list[tuple[int, bool]], size: int) -> Iterator[list[tuple[int, bool]]]:
    return (history[at : at + size] for at in range(len(history) - size + 1))


@pytest.mark.parametrize("window", [2, 3, 7])
def test_the_preferred_one_has_its_window_back_after_each_of_the_others(window):
    queue, flows = made(window, 2)
    for flow in flows:
        queue.ready(flow)

    assert served(queue, 3 * window) == ([0] * (window - 1) + [1]) * 3
