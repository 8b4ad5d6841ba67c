"""The constructors of `OnError` give its kinds.

Mutants that die here: an argument that is dropped, or taken for another.
"""

import pytest

from funcpipe_trio.policies.on_error import Divert, Emit, Failure, OnError, Skip, Stop


async def bury(failure):
    pass


def test_each_constructor_gives_its_kind():
    assert [OnError.stop(), OnError.skip(), OnError.emit(), OnError.divert(bury)] == [
        Stop(),
        Skip(),
        Emit(),
        Divert(bury),
    ]
    assert OnError.divert(bury).step is bury


def test_the_limits_of_skip_are_told_by_place_or_by_name():
    skip = OnError.skip(1, 0.5, 2)

    assert (skip.max_failures, skip.max_ratio, skip.min_items) == (1, 0.5, 2)
    assert OnError.skip(min_items=2, max_ratio=0.5, max_failures=1) == skip


@pytest.mark.parametrize("skip", [OnError.skip(0, 0, 1), OnError.skip(10**9, 1, 10**9), OnError.skip(0, 1.0)])
def test_the_bounds_themselves_are_allowed(skip):
    assert isinstance(skip, OnError)


@pytest.mark.parametrize("policy", [OnError.stop(), OnError.skip(), OnError.emit(), OnError.divert(bury)])
def test_every_kind_is_one_of_its_family(policy):
    assert isinstance(policy, OnError)


def test_the_family_itself_says_nothing():
    with pytest.raises(NotImplementedError, match=r"^$"):
        OnError().describe()


def test_a_failure_holds_the_item_itself():
    """Neither copied nor looked at."""
    item, error = object(), ValueError()
    failure = Failure(item, error, "fetch", 2)

    assert failure.item is item
    assert (failure.error, failure.stage, failure.attempts) == (error, "fetch", 2)
