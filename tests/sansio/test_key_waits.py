"""Which key waited for how long; mutants of `key_waits.py` that die here: a wait counted from another time, or for
another key; a wait that is not over left out; the longest that is the last; what was taken counted twice, or lost when
a key begins to wait; more keys reported than are to be, or others than those that waited longest.
"""

from fractions import Fraction

from funcpipe_trio._sansio.key_accounts import MOST_SHOWN
from funcpipe_trio._sansio.key_waits import KeyWaits, LimitWaits


def told(account, now=0.0):
    return account.key, account.waiting, account.acquired, account.cost, account.waited(now), account.longest


def test_waits_are_counted_for_each_key_also_while_they_last():
    waits = KeyWaits()
    waits.begin("a", 1)
    waits.begin("b", 2)
    waits.begin("a", 3)
    assert [told(each, 5) for each in waits.greatest(5)] == [("a", 2, 0, 0, 6, 0), ("b", 1, 0, 0, 3, 0)]
    waits.end("a", 1, 5)
    waits.took("a", 3)
    waits.end("a", 3, 6)
    waits.took("a", Fraction(1, 2))
    assert told(waits.greatest(8)[0], 8) == ("a", 0, 2, Fraction(7, 2), 7, 4)
    waits.begin("a", 10)
    waits.end("a", 10, 11)
    assert [told(each, 20) for each in waits.greatest(20)] == [
        ("b", 1, 0, 0, 18, 0),
        ("a", 0, 2, Fraction(7, 2), 8, 4),
    ]


def test_what_was_taken_without_a_wait_counts_and_is_settled():
    waits = KeyWaits()
    waits.took("a", 2)
    waits.settled("a", -1)
    waits.begin("a", 4)
    waits.took("a", 5)
    waits.settled("a", 3)
    waits.end("a", 4, 4)
    waits.settled("new", 1)
    assert sorted(told(each) for each in waits.greatest(4)) == [("a", 0, 2, 9, 0, 0), ("new", 0, 0, 1, 0, 0)]


def test_those_that_waited_longest_are_kept():
    waits = KeyWaits(shown=3, remembered=3)
    for number in range(20):
        waits.begin(number, 0)
        waits.end(number, 0, number % 10)
    assert [each.key % 10 for each in waits.greatest(20)] == [9, 9, 8]
    for number in range(100, 103):
        waits.begin(number, 0)
    assert next(each.key for each in waits.greatest(0)) in (9, 19)
    assert len(waits.greatest(0)) == 3
    assert len(KeyWaits()._live) == 0
    many = KeyWaits()
    for number in range(3 * MOST_SHOWN):
        many.took(number, 1)
    assert len(many.greatest(0)) == MOST_SHOWN


def test_a_step_counts_waits_that_are_over_by_limit_and_key():
    waits = LimitWaits(shown=2, remembered=2)
    for limit, key, seconds in (
        ("one", "a", 1),
        ("one", "a", 3),
        ("two", "a", 2.5),
        ("one", "b", 0.5),
        ("one", "a", 1),
    ):
        waits.count(limit, key, seconds)
    assert [(each.key, each.calls, each.waited, each.longest) for each in waits.greatest()] == [
        (("one", "a"), 3, 5, 3),
        (("two", "a"), 1, 2.5, 2.5),
    ]
    many = LimitWaits()
    for number in range(3 * MOST_SHOWN):
        many.count("limit", number, number)
    assert [each.waited for each in many.greatest()] == [*range(3 * MOST_SHOWN - 1, 2 * MOST_SHOWN - 1, -1)]


def test_the_longest_wait_may_be_a_short_one():
    waits = LimitWaits()
    waits.count("limit", "a", 0.25)
    assert [each.longest for each in waits.greatest()] == [0.25]


def test_so_many_are_remembered_as_it_is_told():
    """Past twice one key the least are forgotten: the first one begins anew, and is not the greatest."""
    step, limiter = LimitWaits(shown=1, remembered=1), KeyWaits(shown=1, remembered=1)
    for key, seconds in [("a", 5), ("b", 9), ("c", 8), ("a", 6)]:
        step.count("limit", key, seconds)
        limiter.begin(key, 0)
        limiter.end(key, 0, seconds)
    assert [(each.key[1], each.waited) for each in step.greatest()] == [("b", 9)]
    assert [(each.key, each.waited(9)) for each in limiter.greatest(9)] == [("b", 9)]
