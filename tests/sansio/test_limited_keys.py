"""Which keys a limit for each key remembers; mutants of `limited_keys.py` that die here:

- a key that is forgotten while a call of it waits, or before its meters are full: its bound would be broken;
- one too many that are remembered, or one too few; a key that is never forgotten;
- a time to ask again that is too late, so that a key waits although there is room;
- an idle key that was used again, settled or paused, and is forgotten by what was known before;
- entries of the heap that grow without end.
"""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import RateLimit, RollingLimit
from funcpipe_trio._sansio.limited_keys import LimitedKeys

LIMITS = [
    [RateLimit(1)],
    [RateLimit(2, burst=2), RollingLimit(3, per=5)],
    [RollingLimit(1, per=4)],
]
ones = (1, 1)


class Model:
    """Each key, with the calls that wait and those that were made, as (instant, cost); nothing else."""

    def __init__(self, limits, max_keys):
        self.limits, self.max_keys = limits, max_keys
        self.waiting, self.taken, self.metered = {}, {}, set()

    def full_at(self, key):
        """When nothing counts any more for a key of which calls of cost 1 were made."""
        times = self.taken.get(key, [])
        at = Fraction(0)
        for limit in self.limits:
            if isinstance(limit, RollingLimit):
                at = max(at, max(times, default=-math.inf) + limit.per) if times else at
            else:
                level, since = Fraction(limit.burst), Fraction(0)
                for time in times:
                    level = min(Fraction(limit.burst), level + (time - since) * Fraction(limit.rate)) - 1
                    since = time
                at = max(at, since + (limit.burst - level) / Fraction(limit.rate)) if times else at
        return at


def take(key, now):
    """Take one token of each of its meters, if all are there."""
    costs = ones[: len(key.meters)]
    if key.ready_at(now, costs) > now:
        return False
    for meter in key.meters:
        assert meter.take(now, 1) is None
    return True


steps = st.lists(
    st.tuples(
        st.sampled_from((0, 0, 0.5, 1, 3)), st.integers(0, 4), st.sampled_from(("come", "come", "go", "give up"))
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(LIMITS), st.integers(1, 3), steps)
def test_a_key_is_remembered_as_long_as_it_must_be_and_no_longer_than_room_is_needed(limits, max_keys, script):
    """Against a list of what each key did: who has room, when there will be some, and what is there."""
    keys, model, now = LimitedKeys(max_keys, limits), Model(limits, max_keys), Fraction(1)
    waiting = []  # calls that wait, by key
    for gap, name, verb in script:
        now += Fraction(gap)
        if verb == "come":
            key = keys.enter(name)
            waiting.append(key)
        elif waiting:
            key = waiting.pop(0)
            if verb == "go":
                answer = keys.make_room(key, float(now))
                idle = [each for each in model.metered if each not in {one.key for one in waiting} | {key.key}]
                if key.key in model.metered:
                    assert answer is None
                elif len(model.metered) < max_keys:
                    assert answer is None
                    model.metered.add(key.key)
                elif any(model.full_at(each) <= now for each in idle):
                    assert answer is None
                    model.metered -= {each for each in idle if model.full_at(each) <= now}
                    model.metered.add(key.key)
                else:
                    assert answer == min((model.full_at(each) for each in idle), default=math.inf)
                if answer is None and take(key, float(now)):
                    model.taken.setdefault(key.key, []).append(now)
            keys.leave(key, float(now))
            if all(one.key != key.key for one in waiting) and model.full_at(key.key) <= now:
                model.metered.discard(key.key)
                model.taken.pop(key.key, None)
        assert len(keys) == len(model.metered) <= max_keys


def used(keys, name, now, times=1):
    """A key after some calls."""
    for _ in range(times):
        key = keys.enter(name)
        assert keys.make_room(key, now) is None
        assert take(key, now)
        keys.leave(key, now)
    return key


def test_a_key_that_is_left_full_is_forgotten_at_once():
    keys = LimitedKeys(9, [RateLimit(1)])
    key = keys.enter("a")
    assert (key.meters, len(keys)) == ((), 0)
    assert (keys.make_room(key, 1.0), len(keys), len(key.meters)) == (None, 1, 1)
    keys.leave(key, 1.0)

    assert len(keys) == 0
    assert keys.enter("a") is not key


def test_the_meters_of_a_key_are_its_own():
    keys = LimitedKeys(9, [RateLimit(1, burst=2), RollingLimit(2, per=9)])
    one, other = used(keys, "a", 1.0, times=2), used(keys, "b", 1.0)

    assert ([meter.tokens(1.0) for meter in one.meters], [meter.tokens(1.0) for meter in other.meters]) == (
        [0, 0],
        [1, 1],
    )
    assert keys.enter("a") is one
    assert one.ready_at(1.0, (1, 2)) == 10.0


def test_a_new_key_waits_until_one_is_full_and_idle():
    keys = LimitedKeys(1, [RateLimit(1)])
    used(keys, "a", 1.0)
    new = keys.enter("b")

    assert [keys.make_room(new, now) for now in (1.0, 1.5)] == [2.0, 2.0]
    again = keys.enter("a")
    assert keys.make_room(new, 3.0) == math.inf
    keys.leave(again, 3.0)
    assert (keys.make_room(new, 3.0), len(keys)) == (None, 1)


def test_a_key_that_is_given_up_before_there_was_room_leaves_nothing():
    keys = LimitedKeys(1, [RateLimit(1)])
    used(keys, "a", 1.0)
    new = keys.enter("b")
    keys.leave(new, 1.0)

    assert (len(keys), keys.enter("b") is new) == (1, False)


@pytest.mark.parametrize("seconds", [1, 5])
def test_a_key_that_was_forgotten_comes_again_with_its_pause(seconds):
    keys = LimitedKeys(1, [RateLimit(1)])
    old = used(keys, "a", 1.0)
    used(keys, "b", 3.0)
    key = keys.again(old)
    key.meters[0].pause(3.0, seconds)
    keys.changed(key, 3.0)

    assert (key is old, len(keys)) == (True, 2)
    new = keys.enter("c")
    assert keys.make_room(new, 3.5) == 4.0
    assert keys.make_room(new, 4.0) == (None if seconds == 1 else 3.0 + seconds)


def test_a_change_is_one_of_the_meters_that_count_now():
    """The key was forgotten, and came again before its first call was settled."""
    keys = LimitedKeys(2, [RateLimit(1, burst=2)])
    old = used(keys, "a", 1.0)
    assert keys.make_room(keys.enter("b"), 1.0) is None
    third = keys.enter("c")
    assert keys.make_room(third, 2.0) is None
    keys.leave(third, 2.0)
    new = used(keys, "a", 3.0)

    assert keys.again(old) is new is not old
    waiting = keys.enter("d")
    assert keys.make_room(waiting, 3.0) == 4.0


def test_a_change_gives_a_key_its_meters_that_came_again_and_waits_for_room():
    keys = LimitedKeys(1, [RateLimit(1)])
    old = used(keys, "a", 1.0)
    other = keys.enter("b")
    assert keys.make_room(other, 2.0) is None
    waiting = keys.enter("a")
    assert keys.make_room(waiting, 2.0) == math.inf

    assert (keys.again(old) is waiting, waiting.meters is old.meters, len(keys)) == (True, True, 2)
    assert keys.make_room(waiting, 2.0) is None


def test_a_settlement_that_makes_it_full_forgets_it():
    keys = LimitedKeys(2, [RateLimit(1, burst=2)])
    key = keys.again(used(keys, "a", 1.0))
    key.meters[0].give_back(1.0, 1, 1.0)
    keys.changed(key, 1.0)

    assert len(keys) == 0


def test_a_change_while_a_call_waits_forgets_nothing():
    keys = LimitedKeys(2, [RateLimit(1, burst=2)])
    key = used(keys, "a", 1.0)
    keys.enter("a")
    key.meters[0].give_back(1.0, 1, 1.0)
    keys.changed(keys.again(key), 1.0)

    assert (len(keys), keys.enter("a") is key) == (1, True)


def test_what_is_kept_does_not_grow_with_the_calls():
    keys = LimitedKeys(4, [RateLimit(1e-6, burst=10**6)])
    for number in range(10_000):
        used(keys, number % 4, float(number))

    assert (len(keys), len(keys._idle) <= 2 * 4 + 65) == (4, True)


def test_who_is_idle_is_still_known_when_what_is_kept_was_made_smaller():
    keys = LimitedKeys(2, [RateLimit(1, burst=1000)])
    used(keys, "once", 1.0)
    used(keys, "often", 1.0, times=100)
    new = keys.enter("new")

    assert keys.make_room(new, 1.5) == 2.0
    assert (keys.make_room(new, 2.0), len(keys)) == (None, 2)


def test_only_keys_are_hashed():
    with pytest.raises(TypeError, match="unhashable"):
        LimitedKeys(1, [RateLimit(1)]).enter([])
