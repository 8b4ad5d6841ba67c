"""The laws of the keys in use and of deadlines that move, each with the mutants that it kills.

| law | mutant |
|---|---|
| at most `max_keys` are in use | a limit that is off by one; a key that is forgotten keeps its place |
| who was idle longest makes room | the one that came first; a touch that changes nothing |
| the first deadline is the earliest of those set last | one that moved, or whose owner is gone, still counts |
| what is out of date does not pile up | a heap that grows with every move |
"""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio import TooManyKeys
from funcpipe_trio._sansio.deadlines import Deadlines
from funcpipe_trio._sansio.live_keys import LiveKeys


class Kept:
    """Something that is kept; it can be neither compared nor told apart by anything but its identity."""

    def __init__(self, key):
        self.key = key


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=60), st.integers(1, 4))
def test_the_key_that_was_idle_longest_makes_room(steps, max_keys):
    keys, came, touched = LiveKeys(max_keys, "a place", fails=False), [], []
    for key, leaves in steps:
        kept = keys.of(key)
        if kept is None:
            idle = keys.in_the_way()
            assert (idle and idle.key) == (touched[0] if len(came) == max_keys else None)
            if idle is not None:
                keys.forget(idle)
                came.remove(idle.key)
                touched.remove(idle.key)
            keys.add(Kept(key))
            came.append(key)
        else:
            keys.touch(kept)
            touched.remove(key)
        touched.append(key)
        if leaves:
            keys.forget(keys.of(key))
            came.remove(key)
            touched.remove(key)
        assert [each.key for each in keys.kept] == came
        assert len(keys) == len(came) <= max_keys

    assert [each.key for each in keys.clear()] == came
    assert (len(keys), keys.kept, keys.of(0)) == (0, [], None)


def test_one_too_many_may_be_an_error():
    keys = LiveKeys(1, "a place", fails=True)
    assert keys.in_the_way() is None
    keys.add(Kept("secret"))

    with pytest.raises(TooManyKeys, match=r"^1 key has a place, which is max_keys, and another key came\nUse a larger"):
        keys.in_the_way()


times = st.sampled_from([-math.inf, 0.0, 1.0, 2.0, 2.0, 5.0, math.inf])


@given(st.lists(st.tuples(st.integers(0, 4), st.one_of(st.none(), times)), max_size=80))
def test_the_first_deadline_is_the_earliest_of_those_set_last(steps):
    deadlines, model, owners = Deadlines(), {}, [Kept(number) for number in range(5)]
    for number, at in steps:
        if at is None:
            deadlines.forget(owners[number])
            model.pop(number, None)
        else:
            deadlines.set(owners[number], at)
            model[number] = at
        assert deadlines.first == min(model.values(), default=math.inf)
        assert deadlines.at(owners[number]) == model.get(number, math.inf)
        for now in (0.0, 2.0):
            owner = deadlines.owner_due(now)
            assert (owner is None) == (deadlines.first > now)
            assert owner is None or model[owner.key] == deadlines.first


def test_moves_do_not_pile_up():
    """A hundred thousand moves of one, behind another that stays."""
    deadlines, one, other = Deadlines(), Kept(1), Kept(2)
    deadlines.set(other, 0.0)
    for at in range(1, 100_000):
        deadlines.set(one, float(at))

    assert len(deadlines._heap) < 100
    assert (deadlines.first, deadlines.at(one)) == (0.0, 99_999.0)
