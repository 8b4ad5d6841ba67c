"""P2a: a `Cancelled` that no scope around the run caused is a failure of the item or source that raised it.

Everybody knows one: a cache that hands the outcome of a shared look-up to all who wait for it hands out the `Cancelled`
of the one who ran out of time. Let through, it would end the run's tasks one by one, and what came before would look
like the whole.

Mutants that die here: user code called where only `Exception` is met; a run that is called cancelled by what its tasks
raised; a policy that does not hear of it.
"""

from __future__ import annotations

from functools import partial

import pytest
import trio

from funcpipe_trio import (
    Failure,
    OnError,
    Pipeline,
    Retry,
    Step,
    concat,
    gather,
)
from funcpipe_trio.testing import run_virtual
from tests._kit import assert_stages_balance, stray_cancelled

from ._places import BAD, ITEMS, PLACES, Code, line

STRAY = r"^Cancelled was raised, though no scope around it was cancelled"


def raising(error):
    """Make user code that raises at one item."""

    def act():
        if error is not None:
            raise error

    return Code(act)


WAYS = {
    "collect": lambda plan: plan.collect(),
    "run": lambda plan: plan.run(),
    "count": lambda plan: plan.count(),
    "fold": lambda plan: plan.fold(lambda _state, item: item, None),
    "first": lambda plan: plan.filter(lambda _: False).first(default=None),
}


def causes(error):
    """Return an error, and all that it comes of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
def test_it_is_a_failure(place, way):
    """It reaches the caller as an `Exception` that comes of it, with the stage, however the stream is driven."""

    async def main():
        stray = await stray_cancelled()
        with pytest.raises(Exception) as caught:
            await WAYS[way](PLACES[place](raising(stray)))
        return stray, caught.value

    stray, met = run_virtual(main)

    assert any(each is stray for each in causes(met))
    assert not isinstance(met, ExceptionGroup)
    assert any(note.startswith(("in stage ", "in step ")) or " in " in note for note in met.__notes__)


@pytest.mark.parametrize("place", PLACES)
def test_the_run_has_failed_and_lost_nothing(place):
    """The outcome is "failed"; every item is accounted for; what came before the failure was delivered."""

    async def main():
        told, got = [], []
        plan = PLACES[place](raising(await stray_cancelled()))
        with pytest.raises(Exception) as caught:
            async with plan.open(on_discard=lambda *what: told.append(what)) as run:
                async for item in run:
                    got.append(item)
        return run.report, told, got, caught.value

    report, told, got, met = run_virtual(main)

    assert (report.outcome, report.error) == ("failed", met)
    assert (report.delivered, report.discarded) == (len(got), len(told))
    assert_stages_balance(report)


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("is_async", [False, True])
def test_policies_apply_to_it(is_async, concurrency):
    """`skip` leaves the item out, `emit` puts a `Failure` in its place, `divert` gives it to the step."""
    buried = []

    async def bury(failure):
        buried.append(failure)

    async def main(policy):
        bad = raising(await stray_cancelled())
        fn = bad.wait if is_async else bad.fn
        width = concurrency if is_async else None
        return await line().map(fn, concurrency=width, on_error=policy).collect()

    rest = [item for item in ITEMS if item != BAD]
    assert run_virtual(main, OnError.skip()) == rest
    emitted = run_virtual(main, OnError.emit())
    assert [item for item in emitted if not isinstance(item, Failure)] == rest
    assert [(each.item, type(each.error)) for each in emitted if isinstance(each, Failure)] == [(BAD, RuntimeError)]
    assert run_virtual(main, OnError.divert(bury)) == rest
    assert [each.item for each in buried] == [BAD]


def test_a_retry_does_not_try_it_again():
    """As it tries no cancellation again (P11)."""
    calls = []

    async def main():
        bad = raising(await stray_cancelled())

        async def call(item):
            calls.append(item)
            return bad.fn(item)

        with pytest.raises(RuntimeError, match=STRAY):
            await line().map(Step(call).retry(Retry(5))).run()

    run_virtual(main)

    assert calls == [0, 1, 2, 3]


def test_gather_raises_it_as_an_error():
    """The other face of the pool."""

    async def main():
        stray = await stray_cancelled()
        with pytest.raises(RuntimeError, match=STRAY) as caught:
            await gather(Step(raising(stray).wait), ITEMS, concurrency=2)
        return caught.value.__cause__ is stray

    assert run_virtual(main)


@pytest.mark.parametrize("place", [each for each in PLACES if not each.startswith("a predicate of")])  # its call fails
def test_a_cancellation_from_outside_is_one(place):
    """Cancelled while it works, the run says so, and the `Cancelled` goes to its scope."""

    async def nothing():
        await trio.sleep_forever()

    async def main():
        plan = concat(PLACES[place](raising(None)).take(1), Pipeline.from_async_iterable(partial(endless, nothing)))
        with trio.move_on_after(3) as scope:
            async with plan.open() as run:
                async for _item in run:
                    pass
        return scope.cancelled_caught, run.report.outcome

    assert run_virtual(main) == (True, "cancelled")


async def endless(wait):
    await wait()
    yield


async def _raise(error):
    raise error


@pytest.mark.parametrize("where", ["on_discard", "aclose", "close"])
def test_in_cleanup_it_is_kept_as_every_error_of_cleanup(where):
    """The stream ends as it would; the error is in the report."""

    async def main():
        stray = await stray_cancelled()

        def raising(*_):
            raise stray

        class Source:
            def __init__(self):
                self.number = 0

            def __aiter__(self):
                return self

            __iter__ = __aiter__

            async def __anext__(self):
                return next(self)

            def __next__(self):
                self.number += 1
                return self.number

        if where == "aclose":
            Source.aclose = lambda self: _raise(stray)
        if where == "close":
            Source.close = raising
        make = Pipeline.from_iterable if where == "close" else Pipeline.from_async_iterable
        async with make(Source()).open(on_discard=raising if where == "on_discard" else None) as run:
            assert await run.receive() == 1
        return run.report, stray

    report, stray = run_virtual(main)

    assert report.outcome == "left"
    assert any(each is stray for error in report.cleanup_errors for each in causes(error))


def test_the_body_may_raise_one_too():
    """It passes unchanged, and the run was left, not cancelled."""

    async def main():
        stray = await stray_cancelled()
        try:
            async with line().open() as run:
                raise stray
        except trio.Cancelled as error:
            return error is stray, run.report.outcome

    assert run_virtual(main) == (True, "left")
