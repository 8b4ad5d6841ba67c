"""A scope kept from call to call: it ends exactly the call whose time is over, and nobody else sees its deadline.

Mutants that die here: a deadline that stays behind the call; a scope that is used again though it was late, or though a
call was ended by it; a limit inside another that takes the same scope; a scope that is never closed.
"""

import math

import pytest
import trio

import funcpipe_trio._runtime.core.time_limit as module
from funcpipe_trio import Backoff, OnError, Pipeline, Retry, Step
from funcpipe_trio._runtime.core.time_limit import TimeLimit
from funcpipe_trio.testing import run_virtual

AT_ONCE = Backoff(0)


def deadlines_in(make, items):
    """What calls and what comes behind each sees of deadlines, from the instant at which it looks."""
    inside, behind = [], []

    async def call(item):
        await trio.sleep(1)
        inside.append(trio.current_effective_deadline() - trio.current_time())
        return item

    def look(_item):
        behind.append(trio.current_effective_deadline())

    run_virtual(Pipeline.from_iterable(range(items)).map(make(Step(call))).tap(look).run)
    return inside, behind


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda step: step.timeout(5), 4),
        (lambda step: step.timeout(5).retry(Retry()).timeout(30), 4),
        (lambda step: step.timeout(30).retry(Retry()).timeout(5), 4),
    ],
)
def test_each_call_sees_its_own_deadline_and_what_follows_sees_none(make, left):
    """Behind the call, in the same task, there is no deadline."""
    inside, behind = deadlines_in(make, 3)

    assert (inside, behind) == ([left] * 3, [math.inf] * 3)


def test_steps_in_a_row_have_their_own_deadlines():
    """The second step has its seconds, not what the first left of its own."""
    seen = []

    async def call(item):
        await trio.sleep(1)
        seen.append(trio.current_effective_deadline() - trio.current_time())
        return item

    row = Step(call).timeout(3).then(Step(call).timeout(9))
    run_virtual(Pipeline.from_iterable(range(2)).map(row).run)

    assert seen == [2, 8, 2, 8]


def test_a_call_that_is_late_ends_alone():
    """The calls of the same worker before it and behind it have all their time."""

    async def call(item):
        await trio.sleep(9 if item == 1 else 2)
        return item, trio.current_time()

    results = run_virtual(Pipeline.from_iterable(range(4)).map(Step(call).timeout(3), on_error=OnError.skip()).collect)

    assert results == [(0, 2), (2, 7), (3, 9)]


def test_a_call_that_ends_at_its_deadline_ends_alone():
    """It was not cancelled, for nothing in it waited any more; the next call is not either."""

    async def call(item):
        with trio.CancelScope(shield=True):
            await trio.sleep(3 if item == 1 else 2)
        return item, trio.current_time()

    results = run_virtual(Pipeline.from_iterable(range(4)).map(Step(call).timeout(3), on_error=OnError.skip()).collect)

    assert results == [(0, 2), (2, 7), (3, 9)]


def test_each_attempt_has_all_its_time():
    """Also after an attempt that was ended, or failed by itself."""
    starts = []

    async def call(item):
        starts.append(trio.current_time())
        if len(starts) == 2:
            await trio.sleep(9)
        await trio.sleep(2)
        if len(starts) == 3:
            raise OSError
        return item

    step = Step(call).timeout(3).retry(Retry(attempts=4, backoff=AT_ONCE))
    results = run_virtual(Pipeline.from_iterable("ab").map(step).collect)

    assert (results, starts) == (["a", "b"], [0, 2, 5, 7])


def test_a_limit_around_attempts_ends_them_all():
    """Its scope is the kept one; that of an attempt inside it is another."""
    starts = []

    async def call(item):
        starts.append(trio.current_time())
        await trio.sleep(9 if item == 1 else 1)
        return item

    step = Step(call).timeout(3).retry(Retry(attempts=9, backoff=AT_ONCE)).timeout(7)
    results = run_virtual(Pipeline.from_iterable(range(3)).map(step, on_error=OnError.skip()).collect)

    assert (results, starts) == ([0, 2], [0, 1, 4, 7, 8])


def test_a_kept_scope_is_closed_by_who_keeps_it():
    """Trio refuses to leave a scope in which another is still open."""

    async def main():
        limit = TimeLimit(5, is_kept=True)
        with trio.CancelScope() as around:
            with limit:
                await trio.lowlevel.checkpoint()
                within = limit.is_met(), trio.current_effective_deadline()
            kept = trio.current_effective_deadline()
            limit.close()
            limit.close()
        return within, kept, around.cancelled_caught

    assert run_virtual(main) == ((True, 5), math.inf, False)


def test_a_kept_scope_that_nobody_closes_is_in_the_way():
    """So a limit of one call is not kept, and a worker closes its own."""

    async def main():
        with trio.CancelScope(), TimeLimit(5, is_kept=True) as limit:
            await trio.lowlevel.checkpoint()
            limit.is_met()

    with pytest.raises(RuntimeError, match=r"^Cancel scope stack corrupted"):
        run_virtual(main)


def test_a_limit_inside_another_is_kept_too_and_closed_before_it(monkeypatch):
    """Two scopes for all calls; a call that fails or is late closes them in their order, and new ones come."""
    opened = []

    class Counting:
        def CancelScope(self, **how):  # stands in the place of a class
            opened.append(how)
            return trio.CancelScope(**how)

        def __getattr__(self, name):
            return getattr(trio, name)

    monkeypatch.setattr(module, "trio", Counting())

    async def call(item):
        seconds = {3: 20, 6: 50}.get(item, 1)
        await trio.sleep(seconds)
        if item == 9:
            raise OSError
        return item

    for times, scopes in ((3, 2), (12, 2 + 2 + 2 + 2)):
        opened.clear()
        step = Step(call).timeout(10).retry(Retry(1)).timeout(30)
        plan = Pipeline.from_iterable(range(times)).map(step, on_error=OnError.skip())
        report = run_virtual(plan.run)
        assert report.delivered == times - sum(item < times for item in (3, 6, 9))
        assert len(opened) == scopes
