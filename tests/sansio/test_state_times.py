"""For how long a whole was in each of its states, against a model that adds one stretch of time to the next.

Mutants of `state_times.py` that die here: a stretch that is counted for the state after it; what was noted last left
out of a reading, or counted twice; states that are forgotten without their sums; a field read at another place; a
rest that does not end, or that begins although there is time for all; what a rest missed not read from the parts.
"""

from collections import Counter
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio import state_times
from funcpipe_trio._sansio.state_times import COST_OF_FIELD, COST_OF_NOTE, FEWEST, MOST, StateTimes

FIELDS = 3
STEPS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, FIELDS - 1), st.integers(0, 3), st.booleans()))


def explained(state: int) -> list[tuple[tuple[int, int], float]]:
    """Count each field by its value, the first one twice."""
    return [((each, state >> 2 * each & 3), 2.0 if not each else 1.0) for each in range(FIELDS)]


def summed(times: StateTimes, now: float) -> dict[object, float]:
    seconds, sums = times.read(now)
    state_times.add_up(sums, seconds, explained)
    return {key: value for key, value in sums.items() if value}


class Parts:
    """Parts that say what their fields are, and what they came to."""

    def __init__(self, share: float = inf) -> None:
        self.values = [0] * FIELDS
        self.times: StateTimes = StateTimes()
        self.shifts = [self.times.allot(2, lambda each=each: self.values[each]) for each in range(FIELDS)]
        self.times.begin(0.0, explained, share)
        self.model = Counter()

    def let_pass(self, seconds: float) -> None:
        for each, value in enumerate(self.values):
            self.model[each, value] += seconds * (2 if not each else 1)

    def change(self, now: float, field: int, value: int) -> None:
        by, self.values[field] = value - self.values[field], value
        self.times.change(now, by << self.shifts[field])


@given(STEPS)
def test_all_time_is_counted_for_the_state_in_it(steps):
    parts, now = Parts(), 0.0
    for quarters, field, value, is_read in steps:
        parts.let_pass(quarters / 4)
        now += quarters / 4
        parts.change(now, field, value)
        if is_read:
            assert summed(parts.times, now) == +parts.model
    assert summed(parts.times, now) == +parts.model


def test_its_memory_is_bounded_and_nothing_is_lost():
    whole: StateTimes = StateTimes()
    number = [0]
    whole.allot(20, lambda: number[0])
    whole.begin(0.0, lambda state: [("odd" if state % 2 else "even", 1.0)])

    for now in range(1, 5001):
        whole.change(float(now), 1)
        assert len(whole._seconds) <= MOST
        assert len(whole._notes) < 2 * MOST

    seconds, sums = whole.read(5000.0)
    assert len(seconds) <= MOST
    assert sum(seconds.values()) + sum(sums.values()) == 5000
    assert sums["odd"] > 2000 < sums["even"]


def test_one_that_changes_very_often_is_watched_for_a_part_of_the_time():
    """So that it costs that part; the parts are asked when it is watched again."""
    parts = Parts(share=COST_OF_NOTE * 1000)
    for number in range(1 << 17):
        parts.change(number / 10_000, 0, number % 2)

    watched = summed(parts.times, (1 << 17) / 10_000)
    assert abs(sum(watched.values()) / (2 + FIELDS - 1) / 13.1 - 0.1) < 0.01  # a tenth: 10,000 changes for 1000 paid
    assert abs(watched[0, 0] - watched[0, 1]) < 0.1


def test_one_that_takes_its_time_is_watched_always():
    parts = Parts(share=COST_OF_NOTE * 1000)
    for number in range(1 << 12):
        parts.change(number / 900, 0, number % 2)

    seconds = ((1 << 12) - 1) / 900
    assert abs(sum(summed(parts.times, seconds).values()) - seconds * (2 + FIELDS - 1)) < 1e-6


def test_states_that_are_explained_cost_more():
    """Each is another one, so each is explained, at a price for each of the ten parts."""
    whole: StateTimes = StateTimes()
    number = [0]
    for _ in range(9):
        whole.allot(1, lambda: 0)
    whole.allot(40, lambda: number[0])
    price = COST_OF_NOTE + 10 * COST_OF_FIELD
    whole.begin(0.0, lambda state: [("all", 1.0)], share=price * 10)
    for step in range(1, 100_000):
        number[0] += 1
        whole.change(step / 100, 1 << 9)

    seconds, sums = whole.read(1000.0)
    assert 80 < sum(seconds.values()) + sum(sums.values()) < 150  # a tenth of 1000 seconds


def test_fewer_are_explained_at_once_where_there_are_many_parts():
    whole: StateTimes = StateTimes()
    for _ in range(1000):
        whole.allot(1, lambda: 0)
    whole.begin(0.0, lambda state: [])

    assert whole.most == FEWEST
