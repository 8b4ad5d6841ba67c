"""The first items of sorted inputs: the least, and of equal ones that of the earliest input.

Mutants that die here: ``<=`` for ``<``; inputs that are compared by their numbers only, or in the wrong direction; a
comparison that raises and leaves its item behind; a `clear` in the middle of a comparison that loses or keeps items.
"""

from __future__ import annotations

import heapq
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.sorted_heads import SortedHeads


def merged(inputs: list[list[Any]], *, reverse: bool) -> list[tuple[int, Any]]:
    """Return the numbers of inputs and the items, in the order of the heads."""
    heads, left, out = SortedHeads(reverse=reverse), [list(each) for each in inputs], []
    for number, items in enumerate(left):
        if items:
            heads.add(number, items[0], items.pop(0))
    while len(heads):
        head = heads.take()
        out.append((head.number, head.item))
        if left[head.number]:
            heads.add(head.number, left[head.number][0], left[head.number].pop(0))
    return out


@given(st.lists(st.lists(st.integers(0, 5)), max_size=5), st.booleans())
def test_it_merges_as_the_standard_library_does(inputs, reverse):
    inputs = [sorted(each, reverse=reverse) for each in inputs]
    pairs = [[(item, number) for item in each] for number, each in enumerate(inputs)]

    expected = [(number, item) for item, number in heapq.merge(*pairs, key=lambda pair: pair[0], reverse=reverse)]

    assert merged(inputs, reverse=reverse) == expected


class Touchy:
    """Compares as its number does; calls something first."""

    def __init__(self, number: int, call: Any = lambda: None) -> None:
        self.number = number
        self.call = call

    def __lt__(self, other: Touchy) -> bool:
        self.call()
        other.call()
        return self.number < other.number


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("position", [0, 1, 3])
def test_a_comparison_that_raises_changes_nothing(position, reverse):
    heads = SortedHeads(reverse=reverse)
    for number in range(3):
        heads.add(number, Touchy(number), number)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        heads.add(3, Touchy(position, fail), 3)

    assert [heads.take().item for _ in range(len(heads))] == ([2, 1, 0] if reverse else [0, 1, 2])


def test_it_may_be_cleared_within_a_comparison():
    heads = SortedHeads(reverse=False)
    heads.add(0, Touchy(0), "a")
    heads.add(1, Touchy(1), "b")
    cleared = []

    heads.add(2, Touchy(2, lambda: cleared.extend(heads.clear())), "c")

    assert (cleared, len(heads)) == (["a", "b"], 0)


def test_each_item_is_compared_once_for_each_halving():
    heads, compared = SortedHeads(reverse=False), []
    for number in range(64):
        heads.add(number, Touchy(number, lambda: compared.append(1)), number)
    compared.clear()

    heads.take()
    heads.add(0, Touchy(70, lambda: compared.append(1)), 0)

    assert len(compared) <= 2 * 7
