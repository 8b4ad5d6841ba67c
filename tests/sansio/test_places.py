"""Places as a meter; mutants of `places.py` that die here: one place too many or too few; a size that is ignored."""

from math import inf

from funcpipe_trio._sansio.places import Places


def test_so_many_are_taken_at_once():
    places = Places(2)
    assert (places.size, places.taken) == (2, 0)
    assert [places.take(0, 1), places.take(0, 1), places.take(5, 1)] == [None, None, inf]
    assert places.taken == 2
    places.release()
    assert places.taken == 1
    assert [places.take(5, 1), places.take(5, 1)] == [None, inf]
    places.release()
    places.release()
    assert places.taken == 0


def test_when_one_is_free_also_behind_another():
    places = Places(2)
    assert (places.when(3, 1), places.when(3, 1, behind=1), places.when(3, 1, behind=2)) == (3, 3, inf)
    places.take(3, 1)
    assert (places.when(4, 1), places.when(4, 1, behind=1)) == (4, inf)
    places.take(4, 1)
    assert places.when(5, 1) == inf


def test_the_size_may_be_changed_under_those_that_are_taken():
    places = Places(2)
    places.take(0, 1)
    places.take(0, 1)
    places.size = 1
    places.release()
    assert (places.take(1, 1), places.when(1, 1)) == (inf, inf)
    places.size = 2
    places.rebase(0)
    assert (places.when(1, 1), places.take(1, 1), places.taken) == (1, None, 2)
