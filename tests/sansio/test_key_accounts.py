"""What is told of many keys is what a plain dict says that forgets nothing.

Mutants that die here: an account that is forgotten because no report shows it; as few remembered as are shown; more
remembered than twice the bound; others forgotten than the least; a rank that leaves out waits that are not over; an
account that begins with anything; one that is looked at and gone, or looked for under another key; one that is taken
back and still counts.
"""

from collections import defaultdict
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.key_accounts import MOST_REMEMBERED, MOST_SHOWN, KeyAccount, KeyAccounts, cost_of
from funcpipe_trio._sansio.key_waits import KeyWaits, LimitWaits
from funcpipe_trio._sansio.keyed_fair_queue import KeyedFairQueue

KEYS = 1_000  # far more than are shown, no more than are remembered
SEEDS = range(3)


def highest(sums):
    """Return the keys of a dict that a report names, with their sums."""
    return sorted(sums.items(), key=lambda each: -each[1])[:MOST_SHOWN]


def same(rows, sums):
    """Whether the sums are those that rank highest, each that of its key: keys of equal sums may stand for others."""
    assert [amount for _, amount in rows] == [amount for _, amount in highest(sums)]
    assert dict(rows).items() <= sums.items()


@pytest.mark.parametrize("seed", SEEDS)
def test_accounts_that_come_and_go_are_those_of_a_dict(seed):
    chance, sums, accounts = Random(seed), defaultdict(int), KeyAccounts(cost_of)
    for number in range(8 * KEYS):
        key, cost = chance.randrange(KEYS), chance.choice((1, 2, 50))
        account = accounts.resume(key) or KeyAccount(key, 1)
        account.count(cost, contested=False)
        accounts.put_aside(account)
        sums[key] += cost
        if number % 1_000 == 7:
            same([(each.key, each.cost) for each in accounts.greatest(())], sums)
    assert len(accounts) == len(sums)


@pytest.mark.parametrize("seed", SEEDS)
def test_waits_at_a_limit_are_those_of_a_dict(seed):
    """Also those that last: a key ranks by all that its calls have waited up to now."""
    chance, over, live, now = Random(seed), defaultdict(int), defaultdict(list), 0
    waits, seen = KeyWaits(), set()
    for number in range(8 * KEYS):
        now += chance.choice((0, 1, 1, 9))
        key = chance.randrange(KEYS)
        if live[key] and chance.random() < 0.7:
            since = live[key].pop()
            waits.end(key, since, now)
            over[key] += now - since
        else:
            waits.begin(key, now)
            live[key].append(now)
        served = chance.randrange(KEYS)
        waits.took(served, 1)
        seen |= {key, served}
        if number % 1_000 == 7:
            sums = {each: over[each] + sum(now - since for since in live[each]) for each in seen}
            same([(each.key, each.waited(now)) for each in waits.greatest(now)], sums)


@pytest.mark.parametrize("seed", SEEDS)
def test_waits_of_a_step_are_those_of_a_dict(seed):
    chance, sums, waits = Random(seed), defaultdict(int), LimitWaits()
    for number in range(8 * KEYS):
        place, seconds = (chance.choice("ab"), chance.randrange(KEYS // 2)), chance.choice((1, 2, 50))
        waits.count(*place, seconds)
        sums[place] += seconds
        if number % 1_000 == 7:
            same([(each.key, each.waited) for each in waits.greatest()], sums)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_keys_of_a_stream_were_served_is_that_of_a_dict(seed):
    chance, sums, inside = Random(seed), defaultdict(int), 0
    lanes = KeyedFairQueue(lambda key: 1, capacity=2, max_keys=50)
    for number in range(8 * KEYS):
        key, cost = chance.randrange(KEYS), chance.choice((1, 2, 50))
        inside += 1
        sums[key] += 0  # known from now on
        if lanes.add(lanes.entry((key, cost), key, cost)) or inside > chance.randrange(60):
            while lanes.outside is not None or inside > 20:
                key, cost = lanes.take()
                sums[key] += cost
                inside -= 1
        if number % 1_000 == 7:
            same([(each.key, each.cost) for each in lanes.accounts()], sums)


def test_ten_thousand_idle_keys_are_remembered():
    """The highest came first, and are idle while all others come, and come again."""
    waits, accounts = LimitWaits(), KeyAccounts(cost_of)
    for times in range(3):
        for key in range(MOST_REMEMBERED):
            account = accounts.resume(key) or KeyAccount(key, 1)
            account.count(MOST_REMEMBERED - key, contested=False)
            accounts.put_aside(account)
            waits.count("limit", key, key + times)
    assert [each.cost for each in accounts.greatest(())] == [3 * (MOST_REMEMBERED - key) for key in range(MOST_SHOWN)]
    assert [each.waited for each in waits.greatest()] == [
        3 * (MOST_REMEMBERED - 1 - number) + 3 for number in range(MOST_SHOWN)
    ]


def test_past_the_bound_the_least_are_forgotten():
    accounts, most = KeyAccounts(cost_of), 0
    for key in range(5 * MOST_REMEMBERED):
        account = KeyAccount(key, 1)
        account.count(5 * MOST_REMEMBERED - key, contested=False)
        accounts.put_aside(account)
        most = max(most, len(accounts))
    assert most == 2 * MOST_REMEMBERED
    assert all(accounts.of(key) for key in range(MOST_REMEMBERED))
    assert not any(accounts.of(key) for key in range(2 * MOST_REMEMBERED, 3 * MOST_REMEMBERED))


def told(account):
    return account.key, account.weight, account.taken, account.cost, account.contested, account.longest_wait


def test_a_new_account_has_counted_nothing():
    assert told(KeyAccount("a", 3)) == ("a", 3, 0, 0, 0, 0)


def test_what_was_served_while_others_had_items_counts_as_contested_too():
    account = KeyAccount("a", 1)
    account.count(2, contested=True)
    account.count(3, contested=False)
    account.count(Fraction(1, 2), contested=True)
    assert told(account) == ("a", 1, 3, Fraction(11, 2), Fraction(5, 2), 0)


def test_to_look_at_an_account_changes_nothing_and_to_resume_it_takes_it():
    accounts = KeyAccounts(cost_of, shown=2, remembered=2)
    one, other = KeyAccount("one", 1), KeyAccount(None, 1)
    accounts.put_aside(one)
    accounts.put_aside(other)
    assert (accounts.of("one"), accounts.of(None), accounts.of("new"), len(accounts)) == (one, other, None, 2)
    assert (accounts.resume("one"), accounts.of("one"), accounts.resume("one"), len(accounts)) == (one, None, None, 1)


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 5))
def test_those_that_rank_highest_are_known(costs, limit):
    """However many there were; of equals, those that came first. At most twice as many as that are kept."""
    accounts = KeyAccounts(cost_of, shown=limit, remembered=limit)
    for key, cost in enumerate(costs):
        account = KeyAccount(key, 1)
        account.count(cost, contested=False)
        accounts.put_aside(account)
        assert len(accounts) <= 2 * limit
    live = KeyAccount("live", 1)
    live.count(25, contested=False)

    most = sorted([25, *costs], reverse=True)[:limit]
    assert [each.cost for each in accounts.greatest([live])] == most
