"""Turns: one after the other, past those who cannot take one.

Mutants that die here: the same one again while others can; a turn that is kept for one who missed it.
"""

from funcpipe_trio._sansio.turns import Turns


def test_all_take_turns():
    turns = Turns()

    assert [turns.take([True] * 3) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_who_cannot_is_passed_over_and_not_made_up_for():
    turns = Turns()

    assert [turns.take([True, False, True]) for _ in range(3)] == [0, 2, 0]
    assert [turns.take([True] * 3) for _ in range(3)] == [1, 2, 0]
    assert turns.take([False] * 3) is None
    assert turns.take([True] * 3) == 1
    assert Turns().take([]) is None
