"""The laws of the batches by key, each with the mutants of `keyed_batcher.py` that it kills.

| law | mutant |
|---|---|
| it does what the slow model does | the newest key goes out, or the one whose first item is oldest; a key not touched |
| the same | an item that fills a batch alone takes a place; one of a known key makes room |
| the deadline is that of the oldest first item | a batch that began anew keeps its place; a closed one is still due |
| at most `max_keys` batches are open | a place that is not given back; a limit that is off by one |
| an idle key leaves nothing behind | a key kept without items |
| items are opaque, keys are only hashed | an order by keys |
"""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import TooManyKeys
from funcpipe_trio._sansio.keyed_batcher import KeyedBatcher

KEYS = ["a", 1, None, ("x", 2), b"b", 2.5]  # they have a hash, and no order


def put(batcher, key, item, cost=1, now=0.0):
    batch = batcher.of(key)
    return batcher.begin(key, item, cost, now) if batch is None else batcher.add(batch, item, cost, now)


def rest(batcher):
    left = []
    while batcher.items:
        left.append(batcher.close())
    return left


class Model:
    """The definition: open batches in a list, in the order of their first items."""

    def __init__(self, max_items, max_cost, max_delay, max_keys, fails):
        self.max_items = max_items or math.inf
        self.max_cost = max_cost or math.inf
        self.max_delay = math.inf if max_delay is None else max_delay
        self.max_keys, self.fails = max_keys, fails
        self.open = []  # [key, number of the last item, deadline, items, costs]
        self.number = 0

    def put(self, key, item, cost, now):
        self.number += 1
        closed = []
        mine = next((each for each in self.open if each[0] == key), None)
        if mine is not None and sum(mine[4]) + cost > self.max_cost:
            self.open.remove(mine)
            closed.append(mine[3])
            mine = None
        if mine is None:
            mine = [key, 0, now + self.max_delay, [], []]
            if self.max_items > 1 and cost < self.max_cost and len(self.open) == self.max_keys:
                if self.fails:
                    raise TooManyKeys(self.max_keys, "")
                idle = min(self.open, key=lambda each: each[1])
                self.open.remove(idle)
                closed.append(idle[3])
            self.open.append(mine)
        mine[1] = self.number
        mine[3].append(item)
        mine[4].append(cost)
        if len(mine[3]) >= self.max_items or sum(mine[4]) >= self.max_cost:
            self.open.remove(mine)
            closed.append(mine[3])
        return closed

    def due(self, now):
        gone = [each for each in self.open if each[2] <= now]
        self.open = [each for each in self.open if each[2] > now]
        return [each[3] for each in gone]

    @property
    def deadline(self):
        return min((each[2] for each in self.open), default=math.inf)


steps = st.lists(
    st.tuples(st.sampled_from(KEYS), st.integers(0, 6), st.sampled_from([0, 0, 0.5, 1, 3]), st.booleans()), max_size=40
)


@settings(max_examples=300, deadline=None)
@given(
    steps=steps,
    max_items=st.one_of(st.none(), st.integers(1, 4)),
    max_cost=st.one_of(st.none(), st.integers(1, 6)),
    max_delay=st.sampled_from([None, 1, 2.5]),
    max_keys=st.integers(1, 4),
    fails=st.booleans(),
)
def test_it_does_what_the_definition_says(steps, max_items, max_cost, max_delay, max_keys, fails):
    batcher = KeyedBatcher(max_items, max_cost, max_delay, max_keys=max_keys, fails=fails)
    model, now, came, gone = Model(max_items, max_cost, max_delay, max_keys, fails), 0.0, [], []
    for number, (key, cost, pause, looks) in enumerate(steps):
        now += pause
        assert batcher.deadline == model.deadline
        if looks:
            due = []
            while batcher.is_due(now):
                due.append(batcher.close())
            assert due == model.due(now)
            gone += due
        item = (number, key)
        try:
            expected = model.put(key, item, cost, now)
        except TooManyKeys:
            with pytest.raises(TooManyKeys):
                put(batcher, key, item, cost, now)
            continue
        came.append(item)
        closed = put(batcher, key, item, cost, now)
        assert closed == expected
        gone += closed
        assert len(batcher.items) == len(model.open) <= max_keys

    left = rest(batcher)
    assert left == [each[3] for each in model.open]
    assert (batcher.deadline, batcher.close()) == (math.inf, [])
    assert all(batcher.of(key) is None for key in KEYS)
    assert sorted(item for batch in gone + left for item in batch) == came
    assert all(len({key for _number, key in batch}) == 1 for batch in gone + left)


@given(st.lists(st.sampled_from(KEYS), max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_append_does_what_add_does_without_costs(keys, max_items, max_keys):
    by_append = KeyedBatcher(max_items, None, None, max_keys=max_keys)
    by_add = KeyedBatcher(max_items, None, None, max_keys=max_keys)
    for number, key in enumerate(keys):
        batch = by_append.of(key)
        if batch is None:
            closed = by_append.begin(key, number, 1, 0.0)
        else:
            full = by_append.append(batch, number)
            closed = [] if full is None else [full]
        assert closed == put(by_add, key, number)
    assert rest(by_append) == rest(by_add)


def test_the_key_that_was_idle_longest_goes_out():
    """By its last item, not by its first."""
    batcher = KeyedBatcher(9, None, None, max_keys=2)
    for key, item in [("a", 1), ("b", 2), ("a", 3)]:
        assert put(batcher, key, item) == []

    assert put(batcher, "c", 4) == [[2]]
    assert rest(batcher) == [[1, 3], [4]]


def test_an_item_that_fills_a_batch_alone_takes_no_place():
    batcher = KeyedBatcher(None, 5, None, max_keys=1)
    put(batcher, "a", 1)

    assert put(batcher, "b", 2, cost=5) == [[2]]
    assert rest(batcher) == [[1]]


def test_one_key_too_many_may_be_an_error_that_changes_nothing():
    batcher = KeyedBatcher(3, None, None, max_keys=2, fails=True)
    put(batcher, "a", 1)
    put(batcher, "b", 2)

    with pytest.raises(TooManyKeys) as raised:
        put(batcher, "secret", 3)

    assert raised.value.max_keys == 2
    assert "secret" not in str(raised.value)
    assert put(batcher, "a", 4) == []
    assert rest(batcher) == [[1, 4], [2]]


def test_a_batch_that_begins_anew_is_the_last():
    """Its first item is now the newest, so its deadline is the latest."""
    batcher = KeyedBatcher(None, 3, 10, max_keys=2)
    put(batcher, "a", 1, 2, now=0)
    put(batcher, "b", 2, 2, now=1)

    assert put(batcher, "a", 3, 2, now=2) == [[1]]
    assert batcher.deadline == 11
    assert rest(batcher) == [[2], [3]]
