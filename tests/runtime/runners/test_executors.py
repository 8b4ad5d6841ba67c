"""Executors that break, and those that are made again: what is asked for one, when, and how often?

Mutants that die here: a function that makes executors and is asked by each call that failed, or by each call; a broken
executor that is kept; a call that a broken executor did not take, told as one that died; an error of the engine that is
not told as a worker's death; an error of the function's own that is.
"""

import os
import signal
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import (
    Backoff,
    OnError,
    Pipeline,
    RateLimit,
    Retry,
    Step,
    WorkerDied,
    executor,
    gather,
)
from tests._kit import run_real
from tests.runtime.runners import _work

AT_ONCE = Backoff(0)


class KilledWorker(Exception):
    """What an engine of its own may say of a worker that died."""


class Frail(Executor):
    """An executor that the test breaks; else a call is done when it is told so, or at once."""

    def __init__(self, *, error=BrokenExecutor, at_once=True):
        self.error = error
        self.at_once = at_once
        self.is_broken = False
        self.futures = []

    def submit(self, fn, /, *args):
        if self.is_broken:
            raise self.error("broken")
        future = Future()
        self.futures.append(future)
        if self.at_once:
            future.set_result(fn(*args))
        return future

    def break_down(self):
        """Fail all that is under way, and refuse the rest."""
        self.is_broken = True
        for future in self.futures:
            if not future.done():
                future.set_exception(self.error("a worker died"))


class Maker:
    """A function that makes executors, and keeps them."""

    def __init__(self, make=Frail):
        self.make = make
        self.made = []

    def __call__(self):
        self.made.append(self.make())
        return self.made[-1]


# ---- when one is made


def test_an_executor_is_made_at_the_first_call():
    """Not with the step, nor with its start; once for all calls of a start, again for the next start."""
    maker = Maker()
    step = Step(_work.double).on(executor(maker))
    counts = [len(maker.made)]

    async def main():
        started = step.start()
        counts.append(len(maker.made))
        assert await gather(started, range(20), concurrency=5) == [2 * number for number in range(20)]
        counts.append(len(maker.made))
        assert await Pipeline.from_iterable(range(3)).map(step, concurrency=3).collect() == [0, 2, 4]
        counts.append(len(maker.made))

    run_real(main)

    assert counts == [0, 0, 1, 2]


def test_a_class_is_a_function_that_makes_one():
    """With no arguments, it makes an executor like any other."""
    made = []

    class Pool(ThreadPoolExecutor):
        def __init__(self):
            super().__init__(1)
            made.append(self)

    assert run_real(Step(_work.double).on(executor(Pool)), 4) == 8
    (pool,) = made
    pool.shutdown()


def test_what_is_made_is_not_shut_down():
    """It belongs to its maker: it still works after the run."""
    maker = Maker(partial(ThreadPoolExecutor, 1))
    run_real(Pipeline.from_iterable(range(3)).map(Step(_work.double).on(executor(maker))).run)

    with maker.made[0] as pool:
        assert pool.submit(_work.double, 4).result() == 8


def test_it_is_made_before_the_call_has_its_token_or_its_time():
    """To make one may take a while: the rate limit and the timeout right behind it begin then."""
    log = []

    def make():
        log.append("made")
        return Frail()

    def cost(item):
        log.append("token")
        return 1

    run_real(Step(_work.double).on(executor(make)).rate_limit(RateLimit(9), cost=cost).timeout(9), 1)

    assert log == ["made", "token"]


# ---- when one breaks


@pytest.mark.parametrize("error", [BrokenExecutor, BrokenProcessPool])
def test_calls_under_way_die_and_one_executor_is_made_for_the_next(error):
    """However many die, and whenever they come to hear of it."""
    maker = Maker(partial(Frail, error=error, at_once=False))

    async def main():
        step = Step(_work.double).on(executor(maker)).start()
        errors = []

        async def call(item):
            try:
                await step(item)
            except WorkerDied as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for item in range(5):
                nursery.start_soon(call, item)
            await wait_all_tasks_blocked()
            maker.made[0].break_down()
        maker.make = Frail
        results = await gather(step, range(5), concurrency=5)
        return [(str(error), type(error.__cause__)) for error in errors], results

    errors, results = run_real(main)

    assert errors == [("the executor of double is broken", error)] * 5
    assert results == [0, 2, 4, 6, 8]
    assert len(maker.made) == 2


def test_one_that_hears_late_does_not_break_the_new_one():
    """A call of the old executor that fails behind the making of the next."""
    maker = Maker(partial(Frail, at_once=False))

    async def main():
        step = Step(_work.double).on(executor(maker)).start()
        async with trio.open_nursery() as nursery:
            outcomes = {}

            async def call(item):
                try:
                    outcomes[item] = await step(item)
                except WorkerDied:
                    outcomes[item] = "died"

            for item in range(2):
                nursery.start_soon(call, item)
                await wait_all_tasks_blocked()
            old = maker.made[0]
            old.futures[0].set_exception(BrokenExecutor())
            await wait_all_tasks_blocked()
            nursery.start_soon(call, 2)
            await wait_all_tasks_blocked()
            old.futures[1].set_exception(BrokenExecutor())
            await wait_all_tasks_blocked()
            maker.made[1].futures[0].set_result("kept")
            nursery.start_soon(call, 3)
            await wait_all_tasks_blocked()
            maker.made[1].futures[1].set_result("in the same")
        return outcomes

    assert run_real(main) == {0: "died", 1: "died", 2: "kept", 3: "in the same"}
    assert len(maker.made) == 2


def test_one_that_broke_unseen_costs_no_call():
    """What it did not take had not begun: the new one has it, also if calling it twice did harm."""
    maker, calls = Maker(), []

    async def main():
        step = Step(lambda item: calls.append(item), idempotent=False).on(executor(maker)).start()
        for item in range(3):
            await step(item)
            maker.made[-1].break_down()

    run_real(main)

    assert calls == [0, 1, 2]
    assert len(maker.made) == 3


def test_a_maker_of_broken_ones_is_asked_twice_a_call():
    """No call asks forever."""

    def make():
        pool = Frail()
        pool.break_down()
        return pool

    maker = Maker(make)

    async def main():
        with pytest.raises(
            WorkerDied, match=r"^the executor of double is broken\n.*\nin step 'double', attempt 3 of 3$"
        ):
            await Step(_work.double).on(executor(maker)).retry(Retry(3, backoff=AT_ONCE, on=WorkerDied))(1)

    run_real(main)

    assert len(maker.made) == 6


def test_an_error_of_the_maker_is_the_calls():
    """As it is; the next call asks again."""
    errors = [OSError("no room")]

    def make():
        if errors:
            raise errors.pop()
        return Frail()

    async def main():
        step = Step(_work.double).on(executor(make)).start()
        with pytest.raises(OSError, match=r"^no room\nin step 'double'$"):
            await step(1)
        return await step(1)

    assert run_real(main) == 2


@pytest.mark.parametrize("made", [None, 4, ThreadPoolExecutor])
def test_what_is_no_executor_is_refused_when_it_is_made(made):
    """With the name of its maker."""

    def make():
        return made

    message = r"^executor: what make gives must be a concurrent\.futures\.Executor, not "

    with pytest.raises(TypeError, match=message):
        run_real(Step(_work.double).on(executor(make)), 1)


def test_something_to_await_is_no_executor():
    """A maker that is async in disguise is refused, and what it gave is closed."""

    async def make():
        return Frail()

    use = r"Use a sync function that returns an executor\."
    message = rf"^'<lambda>' is not async, but returned something to await\n{use}"

    with pytest.raises(TypeError, match=message):
        run_real(Step(_work.double).on(executor(lambda: make())), 1)


# ---- what it means to break


def test_one_that_is_not_made_anew_says_how_it_could_be():
    """It is the user's own, and raises forever."""
    pool = Frail()
    pool.break_down()
    message = r"^the executor of double is broken\nUse executor\(lambda: \.\.\.\), which makes a new one then\.\n"

    for _ in range(2):
        with pytest.raises(WorkerDied, match=message):
            run_real(Step(_work.double).on(executor(pool)), 1)


@pytest.mark.parametrize("broken", [KilledWorker, (KilledWorker,), (BrokenExecutor, KilledWorker), Exception])
@pytest.mark.parametrize("when", ["it is taken", "it is under way"])
def test_what_an_engine_calls_a_workers_death_is_one(broken, when):
    """A policy that means WorkerDied means it, and its cause is kept; a retry has a new executor."""
    maker = Maker(partial(Frail, error=KilledWorker, at_once=False))

    async def main():
        step = Step(_work.double).on(executor(maker, broken=broken)).retry(Retry(2, WorkerDied, AT_ONCE)).start()
        async with trio.open_nursery() as nursery:

            async def call():
                results.append(await step(4))

            results = []
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            maker.make = Frail
            maker.made[0].break_down()
        return results, step.statistics().retries

    if when == "it is under way":
        assert run_real(main) == ([8], 1)
        assert len(maker.made) == 2
    else:
        pool = Frail(error=KilledWorker)
        pool.break_down()
        with pytest.raises(WorkerDied, match=r"^the executor of double is broken, or a worker of it died\n") as caught:
            run_real(Step(_work.double).on(executor(pool, broken=broken)), 4)
        assert type(caught.value.__cause__) is KilledWorker


@pytest.mark.parametrize("broken", [None, BrokenExecutor, ()])
def test_other_errors_are_the_functions_own(broken):
    """What is not named is raised as it is, and the executor is kept."""
    maker = Maker()

    def fails(item):
        raise KilledWorker(item)

    async def main():
        step = Step(fails).on(executor(maker, broken=broken)).start()
        for item in range(2):
            with pytest.raises(KilledWorker):
                await step(item)

    run_real(main)

    assert len(maker.made) == 1


@pytest.mark.parametrize("broken", [4, "OSError", (OSError, 4), [OSError], KeyboardInterrupt, OSError("one")])
def test_what_is_no_exception_type_is_refused(broken):
    """At once, with what it is."""
    message = r"^executor: broken must be an exception type, or a tuple of them, not "

    with pytest.raises(TypeError, match=message):
        executor(Frail(), broken=broken)


async def late():
    return Frail()


async def later():
    yield Frail()


@pytest.mark.parametrize("wrong", [4, None, "pool", late])
def test_what_makes_no_executor_is_refused(wrong):
    """At once, with what it is."""
    rule = r"be a concurrent\.futures\.Executor, or a sync function that makes one"

    with pytest.raises(TypeError, match=rf"^executor: executor must {rule}, not "):
        executor(wrong)


def test_a_plan_says_where_its_executor_is_from():
    """The executor's type, or the function that makes it."""
    told = [Step(_work.double).on(on).describe() for on in (executor(Frail()), executor(late_pool, limit=4))]

    assert told == [
        "step double\n  call double on Frail",
        "step double\n  call double on an executor made by late_pool, at most 4 calls at once",
    ]


def late_pool():
    return Frail()


def test_a_runner_is_equal_to_one_made_alike():
    """As a part of a plan, which can be compared; and what differs is another."""
    assert executor(late_pool, limit=4) == executor(late_pool, limit=4)
    assert executor(late_pool) != executor(late_pool, broken=OSError)
    assert hash(executor(late_pool)) == hash(executor(late_pool))


# ---- a real one


def spawning():
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def test_a_pool_whose_worker_was_killed_is_made_anew(tmp_path):
    """By a signal, in a call: a retry has a new pool; calls that waited in the old one die with it, and are retried."""
    maker = Maker(spawning)
    step = Step(partial(_work.be_killed_once, str(tmp_path / "once")), name="killed").on(executor(maker))
    line = Pipeline.from_iterable(range(4)).map(step.retry(Retry(2, WorkerDied, AT_ONCE)), concurrency=4)

    async def main():
        return await line.collect()

    try:
        assert run_real(main) == [0, 10, 20, 30]
        assert len(maker.made) == 2
    finally:
        for pool in maker.made:
            pool.shutdown()


def test_a_pool_whose_worker_was_killed_between_calls_costs_none():
    """Whether the pool has heard of it when the next call comes, or hears of it with that call: with a retry, none."""
    maker = Maker(spawning)

    async def main():
        step = Step(_work.own_pid).on(executor(maker)).retry(Retry(2, WorkerDied, AT_ONCE)).start()
        pids = []
        for item in range(3):
            pids.append(await step(item))
            os.kill(pids[-1], signal.SIGKILL)
        return len(set(pids))

    try:
        assert run_real(main) == 3
    finally:
        for pool in maker.made:
            pool.shutdown()


def test_without_a_maker_skip_goes_on_but_gets_nothing(tmp_path):
    """A broken pool breaks each later call, and each says what to use."""
    with spawning() as pool:
        step = Step(partial(_work.be_killed_once, str(tmp_path / "once")), name="killed").on(executor(pool))
        line = Pipeline.from_iterable(range(4)).map(step, on_error=OnError.emit())

        failures = run_real(line.collect)

    assert [type(failure.error) for failure in failures] == [WorkerDied] * 4
    assert all("Use executor(lambda: ...)" in str(failure.error) for failure in failures)
