"""`Step.using`: a call gets a resource that is opened when it is first needed, and closed when nothing can use it.

Mutants that die here: a resource for each call; one that two calls of `per="worker"` use at a time; one that is closed
with its stage, by another task, or while a call cleans up with it; a failed opening that costs another call anything,
or that no retry covers; an opening that a timeout does not end; an error of closing that nobody is told of.
"""

import json
import threading
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial

import pytest
import trio

from funcpipe_trio import (
    Backoff,
    Failure,
    OnError,
    Pipeline,
    PlanError,
    Retry,
    StateError,
    Step,
    executor,
    gather,
    threads,
)
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, assert_stages_balance, connection, in_place, in_virtual_time, outcome_of, run_real

PER = pytest.mark.parametrize("per", ["run", "worker"])


class Pool:
    """Opens connections, and looks after them."""

    def __init__(self, fails=(), opens_in=0.5):
        self.fails, self.opens_in = set(fails), opens_in
        self.tried = 0
        self.all = []

    @asynccontextmanager
    async def open(self):
        number, self.tried = self.tried, self.tried + 1
        await trio.sleep(self.opens_in)
        if number in self.fails:
            raise OSError(number)
        opened = Connection(len(self.all))
        self.all.append(opened)
        task = trio.lowlevel.current_task()
        try:
            async with connection():
                yield opened
        finally:
            assert trio.lowlevel.current_task() is task
            await trio.sleep(0.25)
            assert not opened.users
            opened.is_open = False

    @property
    def is_closed(self):
        return not any(each.is_open for each in self.all)

    @property
    def most(self):
        return [each.most for each in self.all]


class Connection:
    def __init__(self, number):
        self.number = number
        self.is_open = True
        self.users = self.most = 0


async def use(opened, item):
    """Use a connection for a while, also while cancelled."""
    opened.users += 1
    opened.most = max(opened.most, opened.users)
    try:
        await trio.sleep(1 + item % 2)
        return item
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.25)
        assert opened.is_open
        opened.users -= 1


def line(count=6):
    return Pipeline.from_iterable(range(count))


# ---- who shares one


def test_one_for_the_run():
    pool = Pool()
    assert run_virtual(line().map(Step(use).using(pool.open), concurrency=3).collect) == [*range(6)]
    assert pool.most == [3]
    assert pool.is_closed


def test_one_for_each_worker_that_works():
    pool = Pool()
    plan = line().map(Step(use).using(pool.open, per="worker"), concurrency=4)
    assert run_virtual(plan.collect) == [*range(6)]
    assert pool.most == [1, 1, 1, 1]

    slow = Pool()  # one is enough for calls that are made one after the other
    assert run_virtual(Pipeline.ticks(9).take(4).map(Step(use).using(slow.open, "worker"), concurrency=4).count) == 4
    assert slow.most == [1]


@PER
def test_each_run_and_each_step_has_its_own(per):
    pool = Pool()
    plan = line(2).map(Step(use).using(pool.open, per)).map(Step(use).using(pool.open, per), name="again")

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plan.run)
            nursery.start_soon(plan.run)

    run_virtual(main)

    assert pool.most == [1] * 4
    assert pool.is_closed


@PER
def test_a_run_that_calls_nothing_opens_nothing(per):
    pool = Pool()
    run_virtual(line(0).map(Step(use).using(pool.open, per)).run)

    assert pool.tried == 0


@pytest.mark.parametrize("shape", ["map", "filter", "tap", "flat_map", "divert", "take_while", "unordered", "key"])
def test_every_operation_that_takes_a_step_may_use_one(shape):
    pool = Pool()
    step = Step(use).using(pool.open, per="worker")

    async def give(opened, item):
        return [await use(opened, item)]

    async def bury(opened, failure):
        await use(opened, failure.item)

    def fail(item):
        raise Boom

    plans = {
        "map": line().map(step),
        "filter": line().filter(step, concurrency=2),
        "tap": line().tap(step, concurrency=2),
        "flat_map": line().flat_map(Step(give).using(pool.open), concurrency=2),
        "divert": line().map(fail, on_error=OnError.divert(Step(bury).using(pool.open))),
        "take_while": line().take_while(step),
        "unordered": line().map(step, concurrency=3, ordered=False),
        "key": line().map(step, concurrency=3, key=lambda item: item % 2),
    }
    run_virtual(plans[shape].collect)

    assert pool.all
    assert pool.is_closed


# ---- for how long it is open

ENDS = {
    "completed": None,
    "left": lambda run, scope: True,
    "drained": lambda run, scope: run.drain_nowait(),
    "aborted": lambda run, scope: run.abort() or True,
    "cancelled": lambda run, scope: scope.cancel(),
}


@PER
@pytest.mark.parametrize("end", ENDS)
def test_it_is_open_until_its_last_use(end, per):
    """Also for a cursor that a call returns, which the consumer or a later stage uses."""
    pool = Pool()

    async def cursor(opened, item):
        await use(opened, item)
        return opened

    async def later(opened):
        await use(opened, 1)
        return opened

    async def main():
        plan = line(9).map(Step(cursor).using(pool.open, per), concurrency=3).map(later, concurrency=2)
        with trio.CancelScope() as scope:
            async with plan.open() as run:
                async for opened in run:
                    assert opened.is_open
                    await trio.sleep(0.5)
                    assert opened.is_open
                    if ENDS[end] is not None and ENDS[end](run, scope):
                        break
        assert pool.is_closed
        return run.report

    report = run_virtual(main)

    assert report.outcome == end
    assert report.cleanup_errors == ()
    assert_stages_balance(report)


# ---- opening


@PER
def test_a_failed_opening_costs_its_own_call_only(per):
    pool = Pool(fails=[0, 2])
    seen = outcome_of(line(4).map(Step(use).using(pool.open, per), concurrency=2, on_error=OnError.emit()))
    failed = [item.item for item in seen.items if isinstance(item, Failure)]

    assert failed == ([0, 2] if per == "worker" else [0])
    assert len(seen.items) == 4
    assert pool.is_closed


@PER
def test_a_retry_opens_anew(per):
    pool = Pool(fails=[0, 1])
    step = Step(use).using(pool.open, per).retry(Retry(3, OSError, Backoff(1, jitter=0)))
    seen = outcome_of(line(3).map(step))

    assert seen.items == [0, 1, 2]
    assert pool.tried == 3
    assert seen.report.stages[1].policies.resources == 1


def test_the_error_of_opening_is_the_calls():
    seen = outcome_of(line(3).map(Step(use, name="ask").using(Pool(fails=range(9)).open).retry(Retry(2))))

    assert isinstance(seen.error, OSError)
    assert "in stage 'ask', item 0, attempt 2 of 2" in seen.error.__notes__


def test_what_is_no_context_manager_is_refused_whatever_the_policies():
    seen = outcome_of(line(3).map(Step(use, name="ask").using(lambda: 3).retry(Retry(9)), on_error=OnError.skip()))

    assert str(seen.error).startswith("'ask' opened an int, which is no context manager")


@PER
def test_a_timeout_around_it_ends_an_opening_that_hangs(per):
    """And the next attempt opens anew."""
    hung = []

    @asynccontextmanager
    async def open_():
        if len(hung) < 2:
            hung.append(trio.current_time())
            await trio.sleep_forever()
        yield Connection(0)

    step = Step(use).using(open_, per).timeout(5).retry(Retry(3, trio.TooSlowError, Backoff(0)))
    seen = outcome_of(line(2).map(step))

    assert seen.items == [0, 1]
    assert hung == [0, 5]
    assert seen.report.cleanup_errors == ()


@PER
def test_one_that_opens_in_spite_of_that_is_closed(per):
    pool = Pool()

    @asynccontextmanager
    async def stubborn():
        with trio.CancelScope(shield=True):
            async with pool.open() as opened:
                yield opened

    closed = []
    step = Step(use).using(stubborn, per).timeout(0.25)
    seen = outcome_of(
        Pipeline.ticks(5).take(2).tap(lambda _: closed.append(pool.is_closed)).map(step, on_error=OnError.skip())
    )

    assert seen.items == []
    assert pool.tried == 2
    assert len(pool.all) == 2
    assert closed == [True, True]  # at once, not at the end of the run
    assert pool.is_closed


# ---- it ends by itself


@PER
def test_one_whose_heartbeat_fails_is_closed_and_the_next_call_opens_another(per):
    opened = []

    @asynccontextmanager
    async def beating():
        async def beat():
            await trio.sleep(2.5)
            raise Boom

        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat)
            opened.append(Connection(len(opened)))
            yield opened[-1]

    plan = Pipeline.ticks(2).take(4).map(Step(use).using(beating, per))
    seen = outcome_of(plan)

    assert seen.items == [0, 1, 2, 3]
    assert len(opened) == 2  # the call that was at work when the first one failed had it to its end
    assert [type(error) for error in seen.report.cleanup_errors] == [ExceptionGroup] * 2


# ---- closing


class Clumsy:
    """Cannot be closed."""

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        raise OSError(28)


async def same(_opened, item):
    await trio.lowlevel.checkpoint()
    return item


async def breaks(_opened, _item):
    await trio.lowlevel.checkpoint()
    raise Boom


def test_an_error_of_closing_is_one_of_cleanup():
    seen = outcome_of(line(2).map(Step(same, name="ask").using(Clumsy)))
    assert seen.items == [0, 1]
    assert [type(error) for error in seen.report.cleanup_errors] == [OSError]

    seen = outcome_of(line(2).map(Step(breaks, name="ask").using(Clumsy)))
    assert type(seen.error) is Boom
    assert "then cleanup in step 'ask' raised OSError: 28" in seen.error.__notes__


def test_closing_is_limited():
    @asynccontextmanager
    async def slow():
        try:
            yield
        finally:
            await trio.sleep(99)

    async def main():
        async with line(2).map(Step(same, name="ask").using(slow)).open(cleanup_timeout=3) as run:
            async for _ in run:
                pass
        return trio.current_time(), run.report

    now, report = run_virtual(main)

    assert now == 3
    assert [str(error) for error in report.cleanup_errors] == ["cleanup in step 'ask' took more than 3 s"]


# ---- outside of a pipeline


@PER
@in_virtual_time
async def test_a_step_by_itself_opens_and_closes_it(per):
    pool = Pool()
    assert await Step(use).using(pool.open, per)(7) == 7
    assert pool.is_closed
    assert pool.most == [1]


@PER
@in_virtual_time
async def test_gather_opens_and_closes_it(per):
    pool = Pool()
    assert await gather(Step(use).using(pool.open, per), range(5), concurrency=3) == [*range(5)]
    assert pool.is_closed
    assert pool.most == ([3] if per == "run" else [1, 1, 1])


@PER
@in_virtual_time
async def test_a_started_step_keeps_it_over_its_block(per):
    pool = Pool()
    async with Step(use).using(pool.open, per).start() as call:
        assert await call(1) == 1
        assert await call(2) == 2
        assert await line(3).map(call, concurrency=3).collect() == [0, 1, 2]
        assert await gather(call, range(3), concurrency=2) == [0, 1, 2]
        assert not pool.is_closed
        assert call.statistics().resources == 1  # the others were opened in the pipeline, and in gather
    assert pool.is_closed
    assert len(pool.all) == (1 if per == "run" else 3)


@in_virtual_time
async def test_outside_of_its_block_it_is_refused():
    started = Step(use, name="ask").using(Pool().open).start()
    said = "the started step 'ask': one with using, hedge or coalesce must be called in its block\nUse `async with"
    with pytest.raises(StateError, match=said):
        await started(1)
    async with started:
        with pytest.raises(StateError, match="'ask' is in its block already"):
            async with started:
                pass
        assert await started(1) == 1
    with pytest.raises(StateError, match=said):
        await started(1)
    async with started:  # again
        assert await started(1) == 1


@in_virtual_time
async def test_the_block_waits_for_calls_that_run():
    pool, got = Pool(), []
    async with trio.open_nursery() as nursery:
        async with Step(use).using(pool.open).start() as call:

            async def one(item):
                got.append(await call(item))

            nursery.start_soon(one, 5)
            await trio.sleep(1)
        assert pool.is_closed
        assert got == [5]


@in_virtual_time
async def test_a_cancelled_block_closes_it():
    pool = Pool()
    with trio.move_on_after(1):
        async with Step(use).using(pool.open).start() as call:
            await call(5)
    assert trio.current_time() == 1.5
    assert pool.is_closed


@in_virtual_time
async def test_an_error_of_closing_leaves_the_block_of_a_started_step():
    with pytest.raises(OSError, match="28"):
        await Step(same).using(Clumsy)(1)
    with pytest.raises(Boom) as caught:
        await Step(breaks).using(Clumsy)(1)
    assert "then closing a resource raised OSError: 28" in caught.value.__notes__

    async with Step(same).start() as call:  # one without a resource has a block, too
        assert call.statistics().resources == 0


# ---- on a runner


def in_a_thread(opened, item):
    assert threading.current_thread() is not threading.main_thread()
    assert opened.is_open
    return opened.number, item


@PER
def test_a_function_in_a_thread_gets_it(per):
    pool = Pool(opens_in=0)

    async def main():
        step = Step(in_a_thread).using(pool.open, per).on(threads(2)).timeout(9).retry(Retry(2))
        return await line(4).map(step, concurrency=2).collect()

    assert [item for _, item in run_real(main)] == [0, 1, 2, 3]
    assert pool.is_closed
    assert len(pool.all) == 1 if per == "run" else len(pool.all) <= 2


@in_virtual_time
async def test_it_is_opened_in_the_event_loop_before_there_is_a_place():
    """So the opening is none of the time that a timeout directly behind `on` counts."""
    pool = Pool(opens_in=5)

    def plain(opened, item):
        return item

    assert await line(2).map(Step(plain).on(in_place).using(pool.open).timeout(1)).collect() == [0, 1]


def test_one_that_a_call_left_behind_still_uses_goes_to_no_other_call():
    pool, gate = Pool(opens_in=0), threading.Event()

    def hangs(opened, item):
        if not item:
            gate.wait(30)
        return opened.number

    async def main():
        step = Step(hangs).using(pool.open, per="worker").on(threads(2, abandon_on_cancel=True)).timeout(0.05)
        async with step.start() as call:
            with pytest.raises(trio.TooSlowError):
                await call(0)
            first = await call(1)
            return first, await call(1)

    try:
        assert run_real(main) == (1, 1)
    finally:
        gate.set()


def test_the_same_with_a_runner_that_is_waited_for():
    pool = Pool(opens_in=0)

    async def late(fn, *args):
        await trio.sleep(1)
        return fn(*args)

    async def main():
        step = Step(lambda opened, item: opened.number).using(pool.open, per="worker").on(late).timeout(0.5)
        async with step.start() as call:
            for _ in range(3):
                with pytest.raises(trio.TooSlowError):
                    await call(0)

    run_virtual(main)

    assert len(pool.all) == 1


# ---- the plan and the report


def test_a_plan_shows_it():
    step = Step(same, name="ask").using(nullcontext, per="worker").timeout(3)
    plan = line().map(step)

    assert step.describe() == "step ask\n  call same, using nullcontext, one for each worker\n    timeout of 3 s"
    assert "    call same, using nullcontext, one for each worker" in plan.describe().splitlines()
    (operation,) = json.loads(plan.describe("json"))["line"]["stages"][1]["operations"]
    assert operation["settings"]["using.per"] == "worker"
    assert operation["functions"]["using.open"] == "contextlib:nullcontext"
    changed = plan.with_settings({"ask": {"using.per": "run"}})
    assert "    call same, using nullcontext, one for the run" in changed.describe().splitlines()


@pytest.mark.parametrize(
    "build", [lambda step: step.timeout(1), lambda step: step.then(step), lambda step: step.using(nullcontext)]
)
def test_it_comes_first_and_once(build):
    step = build(Step(same, name="ask"))
    with pytest.raises(PlanError, match=r"^step '.*': using must come first, and once"):
        step.using(nullcontext)


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        (TypeError, (None,), "Step.using: open must be callable, not None"),
        (TypeError, (connection.__wrapped__,), "Step.using: open must give a context manager, not "),
        (ValueError, (nullcontext, "call"), "Step.using: per must be 'run' or 'worker', not 'call'"),
    ],
)
def test_wrong_arguments_are_refused(kind, arguments, said):
    with pytest.raises(kind) as caught:
        Step(same).using(*arguments)

    assert str(caught.value).startswith(said)


def test_two_with_the_same_resource_are_equal():
    assert Step(same).using(nullcontext) == Step(same).using(nullcontext)
    assert Step(same).using(nullcontext) != Step(same).using(nullcontext, per="worker")
    assert hash(Step(same).using(nullcontext)) == hash(Step(same).using(nullcontext))


@in_virtual_time
async def test_a_call_that_waits_for_one_says_so():
    pool = Pool(opens_in=5)
    async with line(3).map(Step(use, name="ask").using(pool.open), concurrency=3).open() as run:
        await trio.sleep(1)
        assert run.statistics().stages[1].waits_for == "resource"
        async for _ in run:
            pass
    assert run.report.stages[1].policies.waited_resource == 15
    assert run.report.describe().splitlines()[-1] == "ask: 1 resource opened, 15.000 s waiting for a resource"


def test_a_sync_context_manager_and_an_executor_do():
    from concurrent.futures import ThreadPoolExecutor

    @contextmanager
    def open_():
        yield Connection(3)

    async def main():
        step = Step(in_a_thread).using(open_).on(executor(partial(ThreadPoolExecutor, 1)))
        return await line(2).map(step).collect()

    assert run_real(main) == [(3, 0), (3, 1)]


# ---- an opening that is cancelled, but not with the call that waits for it


@asynccontextmanager
async def opened_late():
    await trio.sleep(10)
    yield "open"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("per", ["run", "worker"])
def test_no_call_is_made_without_it_by_a_caller_that_is_shielded(per, seed):
    """By a coalesce, until those that share the call have left: they are cancelled with the run, and so is it then."""
    calls = []

    async def call(resource, item):
        calls.append(resource)

    step = Step(call).using(opened_late, per=per).coalesce(str)

    async def main():
        with trio.move_on_after(1):
            async with Pipeline.from_iterable([1] * 3).map(step, concurrency=3).open() as run:
                await run.receive()
        return run.report.cleanup_errors, trio.current_time()

    with scheduled(Schedule(seed)):
        assert run_virtual(main) == ((), 1)
    assert calls == []


def test_a_block_that_is_cancelled_meanwhile_tells_a_caller_of_another_task():
    calls = []

    async def call(resource, item):
        calls.append(resource)

    async def main():
        started = Step(call).using(opened_late).start()

        async def block():
            with scope:
                async with started:
                    await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(block)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(cancel_at_1, scope)
            with pytest.raises(StateError, match="the resource of 'call' was not opened: the block"):
                await started(0)
            return trio.current_time()

    async def cancel_at_1(scope):
        await trio.sleep(1)
        scope.cancel()

    assert run_virtual(main) == 1
    assert calls == []
