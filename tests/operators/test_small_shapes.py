"""Operators behind one another: two that are right alone may be wrong together.

Each row of the catalogue has a third of all operators put behind it, the next row the next third; so every operation
meets nearly every other in one of its modes.

Mutants that die here: a fused operation that swallows the `PENDING` of the one before it; one that takes from a stage
which regroups without giving the room back; an end that is seen before the last batch.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from funcpipe_trio import Pipeline
from funcpipe_trio.testing import run_virtual
from tests._kit import STRIDE

from .catalogue import CASES, OPERATORS, Case, Feed, plain, tokens


class Behind(Feed):
    """A feed with an operator behind it, for another to be put behind that."""

    def __init__(self, first: Case, feed: Feed) -> None:
        super().__init__(feed.items)
        self._make = lambda: first.make(feed)

    def line(self) -> Pipeline[Any]:
        return self._make()

    twin = line


@pytest.mark.parametrize(("number", "first"), [*enumerate(CASES)], ids=lambda part: getattr(part, "name", None))
def test_other_operators_work_behind_this_one(number, first):
    """Where the first leaves the order, or what is in its batches, to time, it is only asked to end."""
    for second in OPERATORS[number % (3 * STRIDE) :: 3 * STRIDE]:
        feed = Feed(tokens(6))
        behind = Behind(first, feed)

        got = run_virtual(second.make(behind).collect)

        assert feed.opened + behind.opened == feed.closed + behind.closed
        if first.ordered and first.view is list:
            values, expected = (
                [*map(plain, second.view(results))] for results in (got, second.model(first.model(feed.items)))
            )
            assert values == expected if second.ordered else Counter(values) == Counter(expected), second.name
