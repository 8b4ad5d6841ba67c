"""The law of the memory of keys: it knows the last distinct keys that it saw, and no more.

Mutants that die here: a key that is forgotten in the order in which it came first; one key too many, or too few; a
known key that is not seen again.
"""

from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.recent_keys import RecentKeys


@given(keys=st.lists(st.integers(0, 8), max_size=60), remember=st.integers(1, 6))
def test_a_key_is_new_unless_it_is_among_the_last_distinct_ones(keys, remember):
    """Against the definition, word by word."""
    recent = RecentKeys(remember)
    for number, key in enumerate(keys):
        last = [*dict.fromkeys(reversed(keys[:number]))][:remember]

        assert recent.is_new(key) == (key not in last)


def test_it_keeps_no_more_keys_than_it_remembers():
    """The bound of its memory."""
    recent = RecentKeys(3)
    for key in range(1000):
        recent.is_new(key)

    assert len(recent._keys) == 3
