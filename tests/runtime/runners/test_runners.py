"""Runners of sync functions: how many calls at once, what a cancel leaves behind, and that nothing else is left.

Threads and processes are real here, and so is the clock: what must be known of a call, the call itself says.

Mutants that die here: a token taken before there is a thread; a place given back while its thread works; a call in a
pool asked whether it is done before it is withdrawn, and not after; a wake-up that is sent to a task that has gone on;
a call counted as left behind that had not begun; a start of a
worker that a cancel waits for, or ends; one start too many; Ctrl-C that is an answer of a worker, or kills one;
`extend(map(...))` in `chunked`.
"""

import contextlib
import contextvars
import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import (
    OnError,
    Pipeline,
    PlanError,
    RateLimit,
    RateLimiter,
    Retry,
    Step,
    WorkerDied,
    chunked,
    executor,
    gather,
    processes,
    threads,
)
from funcpipe_trio._runtime.core.call_context import CallContext
from funcpipe_trio._runtime.core.step_counters import StepCounters
from tests._kit import run_real
from tests.runtime.runners import _work

pytestmark = pytest.mark.usefixtures("quick_start")


class Calls:
    """A function that says when it begins, in whatever thread, and ends when it may; made inside of a trio run."""

    def __init__(self):
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._may_end = threading.Semaphore(0)
        self._more = trio.Event()
        self._running = 0
        self.most = 0
        self.began = []

    def __call__(self, item):
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        self._token.run_sync_soon(self._note, item)
        assert self._may_end.acquire(timeout=60)
        with self._lock:
            self._running -= 1
        return item * 10

    def _note(self, item):
        self.began.append(item)
        self._more.set()

    async def begun(self, count):
        """Wait until so many have begun."""
        while len(self.began) < count:
            self._more = trio.Event()
            await self._more.wait()

    def let_end(self, count=1):
        """Let so many end."""
        self._may_end.release(count)


class Caller:
    """A runner at work, its accounts, and what became of its calls."""

    def __init__(self, plan):
        self.running = plan.start()
        self.counters = StepCounters()
        self.admitted = []
        self.ended = {}

    async def call(self, fn, item, admit=None):
        self.ended[item] = await self.running.call(fn, item, CallContext(self.counters), admit)

    async def admit(self, item, attempt):
        self.admitted.append(item)

    def free(self):
        """How many places are free, of those the runner has and of trio's own."""
        lent = trio.to_thread.current_default_thread_limiter().borrowed_tokens
        return self.running._places.available_tokens, lent

    async def all_free(self, limit):
        """Wait until all places are free."""
        for _ in range(limit):
            await self.running._places.acquire_on_behalf_of(object())


async def never(item, attempt):
    await trio.sleep_forever()


# ---- threads


def test_there_are_never_more_threads_than_the_limit():
    """With nine callers and three places, the fourth call begins when one of three ends."""

    async def main():
        calls = Calls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gather_into, results := [], Step(calls).on(threads(3)))
            for number in range(3, 10):
                await calls.begun(min(number, 9))
                await wait_all_tasks_blocked()
                calls.let_end()
            calls.let_end(2)
        return calls.most, results

    async def gather_into(results, step):
        results += await gather(step, range(9), concurrency=9)

    assert run_real(main) == (3, [item * 10 for item in range(9)])


def test_results_keep_the_order_of_the_items():
    """The first call ends last, and its result comes first."""
    last_began = threading.Event()

    def first_waits(item):
        if item == 2:
            last_began.set()
        assert last_began.wait(60)
        return item

    line = Pipeline.from_iterable(range(3)).map(Step(first_waits).on(threads(3)), concurrency=3)

    assert run_real(line.collect) == [0, 1, 2]


@pytest.mark.parametrize("where", ["threads", "executor", "a runner of one's own"])
def test_an_error_is_the_functions_own_with_notes(where):
    """The same object, not a copy and not wrapped; the notes say which item."""
    error = ValueError("mine")

    def fails(item):
        if item == 1:
            raise error
        return item

    with ThreadPoolExecutor(1) as pool:
        on = {"threads": threads(1), "executor": executor(pool)}.get(where, trio.to_thread.run_sync)
        line = Pipeline.from_iterable(range(3)).map(Step(fails).on(on).retry(Retry(attempts=1)))

        with pytest.raises(ValueError, match=r"^mine\nin stage 'fails', item 1, attempt 1 of 1$") as caught:
            run_real(line.collect)

    assert caught.value is error


def test_a_call_is_admitted_when_it_has_its_thread():
    """Not while it waits for one: so a rate limit counts it when it starts."""

    async def main():
        calls, caller = Calls(), Caller(threads(1))
        seen = []
        async with trio.open_nursery() as nursery:
            for item in (1, 2):
                nursery.start_soon(caller.call, calls, item, caller.admit)
                await calls.begun(1)
                await wait_all_tasks_blocked()
                seen.append(list(caller.admitted))
            calls.let_end()
            await calls.begun(2)
            seen.append(list(caller.admitted))
            calls.let_end()
        return seen

    assert run_real(main) == [[1], [1], [1, 2]]


def test_calls_that_wait_for_a_thread_take_no_tokens():
    """The bucket stays full for others while five calls wait, also when they give up."""

    async def main():
        calls, limiter = Calls(), RateLimiter(RateLimit(1, per=1000, burst=9))
        step = Step(calls).on(threads(1)).rate_limit(limiter).start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(step, 0)
            await calls.begun(1)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as waiting:
                    for item in range(1, 6):
                        waiting.start_soon(step, item)
                    await wait_all_tasks_blocked()
                    taken = limiter.statistics().acquired
                    scope.cancel()
            calls.let_end()
        return taken, limiter.statistics().acquired, limiter.statistics().tasks_waiting

    assert run_real(main) == (1, 1, 0)


def test_a_cancel_waits_for_the_thread():
    """By default nothing of a call continues behind its end; nothing is left behind then."""

    async def main():
        calls, caller = Calls(), Caller(threads(1))
        seen = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.call, calls, 1)
            await calls.begun(1)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
                seen.append((dict(caller.ended), caller.free()))
            calls.let_end()
        return [*seen, (caller.ended, caller.free(), caller.counters.abandoned)]

    assert run_real(main) == [({}, (0, 0)), ({1: 10}, (1, 0), 0)]


def test_a_function_in_a_thread_can_see_the_cancel():
    """`trio.from_thread.check_cancelled` raises in it, and the call ends as cancelled."""

    async def main():
        token = trio.lowlevel.current_trio_token()
        begun, cancelled = trio.Event(), threading.Event()

        def polite(_item):
            token.run_sync_soon(begun.set)
            assert cancelled.wait(60)
            trio.from_thread.check_cancelled()

        caller = Caller(threads(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.call, polite, 1)
            await begun.wait()
            nursery.cancel_scope.cancel()
            cancelled.set()
        return caller.ended, caller.free(), caller.counters.abandoned

    assert run_real(main) == ({}, (1, 0), 0)


def test_a_timeout_ends_a_function_that_looks_for_it():
    """It is a timeout like any other."""

    def polite(_item):
        while True:
            trio.from_thread.check_cancelled()

    with pytest.raises(trio.TooSlowError, match=r"^not done after 0\.01 s\n") as caught:
        run_real(Step(polite).on(threads(1)).timeout(0.01), 1)

    assert caught.value.__notes__ == ["timeout of 0.01 s", "in step 'polite'"]


def test_an_abandoned_call_keeps_its_place_until_its_thread_ends():
    """The caller continues at once; the next call waits for the thread."""

    async def main():
        calls, caller = Calls(), Caller(threads(1, abandon_on_cancel=True))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.call, calls, 1)
            await calls.begun(1)
            nursery.cancel_scope.cancel()
        left = caller.counters.abandoned, caller.free()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.call, calls, 2)
            await wait_all_tasks_blocked()
            waits = list(calls.began)
            calls.let_end(2)
        return left, waits, caller.ended, caller.free(), calls.most

    assert run_real(main) == ((1, (0, 0)), [1], {2: 20}, (1, 0), 1)


def test_the_report_says_that_the_outcome_is_unknown():
    """An abandoned call is counted and reported."""

    async def main():
        calls = Calls()
        step = Step(calls, name="save").on(threads(1, abandon_on_cancel=True)).timeout(0.3)
        report = await Pipeline.from_iterable([1]).map(step, on_error=OnError.skip()).run()
        calls.let_end()
        return report

    report = run_real(main)

    (stage,) = (stage for stage in report.stages if stage.name == "save")
    assert stage.policies.abandoned == 1
    assert "save: 1 timeout, 1 left behind, outcome unknown\n" in report.describe()


def fails_at_once(_item):
    raise KeyError


async def refuses(item, attempt):
    raise KeyError


CALLS = {
    "a result": (False, None, None),
    "an error": (False, fails_at_once, None),
    "an error of the admission": (False, None, refuses),
    "cancelled in the admission": (True, None, never),
    "cancelled in the call": (True, None, None),
}


@pytest.mark.parametrize("abandon", [False, True], ids=["waits", "abandons"])
@pytest.mark.parametrize("name", CALLS)
def test_no_place_is_lost(name, abandon):
    """However a call ends, in its place or while it waits for one, its place is free when its thread has ended."""
    cancels, fn, admit = CALLS[name]

    async def main():
        calls, caller = Calls(), Caller(threads(2, abandon_on_cancel=abandon))

        async def call(item):
            with contextlib.suppress(KeyError):
                await caller.call(fn or calls, item, admit)

        async with trio.open_nursery() as nursery:
            for item in range(4):
                nursery.start_soon(call, item)
            if not fn and not admit:
                await calls.begun(2)
            await wait_all_tasks_blocked()
            if cancels:
                nursery.cancel_scope.cancel()
            calls.let_end(4)
        await caller.all_free(2)
        return caller.free(), caller.counters.abandoned

    left_behind = 2 * (abandon and name == "cancelled in the call")
    assert run_real(main) == ((0, 0), left_behind)


def test_a_thread_has_the_context_of_its_caller():
    """Context variables are seen in the function; what it sets stays there."""
    user = contextvars.ContextVar("user", default=None)

    def look(item):
        seen = user.get()
        user.set("another")
        return seen, item

    async def main():
        user.set("me")
        return await Pipeline.from_iterable(range(2)).map(Step(look).on(threads(1))).collect()

    assert run_real(main) == [("me", 0), ("me", 1)]


@pytest.mark.parametrize("where", ["threads", "executor"])
def test_a_system_exit_ends_the_run_as_it_is(where):
    """It is not a failure of an item: no policy meets it, and it comes in no group."""

    def leaves(item):
        sys.exit(item)

    with ThreadPoolExecutor(1) as pool:
        on = threads(1) if where == "threads" else executor(pool)
        step = Step(leaves).on(on).retry(Retry(attempts=3))
        line = Pipeline.from_iterable([3]).map(step, on_error=OnError.skip())

        with pytest.raises(SystemExit, match=r"^3$"):
            run_real(line.collect)


@pytest.mark.parametrize("where", ["threads", "executor", "processes"])
def test_a_stop_iteration_is_an_error(where):
    """P5: it does not end the stream; it is the cause of a RuntimeError."""
    with ThreadPoolExecutor(1) as pool:
        on = {"threads": threads(1), "executor": executor(pool)}.get(where) or processes(1)
        line = Pipeline.from_iterable([7]).map(Step(_work.stop).on(on))

        with pytest.raises(RuntimeError, match=r"^coroutine raised StopIteration\n") as caught:
            run_real(line.collect)

    assert type(caught.value.__cause__) is StopIteration
    assert caught.value.__cause__.args == (7,)


def test_something_to_await_is_no_result():
    """A sync function that gives a coroutine is refused, wherever it runs, and the coroutine is closed."""

    async def late():
        return 1

    async def inline(fn, *args):
        await trio.lowlevel.checkpoint()
        return fn(*args)

    message = (
        r"^the function that a runner runs returned something to await\nUse Step\(fn\) without on for an async one\.\n"
    )
    with ThreadPoolExecutor(1) as pool:
        for on in (executor(pool), inline):
            with pytest.raises(TypeError, match=message):
                run_real(Step(lambda item: late()).on(on), 1)
    with pytest.raises(TypeError):  # trio says it
        run_real(Step(lambda item: late()).on(threads(1)), 1)


# ---- a user-defined async function


def test_any_async_function_can_run_it():
    """It gets the function and the item, after the admission, and its result is the step's."""
    log = []

    async def inline(fn, *args):
        log.append(("run", *args))
        await trio.lowlevel.checkpoint()
        return fn(*args)

    def cost(item):
        log.append(("cost", item))
        return 1

    step = Step(_work.double).on(inline).rate_limit(RateLimit(1), cost=cost)

    assert (
        step.describe()
        == "\n".join(
            ["step double", "  call double on inline", "    rate limit of 1 per 1 s, an item costs what cost says"]
        )
        or step.describe()
    )
    assert run_real(step, 4) == 8
    assert log == [("cost", 4), ("run", 4)]


def test_what_cannot_run_anything_is_refused():
    """A wrong runner is a TypeError that lists the right ones."""
    rule = r"be threads\(n\), processes\(n\), executor\(ex\), or an async function runner\(fn, \*args\)"
    with pytest.raises(TypeError, match=rf"^Step\.on: runner must {rule}, not 4$"):
        Step(_work.double).on(4)
    rule = r"be a concurrent\.futures\.Executor, or a sync function that makes one"
    with pytest.raises(TypeError, match=rf"^executor: executor must {rule}, not 4$"):
        executor(4)


# ---- executors


class ByHand(Executor):
    """An executor that does nothing: the test itself ends the futures."""

    def __init__(self, make=Future):
        self.futures = []
        self._make = make

    def submit(self, fn, /, *args):
        self.futures.append(self._make())
        return self.futures[-1]


class Inline(Executor):
    """An executor that has run the function when `submit` returns."""

    def submit(self, fn, /, *args):
        future = Future()
        try:
            future.set_result(fn(*args))
        except BaseException as error:
            future.set_exception(error)
        return future


def test_an_executor_runs_the_calls():
    """Results come in order; the executor's own limit holds."""

    async def main():
        with ThreadPoolExecutor(2) as pool:
            calls = Calls()
            calls.let_end(6)
            step = Step(calls).on(executor(pool))
            results = await Pipeline.from_iterable(range(6)).map(step, concurrency=6).collect()
        return results, calls.most <= 2

    assert run_real(main) == ([item * 10 for item in range(6)], True)


def test_an_executor_may_run_the_call_at_once():
    """The future is done before anyone waits for it."""
    step = Step(_work.double).on(executor(Inline()))

    assert run_real(gather_three, step) == [0, 2, 4]


async def gather_three(step):
    return await gather(step, range(3), concurrency=2)


def test_no_thread_waits_for_an_executor():
    """Twenty calls that wait need no thread: a future wakes its task."""

    async def main():
        pool, before = ByHand(), threading.active_count()
        caller = Caller(executor(pool))
        async with trio.open_nursery() as nursery:
            for item in range(20):
                nursery.start_soon(caller.call, _work.double, item)
            await wait_all_tasks_blocked()
            threads_now = threading.active_count()
            for number, future in enumerate(pool.futures):
                future.set_result(-number)
        return threads_now - before, sorted(caller.ended.values())

    assert run_real(main) == (0, sorted(-number for number in range(20)))


async def cancelled(pool, meanwhile=lambda future: None):
    """Cancel a call in a `ByHand` executor; meanwhile something may happen to its future."""
    caller = Caller(executor(pool))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.call, _work.double, 1)
        await wait_all_tasks_blocked()
        meanwhile(pool.futures[0])
        nursery.cancel_scope.cancel()
    return caller.ended, caller.counters.abandoned


def test_a_call_that_has_not_begun_is_withdrawn():
    """Its future is cancelled, and the call counts as never made."""
    pool = ByHand()

    assert run_real(cancelled, pool) == ({}, 0)
    assert pool.futures[0].cancelled()


def test_a_call_that_runs_is_left_behind(caplog):
    """The caller continues at once, and it is counted; that it ends when the trio run has ended harms nobody."""
    pool = ByHand()

    assert run_real(cancelled, pool, Future.set_running_or_notify_cancel) == ({}, 1)
    pool.futures[0].set_result(1)
    assert caplog.records == []  # what a future's callback raises is logged


def test_a_result_that_comes_with_the_cancel_is_not_lost():
    """A call that was done in the step of the cancel is delivered."""

    def done(future):
        future.set_running_or_notify_cancel()
        future.set_result("done")

    assert run_real(cancelled, ByHand(), done) == ({1: "done"}, 0)


def test_a_result_that_comes_in_the_middle_of_the_cancel_is_not_lost():
    """The executor's thread may end the call while it is being withdrawn."""

    class EndsNow(Future):
        def cancel(self):
            self.set_result("just now")
            return False

    assert run_real(cancelled, ByHand(EndsNow)) == ({1: "just now"}, 0)


def test_a_late_end_wakes_nobody():
    """A call that was left behind ends while its task waits for something else."""

    async def main():
        pool = ByHand()
        caller = Caller(executor(pool))
        token = trio.lowlevel.current_trio_token()

        async def begin_and_cancel():
            await wait_all_tasks_blocked()
            pool.futures[0].set_running_or_notify_cancel()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin_and_cancel)
            with trio.CancelScope() as scope:
                await caller.call(_work.double, 1)
        pool.futures[0].set_result(1)
        with trio.CancelScope() as scope:
            token.run_sync_soon(scope.cancel)
            await trio.sleep_forever()
        return caller.counters.abandoned, scope.cancelled_caught

    assert run_real(main) == (1, True)


def test_an_executor_is_handed_no_more_calls_than_its_limit():
    """The third call is submitted when one of two is done, and no place is lost when calls are cancelled."""

    async def main():
        pool = ByHand()
        caller, seen = Caller(executor(pool, limit=2)), []
        async with trio.open_nursery() as nursery:
            for item in range(5):
                nursery.start_soon(caller.call, _work.double, item)
            await wait_all_tasks_blocked()
            seen.append(len(pool.futures))
            pool.futures[0].set_result("done")
            await wait_all_tasks_blocked()
            seen.append(len(pool.futures))
            nursery.cancel_scope.cancel()
        return seen, list(caller.ended.values()), caller.free()

    assert run_real(main) == ([2, 3], ["done"], (2, 0))


def test_an_executor_that_was_shut_down_is_the_users_error():
    """What `submit` raises passes unchanged: no call was made."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()

    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown\nin step 'double'$"):
        run_real(Step(_work.double).on(executor(pool)), 1)


def test_a_pool_of_processes_works_until_it_breaks():
    """Calls give results; when a worker dies, the call under way and each later one raise WorkerDied with its cause."""
    caught = []

    async def main():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            result = await Step(_work.double).on(executor(pool))(4)
            for fn in (_work.die, _work.double):
                with pytest.raises(WorkerDied) as error:
                    await Step(fn).on(executor(pool))(4)
                caught.append((str(error.value), type(error.value.__cause__)))
            return result

    assert run_real(main) == 8
    assert caught == [
        (f"the executor of {name} is broken\nUse executor(lambda: ...), which makes a new one then.", BrokenProcessPool)
        for name in ("die", "double")
    ]


# ---- processes


@pytest.fixture
def begun(tmp_path):
    """A pipe by which a worker says that it has begun: its path, and a function that waits for the worker's pid."""
    path = tmp_path / "begun"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    async def wait():
        while True:
            with contextlib.suppress(BlockingIOError):
                return int(os.read(descriptor, 100))
            await trio.lowlevel.wait_readable(descriptor)

    yield str(path), wait
    os.close(descriptor)


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_processes_are_at_most_as_many_as_the_limit():
    """Six callers share two workers; they are another process than this, and gone when the trio run has ended."""
    pids = run_real(
        Pipeline.from_iterable(range(6)).map(Step(_work.own_pid).on(processes(2)), concurrency=6).collect,
    )

    assert 1 <= len(set(pids)) <= 2
    assert os.getpid() not in pids
    assert all(map(is_gone, pids))


def test_no_worker_is_started_that_no_call_waits_for(monkeypatch):
    """One for calls that follow each other; as many as there are calls at once; one for each that died."""
    starts = []
    start = trio.lowlevel.open_process

    async def counted(*args, **options):
        starts.append(args)
        return await start(*args, **options)

    monkeypatch.setattr(trio.lowlevel, "open_process", counted)

    async def main():
        step = Step(_work.double).on(processes(3)).start()
        die = Step(_work.die).on(processes(3)).start()
        counts = []
        for concurrency in (1, 1, 3, 3):
            await gather(step, range(9), concurrency=concurrency)
            counts.append(len(starts))
        for _ in range(2):
            with pytest.raises(WorkerDied, match=r"^the worker process of die died: "):
                await die(1)
            await gather(step, range(9), concurrency=3)
            counts.append(len(starts))
        return counts

    one, same, three, *rest = run_real(main)

    assert (one, same) == (1, 1)
    assert 1 <= three <= rest[0] <= 3
    assert rest[1] <= 4 and rest[2] <= 5


def test_a_cancel_kills_the_worker(begun):
    """It is gone when the caller continues; the next call works in another, and nothing is left."""
    path, wait = begun

    async def main():
        caller = Caller(processes(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.call, _work.say_pid_and_hang, path)
            pid = await wait()
            nursery.cancel_scope.cancel()
        killed = is_gone(pid), caller.counters.abandoned, caller.free()
        await caller.call(_work.own_pid, 1)
        return killed, caller.ended[1] != pid

    assert run_real(main) == ((True, 1, (1, 0)), True)


def test_a_timeout_kills_the_worker_and_a_later_attempt_has_another(begun, tmp_path):
    """What was killed is counted among the timeouts; a new worker, however slow its start, is there for a retry."""
    path, wait = begun
    hang_once = partial(_work.hang_once, path)
    step = Step(hang_once, name="hang").on(processes(1)).timeout(1).retry(Retry(attempts=9, on=trio.TooSlowError))

    async def main():
        await Step(_work.own_pid).on(processes(1))(0)  # a worker is there, so that the first attempt does begin
        async with Pipeline.from_iterable([str(tmp_path / "marker")]).map(step).open() as running:
            pids = [await wait(), await running.receive()]
        return pids, running.report.stages[-1].policies

    (first, second), policies = run_real(main)

    assert first != second
    assert is_gone(first)
    assert 1 <= policies.abandoned <= policies.timeouts == policies.retries


def test_a_cancel_does_not_wait_for_a_worker_that_starts(tmp_path, monkeypatch):
    """The caller continues at once, and the next call has that worker: of two starts there is one process."""
    slow = tmp_path / "slow.py"
    slow.write_text(f"""
import os
os.write(os.open({str(tmp_path / "started")!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT), b"x")
open({str(tmp_path / "go")!r}).read()
""")
    os.mkfifo(tmp_path / "go")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(slow), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)

    async def main():
        caller = Caller(processes(1))
        for item in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(caller.call, _work.own_pid, item)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        cancelled = dict(caller.ended), caller.counters.abandoned, caller.free()[0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.call, _work.own_pid, "pid")
            await trio.to_thread.run_sync((tmp_path / "go").write_text, "go")
        return cancelled, list(caller.ended)

    assert run_real(main) == (({}, 0, 1), ["pid"])
    assert (tmp_path / "started").read_text() == "x"
    gc.collect()  # a process that nobody waited for would warn now


def test_a_call_that_waits_for_its_turn_is_not_left_behind():
    """Cancelled in the admission, with a place and a worker: it had not begun, and the worker continues."""

    async def main():
        caller, waits = Caller(processes(1)), trio.Event()
        await caller.call(_work.own_pid, "before")

        async def admit(item, attempt):
            waits.set()
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.call, _work.double, 1, admit)
            await waits.wait()
            nursery.cancel_scope.cancel()
        await caller.call(_work.own_pid, "after")
        return len(set(caller.ended.values())), list(caller.ended), caller.counters.abandoned, caller.free()

    assert run_real(main) == (1, ["before", "after"], 0, (1, 0))


def test_a_worker_that_dies_raises_worker_died():
    """It says how; the next call works."""

    async def main():
        step = Step(_work.die).on(processes(1)).start()
        with pytest.raises(
            WorkerDied, match=r"^the worker process of die died: it ended with status 3\nin step 'die'$"
        ):
            await step(3)
        return await Step(_work.double).on(processes(1))(4)

    assert run_real(main) == 8


def test_a_dead_worker_is_a_failure_like_any_other(tmp_path):
    """Policies meet it: it stops the run, is skipped, or is tried again."""
    ends = Step(_work.die).on(processes(1))
    again = Step(_work.die_once).on(processes(1)).retry(Retry(attempts=2, on=WorkerDied))

    async def main():
        with pytest.raises(WorkerDied, match=r"^the worker process of die died: .* status 3\nin stage 'die', item 0$"):
            await Pipeline.from_iterable([3]).map(ends).run()
        report = await Pipeline.from_iterable([3, 4]).map(ends, on_error=OnError.skip()).run()
        results = await Pipeline.from_iterable([str(tmp_path / "once")]).map(again).collect()
        return report.stages[-1].failures, results

    assert run_real(main) == ((("WorkerDied", 2),), ["second"])


def test_an_item_that_cannot_be_loaded_fails_its_own_call():
    """The worker continues, and later answers go to their own calls."""

    async def main():
        step = Step(_work.double).on(processes(1)).start()
        await step(1)
        with pytest.raises(
            TypeError, match=r"^processes: the item of double must load from its pickle, which it does not: EOFError: "
        ):
            await step([_work.LoadsNowhere(), bytes(200_000)])
        return [await step(item) for item in range(3)]

    assert run_real(main) == [0, 2, 4]


def test_an_item_that_cannot_be_sent_fails_before_it_needs_a_worker():
    """It says that it was the item, and of which function; not even a place was taken for it."""
    message = r"^processes: the item of double must be picklable, which it is not: .*\nUse what pickle takes: "

    async def main():
        caller = Caller(processes(1))
        await caller.running._places.acquire_on_behalf_of("another")
        with pytest.raises(TypeError, match=message) as caught:
            await caller.call(_work.double, (_ for _ in ()))
        return type(caught.value.__cause__)

    assert run_real(main) is TypeError


def test_workers_ignore_ctrl_c():
    """A terminal sends it to them, too: they go on, and it is not an answer to a later call."""

    async def main():
        step = Step(_work.own_pid).on(processes(1)).start()
        pid = await step(0)
        os.kill(pid, signal.SIGINT)
        return {await step(number) for number in range(3)} == {pid}

    assert run_real(main)


def test_ctrl_c_in_the_task_that_waits_for_a_worker_is_ctrl_c(begun, interrupts):
    """Not the death of the worker, which a retry would try again."""
    path, wait = begun
    step = Step(_work.say_pid_and_hang).on(processes(1)).retry(Retry(attempts=2))
    pids = []

    @trio.lowlevel.enable_ki_protection  # else it would be raised here
    async def interrupt():
        pids.append(await wait())
        signal.raise_signal(signal.SIGINT)

    async def main():
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(interrupt)
                await step(path)

    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main)  # in the main task, where trio raises it

    assert list(map(type, caught.value.exceptions)) == [KeyboardInterrupt]
    assert is_gone(pids[0])


def test_what_a_worker_could_not_import_is_refused_by_check():
    """All of a plan's problems come before it runs, this too."""
    line = Pipeline.from_iterable([1]).map(Step(lambda item: item).on(processes(1)))
    message = (
        r"^processes: <lambda> must be picklable, which it is not: .*<lambda>.*\n"
        r"Use a function defined at the top of a module, or a partial of one\.$"
    )

    with pytest.raises(PlanError, match=message):
        line.check()


def test_on_windows_it_says_what_to_use(monkeypatch):
    """Its workers lean on what only the other systems have."""
    monkeypatch.setattr(sys, "platform", "win32")
    message = r"^processes: there are none on Windows\nUse executor\(lambda: ProcessPoolExecutor\(4\)\)\.$"

    with pytest.raises(NotImplementedError, match=message):
        processes(2)


SCRIPT = """
import gc, os, trio
from funcpipe_trio import OnError, Pipeline, Step, processes
from tests.runtime.runners import _work

async def main():
    for delay in (0.001, 0.02, 0.1):
        with trio.move_on_after(delay):
            await Step(_work.say_pid_and_hang).on(processes(1))(os.devnull)
        gc.collect()
    await Pipeline.from_iterable([3]).map(Step(_work.die).on(processes(1)), on_error=OnError.skip()).run()
    await Pipeline.from_iterable(range(9)).map(Step(_work.double).on(processes(2)), concurrency=2).run()

trio.run(main)
gc.collect()
"""


def test_nothing_is_left_that_python_would_warn_of():
    """With warnings on: cancels in all phases, a worker that dies, idle ones at the end; nothing is left."""
    done = subprocess.run([sys.executable, "-X", "dev", "-c", SCRIPT], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


# ---- chunks


def test_chunks_are_worked_on_in_a_process():
    """A function on items works on lists of them; the results are those of the items."""
    step = Step(chunked(_work.double)).on(processes(2))
    line = Pipeline.from_iterable(range(10)).batch(4).map(step, concurrency=2).unbatch()

    assert run_real(line.collect) == [2 * item for item in range(10)]


def test_an_items_error_says_which_of_its_chunk_it_was():
    """The error has a note, beside that of the stage."""
    line = Pipeline.from_iterable([1, 2, 3]).batch(3).map(Step(chunked(_work.fail_at_two)).on(threads(1)))

    with pytest.raises(ValueError, match=r"^no 2\nitem 1 of its chunk\nin stage 'chunked fail_at_two', item 0$"):
        run_real(line.collect)


def test_a_stop_iteration_does_not_cut_a_chunk_short():
    """It is an error of its item; no item is lost without a word."""
    with pytest.raises(StopIteration) as caught:
        chunked(_work.stop)([1, 2])

    assert caught.value.args == (1,)
    assert caught.value.__notes__ == ["item 0 of its chunk"]
