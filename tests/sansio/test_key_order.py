"""The laws of the lanes, each with the mutants of `key_order.py` that it kills.

| law | mutant |
|---|---|
| it does what the slow model does | a second item of a busy key; the newest first; a wrong count |
| the same | a withdrawal that leaves a key without its next item, or frees a busy one |
| an idle key leaves nothing behind | a lane that stays when it is empty, or its bucket full |
| so many of a key at once, at its rate | a limit off by one; a token taken too early or twice; a deadline of another |
| items are opaque, keys are only hashed | a heap or a sort that compares whole places |
"""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import RateLimit, RollingLimit
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
        lanes.add(key, position, position, 0)
    return lanes


def state(lanes):
    return len(lanes), lanes.keys, lanes.ready


def holds_nothing(lanes):
    return not any(held for held in vars(lanes).values() if hasattr(held, "__len__"))


def test_new_lanes_are_empty():
    assert state(KeyOrder()) == (0, 0, False)
    assert KeyOrder().withdraw(lambda position: True, 0) == []


def test_items_of_one_key_go_one_at_a_time_and_in_order():
    lanes, worked_on = filled("aaa"), []
    while lanes.ready:
        worked_on.append(lanes.take(0))
        assert not lanes.ready
        lanes.done("a", 0)

    assert worked_on == [0, 1, 2]
    assert state(lanes) == (0, 0, False)


def test_the_oldest_item_whose_key_is_free_goes_first():
    """No key waits for another's queue."""
    lanes = filled("aaabbc")

    assert [lanes.take(0), lanes.take(0), lanes.take(0)] == [0, 3, 5]
    assert state(lanes) == (3, 3, False)
    lanes.done("b", 0)
    lanes.done("a", 0)
    assert [lanes.take(0), lanes.take(0)] == [1, 4]
    assert state(lanes) == (1, 3, False)


def test_a_key_that_is_worked_on_keeps_its_next_item_waiting():
    lanes = filled("a")
    lanes.take(0)
    assert state(lanes) == (0, 1, False)

    lanes.add("a", 1, "next", 0)

    assert state(lanes) == (1, 1, False)
    lanes.done("a", 0)
    assert (lanes.ready, lanes.take(0)) == (True, "next")


def test_what_is_withdrawn_comes_back_oldest_first_and_the_others_stay():
    """Of a key whose first is given up the next is free; a busy key stays busy."""
    lanes = filled("abababc")
    assert lanes.take(0) == 0

    assert lanes.withdraw(lambda position: position in (1, 2, 5, 6), 0) == [1, 2, 5, 6]
    assert state(lanes) == (2, 2, True)
    assert lanes.take(0) == 3
    assert not lanes.ready
    lanes.done("a", 0)
    assert lanes.take(0) == 4
    lanes.done("a", 0)
    lanes.done("b", 0)
    assert state(lanes) == (0, 0, False)


def test_when_all_is_withdrawn_only_busy_keys_are_left():
    lanes = filled("aabbc")
    lanes.take(0)

    assert lanes.withdraw(lambda position: True, 0) == [1, 2, 3, 4]
    assert state(lanes) == (0, 1, False)
    lanes.done("a", 0)
    assert lanes.keys == 0


def test_when_nothing_is_unwanted_nothing_changes():
    lanes = filled("aabbc")

    assert lanes.withdraw(lambda position: False, 0) == []
    assert state(lanes) == (5, 3, True)
    assert [lanes.take(0) for _ in range(3)] == [0, 2, 4]


def test_an_item_may_be_anything():
    """None, False and what cannot be compared are items; NaN is a key."""
    lanes, nan = KeyOrder(), float("nan")
    for position, item in enumerate([None, False, Opaque(2)]):
        lanes.add(nan, position, item, 0)
    for position in range(3, 6):
        lanes.add(KEYS[position], position, Opaque(position), 0)
    (gone,) = lanes.withdraw(lambda position: position == 3, 0)

    taken = []
    while lanes.ready:
        taken.append(lanes.take(0))
        lanes.done(nan if len(taken) in (1, 2, 3) else KEYS[taken[-1].position], 0)

    assert gone.position == 3
    assert [item if item is None or item is False else item.position for item in taken] == [None, False, 2, 4, 5]
    assert state(lanes) == (0, 0, False)


def test_ten_thousand_keys_leave_nothing_behind():
    """A lane lives as long as its key has an item; none is left of keys that come once."""
    lanes = filled(range(10_000))
    assert state(lanes) == (10_000, 10_000, True)

    assert [lanes.take(0) for _ in range(10_000)] == list(range(10_000))
    for key in reversed(range(10_000)):
        lanes.done(key, 0)

    assert state(lanes) == (0, 0, False)
    assert holds_nothing(lanes)


def test_keys_that_come_and_go_hold_one_lane():
    lanes = KeyOrder()
    for position in range(10_000):
        lanes.add(position, position, position, 0)
        assert (lanes.keys, lanes.take(0)) == (1, position)
        lanes.done(position, 0)

    assert holds_nothing(lanes)


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
            lanes.add(KEYS[number], position, Opaque(position), 0)
            model.waiting.append((position, KEYS[number]))
        elif event == "take" and model.free():
            oldest = min(model.free())
            assert lanes.take(0).position == oldest
            key = dict(model.waiting)[oldest]
            model.waiting.remove((oldest, key))
            model.busy.add(key)
        elif event == "done" and model.busy:
            key = sorted(model.busy, key=repr)[number % len(model.busy)]
            lanes.done(key, 0)
            model.busy.remove(key)
        elif event in ("behind", "some"):

            def is_unwanted(place, event=event, number=number):
                return place > number if event == "behind" else place % number == 0

            gone = [place for place, _ in model.waiting if is_unwanted(place)]
            assert [item.position for item in lanes.withdraw(is_unwanted, 0)] == gone
            model.waiting = [(place, key) for place, key in model.waiting if not is_unwanted(place)]
        assert state(lanes) == model.state()


@pytest.mark.parametrize("count", [1, 2, 100])
def test_whoever_is_done_frees_one_item(count):
    """Not two of a key, however many of it wait."""
    lanes = filled("a" * count)
    for expected in range(count):
        assert (lanes.ready, lanes.take(0), lanes.ready) == (True, expected, False)
        lanes.done("a", 0)

    assert state(lanes) == (0, 0, False)


# ---- several at once, and a rate


class RatedModel:
    """The rule with `per_key` and a rate: the start of each item of each key, and what waits, in lists."""

    def __init__(self, per_key, limit):
        self.per_key, self.limit = per_key, limit
        self.waiting = []  # (position, key), oldest first
        self.busy = []  # the keys of what is being worked on
        self.starting = set()  # keys of which an item was taken and has not begun
        self.starts = {}  # when items of each key began

    def tokens(self, key, now):
        rate, level, before = Fraction(self.limit.rate) / Fraction(self.limit.per), Fraction(self.limit.burst), None
        for at in [*self.starts.get(key, ()), now]:
            if before is not None:
                level = min(Fraction(self.limit.burst), level + rate * (Fraction(at) - before))
            before = Fraction(at)
            level -= 1
        return level + 1

    def firsts(self):
        firsts = {}
        for position, key in self.waiting:
            firsts.setdefault(key, position)
        return {
            key: position
            for key, position in firsts.items()
            if self.busy.count(key) < self.per_key and key not in self.starting
        }

    def free(self, now):
        return [at for key, at in self.firsts().items() if self.limit is None or self.tokens(key, now) >= 1]

    def deadline(self, now):
        rate = Fraction(self.limit.rate) / Fraction(self.limit.per)
        short = [1 - self.tokens(key, now) for key in self.firsts()]
        return min((Fraction(now) + missing / rate for missing in short if missing > 0), default=None)


rated_events = st.one_of(
    *[st.tuples(st.just("add"), st.integers(0, 3))] * 3,
    *[st.tuples(st.just("take"), st.just(0))] * 2,
    *[st.tuples(st.just("begin"), st.integers(0, 9))] * 2,
    st.tuples(st.just("done"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.sampled_from([0.125, 0.5, 1, 4])),
    st.tuples(st.just("until"), st.just(0)),
)


@settings(max_examples=250, deadline=None)
@given(
    trace=st.lists(rated_events, max_size=70),
    per_key=st.integers(1, 3),
    limit=st.one_of(
        st.none(),
        st.builds(lambda rate, burst: RateLimit(rate, burst=burst), st.sampled_from([0.5, 1, 2, 3]), st.integers(1, 3)),
    ),
)
def test_at_most_so_many_of_a_key_at_once_and_at_its_rate(trace, per_key, limit):
    """P12 for each key, at the begin of the call; the oldest free one first; nobody waits longer than it has to."""
    lanes, model, now, begun = KeyOrder(per_key, limit), RatedModel(per_key, limit), 0.0, []
    for position, (event, number) in enumerate(trace):
        if event == "add":
            lanes.add(KEYS[number], position, (position, KEYS[number]), now)
            model.waiting.append((position, KEYS[number]))
        elif event == "take" and model.free(now):
            oldest = min(model.free(now))
            taken = lanes.take(now)
            assert taken[0] == oldest
            model.waiting.remove(taken)
            model.busy.append(taken[1])
            if limit is not None:
                model.starting.add(taken[1])
        elif event == "begin" and model.starting:
            key = sorted(model.starting, key=repr)[number % len(model.starting)]
            lanes.begun(key, now)
            model.starting.remove(key)
            model.starts.setdefault(key, []).append(now)
            begun.append(key)
        elif event == "done":
            able = [key for key in KEYS if model.busy.count(key) > (key in model.starting)]
            if able:
                key = able[number % len(able)]
                lanes.done(key, now)
                model.busy.remove(key)
        elif event == "wait" or (event == "until" and lanes.deadline < 1e9):
            now = now + number if event == "wait" else max(now, lanes.deadline)
            lanes.advance(now)
        assert (len(lanes), lanes.ready) == (len(model.waiting), bool(model.free(now)))
        if limit is not None:
            deadline = model.deadline(now)
            if deadline is not None:
                assert lanes.deadline == pytest.approx(float(deadline), rel=1e-12)
                assert Fraction(lanes.deadline) >= deadline  # never early
        live = {key for _, key in model.waiting} | set(model.busy)
        full = {key for key in model.starts if model.tokens(key, now) < limit.burst} if limit is not None else set()
        assert live <= set(lanes._lanes) and len(live | full) <= lanes.keys

    gone = lanes.withdraw(lambda position: True, now)
    assert gone == model.waiting


def test_keys_whose_bucket_is_full_again_are_forgotten():
    """Ten thousand keys that come once: no more lanes than starts in the time in which a bucket fills."""
    lanes, most = KeyOrder(1, RateLimit(2, burst=2)), 0
    for number in range(10_000):
        now = number / 10
        lanes.add(number, number, number, now)
        assert lanes.take(now) == number
        lanes.begun(number, now)
        lanes.done(number, now)
        most = max(most, lanes.keys)

    assert most == 1 + 5  # 0.5 s for the token that is missing: five starts, and this one


def test_a_key_that_comes_back_before_its_bucket_is_full_finds_what_it_left():
    lanes = KeyOrder(1, RateLimit(1, burst=1))
    for position, now in enumerate((0.0, 0.5)):
        lanes.add("a", position, position, now)
        if position == 0:
            assert lanes.take(now) == 0
            lanes.begun("a", now)
            lanes.done("a", now)

    assert (lanes.ready, lanes.deadline) == (False, 1.0)
    lanes.advance(1.0)
    assert (lanes.ready, lanes.take(1.0)) == (True, 1)


def test_each_key_has_its_own_rolling_window():
    """Its records are not shared with the key that was there before, nor with the next one."""
    lanes = KeyOrder(9, RollingLimit(2, per=3))
    for position, key in enumerate("aaab"):
        lanes.add(key, position, position, 1.0)
    begun = []
    while lanes.ready:
        item = lanes.take(1.0)
        lanes.begun("aaab"[item], 1.0)
        begun.append(item)

    assert (begun, lanes.deadline) == ([0, 1, 3], 4.0)
    lanes.advance(4.0)
    assert lanes.take(4.0) == 2
    lanes.begun("a", 4.0)
    for key in "aaab":
        lanes.done(key, 4.0)
    assert lanes.keys == 1
    lanes.add("c", 9, 9, 7.0)
    assert lanes.keys == 1


def test_so_many_of_a_key_are_worked_on_at_once():
    """Its lane lives as long as one of them is worked on, or one is free."""
    lanes = KeyOrder(2)
    for position in range(4):
        lanes.add("a", position, position, 0)

    assert (lanes.take(0), lanes.ready, lanes.take(0), lanes.ready) == (0, True, 1, False)
    lanes.done("a", 0)
    assert (lanes.take(0), lanes.ready) == (2, False)
    lanes.done("a", 0)
    lanes.done("a", 0)
    assert state(lanes) == (1, 1, True)
    assert lanes.take(0) == 3
    lanes.add("a", 4, 4, 0)
    lanes.done("a", 0)
    assert state(lanes) == (1, 1, True)
    assert lanes.take(0) == 4
    lanes.add("a", 5, 5, 0)
    assert lanes.take(0) == 5
    lanes.done("a", 0)
    assert state(lanes) == (0, 1, False)
    lanes.done("a", 0)
    assert state(lanes) == (0, 0, False)


def rested(*keys):
    """Lanes at one call per second, of which each of these keys has had its call at 0."""
    lanes = KeyOrder(1, RateLimit(1, burst=1))
    for position, key in enumerate(keys):
        lanes.add(key, position, position, 0.0)
        assert lanes.take(0.0) == position
        lanes.begun(key, 0.0)
        lanes.done(key, 0.0)
    return lanes


def test_items_that_are_free_at_the_same_time_go_in_their_order():
    """And not before that time, which is not a position; the items are not compared."""
    lanes = rested("a", "b")
    for position, key in ((5, "b"), (7, "a")):
        lanes.add(key, position, Opaque(position), 0.5)
    lanes.advance(0.875)
    assert (lanes.ready, lanes.deadline) == (False, 1.0)

    lanes.advance(1.0)

    assert [lanes.take(1.0).position, lanes.take(1.0).position] == [5, 7]


def test_a_key_that_came_back_is_not_forgotten_when_its_bucket_is_full():
    lanes = rested("a")
    lanes.add("a", 1, 1, 0.5)
    lanes.advance(1.0)

    lanes.add("b", 2, 2, 9.0)

    assert state(lanes) == (2, 2, True)
    assert lanes.take(9.0) == 1
    lanes.begun("a", 9.0)


def test_a_key_is_forgotten_once_when_all_lanes_are_looked_through():
    lanes = rested("a")

    assert lanes.withdraw(lambda position: True, 0.5) == []
    assert lanes.keys == 1
    assert lanes.withdraw(lambda position: True, 9.0) == []
    assert lanes.keys == 0
    lanes.add("b", 1, 1, 9.0)
    assert state(lanes) == (1, 1, True)
