"""What keys owe, and until when.

Mutants of `key_debts.py` that die here: a debt that is due a moment too early or late; one of a key that waits given to
the limiter; one counted twice, or lost, when more is added or a part is paid; a collection that never ends where a debt
comes in at once; the youngest given up for the oldest.
"""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.key_debts import KeyDebts


def test_a_debt_is_the_limiters_when_so_much_has_come_in():
    debts = KeyDebts(lambda cost: float(cost) * 2)
    assert debts.add("a", 3, 10) == debts.add("b", 1, 20) == 0
    assert [debts.collect(now, lambda key: False) for now in (15.75, 16, 21.75, 22)] == [0, 3, 0, 1]
    assert (len(debts), "a" in debts, debts.of("a")) == (0, False, 0)


def test_a_key_that_waits_keeps_its_debt_also_where_it_comes_in_at_once():
    debts = KeyDebts(lambda cost: 0.0)
    debts.add("a", 3, 1)
    debts.add("b", 4, 1)
    assert debts.collect(1, lambda key: key == "a") == 4
    assert ("a" in debts, "b" in debts, debts.of("a")) == (True, False, 3)


def test_what_is_added_and_paid_is_counted_once_and_waited_for_from_then_on():
    debts = KeyDebts(float)
    debts.add("a", 2, 0)
    debts.add("a", Fraction(1, 2), 1)
    debts.pay("a", 1)
    assert (debts.of("a"), debts.collect(3.25, lambda key: False)) == (Fraction(3, 2), 0)
    debts.restart(100)
    assert debts.collect(101.25, lambda key: False) == 0
    debts.pay("a", Fraction(1, 2))
    assert (debts.of("a"), debts.collect(101.5, lambda key: False), len(debts)) == (1, 1, 0)
    debts.add("a", 1, 0)
    debts.pay("a", 1)
    assert len(debts) == 0


def test_of_too_many_the_oldest_is_the_limiters():
    debts = KeyDebts(float, most=2)
    assert [debts.add(key, cost, 0) for key, cost in (("a", 5), ("b", 6), ("a", 1), ("c", 7))] == [0, 0, 0, 6]
    assert (debts.of("a"), debts.of("c"), "b" in debts) == (6, 7, False)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.integers(0, 4), st.booleans()), max_size=30))
def test_nothing_is_lost(steps):
    debts, now, given_up, owed = KeyDebts(float, most=2), 0, 0, 0
    for key, cost, later, pays in steps:
        now += later
        if pays and key in debts:
            part = min(cost, debts.of(key))
            debts.pay(key, part)
            owed -= part
        else:
            given_up += debts.add(key, cost, now)
            owed += cost
        given_up += debts.collect(now, lambda each: each == "b")
        assert sum(debts.of(each) for each in "abc") + given_up == owed
