"""The laws of the lanes, each with the mutants of `key_order.py` that it kills.

| law | mutant |
|---|---|
| it does what the slow model does | a second item of a busy key; the newest first; a wrong count |
| the same | a withdrawal that leaves a key without its next item, or frees a busy one |
| an idle key leaves nothing behind | a lane that stays when it is empty |
| items are opaque, keys are only hashed | a heap or a sort that compares whole places |
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio._sansio.key_order import KeyOrder

KEYS = ["a", 1, None, ("x", 2), b"b", 2.5]  # they have a hash, and no order


class Opaque:
    """An item that nobody may look into."""

    __hash__ = None

    def __init__(self, position):
        self.position = position

    def __eq__(self, other):
        raise AssertionError("an item was compared")

    __lt__ = __gt__ = __bool__ = __eq__


def filled(keys):
    """KeyOrder with an item for each of these keys; the items are their positions."""
    lanes = KeyOrder()
    for position, key in enumerate(keys):
        lanes.add(key, position, position)
    return lanes


def state(lanes):
    return len(lanes), lanes.keys, lanes.ready


def test_new_lanes_are_empty():
    assert state(KeyOrder()) == (0, 0, False)
    assert KeyOrder().withdraw(lambda position: True) == []


def test_items_of_one_key_go_one_at_a_time_and_in_order():
    lanes, worked_on = filled("aaa"), []
    while lanes.ready:
        worked_on.append(lanes.take())
        assert not lanes.ready
        lanes.done("a")

    assert worked_on == [0, 1, 2]
    assert state(lanes) == (0, 0, False)


def test_the_oldest_item_whose_key_is_free_goes_first():
    """No key waits for another's queue."""
    lanes = filled("aaabbc")

    assert [lanes.take(), lanes.take(), lanes.take()] == [0, 3, 5]
    assert state(lanes) == (3, 3, False)
    lanes.done("b")
    lanes.done("a")
    assert [lanes.take(), lanes.take()] == [1, 4]
    assert state(lanes) == (1, 3, False)


def test_a_key_that_is_worked_on_keeps_its_next_item_waiting():
    lanes = filled("a")
    lanes.take()
    assert state(lanes) == (0, 1, False)

    lanes.add("a", 1, "next")

    assert state(lanes) == (1, 1, False)
    lanes.done("a")
    assert (lanes.ready, lanes.take()) == (True, "next")


def test_what_is_withdrawn_comes_back_oldest_first_and_the_others_stay():
    """Of a key whose first is given up the next is free; a busy key stays busy."""
    lanes = filled("abababc")
    assert lanes.take() == 0

    assert lanes.withdraw(lambda position: position in (1, 2, 5, 6)) == [1, 2, 5, 6]
    assert state(lanes) == (2, 2, True)
    assert lanes.take() == 3
    assert not lanes.ready
    lanes.done("a")
    assert lanes.take() == 4
    lanes.done("a")
    lanes.done("b")
    assert state(lanes) == (0, 0, False)


def test_when_all_is_withdrawn_only_busy_keys_are_left():
    lanes = filled("aabbc")
    lanes.take()

    assert lanes.withdraw(lambda position: True) == [1, 2, 3, 4]
    assert state(lanes) == (0, 1, False)
    lanes.done("a")
    assert lanes.keys == 0


def test_when_nothing_is_unwanted_nothing_changes():
    lanes = filled("aabbc")

    assert lanes.withdraw(lambda position: False) == []
    assert state(lanes) == (5, 3, True)
    assert [lanes.take() for _ in range(3)] == [0, 2, 4]


def test_an_item_may_be_anything():
    """None, False and what cannot be compared are items; NaN is a key."""
    lanes, nan = KeyOrder(), float("nan")
    for position, item in enumerate([None, False, Opaque(2)]):
        lanes.add(nan, position, item)
    for position in range(3, 6):
        lanes.add(KEYS[position], position, Opaque(position))
    (gone,) = lanes.withdraw(lambda position: position == 3)

    taken = []
    while lanes.ready:
        taken.append(lanes.take())
        lanes.done(nan if len(taken) in (1, 2, 3) else KEYS[taken[-1].position])

    assert gone.position == 3
    assert [item if item is None or item is False else item.position for item in taken] == [None, False, 2, 4, 5]
    assert state(lanes) == (0, 0, False)


def test_ten_thousand_keys_leave_nothing_behind():
    """A lane lives as long as its key has an item; none is left of keys that come once."""
    lanes = filled(range(10_000))
    assert state(lanes) == (10_000, 10_000, True)

    assert [lanes.take() for _ in range(10_000)] == list(range(10_000))
    for key in reversed(range(10_000)):
        lanes.done(key)

    assert state(lanes) == (0, 0, False)
    assert all(not held for held in vars(lanes).values())


def test_keys_that_come_and_go_hold_one_lane():
    lanes = KeyOrder()
    for position in range(10_000):
        lanes.add(position, position, position)
        assert (lanes.keys, lanes.take()) == (1, position)
        lanes.done(position)

    assert all(not held for held in vars(lanes).values())


class Model:
    """The rule, looked up in a list of all that waits, each time."""

    def __init__(self):
        self.waiting = []  # (position, key), oldest first
        self.busy = set()

    def free(self):
        firsts = {}
        for position, key in self.waiting:
            firsts.setdefault(key, position)
        return [position for key, position in firsts.items() if key not in self.busy]

    def state(self):
        return len(self.waiting), len(self.busy | {key for _, key in self.waiting}), bool(self.free())


events = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 5)),
    st.tuples(st.just("add"), st.integers(0, 5)),
    st.tuples(st.just("take"), st.just(0)),
    st.tuples(st.just("done"), st.integers(0, 5)),
    st.tuples(st.just("behind"), st.integers(0, 80)),
    st.tuples(st.just("some"), st.integers(2, 5)),
)


@settings(max_examples=150, deadline=None)
@given(trace=st.lists(events, max_size=80))
def test_the_lanes_do_what_the_rule_says(trace):
    """Per key in order and one at a time, the oldest free item first, through every withdrawal."""
    lanes, model = KeyOrder(), Model()
    for position, (event, number) in enumerate(trace):
        if event == "add":
            lanes.add(KEYS[number], position, Opaque(position))
            model.waiting.append((position, KEYS[number]))
        elif event == "take" and model.free():
            oldest = min(model.free())
            assert lanes.take().position == oldest
            key = dict(model.waiting)[oldest]
            model.waiting.remove((oldest, key))
            model.busy.add(key)
        elif event == "done" and model.busy:
            key = sorted(model.busy, key=repr)[number % len(model.busy)]
            lanes.done(key)
            model.busy.remove(key)
        elif event in ("behind", "some"):

            def is_unwanted(place, event=event, number=number):
                return place > number if event == "behind" else place % number == 0

            gone = [place for place, _ in model.waiting if is_unwanted(place)]
            assert [item.position for item in lanes.withdraw(is_unwanted)] == gone
            model.waiting = [(place, key) for place, key in model.waiting if not is_unwanted(place)]
        assert state(lanes) == model.state()


@pytest.mark.parametrize("count", [1, 2, 100])
def test_whoever_is_done_frees_one_item(count):
    """Not two of a key, however many of it wait."""
    lanes = filled("a" * count)
    for expected in range(count):
        assert (lanes.ready, lanes.take(), lanes.ready) == (True, expected, False)
        lanes.done("a")

    assert state(lanes) == (0, 0, False)
