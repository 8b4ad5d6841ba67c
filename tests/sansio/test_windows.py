"""The laws of windows, each with the mutants of `windows.py` that it kills.

| law | mutant |
|---|---|
| a window holds what came within one period | an end one multiple off; an item at a multiple in the earlier one |
| a window ends at the multiple itself | a deadline that counts from the first item, or is kept over a close |
| sliding is slicing | a step that is one off; a gap that is skipped twice, or not at all |
| an item is new in one window, or in none | overlap counted again; the rest of the last window given out |
"""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.windows import SlidingWindows, TumblingWindows

times = st.lists(st.integers(0, 200), max_size=30).map(lambda each: sorted(time / 8 for time in each))


def tumbled(windows, arrivals):
    """Return the windows with the times at which they closed, as a task would see them that looks at every eighth."""
    arrivals, now, closed = [*arrivals], 0.0, []
    while arrivals or windows.items:
        if windows.is_due(now):
            closed.append((now, windows.close()))
        while arrivals and arrivals[0] == now:
            closed += [(now, window) for window in windows.add(arrivals.pop(0), 1, now)]
        now += 1 / 8
    return closed


@given(arrivals=times, period=st.integers(1, 40).map(lambda eighths: eighths / 8))
def test_a_window_holds_what_came_within_one_period_and_ends_with_it(arrivals, period):
    """Each item is in the window of its instant; at a multiple, in the later one; none is empty."""
    expected = {}
    for time in arrivals:
        expected.setdefault((time // period + 1) * period, []).append(time)

    assert tumbled(TumblingWindows(None, period, 0.0), arrivals) == [*expected.items()]


@given(arrivals=times, max_items=st.integers(1, 4))
def test_a_full_window_closes_at_once_and_the_next_ends_at_the_same_multiple(arrivals, max_items):
    """No window is larger than allowed; only the last of a period may be smaller."""
    expected = []
    for period in sorted({time // 2 for time in arrivals}):
        within = [time for time in arrivals if time // 2 == period]
        for start in range(0, len(within), max_items):
            part = within[start : start + max_items]
            expected.append((part[-1] if len(part) == max_items else (period + 1) * 2, part))

    assert tumbled(TumblingWindows(max_items, 2.0, 0.0), arrivals) == expected


def test_an_item_that_comes_late_to_a_window_opens_the_next():
    """The caller that adds it need not have looked at the time: a period may end in the middle of a burst."""
    windows = TumblingWindows(2, 1.0, 10.0)

    assert windows.add("a", 1, 10.5) == []
    assert windows.add("b", 1, 13.0) == [["a"]]
    assert (windows.items, windows.deadline) == (["b"], 14.0)


@given(began=st.floats(0, 1e6), period=st.floats(1e-3, 1e3), after=st.floats(0, 1e4))
def test_an_end_is_the_next_multiple_whatever_the_rounding(began, period, after):
    """Never at or before the item, never more than one period behind it."""
    windows = TumblingWindows(None, period, began)
    now = began + after
    windows.add("item", 1, now)

    number = round((windows.deadline - began) / period)

    assert windows.deadline == began + number * period > now
    assert began + (number - 1) * period <= now


@pytest.mark.parametrize(
    ("period", "now", "multiple"),
    [(0.1, 58.9, 589), (0.7, 181.99999999999997, 260), (0.05, 32.9, 659), (0.05, 143.1, 2863)],
)
def test_a_quotient_that_was_rounded_moves_no_item_to_another_window(period, now, multiple):
    """The first two are just before a multiple, but divided they are at it; the others are at one, but just before."""
    windows = TumblingWindows(None, period, 0.0)
    windows.add("item", 1, now)

    assert windows.deadline == multiple * period


@pytest.mark.parametrize("period", [5e-324, 1e-300, 1e-9])
def test_a_period_too_short_to_tell_its_multiples_apart_ends_right_after(period):
    """Above 2**53 periods, or where their number is infinite, the next multiple is the next float."""
    windows = TumblingWindows(None, period, 0.0)

    windows.add("a", 1, 1e8)

    assert 1e8 < windows.deadline <= 1e8 + 2e-8


def test_multiple_that_is_the_last_a_float_can_count_ends_right_after():
    """At 2**53 periods sharp the next multiple is no float of its own: a rounded one may be two floats away."""
    windows = TumblingWindows(None, 1.5, 0.0)
    now = 1.5 * 2.0**53
    windows.add("a", 1, now)

    assert windows.deadline == math.nextafter(now, math.inf)


@given(count=st.integers(0, 40), size=st.integers(1, 6), step=st.integers(1, 9))
def test_sliding_is_slicing(count, size, step):
    """The windows are the full slices at every step; each item is new in one of them, skipped, or left over."""
    windows, got, skipped, new = SlidingWindows(size, step), [], [], []
    for item in range(count):
        if windows.gap:
            windows.skip()
            skipped.append(item)
        elif (completed := windows.add(item)) is not None:
            window, fresh = completed
            got.append(window)
            new += window[len(window) - fresh :]
    left = windows.close()

    assert got == [tuple(range(start, start + size)) for start in range(0, count - size + 1, step)]
    assert sorted([*new, *skipped, *left]) == [*range(count)]
    assert windows.close() == []
