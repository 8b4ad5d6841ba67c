"""The laws of the orders in which results leave, each with the mutants of `reorder.py` that it kills.

| law | mutant |
|---|---|
| results leave by position | `pop` of what came first; `ready` by `len` |
| what was handed in leaves once | results behind a failure kept, or given back out of order |
| the earliest failure ends | a later failure that stays; `ended` by the existence of a failure |
| as completed | the failure ahead of what completed before it |
| passing by is handing in and popping | `pass_by` ahead of what waits; without moving on to the next position |
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.reorder import AsCompleted, InOrder

orders = pytest.mark.parametrize("make", [InOrder, AsCompleted])


def begun(order, count):
    """Begin so many calls; return their positions."""
    return [order.begin() for _ in range(count)]


def pop_all(order):
    popped = []
    while order.ready:
        popped.append(order.pop())
    return popped


@orders
def test_a_new_order_has_nothing(make):
    order = make()

    assert (len(order), order.ready, order.ended, order.failure, order.clear()) == (0, False, False, None, [])
    assert not order.is_superfluous(0)


@orders
def test_a_result_may_be_anything(make):
    """None and False are results too, not their absence."""
    order = make()
    for result in (None, False):
        order.complete(order.begin(), result)

    assert pop_all(order) == [None, False]


@orders
def test_positions_count_from_zero(make):
    assert begun(make(), 3) == [0, 1, 2]


def test_results_leave_in_the_order_in_which_their_calls_began():
    order = InOrder()
    begun(order, 3)
    order.complete(2, "c")
    order.complete(1, "b")
    assert (len(order), order.ready) == (2, False)

    order.complete(0, "a")

    assert (len(order), order.ready) == (3, True)
    assert pop_all(order) == ["a", "b", "c"]
    assert (len(order), order.ready, order.ended) == (0, False, False)


def test_in_order_a_failure_stands_at_its_position():
    """What is before it comes first, even if it completes later; what is behind it is given back, by position."""
    order = InOrder()
    begun(order, 5)
    order.complete(4, "e")
    order.complete(1, "b")
    order.complete(3, "d")

    assert order.fail(2, "failure") == (None, ["d", "e"])
    assert (len(order), order.failure, order.ended) == (1, "failure", False)
    assert [order.is_superfluous(position) for position in range(5)] == [False, False, False, True, True]

    order.complete(0, "a")
    assert (pop_all(order), order.ended, order.ready) == (["a", "b"], True, False)


def test_in_order_an_earlier_failure_replaces_a_later_one():
    order = InOrder()
    begun(order, 4)
    order.fail(3, "late")
    order.complete(2, "c")
    order.complete(0, "a")

    assert order.fail(1, "early") == ("late", ["c"])
    assert order.failure == "early"
    assert [order.is_superfluous(position) for position in range(4)] == [False, False, True, True]
    assert (pop_all(order), order.ended) == (["a"], True)


def test_in_order_a_failure_of_the_first_call_ends_at_once():
    order = InOrder()
    begun(order, 2)

    assert order.fail(0, "failure") == (None, [])
    assert order.ended
    assert [order.is_superfluous(position) for position in (0, 1)] == [False, True]


def test_in_order_a_failure_can_take_the_place_of_the_result_popped_last():
    order = InOrder()
    begun(order, 5)
    for position, result in enumerate("abcd"):
        order.complete(position, result)
    order.fail(4, "late")
    assert [order.pop() for _ in range(3)] == ["a", "b", "c"]

    assert order.end("end") == ("late", ["d"])
    assert (order.failure, order.ended, order.ready, len(order)) == ("end", True, False, 0)
    assert [order.is_superfluous(position) for position in range(5)] == [False, False, False, True, True]


def test_in_order_what_waits_is_given_up_by_position():
    order = InOrder()
    begun(order, 4)
    for position, result in ((3, "d"), (0, "a"), (2, "c")):
        order.complete(position, result)

    assert order.clear() == ["a", "c", "d"]
    assert (len(order), order.ready, order.clear()) == (0, False, [])


def test_results_leave_in_the_order_in_which_their_calls_ended():
    order = AsCompleted()
    positions = begun(order, 3)
    for position, result in zip(positions, "cab", strict=True):
        order.complete(position, result)

    assert (len(order), order.ready, order.pop()) == (3, True, "c")
    assert (len(order), pop_all(order)) == (2, ["a", "b"])
    assert (len(order), order.ready, order.ended) == (0, False, False)


def test_as_completed_a_failure_stands_behind_all_that_completed_before_it():
    order = AsCompleted()
    positions = begun(order, 3)
    order.complete(positions[2], "c")

    assert order.fail(positions[0], "failure") == (None, [])
    assert (order.failure, order.ended, order.ready) == ("failure", False, True)
    assert [order.is_superfluous(position) for position in positions] == [True] * 3
    assert (pop_all(order), order.ended) == (["c"], True)


def test_as_completed_a_failure_in_the_place_of_the_result_popped_last_gives_back_all_that_waits():
    order = AsCompleted()
    for result in "cab":
        order.complete(order.begin(), result)
    order.fail(order.begin(), "late")
    assert order.pop() == "c"

    assert order.end("end") == ("late", ["a", "b"])
    assert (order.failure, order.ended, order.ready, len(order)) == ("end", True, False, 0)


def test_as_completed_what_waits_is_given_up_in_order():
    order = AsCompleted()
    for result in "ba":
        order.complete(order.begin(), result)

    assert order.clear() == ["b", "a"]
    assert (len(order), order.ready, order.clear()) == (0, False, [])


@st.composite
def endings(draw):
    """Calls in the order in which they end, and which of them fail."""
    positions = draw(st.permutations(range(draw(st.integers(1, 8)))))
    return [(position, draw(st.booleans())) for position in positions]


@given(endings=endings(), reads=st.lists(st.booleans(), min_size=8, max_size=8))
def test_what_is_handed_in_leaves_once_whenever_it_is_read(endings, reads):
    """In order: popped are the results before the first failure; all others come back as superfluous, once."""
    order = InOrder()
    begun(order, len(endings))
    first = min((position for position, fails in endings if fails), default=len(endings))
    popped, given_back, handed_in = [], [], []
    for (position, fails), read in zip(endings, reads, strict=False):
        if order.is_superfluous(position):
            continue
        handed_in.append(position)
        if fails:
            replaced, behind = order.fail(position, position)
            given_back += [*behind, *([] if replaced is None else [replaced])]
        else:
            order.complete(position, position)
        if read:
            popped += pop_all(order)
    popped += pop_all(order)

    assert popped == list(range(first))
    assert order.ended == (first < len(endings))
    left = [] if order.failure is None else [order.failure]
    assert sorted([*popped, *given_back, *left]) == sorted(handed_in)
    assert order.clear() == []


@given(make=st.sampled_from([InOrder, AsCompleted]), ends=st.permutations(range(6)), popped=st.integers(1, 6))
def test_a_failure_in_the_place_of_the_last_result_gives_back_all_that_waits(make, ends, popped):
    """Whenever calls end, wherever it stands: what was popped before it counts, the rest comes back once, in order."""
    order, out = make(), []
    begun(order, 6)
    for position in ends:
        order.complete(position, position)
        while order.ready and len(out) < popped:
            out.append(order.pop())
    expected = list(range(6)) if make is InOrder else list(ends)

    assert (out, order.end("failure")) == (expected[:popped], (None, expected[popped:]))
    assert (order.failure, order.ended, order.ready, order.clear()) == ("failure", True, False, [])


@given(make=st.sampled_from([InOrder, AsCompleted]), ends=st.permutations(range(6)), kept=st.sets(st.integers(0, 5)))
def test_to_pass_by_is_to_be_handed_in_and_popped_at_once(make, ends, kept):
    """Some results try to pass by, others (`kept`) are handed in and wait: the order is the same."""
    quick, plain, out, expected = make(), make(), [], []
    begun(quick, 6)
    begun(plain, 6)
    for position in ends:
        plain.complete(position, position)
        if position in kept:
            quick.complete(position, position)
            continue
        expected += pop_all(plain)
        if quick.pass_by(position):
            out.append(position)
        else:
            quick.complete(position, position)
        out += pop_all(quick)

    assert (out, len(quick), len(quick.waiting)) == (expected, len(plain), len(plain))
