"""The lanes of one mixed stream: shares by key, order within a key, one item outside, no trace of keys that are gone.

Mutants that die here: a choice by arrival; a key that is forgotten with its debt; an item outside that enters late (its
key looks idle, and is served as one that was away); one that enters where another key's place came free; a lane above
its capacity, a lane more than `max_keys`; accounts that grow with the number of keys that ever came.
"""

from collections import Counter, deque
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio._sansio.key_accounts import MOST_REMEMBERED, MOST_SHOWN, KeyAccount, KeyAccounts, cost_of
from funcpipe_trio._sansio.keyed_fair_queue import KeyedFairQueue
from funcpipe_trio.testing import assert_fair


def lanes_of(weights=None, capacity=16, max_keys=100):
    return KeyedFairQueue(lambda key: (weights or {}).get(key, 1), capacity, max_keys)


def add(lanes, key, item=None, cost=1):
    return lanes.add(lanes.entry((key, item), key, cost))


def take(lanes, count):
    return [lanes.take()[0] for _ in range(count)]


events = st.lists(st.one_of(st.just("take"), st.tuples(st.integers(0, 4), st.integers(1, 9))), max_size=120)
weight = st.one_of(st.integers(1, 10), st.sampled_from([10**9, Fraction(1, 3), Fraction(7, 2)]))


@settings(max_examples=200, deadline=None)
@given(
    events=events,
    weights=st.fixed_dictionaries(dict.fromkeys(range(5), weight)),
    capacity=st.integers(1, 4),
    max_keys=st.integers(1, 5),
)
def test_any_events_keep_order_bounds_and_shares(events, weights, capacity, max_keys):
    """Against plain queues: each key in its order, no queue above its room, the lag of any two keys in its bound."""
    lanes = lanes_of(weights, capacity, max_keys)
    queues = {key: deque() for key in weights}  # those in lanes, and at last the one outside
    log, backlog, costs = [], [], []
    for number, event in enumerate(events):
        live = {key for key, queue in queues.items() if queue}
        if event == "take":
            if not live:
                continue
            backlogged = live if lanes.outside is None or lanes.outside.lane else live - {lanes.outside.key}
            key, item = lanes.take()
            assert key in backlogged
            expected, cost = queues[key].popleft()
            assert item == expected
            log.append(key)
            backlog.append(backlogged)
            costs.append(cost)
        elif lanes.outside is None:
            key, cost = event
            fits = len(queues[key]) < capacity and (key in live or len(live) < max_keys)
            assert add(lanes, key, number, cost) is not fits
            queues[key].append((number, cost))
        held = Counter({key: len(queue) for key, queue in queues.items() if queue})
        if lanes.outside is not None:
            held[lanes.outside.key] -= 1
            assert held[lanes.outside.key] == capacity or lanes.keys == max_keys
        held = +held
        assert len(lanes) == held.total() + (lanes.outside is not None)
        assert (lanes.keys, max(held.values(), default=0) <= capacity) == (len(held), True)
    assert_fair(log, weights, backlog, costs)


def test_shares_of_two_keys_are_exact():
    """Weight 3 gets three of four, item by item."""
    lanes = lanes_of({"a": 3})
    for number in range(12):
        add(lanes, "a", number)
        add(lanes, "b", number)

    assert "".join(take(lanes, 12)) == "abaabaaabaaa"


def test_ten_thousand_keys_share_exactly():
    """Weights 1, 2 and 3: whenever it is looked at, no two of ten thousand keys are further apart than the bound."""
    weights = {key: key % 3 + 1 for key in range(10_000)}
    lanes = lanes_of(weights, capacity=8, max_keys=10_000)
    for number in range(8):
        for key in weights:
            add(lanes, key, number)
    served = Counter(dict.fromkeys(weights, 0))
    for _ in range(4):
        served.update(take(lanes, 5_001))

        ahead = max(Fraction(count - 1, weights[key]) for key, count in served.items())
        behind = min(Fraction(count + 1, weights[key]) for key, count in served.items())
        assert ahead <= behind
    take(lanes, len(lanes))
    assert lanes.keys == 0


def test_key_that_comes_and_goes_keeps_its_debt():
    """A key that never has two items at once gets its share and no more: leaving in between pays nothing off."""
    lanes = lanes_of({"steady": 3, "flapper": 1}, capacity=400)
    for _ in range(400):
        add(lanes, "steady")
    order = []
    for _ in range(200):
        if not lanes.is_full(lanes.entry(None, "flapper", 1)) and order[-1:] != ["flapper"]:
            add(lanes, "flapper")
        order += take(lanes, 1)

    assert order[:100].count("flapper") == 25


def test_key_that_was_away_gets_no_credit():
    """It starts level with those that were served meanwhile."""
    lanes = lanes_of(capacity=100)
    for _ in range(90):
        add(lanes, "busy")
    take(lanes, 40)
    for _ in range(20):
        add(lanes, "back")

    assert take(lanes, 20).count("back") == 10


def test_item_outside_enters_with_the_take_that_makes_its_place():
    """So its key is still backlogged when it is charged: its second item comes in the turn that two items have."""
    lanes = lanes_of(capacity=1)
    assert [add(lanes, key) for key in "aba"] == [False, False, True]

    assert take(lanes, 1) == ["a"]
    assert lanes.outside is None
    assert take(lanes, 2) == ["b", "a"]


def test_item_of_a_new_key_enters_when_a_key_is_gone_and_not_before():
    lanes = lanes_of(capacity=2, max_keys=2)
    assert [add(lanes, key) for key in "aabc"] == [False, False, False, True]

    assert (take(lanes, 1), lanes.outside.key) == (["a"], "c")
    assert (take(lanes, 1), lanes.outside) == (["b"], None)
    assert take(lanes, 2) == ["c", "a"]


def test_item_of_a_full_queue_does_not_enter_when_another_key_is_gone():
    lanes = lanes_of({"a": 1, "b": 2}, capacity=2, max_keys=2)
    for key in "baa":
        add(lanes, key)
    add(lanes, "a")
    before = take(lanes, 1)

    assert (before, lanes.outside.key, lanes.keys) == (["b"], "a", 1)


def test_only_an_item_whose_queue_is_full_is_taken_back():
    """One that waits for `max_keys` stays: its own queue is not full."""
    lanes = lanes_of(capacity=1, max_keys=1)
    add(lanes, "a", 1)
    add(lanes, "a", 2)
    assert (lanes.take_back().item, lanes.outside, len(lanes)) == (("a", 2), None, 1)
    add(lanes, "b", 3)

    assert (lanes.take_back(), lanes.outside.item, len(lanes)) == (None, ("b", 3), 2)


def test_looking_up_an_item_changes_nothing():
    """A lookup is undone by nothing: an item that is dropped leaves no lane behind."""
    lanes = lanes_of()
    lanes.is_full(lanes.entry(None, "a", 1))

    assert (lanes.keys, len(lanes)) == (0, 0)
    with pytest.raises(TypeError):  # in the words of Python, which differ
        lanes.entry(None, [], 1)


def test_clear_gives_up_everything_once():
    lanes = lanes_of(capacity=1)
    for number, key in enumerate("aba"):
        add(lanes, key, number)

    assert lanes.clear() == [("a", 0), ("b", 1), ("a", 2)]
    assert (lanes.clear(), len(lanes), lanes.keys, lanes.outside) == ([], 0, 0, None)
    add(lanes, "b", 3)
    assert lanes.take() == ("b", 3)


def test_hundred_thousand_keys_leave_nothing_behind():
    """Few keys at a time, ever new ones: lanes, flows and debts stay few, and accounts no more than are remembered."""
    lanes = lanes_of(capacity=2, max_keys=50)
    most, known = 0, 0
    for number in range(100_000):
        add(lanes, number)
        if len(lanes) > 40:
            take(lanes, 1)
        most = max(most, lanes.keys + len(lanes._queue._departed) + len(lanes._queue._heap))
        known = max(known, len(lanes._accounts))

    assert most < 41 + 60 + 120
    assert known <= 2 * MOST_REMEMBERED
    assert len(lanes.accounts()) == MOST_SHOWN


def test_accounts_say_what_each_key_was_served_and_where_it_counted():
    """`contested` is the cost while another key had an item; a key that comes back continues in its account."""
    lanes = lanes_of({"a": 2})
    for key, cost in (("a", 3), ("a", 3), ("b", 1), ("a", 3)):
        add(lanes, key, cost=cost)
    take(lanes, 4)
    add(lanes, "b", cost=Fraction(1, 2))
    take(lanes, 1)

    rows = [(each.key, each.weight, each.taken, each.cost, each.contested) for each in lanes.accounts()]
    assert rows == [("a", 2, 3, 9, 3), ("b", 1, 2, Fraction(3, 2), 1)]
    assert lanes.cost == Fraction(21, 2)


def test_weight_that_is_set_later_counts_from_then_on():
    """For a key that has items at once, and for one that has none when it comes; the account says so, too."""
    lanes = lanes_of()
    for number in range(12):
        add(lanes, "a", number)
        add(lanes, "b", number)
    lanes.set_weight("a", 3)
    lanes.set_weight("c", Fraction(1, 2))

    assert Counter(take(lanes, 12)) == {"a": 9, "b": 3}
    take(lanes, 12)
    for number in range(9):
        add(lanes, "b", number)
        add(lanes, "c", number)
    assert Counter(take(lanes, 9)) == {"b": 6, "c": 3}
    assert {each.key: each.weight for each in lanes.accounts()} == {"a": 3, "b": 1, "c": Fraction(1, 2)}


def test_nothing_is_taken_where_nothing_is():
    with pytest.raises(AssertionError, match=r"^an item was asked for where none is$"):
        lanes_of().take()


def test_an_account_adds_up():
    """It has the weight that it was made with; one that was put aside goes on."""
    accounts = KeyAccounts(cost_of, shown=3, remembered=3)
    account = accounts.resume("a") or KeyAccount("a", 7)
    for cost, contested in ((2, True), (3, False), (Fraction(1, 2), True)):
        account.count(cost, contested=contested)
    accounts.put_aside(account)

    assert (accounts.resume("a") or KeyAccount("a", 7)) is account
    assert (account.weight, account.taken, account.cost, account.contested) == (7, 3, Fraction(11, 2), Fraction(5, 2))


def test_accounts_are_forgotten_in_bulk():
    """When twice as many are put aside as are kept: catches a search for the least one for each key that goes."""
    accounts = KeyAccounts(cost_of, shown=3, remembered=3)
    sizes = []
    for key in range(8):
        accounts.put_aside(accounts.resume(key) or KeyAccount(key, 1))
        sizes.append(len(accounts))

    assert sizes == [1, 2, 3, 4, 5, 6, 3, 4]


def test_accounts_keep_the_greatest():
    """Of the keys that are gone those of the greatest cost are kept, however many came after them."""
    accounts = KeyAccounts(cost_of, shown=3, remembered=3)
    for key in range(100):
        account = accounts.resume(key) or KeyAccount(key, 1)
        account.count(1000 - key, contested=False)
        accounts.put_aside(account)

    assert [account.key for account in accounts.greatest([])] == [0, 1, 2]
    assert len(accounts) <= 6
