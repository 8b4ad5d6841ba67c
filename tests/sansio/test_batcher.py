"""The laws of the batcher, each with the mutants of `batcher.py` that it kills.

| law | mutant |
|---|---|
| a batch is as large as its limits allow | a limit reached late or early; a cost that stays or is forgotten |
| every item is in one batch, in order | an item dropped at a close; a batch handed out twice |
| the age counts from the first item | `deadline` moved by every item, or kept after a close |
"""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.batcher import Batcher

limits = st.one_of(st.none(), st.integers(1, 6))
costs = st.lists(st.integers(0, 8), max_size=40)


def add_all(batcher, costs):
    """Add one item for each cost, (number, cost); return what each one closed."""
    return [batcher.add((number, cost), cost, 0.0) for number, cost in enumerate(costs)]


def test_a_batch_closes_at_its_number_of_items():
    batcher = Batcher(3, None, None)

    assert [batcher.add(item, 1, 0.0) for item in "abcdefg"] == [[], [], [list("abc")], [], [], [list("def")], []]
    assert batcher.items == ["g"]


def test_a_batch_of_one_item_closes_at_once():
    batcher = Batcher(1, None, None)

    assert [batcher.add(item, 1, 0.0) for item in "ab"] == [[["a"]], [["b"]]]


def test_a_batch_closes_at_its_cost():
    batcher = Batcher(None, 10, None)

    assert [batcher.add(item, cost, 0.0) for item, cost in (("a", 4), ("b", 6), ("c", 9))] == [[], [["a", "b"]], []]


def test_an_item_that_would_cost_too_much_closes_the_batch_before_it():
    batcher = Batcher(None, 10, None)
    batcher.add("a", 4, 0.0)

    assert batcher.add("b", 7, 0.0) == [["a"]]
    assert batcher.items == ["b"]
    assert batcher.add("c", 3, 0.0) == [["b", "c"]]


def test_an_item_that_costs_more_than_a_batch_may_is_a_batch_of_its_own():
    batcher = Batcher(None, 10, None)

    assert batcher.add("a", 11, 0.0) == [["a"]]
    batcher.add("b", 1, 0.0)
    assert batcher.add("c", 11, 0.0) == [["b"], ["c"]]
    assert batcher.items == []


def test_a_cost_of_nothing_allows_only_items_that_cost_nothing_or_stand_alone():
    batcher = Batcher(None, 0, None)

    assert [batcher.add(item, cost, 0.0) for item, cost in (("a", 0), ("b", 1))] == [[["a"]], [["b"]]]


def test_a_batch_is_due_at_the_age_of_its_first_item():
    """The instant counts: due at first + max_delay, not before; later items do not move it."""
    batcher = Batcher(None, None, 2.0)
    batcher.add("a", 1, 10.0)
    batcher.add("b", 1, 11.5)

    assert batcher.deadline == 12.0
    assert [batcher.is_due(now) for now in (11.999, 12.0, 12.001)] == [False, True, True]


def test_an_age_of_zero_is_due_at_once():
    batcher = Batcher(None, None, 0.0)
    batcher.add("a", 1, 10.0)

    assert batcher.is_due(10.0)


def test_an_empty_batch_is_never_due():
    """Neither before the first item, nor after the batch was closed, in whatever way."""
    batcher = Batcher(2, None, 1.0)
    assert batcher.deadline == math.inf

    batcher.add("a", 1, 10.0)
    assert batcher.close() == ["a"]
    assert (batcher.deadline, batcher.close()) == (math.inf, [])

    batcher.add("b", 1, 20.0)
    batcher.add("c", 1, 20.5)
    assert batcher.deadline == math.inf
    batcher.add("d", 1, 30.0)
    assert batcher.deadline == 31.0


def test_the_age_of_the_batch_behind_a_closed_one_counts_from_its_own_first_item():
    batcher = Batcher(None, 10, 5.0)
    batcher.add("a", 6, 1.0)

    assert batcher.add("b", 6, 3.0) == [["a"]]
    assert batcher.deadline == 8.0


def test_without_an_age_no_batch_is_ever_due():
    batcher = Batcher(3, 10, None)
    batcher.add("a", 1, 10.0)

    assert not batcher.is_due(1e300)


@given(st.one_of(st.none(), st.integers(1, 6)), st.integers(0, 40))
def test_where_no_cost_counts_begin_and_append_do_what_add_does(max_items, count):
    """Catches a short way that closes a batch one item early or late, or lets its age count from another item."""
    long, short = Batcher(max_items, None, 2.0), Batcher(max_items, None, 2.0)
    for item in range(count):
        if not short.items:
            short.begin(float(item))
        completed = short.append(item)

        assert ([] if completed is None else [completed]) == long.add(item, 1, float(item))
        assert (short.items, short.deadline) == (long.items, long.deadline)


def test_a_batch_that_was_closed_is_the_takers():
    """What was handed out is not touched again."""
    batcher = Batcher(None, None, None)
    batcher.add("a", 1, 0.0)
    batch = batcher.close()
    batcher.add("b", 1, 0.0)

    assert (batch, batcher.items) == (["a"], ["b"])


def test_a_closed_batch_leaves_no_cost_behind():
    batcher = Batcher(None, 10, None)
    batcher.add("a", 9, 0.0)
    batcher.close()

    assert batcher.add("b", 9, 0.0) == []


@given(max_items=limits, max_cost=limits, costs=costs)
def test_every_item_is_in_exactly_one_batch_in_order(max_items, max_cost, costs):
    batcher = Batcher(max_items, max_cost, None)

    batches = [batch for closed in add_all(batcher, costs) for batch in closed] + [batcher.close()]

    assert [item for batch in batches for item in batch] == list(enumerate(costs))
    assert all(batches[:-1])
    assert batcher.close() == []


@given(max_items=limits, max_cost=limits, costs=costs)
def test_a_batch_is_as_large_as_its_limits_allow_and_no_larger(max_items, max_cost, costs):
    """No limit is passed but by an item alone; each batch is full, or the first item of the next has no room in it."""
    batcher = Batcher(max_items, max_cost, None)
    most, dearest = max_items or math.inf, math.inf if max_cost is None else max_cost

    batches = [batch for closed in add_all(batcher, costs) for batch in closed]

    for batch in batches:
        assert len(batch) <= most
        assert cost_of(batch) <= dearest or len(batch) == 1
    for batch, following in pairwise([*batches, batcher.items]):
        full = len(batch) == most or cost_of(batch) >= dearest
        assert full or cost_of(batch) + cost_of(following[:1]) > dearest
    assert len(batcher.items) < most
    assert cost_of(batcher.items) < dearest


def cost_of(batch):
    return sum(cost for _, cost in batch)
