"""Accounts of keys that hold nothing now, against a dict of all that were ever put aside.

Mutants of `key_accounts.py` that die here: an account that begins with anything; one that is looked at and gone, or
looked for under another key; one that is taken back and still counts; others kept than those that rank highest.
"""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.key_accounts import KeyAccount, KeyAccounts, cost_of


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
    accounts = KeyAccounts(2, cost_of)
    one, other = KeyAccount("one", 1), KeyAccount(None, 1)
    accounts.put_aside(one)
    accounts.put_aside(other)
    assert (accounts.of("one"), accounts.of(None), accounts.of("new"), len(accounts)) == (one, other, None, 2)
    assert (accounts.resume("one"), accounts.of("one"), accounts.resume("one"), len(accounts)) == (one, None, None, 1)


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 5))
def test_those_that_rank_highest_are_known(costs, limit):
    """However many there were; of equals, those that came first. At most twice as many as that are kept."""
    accounts = KeyAccounts(limit, cost_of)
    for key, cost in enumerate(costs):
        account = KeyAccount(key, 1)
        account.count(cost, contested=False)
        accounts.put_aside(account)
        assert len(accounts) <= 2 * limit
    live = KeyAccount("live", 1)
    live.count(25, contested=False)

    most = sorted([25, *costs], reverse=True)[:limit]
    assert [each.cost for each in accounts.greatest([live])] == most
