"""P10: a timeout of the user's stays the user's; what happens at the instant of a deadline counts as too late.

Mutants that die here: `except TooSlowError` that takes the user's for ours; a cancel scope around a call that eats it;
a timeout that looks at the clock only when its scope is left; one that takes a result because nothing was cancelled; a
scope around the worker instead of the call, so that the next item is cancelled.
"""

import pytest
import trio

from funcpipe_trio import Backoff, OnError, Pipeline, Retry, Step, gather
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled


async def outcome_of(call):
    """What a call came to, and when."""
    try:
        result = await call
        return result, trio.current_time()
    except Exception as error:
        return repr(error), trio.current_time()


LATE = "TooSlowError('not done after 1 s')"


@pytest.mark.parametrize("kind", [trio.TooSlowError, TimeoutError])
def test_a_timeout_that_user_code_raises_is_the_error(kind):
    """The same object, from a pool, a batch with a deadline, and a source's cleanup limit around it."""
    error = kind("mine")

    async def call(item):
        await trio.sleep(1)
        raise error

    async def main():
        with pytest.raises(kind) as caught:
            await Pipeline.from_iterable([1]).map(call).batch(2, max_delay=1).collect()
        return caught.value

    assert run_virtual(main) is error


def test_a_scope_of_the_user_inside_a_call_ends_that_call_only():
    """`move_on_after` in user code: the stream continues with what it answers."""

    async def call(item):
        with trio.move_on_after(1):
            await trio.sleep(item)
            return "in time"
        return "too late"

    async def main():
        return await Pipeline.from_iterable([0.5, 1, 2]).map(call, concurrency=3).collect()

    assert run_virtual(main) == ["in time", "too late", "too late"]


def test_a_receive_given_up_by_a_deadline_loses_nothing():
    """A deadline exactly when an item comes: it is received now or next time, never neither."""

    async def source():
        for number in range(20):
            await trio.sleep(1)
            yield number

    async def main():
        items = []
        async with Pipeline.from_async_iterable(source).open() as run:
            while len(items) < 20:
                with trio.move_on_after(1):
                    items.append(await run.receive())
        return items

    assert run_virtual(main) == list(range(20))


# ---- the timeout of a step


async def sleeps(seconds):
    await trio.sleep(seconds)
    return seconds


async def works(seconds):
    """Work that holds up everything else: the clock continues, and nothing reads it."""
    trio.lowlevel.current_clock().jump(seconds)
    return seconds


async def sleeps_then_works(seconds):
    await trio.sleep(seconds / 2)
    return await works(seconds / 2) * 2


async def hears(seconds):
    """An event that another task sets at the instant."""
    done = trio.Event()

    async def tell():
        await trio.sleep(seconds)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        await done.wait()
    return seconds


async def shielded(seconds):
    with trio.CancelScope(shield=True):
        await trio.sleep(seconds)
    return seconds


@pytest.mark.parametrize("call", [sleeps, works, sleeps_then_works, hears, shielded])
@pytest.mark.parametrize("seed", range(8))
def test_the_instant_of_the_deadline_is_too_late(call, seed):
    """P10: done before is in time, done at it or behind it is a timeout, whatever order the tasks run in."""

    async def main():
        started = Step(call).timeout(1).start()
        return [await outcome_of(started(seconds)) for seconds in (0.5, 1, 0.75, 1.5)], started.statistics().timeouts

    with scheduled(Schedule(seed)):
        (first, second, third, last), timeouts = run_virtual(main)

    assert (first, second, third, timeouts) == ((0.5, 0.5), (LATE, 1.5), (0.75, 2.25), 2)
    assert last == (LATE, 3.25 if call in (sleeps, hears) else 3.75)


@pytest.mark.parametrize("call", [sleeps, works, sleeps_then_works, hears, shielded])
@pytest.mark.parametrize("seed", range(4))
def test_a_late_call_does_not_harm_the_next_item(call, seed):
    """A worker whose call returned in the tick of its deadline continues with the next item, uncancelled."""

    async def main():
        pipeline = Pipeline.from_iterable([1, 0.5, 1, 0.25]).map(Step(call).timeout(1), on_error=OnError.skip())
        async with pipeline.open() as run:
            items = [item async for item in run]
        stage = run.report.stages[-1]
        return items, stage.failed, stage.policies.timeouts, trio.current_time()

    with scheduled(Schedule(seed)):
        met = run_virtual(main)

    assert met == ([0.5, 0.25], 2, 2, 2.75)


@pytest.mark.parametrize("kind", [trio.TooSlowError, TimeoutError])
@pytest.mark.parametrize("seconds", [0.5, 1])
def test_a_timeout_of_the_calls_own_passes_through_ours(kind, seconds):
    """The same object, with no note of ours, also when it is raised at the instant of our deadline, or behind it."""
    error = kind("mine")

    async def call(item):
        trio.lowlevel.current_clock().jump(seconds)
        raise error

    async def main(call):
        with pytest.raises(kind) as caught:
            await call()
        return caught.value

    step = Step(call).timeout(1).timeout(2)
    met = [
        run_virtual(main, lambda: step(0)),
        run_virtual(main, Pipeline.from_iterable([0]).map(step).run),
        run_virtual(main, lambda: gather(step, [0], concurrency=1)),
    ]

    assert [one is error for one in met] == [True] * 3
    assert error.__notes__ == ["in step 'call'", "in stage 'call', item 0"]


def test_a_timeout_says_that_it_is_ours():
    """It has a note, and the note of its stage and item, but no cause where nothing failed before."""

    async def main():
        with pytest.raises(trio.TooSlowError) as caught:
            await Pipeline.from_iterable([1, 9]).map(Step(sleeps).timeout(8)).run()
        return caught.value

    error = run_virtual(main)

    assert (str(error), error.__cause__) == ("not done after 8 s", None)
    assert error.__notes__ == ["timeout of 8 s", "in stage 'sleeps', item 1"]


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        (1, 2, ("TooSlowError('not done after 1 s')", 1)),
        (2, 1, ("TooSlowError('not done after 1 s')", 1)),
        (1, 1, ("TooSlowError('not done after 1 s')", 1)),
        (4, 3, (2, 2)),
    ],
)
def test_the_first_of_nested_timeouts_is_the_one(inner, outer, expected):
    """Inside or outside; and when both pass at one instant there is one error, raised once."""

    async def main():
        return await outcome_of(Step(sleeps).timeout(inner).timeout(outer)(2))

    assert run_virtual(main) == expected


@pytest.mark.parametrize("seed", range(10))
def test_an_outer_timeout_ends_the_attempts_of_an_inner_one(seed):
    """Both at one instant: the inner one may still be retried, but the outer one has the last word, at that instant."""
    starts = []

    async def call(item):
        starts.append(trio.current_time())
        await trio.sleep_forever()

    async def main():
        step = Step(call).timeout(1).retry(Retry(9, backoff=Backoff(0))).timeout(3)
        with pytest.raises(trio.TooSlowError) as caught:
            await step(0)
        return str(caught.value), str(caught.value.__cause__), trio.current_time()

    with scheduled(Schedule(seed)):
        met = run_virtual(main)

    assert met == ("not done after 3 s", "not done after 1 s", 3)
    assert starts[:3] == [0, 1, 2]
    assert starts[3:] in ([], [3])


def test_a_timeout_can_be_retried():
    """It is an error like another; a user's `TimeoutError` is only retried if it is named."""
    seconds = iter([5, 1, 5])

    async def call(item):
        await trio.sleep(next(seconds))
        return item

    async def mine(item):
        raise TimeoutError("mine")

    async def main():
        late = await outcome_of(Step(call).timeout(2).retry(Retry(2, on=trio.TooSlowError, backoff=Backoff(0)))(7))
        own = Step(mine).timeout(2).retry(Retry(9, on=trio.TooSlowError)).start()
        return late, await outcome_of(own(7)), own.statistics().retries

    assert run_virtual(main) == ((7, 3), ("TimeoutError('mine')", 3), 0)


@pytest.mark.parametrize("seed", range(6))
def test_timeouts_of_calls_side_by_side_do_not_touch_each_other(seed):
    """In a stage with many workers each call has its own; all that is in time is delivered, in order."""
    seconds = [0.5, 1, 3, 0.25, 1, 0.75]

    async def main():
        step = Step(sleeps).timeout(1)
        pipeline = Pipeline.from_iterable(seconds).map(step, concurrency=6, on_error=OnError.skip())
        items = await pipeline.collect()
        return items, trio.current_time()

    with scheduled(Schedule(seed)):
        met = run_virtual(main)

    assert met == ([0.5, 0.25, 0.75], 1)


@pytest.mark.parametrize("seed", range(6))
def test_a_timeout_really_cancels(seed):
    """When it is raised, the call has ended: its cleanup was run, and nothing of it continues."""
    ended = []

    async def call(item):
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)  # a cleanup that takes its time
            ended.append(trio.current_time())

    async def main():
        outcome, ended_by_then = await outcome_of(Step(call).timeout(1)(0)), list(ended)
        await trio.sleep(100)
        return outcome, ended_by_then

    with scheduled(Schedule(seed)):
        met = run_virtual(main)

    assert (met, ended) == (((LATE, 3), [3]), [3])
