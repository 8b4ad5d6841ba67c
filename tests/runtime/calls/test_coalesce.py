"""Equal calls under way are made once: which are shared, who gets what, and what becomes of a call that callers leave.

The law compares with a simulation by a list of callers, sorted by time, that knows nothing of tasks (`Expected`).

Mutants that die here: a call that is made twice, or remembered when it has ended; one that ends because one of its
callers leaves, or goes on when all have; one that is left behind; a caller that does not get the outcome, or waits for
a call that is being ended; a first caller that cannot leave; a scope that stays shielded for the next call; a key whose
trouble hits others; an error that grows with the number of its callers.
"""

import gc
import logging
import traceback
from contextvars import ContextVar

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    Failure,
    MisuseError,
    OnError,
    Pipeline,
    RateLimit,
    Recorder,
    Retry,
    StateError,
    Step,
    gather,
    review,
    simulate,
)
from funcpipe_trio.testing import (
    Scenario,
    cancel_everywhere,
    drain_everywhere,
    explore_schedules,
    interrupt_everywhere,
    run_virtual,
)
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, stray_cancelled
from tests.promises._tasks import Tasks

QUICK = Backoff(0, jitter=0)


def by_three(item):
    return item % 3


class Service:
    """What is called: each call takes its time, and fails if it is told to; it notes when it begins and ends."""

    __name__ = "service"

    def __init__(self, *plan, at_end=None):
        self.plan = plan  # of each call: seconds, or seconds and an error
        self.at_end = at_end
        self.log = []

    async def __call__(self, item):
        number = sum(kind == "begins" for kind, *_ in self.log)
        seconds, error = self.plan[number % len(self.plan)]
        self.log.append(("begins", number, trio.current_time()))
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.log.append(("cancelled", number, trio.current_time()))
            if self.at_end is not None:
                await self.at_end(number)
            raise
        self.log.append(("ends", number, trio.current_time()))
        if error is not None:
            raise error
        return number

    def calls(self):
        return sum(kind == "begins" for kind, *_ in self.log)


# ---- the law


class Expected:
    """What callers get that come at times, with a key, and leave at times; and what calls are made."""

    def __init__(self, callers, plan):
        self.log, self.outcomes = [], {}
        ends = {}  # of each call: when, and who waits for it
        current = {}  # the last call of each key
        for number, (comes, key, _leaves) in sorted(enumerate(callers), key=lambda each: each[1][0]):
            call = current.get(key)
            if call is None or self.end_of(call, ends, callers) < comes:
                call = current[key] = len(ends)
                ends[call] = (comes + plan[call % len(plan)][0], [])
                self.log.append(("begins", call, comes))
            ends[call][1].append(number)
        for call, (end, waiting) in ends.items():
            over = self.end_of(call, ends, callers)
            self.log.append(("ends" if over == end else "cancelled", call, over))
            error = plan[call % len(plan)][1]
            for number in waiting:
                leaves = callers[number][2]
                self.outcomes[number] = ("left", leaves) if leaves < end else (error or call, end)

    @staticmethod
    def end_of(call, ends, callers):
        end, waiting = ends[call]
        return min(end, max(callers[number][2] for number in waiting))


@st.composite
def some_callers(draw):
    """Each comes and leaves at times of its own: no two things happen at one instant."""
    drawn = draw(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2), st.integers(0, 12)), min_size=1, max_size=9))
    return [
        (comes + number / 64, key, comes + stays + number / 64 + 1 / 256)
        for number, (comes, key, stays) in enumerate(drawn)
    ]


@settings(max_examples=150, deadline=None)
@given(some_callers(), st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=9, max_size=9))
def test_callers_share_what_is_under_way_and_leave_as_they_like(callers, drawn):
    plan = [
        (seconds + 1 / 1024 + number / 4096, Boom(number) if fails else None)
        for number, (seconds, fails) in enumerate(drawn)
    ]
    service, outcomes = Service(*plan), {}

    async def caller(call, number, comes, key, leaves):
        await trio.sleep_until(comes)
        with trio.move_on_at(leaves):
            try:
                outcome = await call((number, key))
            except Boom as error:
                outcome = error
            outcomes[number] = (outcome, trio.current_time())
            return
        outcomes[number] = ("left", trio.current_time())

    async def main():
        async with Step(service).coalesce(lambda item: item[1]).start() as call, trio.open_nursery() as nursery:
            for number, each in enumerate(callers):
                nursery.start_soon(caller, call, number, *each)
        return call.statistics().coalesced

    shared = run_virtual(main)
    expected = Expected(callers, plan)
    assert outcomes == expected.outcomes
    assert sorted(service.log) == sorted(expected.log)
    assert shared == len(callers) - service.calls()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.booleans()), min_size=1, max_size=15),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_in_a_run_no_two_equal_calls_overlap_and_each_item_has_its_outcome(items, concurrency, ordered, stops, apart):
    """In the task of the first caller, and in a task of its own: the same."""
    under_way, began = set(), []

    async def call(item):
        key, seconds, fails = items[item]
        assert key not in under_way
        under_way.add(key)
        began.append(item)
        try:
            await trio.sleep(seconds + 0.5)
        finally:
            under_way.discard(key)
        if fails:
            raise Boom(item)
        return item

    step = Step(call).coalesce(lambda item: items[item][0])
    step = step.timeout(100) if apart else step
    on_error = OnError.stop() if stops else OnError.emit()
    line = Pipeline.from_iterable(range(len(items)))
    plan = line.map(step, concurrency=concurrency, ordered=ordered, on_error=on_error)

    async def main():
        got = []
        async with plan.open() as run:
            try:
                async for each in run:
                    got.append(each)
            except Boom:
                assert stops
        return got, run.report

    got, report = run_virtual(main)
    assert not under_way
    stage = report.stages[-1]
    assert len(began) + stage.policies.coalesced <= stage.received  # one that is cancelled before it begins is no call
    if report.outcome == "completed":
        assert len(got) == len(items) == len(began) + stage.policies.coalesced
        for number, each in enumerate(got if ordered else ()):
            made = each.error.args[0] if isinstance(each, Failure) else each
            assert items[made][0] == items[number][0]


# ---- who makes the call


def plan_of(step, items, **how):
    return Pipeline.from_iterable(items).map(step, **{"concurrency": len(items), **how})


def test_it_needs_no_task_where_all_callers_end_together():
    def spawned(step):
        async def main():
            tasks = Tasks()
            trio.lowlevel.add_instrument(tasks)
            await plan_of(step, range(9), concurrency=3).run()
            return tasks.spawned

        return run_virtual(main)

    plain = Step(Service((1, None)))
    assert spawned(plain.timeout(5).coalesce(by_three).retry(Retry(2))) == spawned(plain)
    assert spawned(plain.coalesce(by_three).timeout(5)) == spawned(plain) + 9


@pytest.mark.parametrize("policy", [OnError.stop(), OnError.skip()])
def test_a_first_caller_behind_a_failure_goes_on_for_those_before_it(policy):
    """Item 0 fails once and comes back with the key of item 2, which makes the call; item 1 fails meanwhile."""
    calls = []

    async def call(item):
        calls.append((item, trio.current_time()))
        await trio.sleep(5)
        return f"by {item}"

    async def before(item):
        if item == 0:
            await trio.sleep(1)
        if item == 1:
            await trio.sleep(2)
            raise Boom
        return item

    step = Step(before).then(Step(call).coalesce(lambda item: "key"))
    plan = plan_of(step, range(3), on_error=policy)

    async def main():
        got = []
        async with plan.open() as run:
            try:
                async for each in run:
                    got.append((each, trio.current_time()))
            except Boom:
                pass
        return got, run.report.outcome

    got, outcome = run_virtual(main)
    assert calls == [(2, 0)]
    assert got[0] == ("by 2", 5)
    assert outcome == ("failed" if isinstance(policy, type(OnError.stop())) else "completed")


def test_a_first_caller_with_a_timeout_leaves_and_the_call_goes_on():
    service = Service((5.5, None))

    async def main():
        step = Step(service).coalesce(lambda item: "key").timeout(3)
        plan = Pipeline.from_async_iterable(lambda: each_second(3)).map(step, concurrency=3, on_error=OnError.emit())
        return [each if isinstance(each, int) else type(each.error) for each in await plan.collect()]

    async def each_second(count):
        for number in range(count):
            await trio.sleep(1)
            yield number

    assert run_virtual(main) == [trio.TooSlowError, trio.TooSlowError, trio.TooSlowError]
    assert service.log == [("begins", 0, 1), ("cancelled", 0, 6)]


def test_the_next_call_of_a_worker_is_not_shielded():
    """Its scope stays open from call to call, and was shielded while another waited."""
    service = Service((1, None), (100, None))

    async def main():
        with trio.move_on_after(5):
            await plan_of(Step(service).coalesce(lambda item: "key"), range(4), concurrency=2).run()
        return trio.current_time()

    assert run_virtual(main) == 5
    assert service.log[-1] == ("cancelled", 1, 5)


def test_a_run_that_is_cancelled_ends_at_once_whoever_waits_for_whom():
    service = Service((100, None))

    async def main(step):
        with trio.move_on_after(5):
            await plan_of(step, range(6)).run()
        return trio.current_time()

    nested = Step(service).coalesce(by_three).coalesce(lambda item: item % 2)
    for step in (Step(service).coalesce(by_three), nested, nested.timeout(50)):
        assert run_virtual(main, step) == 5


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("between", ["timeout", "hedge"])
def test_a_run_that_is_cancelled_tells_of_no_block(between, seed):
    """The call has a task, which is cancelled; its caller is shielded by another coalesce until its own have left."""
    step = Step(Service((100, None))).coalesce(str)
    step = (step.timeout(60) if between == "timeout" else step.hedge(60)).coalesce(str)

    async def main():
        with trio.move_on_after(5):
            async with plan_of(step, [1] * 3).open() as run:
                await run.receive()
        return run.report.cleanup_errors, trio.current_time()

    with scheduled(Schedule(seed)):
        assert run_virtual(main) == ((), 5)


# ---- outcomes


def test_a_result_is_shared_and_not_remembered():
    service = Service((1, None))
    step = Step(service).coalesce(lambda item: "key")

    assert run_virtual(plan_of(step, range(3)).collect) == [0, 0, 0]
    service = Service((1, None))
    step = Step(service).coalesce(lambda item: "key")
    assert run_virtual(plan_of(step, range(3), concurrency=1).collect) == [0, 1, 2]


@pytest.mark.parametrize("apart", [False, True])
def test_an_error_is_one_object_that_names_each_item_and_does_not_grow(apart):
    error = Boom()
    step = Step(Service((1, error))).coalesce(lambda item: "key")
    plan = plan_of(step.timeout(9) if apart else step, range(100), on_error=OnError.emit())
    got = run_virtual(plan.collect)

    assert all(each.error is error for each in got)
    assert len(error.__notes__) == 32
    assert {f"in stage 'service', item {number}" for number in range(100)} > set(error.__notes__)
    assert len(traceback.extract_tb(error.__traceback__)) < 15
    assert error.__context__ is None


@pytest.mark.parametrize("apart", [False, True])
def test_each_caller_is_told_the_attempts_of_the_call(apart):
    step = Step(Service((1, Boom()))).retry(Retry(3, backoff=QUICK)).coalesce(lambda item: "key")
    got = run_virtual(plan_of(step.timeout(9) if apart else step, range(3), on_error=OnError.emit()).collect)

    assert [each.attempts for each in got] == [3, 3, 3]


def test_a_retry_around_it_is_each_callers_own():
    """Both fail with the first call; both come again, at one instant, and share the second one."""
    service = Service((1, Boom()), (1, None))
    step = Step(service).coalesce(lambda item: "key").retry(Retry(2, backoff=Backoff(1, jitter=0)))
    report = run_virtual(plan_of(step, range(2)).run)

    assert report.stages[-1].policies.coalesced == 2
    assert report.stages[-1].policies.retries == 2
    assert service.calls() == 2


@pytest.mark.parametrize("apart", [False, True])
def test_a_stray_cancelled_is_a_failure_of_each(apart):
    async def call(item):
        await trio.sleep(1)
        raise await stray_cancelled()

    step = Step(call).coalesce(lambda item: "key")
    got = run_virtual(plan_of(step.timeout(9) if apart else step, range(3), on_error=OnError.emit()).collect)

    assert [(type(each.error), type(each.error.__cause__)) for each in got] == [(RuntimeError, trio.Cancelled)] * 3


def test_a_circuit_inside_sees_one_call_and_one_outside_each():
    breaker = CircuitBreaker(2, 100)

    async def states(step):
        async with step.start() as call:
            with pytest.raises(Boom):
                await gather(call, range(2), concurrency=2)
            return call.circuits[0].state.value

    failing = Step(Service((1, Boom())))
    assert run_virtual(states, failing.circuit_breaker(breaker).coalesce(lambda item: "key")) == "closed"
    assert run_virtual(states, failing.coalesce(lambda item: "key").circuit_breaker(breaker)) == "open"


# ---- keys


def test_the_trouble_of_a_key_is_that_of_its_item():
    class Odd:
        def __init__(self, item):
            self.item = item

        def __hash__(self):
            if self.item == 2:
                raise Boom("hash")
            return 1

        def __eq__(self, other):
            return self is other

    def key(item):
        if item == 0:
            raise Boom("key")
        return [] if item == 1 else Odd(item)

    step = Step(Service((1, None))).coalesce(key)
    got = run_virtual(plan_of(step, range(6), on_error=OnError.emit()).collect)

    assert [type(each.error) if isinstance(each, Failure) else "ok" for each in got[:3]] == [Boom, TypeError, Boom]
    assert not any(isinstance(each, Failure) for each in got[3:])


def test_an_async_key_is_a_mistake():
    async def key(item):
        return item

    with pytest.raises(TypeError, match=r"Step\.coalesce: key must be a sync function"):
        Step(Service((1, None))).coalesce(key)

    with pytest.raises(MisuseError, match="key of a coalesce"):
        run_virtual(plan_of(Step(Service((1, None))).coalesce(lambda item: key(item)), range(2)).run)


def test_nothing_is_kept_of_a_call_that_has_ended():
    class Key:
        pass

    async def main():
        async with Step(Service((1, None))).coalesce(lambda item: Key()).start() as call:
            await gather(call, range(5), concurrency=2)
            gc.collect()
            return sum(isinstance(each, Key) for each in gc.get_objects())

    assert run_virtual(main) == 0


# ---- started steps


def test_pipelines_share_through_a_started_step():
    service = Service((2, None))

    async def main():
        async with Step(service).coalesce(by_three).start() as call, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(plan_of(call, range(3)).run)
        return trio.current_time()

    assert run_virtual(main) == 2
    assert service.calls() == 3


def test_a_pipeline_that_is_aborted_ends_at_once_and_the_call_goes_on_for_the_other():
    service = Service((5, None))

    async def main():
        ended = {}

        async def first(call):
            with trio.move_on_after(1):
                await plan_of(call, [0]).run()
            ended["first"] = trio.current_time()

        async def other(call):
            await trio.sleep(0.5)
            ended["result"] = await plan_of(call, [0]).collect()
            ended["other"] = trio.current_time()

        async with Step(service).coalesce(by_three).start() as call, trio.open_nursery() as nursery:
            nursery.start_soon(first, call)
            nursery.start_soon(other, call)
        return ended

    assert run_virtual(main) == {"first": 1, "result": [0], "other": 5}


def test_the_last_that_leaves_waits_for_the_call():
    async def at_end(number):
        with trio.CancelScope(shield=True):
            await trio.sleep(3)

    async def main():
        async with Step(Service((50, None), at_end=at_end)).coalesce(by_three).start() as call:
            with trio.move_on_after(1):
                await call(0)
            return trio.current_time()

    assert run_virtual(main) == 4


async def ends_slowly(number):
    with trio.CancelScope(shield=True):
        await trio.sleep(3)


def test_who_comes_while_a_call_is_being_ended_makes_a_new_one_behind_it():
    """No two equal calls are under way; of those who wait for the end of the old one, one makes the new one."""
    service = Service((50, None), (1, None), at_end=ends_slowly)

    async def main():
        results = []

        async def later(call, at):
            await trio.sleep(at)
            results.append((await call(0), trio.current_time()))

        async with Step(service).coalesce(by_three).start() as call, trio.open_nursery() as nursery:
            nursery.start_soon(later, call, 2)
            nursery.start_soon(later, call, 3)
            with trio.move_on_after(1):
                await call(0)
        return results

    assert run_virtual(main) == [(1, 5), (1, 5)]
    assert [(kind, when) for kind, _number, when in service.log] == [
        ("begins", 0),
        ("cancelled", 1),
        ("begins", 4),
        ("ends", 5),
    ]


def test_who_waits_for_the_end_of_an_abandoned_call_leaves_at_once():
    async def main():
        left = []

        async def impatient(call):
            await trio.sleep(2)
            with trio.move_on_after(0.5):
                await call(0)
            left.append(trio.current_time())

        step = Step(Service((50, None), at_end=ends_slowly)).coalesce(by_three)
        async with step.start() as call, trio.open_nursery() as nursery:
            nursery.start_soon(impatient, call)
            with trio.move_on_after(1):
                await call(0)
            left.append(trio.current_time())
        return left

    assert run_virtual(main) == [2.5, 4]


def test_a_call_that_fails_as_it_is_ended_is_made_anew_by_who_waits():
    async def fails(number):
        await ends_slowly(number)
        raise Boom

    async def main():
        step = Step(Service((50, None), (1, None), at_end=fails)).coalesce(by_three)
        async with step.start() as call, trio.open_nursery() as nursery:

            async def later():
                await trio.sleep(2)
                assert await call(0) == 1

            nursery.start_soon(later)
            with trio.move_on_after(1):
                await call(0)
        return trio.current_time()

    assert run_virtual(main) == 5


def test_what_a_call_raises_that_nobody_waits_for_is_logged(caplog):
    async def at_end(number):
        raise Boom("in cleanup")

    async def main():
        async with Step(Service((50, None), at_end=at_end)).coalesce(by_three).start() as call:
            with trio.move_on_after(1):
                await call(0)

    caplog.set_level(logging.WARNING, "funcpipe_trio")
    run_virtual(main)
    assert "in cleanup" in caplog.text


def test_a_block_that_is_left_waits_for_a_call_that_is_being_ended(caplog):
    async def at_end(number):
        await trio.lowlevel.cancel_shielded_checkpoint()
        raise Boom("in cleanup")

    async def main():
        async with trio.open_nursery() as nursery:
            async with Step(Service((9, None), at_end=at_end)).coalesce(by_three).start() as call:
                nursery.start_soon(call, 0)
                await trio.sleep(2)
                nursery.cancel_scope.deadline = 3
            return trio.current_time()

    caplog.set_level(logging.WARNING, "funcpipe_trio")
    assert run_virtual(main) == 3
    assert "in cleanup" in caplog.text


def test_outside_of_its_block_it_is_refused_and_by_itself_it_works():
    step = Step(Service((1, None))).coalesce(by_three)

    async def outside():
        await step.start()(1)

    with pytest.raises(StateError, match="one with using, hedge or coalesce must be called in its block"):
        run_virtual(outside)
    assert run_virtual(step, 1) == 0
    assert run_virtual(lambda: gather(step, range(6), concurrency=6)) == [1, 2, 3, 1, 2, 3]


def test_a_block_that_is_cancelled_tells_callers_of_other_tasks():
    step = Step(Service((9, None))).coalesce(by_three)

    async def main():
        errors = []

        async def use(call):
            with pytest.raises(StateError, match="the block of its started step has ended"):
                await call(0)
            errors.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            with trio.move_on_after(3):
                async with step.start() as call:
                    nursery.start_soon(use, call)
                    await trio.sleep_forever()
        return errors

    assert run_virtual(main) == [3]


request: ContextVar[str] = ContextVar("request", default="none")


def test_a_call_sees_what_is_set_where_it_began_and_nobody_sees_what_it_sets():
    seen = []

    async def call(item):
        seen.append(request.get())
        request.set("of the call")
        await trio.sleep(1)

    async def main():
        async with Step(call).coalesce(lambda item: "key").start() as started:
            request.set("of the caller")
            await started(0)
            return request.get()

    assert run_virtual(main) == "of the caller"
    assert seen == ["of the caller"]


# ---- the plan


async def embed(item):
    raise AssertionError


def test_how_it_reads():
    assert Step(embed).timeout(2).coalesce(by_three).describe() == (
        "step embed\n  call embed\n    timeout of 2 s\n"
        "    coalesce: one call at a time for each by_three, whose result equal calls share"
    )
    plan = plan_of(Step(embed).timeout(2).coalesce(by_three), [1])
    assert '"coalesce.key": "' in plan.describe("json")
    assert review(plan) == ()
    assert "coalesce.key" in plan.diff(plan_of(Step(embed).timeout(2).coalesce(abs), [1]))


@pytest.mark.parametrize("apart", [False, True])
def test_a_simulation_shares_too(apart):
    async def call(item):
        await trio.sleep(2)
        return item

    step = Step(call).coalesce(by_three)
    plan = Pipeline.from_iterable(range(12), name="n").map(step.timeout(9) if apart else step, concurrency=6, name="s")
    recorder = Recorder()
    report = run_virtual(lambda: plan.run(record=recorder))
    played = simulate(plan, recorder.recording)

    assert (report.elapsed, report.stages[-1].policies.coalesced) == (4, 6)
    assert (played.elapsed, played.stages[-1].policies.coalesced) == (4, 6)
    fewer = simulate(plan, recorder.recording, {"s": {"concurrency": 2}})
    assert (fewer.elapsed, fewer.stages[-1].policies.coalesced) == (12, 0)


# ---- everywhere


def scenario(apart, policy):
    async def call(item):
        await trio.sleep(1 + item % 2 + item / 64)
        if item % 5 == 3:
            raise Boom(item)
        return item

    def make():
        step = Step(call).rate_limit(RateLimit(4, burst=3)).coalesce(by_three)
        step = step.timeout(1.75) if apart else step
        return Pipeline.from_iterable(range(8)).map(step, concurrency=4, on_error=policy).buffer(1)

    async def consume(run, lab):
        try:
            async for _ in run:
                lab.delivered += 1
        except (Boom, trio.TooSlowError):
            assert policy == OnError.stop()

    return Scenario(make, consume, name=f"coalesce {apart} {policy}")


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("policy", [OnError.stop(), OnError.emit()])
def test_under_every_schedule_and_ended_everywhere(apart, policy):
    each = scenario(apart, policy)

    explore_schedules(each, seeds=range(20))
    cancel_everywhere(each)
    if policy != OnError.stop():  # or its own failure discards what a drain would not
        drain_everywhere(each)
    interrupt_everywhere(each)


def test_the_class_of_a_key_need_not_be_hashable():
    class ByName(type):  # noqa: PLW1641  # that is what this is about
        def __eq__(cls, other):
            return cls is other

    class Key(metaclass=ByName):
        def __init__(self, item):
            self.item = item

        def __hash__(self):
            return 1

        def __eq__(self, other):
            return self.item == other.item

    asked = []

    async def ask(item):
        asked.append(item)
        await trio.sleep(1)
        return item

    line = Pipeline.from_iterable("abab").map(Step(ask).coalesce(Key), concurrency=4)
    assert run_virtual(line.collect) == [*"abab"]
    assert sorted(asked) == ["a", "b"]
