"""What a simulation takes, what it never touches, and that it ends: whatever was recorded, and wherever it is called.

Mutants that die here: an argument that is not checked; a source, a channel, a limiter or a function of the user's that
is used; a source that never ends, or ends too early; a run that ends before its last arrival; a sample from the wrong
time; a simulation that goes on when nobody waits for it any more.
"""

from __future__ import annotations

import math
import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import pytest
import trio

from funcpipe_trio import (
    Backoff,
    FairShare,
    OnError,
    Pipeline,
    PlanError,
    RateLimit,
    RateLimiter,
    Recorder,
    Recording,
    Retry,
    RollingLimit,
    StateError,
    Step,
    executor,
    fair_merge,
    simulate,
    simulate_async,
    threads,
)
from funcpipe_trio._base.shown import shown
from funcpipe_trio._recording.playing import _arrival
from funcpipe_trio._recording.tapes import Kept
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import nap, run_real
from tests.recording._recorded import recorded

Plan = Pipeline[Any]
Make = Callable[[], Plan]


def line(count: int = 4, **settings: Any) -> Plan:
    return Pipeline.from_iterable(range(count), name="numbers").map(nap, **settings)


RECORDING = recorded(line())


# ---- arguments


class Named:
    """Something that must not be looked into for a message."""

    def __repr__(self) -> str:
        raise AssertionError("asked for its repr")


ODD = Named()
WRONG: list[tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = [
    *((TypeError, f"plan must be a Pipeline, not {shown(value)}", (value, RECORDING), {})
      for value in (None, 3, "app:plan", ODD, Pipeline, line)),
    *((TypeError, f"recording must be a Recording, not {shown(value)}", (line(), value), {})
      for value in (None, "run.jsonl", ODD, Recorder(), Recording)),
    *((TypeError, f"seed must be an int, not {shown(value)}", (line(), RECORDING), {"seed": value})
      for value in (None, True, 1.0, "1", ODD)),
    *((TypeError, f"open_loop must be a collection of names, not {shown(value)}", (line(), RECORDING),
       {"open_loop": value}) for value in (None, "numbers", 3, ODD, iter(["numbers"]))),
    *((TypeError, f"open_loop must be a str, not {shown(value)}", (line(), RECORDING), {"open_loop": [value]})
      for value in (None, 3, b"numbers")),
    (ValueError, "open_loop must not be empty, not ''", (line(), RECORDING), {"open_loop": [""]}),
    (ValueError, "open_loop must name sources of the plan, not 'nap'; they are 'numbers'", (line(), RECORDING),
     {"open_loop": ["numbers", "nap"]}),
    (ValueError, "the recording must have 'other', which it does not; it has 'nap', 'numbers'\nUse the plan that was",
     (line().map(nap, name="other"), RECORDING), {}),
    (ValueError, "the recording must have 'else', which it does not; it has",
     (Pipeline.from_iterable([1], name="else").map(nap), RECORDING), {}),
    (ValueError, "the recording must have 'else', which it does not; it has",
     (Pipeline.from_async_iterable(lambda: feed(1), name="else").map(nap), RECORDING), {}),
]  # fmt: skip


async def feed(period: float, most: float = math.inf) -> AsyncIterator[int]:
    for number in count():
        if number >= most:
            return
        await trio.sleep(period)
        yield number


@pytest.mark.parametrize(("kind", "said", "arguments", "options"), WRONG)
def test_wrong_arguments_are_refused(kind, said, arguments, options):
    for where, call in (("simulate", simulate), ("simulate_async", partial(trio.run, partial_of))):
        with pytest.raises(kind, match=f"^{re.escape(f'{where}: {said}')}") as caught:
            call(*arguments, **options) if where == "simulate" else call(arguments, options)
        assert type(caught.value) is kind


async def partial_of(arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    await simulate_async(*arguments, **options)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ([1], TypeError),
        ({"nap": 3}, TypeError),
        ({"nothing": {"concurrency": 2}}, PlanError),
        ({"nap": {"nothing": 2}}, PlanError),
        ({"nap": {"concurrency": 0}}, ValueError),
        ({"nap": {"concurrency": "2"}}, TypeError),
    ],
)
def test_wrong_changes_are_those_of_with_settings(changes, error):
    with pytest.raises(error) as caught:
        simulate(line(), RECORDING, changes)
    with pytest.raises(error, match=f"^{re.escape(str(caught.value))}$"):
        line().with_settings(changes)


def test_no_changes_are_none():
    for none in (None, {}, {"nap": {}}):
        assert simulate(line(), RECORDING, none).elapsed == 4


def test_a_plan_that_cannot_work_is_refused_without_a_group():
    for call in (simulate, lambda *arguments: trio.run(partial_of, arguments, {})):
        with pytest.raises(PlanError):
            call(Pipeline.from_iterable([1], name="numbers").map(Step(len), name="nap"), RECORDING)  # type: ignore[arg-type]


def test_inside_of_trio_it_is_refused():
    async def main() -> None:
        with pytest.raises(StateError, match=r"^simulate: must not be called inside of trio\nUse await simulate_async"):
            simulate(line(), RECORDING)

    trio.run(main)


# ---- what is never touched


def test_one_shot_sources_stay_usable():
    items = iter([1, 2, 3])
    plan = Pipeline.from_iterable(items, name="numbers").map(nap)

    assert simulate(plan, RECORDING).taken == 4
    assert run_virtual(plan.collect) == [1, 2, 3]


def test_channels_stay_open():
    async def main() -> tuple[int, list[int]]:
        send, receive = trio.open_memory_channel[int](5)
        plan: Plan = Pipeline.from_channel(receive, name="numbers").map(nap)
        other: Plan = Pipeline.from_async_iterable(lambda: feed(1, 3), name="numbers").map(nap)
        recording = await trio.to_thread.run_sync(recorded, other)
        report = await simulate_async(plan, recording)
        async with send:
            await send.send(7)
        return report.delivered, [item async for item in receive]

    assert trio.run(main) == (3, [7])


def refuse(*_arguments: Any) -> Any:
    raise AssertionError("user code was called in a simulation")


async def refuse_async(*_arguments: Any) -> Any:
    raise AssertionError("user code was called in a simulation")


def test_nothing_of_the_users_is_called():
    """Functions, runners, executors, predicates, sources: the recording says all."""

    def make(sync: Any, call: Any, items: Any, runner: Any) -> Plan:
        return fair_merge(
            {"a": Pipeline.from_iterable(items, name="a"), "b": Pipeline.from_async_iterable(items, name="b")},
            FairShare({"a": 2}, cost=sync),
            name="both",
        ).map(sync, name="sync").filter(sync, name="filter").map(
            Step(sync).on(runner).timeout(9), name="runner", concurrency=2
        ).map(Step(call).retry(Retry(3, on=sync)), name="step", on_error=OnError.skip()).batch(
            max_cost=3, cost=sync).unbatch().tap(sync, name="tap").distinct(sync, remember=3)  # fmt: skip

    class Items:
        def __iter__(self) -> Any:
            return iter([1, 2])

        async def __aiter__(self) -> Any:
            yield 1

    def one(_item: Any) -> int:
        return 1

    def never() -> Any:
        raise AssertionError("an executor was made in a simulation")

    async def in_place(fn: Any, *args: Any) -> Any:
        return fn(*args)

    recording = recorded(make(one, nap, Items(), in_place))

    report = simulate(make(refuse, refuse_async, refuse, executor(never)), recording)

    assert (report.taken, report.delivered) == (recording.taken, recording.delivered)


def test_limiters_of_the_users_are_not_used():
    async def main() -> int:
        limiter = RateLimiter(RateLimit(1))
        plan = line().map(Step(nap).rate_limit(limiter), name="limited")
        recorder = Recorder()
        await plan.run(record=recorder)
        before = limiter.statistics()
        recordings.append((plan, recorder.recording))
        return before.acquired

    recordings: list[tuple[Plan, Recording]] = []
    assert run_virtual(main) == 4
    plan, recording = recordings[0]
    assert simulate(plan, recording).elapsed == pytest.approx(recording.elapsed)


@pytest.mark.parametrize("shared", [False, True])
def test_another_n_of_a_rolling_limit_is_a_setting(shared):
    """Four items that take no time: two in any 10 s, then one."""

    async def main() -> tuple[Plan, Recording]:
        limit: Any = RollingLimit(2, per=10)
        plan = line().map(Step(nap).rate_limit(RateLimiter(limit) if shared else limit), name="limited")
        recorder = Recorder()
        await plan.run(record=recorder)
        return plan, recorder.recording

    plan, recording = run_virtual(main)

    assert simulate(plan, recording).elapsed == pytest.approx(recording.elapsed)
    assert recording.elapsed < 20
    assert simulate(plan, recording, {"limited": {"rate_limit.n": 1}}).elapsed >= 30
    assert simulate(plan, recording, {"limited": {"rate_limit.per": 50}}).elapsed >= 50


# ---- the consumer


def test_what_a_consumer_does_before_its_first_item_counts():
    async def late(run: Any) -> None:
        await trio.sleep(7)
        async for _ in run:
            await trio.sleep(1)

    recording = recorded(line(), late)

    assert recording.elapsed == 11
    assert simulate(line(), recording).elapsed == 11


@pytest.mark.parametrize("name", ["consumer", "holds", "source"])
def test_the_name_of_a_source_does_not_matter(name):
    async def slow(items: Any) -> AsyncIterator[int]:
        for item in items:
            await trio.sleep(1)
            yield item

    async def body(run: Any) -> None:
        async for _ in run:
            await trio.sleep(5)
        await trio.sleep(7)

    recording = recorded(Pipeline.from_async_iterable(lambda: slow(range(3)), name=name), body)
    played = simulate(Pipeline.from_async_iterable(lambda: slow(()), name=name), recording)
    assert (played.elapsed, played.taken, played.delivered) == (recording.elapsed, 3, 3)


@pytest.mark.parametrize("got", [0, 1, 3])
@pytest.mark.parametrize("asks", [False, True])
def test_a_consumer_leaves_when_it_did(got, asks):
    """It takes no item, or some; then it waits for the next in vain, or does something else."""

    async def leaves(run: Any) -> None:
        for _ in range(got):
            await anext(run)
        if asks:
            with trio.move_on_after(0.75):
                await anext(run)
        else:
            await trio.sleep(0.75)

    recording = recorded(line(), leaves)
    report = simulate(line(), recording)

    assert recording.outcome == report.outcome == "left"
    assert report.elapsed == recording.elapsed == got + 0.75
    assert report.delivered == recording.delivered == got


@pytest.mark.parametrize("times", [1, 2])
def test_what_a_consumer_does_behind_the_last_item_counts(times):
    async def goes_on(run: Any) -> None:
        for _ in range(times):  # it is told each time that there are no more
            async for _item in run:
                pass
            await trio.sleep(5)

    recording = recorded(line(), goes_on)

    assert simulate(line(), recording).elapsed == recording.elapsed == 4 + 5 * times


@pytest.mark.parametrize("seconds", [0, 0.5, 2.5])
def test_a_run_that_was_cancelled_is_cancelled_then(seconds):
    async def main() -> None:
        with trio.move_on_after(seconds):
            await line().run(record=recorder)

    recorder = Recorder()
    run_virtual(main)
    if "not used" not in repr(recorder):
        report = simulate(line(), recorder.recording)
        assert (report.outcome, report.elapsed) == ("cancelled", recorder.recording.elapsed)


# ---- a simulation ends


async def slow_at_three(item: int) -> int:
    await trio.sleep(5 if item == 3 else 0.125)
    return item


def failing() -> Plan:
    return Pipeline.from_iterable(count, name="numbers").map(
        Step(slow_at_three).timeout(1), name="slow", concurrency=2, ordered=False
    )


def test_where_a_failure_is_cured_the_run_ends_with_what_is_known():
    recording = recorded(failing())
    report = simulate(failing(), recording, {"slow": {"timeout": 60}})

    assert recording.outcome == "failed"
    assert (report.outcome, report.taken) == ("completed", recording.taken)


def leave(number: int) -> Any:
    async def body(run: Any) -> None:
        got = 0
        async for _ in run:
            got += 1
            if got == number:
                return

    return body


def batches(period: float = 1) -> Plan:
    return Pipeline.from_async_iterable(lambda: feed(period), name="numbers").batch(5, name="batch")


def test_a_source_that_was_stopped_goes_on_if_more_is_needed():
    recording = recorded(batches(), leave(4))

    assert simulate(batches(), recording).elapsed == 20
    report = simulate(batches(), recording, {"batch": {"max_items": 50}})
    assert (report.outcome, report.delivered) == ("left", 4)
    assert report.elapsed == pytest.approx(200, abs=1e-3)


def test_what_came_by_itself_does_not_go_on():
    recording = recorded(batches(), leave(4))

    report = simulate(batches(), recording, {"batch": {"max_items": 50}}, open_loop=["numbers"])
    assert (report.outcome, report.taken, report.delivered) == ("completed", 20, 1)
    assert report.elapsed == pytest.approx(20, abs=1e-3)


def test_a_source_that_nobody_stops_ends():
    """A change that lets nothing through any more does not make the simulation endless."""

    def plan() -> Plan:
        calls = Step(slow_at_three).timeout(60)
        return Pipeline.from_iterable(count, name="numbers").map(calls, name="slow", on_error=OnError.skip()).take(9)

    recording = recorded(plan())
    report = simulate(plan(), recording, {"slow": {"timeout": 0.0625, "concurrency": 100}})

    assert (report.outcome, report.delivered) == ("completed", 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda line: line.flat_map(lambda item: [item]),
        lambda line: line.loop(lambda body: body.map(nap), again=lambda item: [], room=3),
    ],
)
def test_what_was_never_called_was_recorded_all_the_same(make: Callable[[Plan], Plan]) -> None:
    recording = recorded(make(line(0)))

    assert simulate(make(line(0)), recording).outcome == "completed"


def test_ctrl_c_ends_it_without_a_group():
    recording = recorded(line())
    for place, kept in recording.tapes.items():
        if place.role == "items":
            kept.seen = 10**12  # so it never ends by itself
    interrupt = threading.Timer(0.05, partial(os.kill, os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a program in the background ignores it
    interrupt.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            simulate(line(), recording)
    finally:
        interrupt.join()
        signal.signal(signal.SIGINT, before)


# ---- in trio


def test_in_trio_it_says_the_same():
    def plan() -> Plan:
        return line(30, concurrency=3).filter(lambda item: item % 3).batch(4)

    recording = recorded(plan())
    expected = simulate(plan(), recording, {"nap": {"concurrency": 2}}, seed=3)
    reports = []

    async def one() -> None:
        reports.append(await simulate_async(plan(), recording, {"nap": {"concurrency": 2}}, seed=3))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(one)

    trio.run(main)
    assert len(reports) == 4
    for report in reports:
        assert (report.elapsed, report.delivered, report.outcome) == (expected.elapsed, 20 // 4, "completed")


@pytest.mark.parametrize("kind", ["open", "run", "nothing is delivered"])
def test_one_that_nobody_waits_for_any_more_ends_soon(kind):
    """It would take hours: it ends because it is cancelled, wherever it is."""

    def plan(size: float) -> Plan:
        numbers: Plan = Pipeline.from_iterable(range(int(size)), name="numbers").map(nap)
        return numbers.filter(lambda item: False) if kind == "nothing is delivered" else numbers

    recorder = Recorder(max_samples=10)
    if kind == "run":
        run_virtual(partial(plan(100).run, record=recorder))
        recording = recorder.recording
    else:
        recording = recorded(plan(100), max_samples=10)
    for place, kept in recording.tapes.items():
        if place.role == "items":
            kept.seen = 10**12

    async def main() -> bool:
        with trio.move_on_after(0.05) as scope:
            await simulate_async(plan(100), recording)
        return scope.cancelled_caught

    assert trio.run(main)


def test_simulations_in_several_threads_leave_trio_as_it_was():
    """Each has an order of its own, and none of them stays."""
    from trio._core import _run

    before = _run._r, _run._ALLOW_DETERMINISTIC_SCHEDULING
    recording = recorded(line(20, concurrency=3))
    reports: list[str] = []

    def one(seed: int) -> None:
        for _ in range(5):
            reports.append(repr(simulate(line(20, concurrency=3), recording, seed=seed).stages))

    running = [threading.Thread(target=one, args=(7,)) for _ in range(4)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    assert len(set(reports)) == 1
    assert (_run._r, _run._ALLOW_DETERMINISTIC_SCHEDULING) == before


def test_a_trio_whose_order_cannot_be_chosen_simulates_too(monkeypatch):
    recording = recorded(line())
    monkeypatch.setattr("funcpipe_trio._runtime.core.task_order.missing_private_names", lambda: ["it"])

    assert simulate(line(), recording).elapsed == 4
    assert Pipeline.from_iterable(count).map(nap).filter(bool).predict({"nap": 0.5}).throughput == pytest.approx(2)


def test_the_schedule_of_one_thread_is_not_that_of_another():
    inside, leave_it = threading.Event(), threading.Event()
    schedule = Schedule(0)

    def hold() -> None:
        with scheduled(schedule):
            inside.set()
            leave_it.wait(30)

    holding = threading.Thread(target=hold)
    holding.start()
    inside.wait(30)
    trio.run(line(3, concurrency=2).take(0).collect)
    leave_it.set()
    holding.join()
    assert schedule.digest == 0


# ---- ticks


def test_items_that_are_no_tokens_have_each_their_own_durations():
    """What ticks give is known by its place in time alone."""
    turns = [5.0] * 5 + [0.125] * 15

    async def call(item: int) -> int:
        await trio.sleep(turns[item])
        return item

    def plan(concurrency: int) -> Plan:
        return Pipeline.ticks(1).take(20).map(call, concurrency=concurrency, name="call")

    recording = recorded(plan(20))
    truth = recorded(plan(1))

    assert simulate(plan(20), recording, {"call": {"concurrency": 1}}).elapsed == pytest.approx(truth.elapsed)


# ---- more calls than are kept


def test_a_long_run_is_kept_in_a_bounded_number_of_samples():
    size = 4_000

    async def call(item: int) -> int:
        await trio.sleep(1 if item < size // 2 else 3)
        return item

    def plan() -> Plan:
        return Pipeline.from_async_iterable(lambda: feed(0.5, size), name="numbers").map(call, concurrency=4)

    recording = recorded(plan(), max_samples=200)

    assert all(len(kept.samples) <= 200 and len(kept.numbers) <= 200 for kept in recording.tapes.values())
    report = simulate(plan(), recording)
    assert report.elapsed == pytest.approx(recording.elapsed, rel=0.05)
    early = simulate(plan().take(size // 2), recording)
    assert early.elapsed == pytest.approx(size // 2 * 0.5, rel=0.05), "what was slow late is slow late"
    opened = simulate(plan(), recording, {"call": {"concurrency": 100}}, open_loop=["numbers"])
    assert opened.elapsed == pytest.approx(recorded(plan().with_settings({"call": {"concurrency": 100}})).elapsed,
                                           rel=0.3)  # fmt: skip


# ---- arrivals


def test_a_source_of_arrivals_is_not_slowed_down_and_not_faster():
    def plan(concurrency: int = 1) -> Plan:
        source: Plan = Pipeline.from_async_iterable(lambda: feed(0.25, 40), name="requests")
        return source.buffer(100).map(nap, concurrency=concurrency)

    recording = recorded(plan(8))
    for concurrency in (8, 16, 4):
        changes = {"nap": {"concurrency": concurrency}}
        report = simulate(plan(8), recording, changes, open_loop=["requests"])
        assert report.elapsed == 40 * 0.25 + 1
    for concurrency in (1, 2):
        report = simulate(plan(8), recording, {"nap": {"concurrency": concurrency}}, open_loop={"requests"})
        assert report.elapsed == pytest.approx(0.25 + 40 / concurrency, abs=0.5)


@pytest.mark.parametrize(("number", "at"), [(0, 2), (2, 2), (4, 6), (7, 12), (9, 12)])
def test_an_arrival_that_was_not_kept_is_between_those_that_were(number, at):
    assert _arrival(Kept(10, [2, 7], [2.0, 12.0]), number) == at


# ---- what else is as it was


def test_a_run_that_was_cancelled_does_not_end_because_it_is_faster():
    async def silent() -> AsyncIterator[int]:
        for number in range(40):
            yield number
        await trio.sleep_forever()

    async def main() -> None:
        with trio.move_on_after(30):
            await plan.run(record=recorder)

    plan: Plan = Pipeline.from_async_iterable(silent, name="numbers").map(nap)
    recorder = Recorder()
    run_virtual(main)

    report = simulate(plan, recorder.recording, {"nap": {"concurrency": 40}}, open_loop=["numbers"])
    assert (report.outcome, report.elapsed, report.delivered) == ("cancelled", 30, 40)


@pytest.mark.parametrize(("abandon", "seconds"), [(False, 5), (True, 1)])
def test_a_call_in_a_thread_is_waited_for_unless_it_is_abandoned(abandon, seconds):
    runner = threads(2, abandon_on_cancel=abandon)
    plan = Pipeline.from_iterable([1], name="numbers").map(Step(str).on(runner).timeout(1), on_error=OnError.skip())
    recorder = Recorder()
    run_real(partial(plan.run, record=recorder))
    for place, kept in recorder.recording.tapes.items():
        if place.role in ("calls", "bursts"):  # the times of this machine are not to be seen
            kept.samples[:] = [5.0] if place.role == "calls" else [[0, 0]]

    assert simulate(plan, recorder.recording).elapsed == seconds


def test_jitter_is_that_of_the_recorded_run():
    async def fails(item: int) -> int:
        await trio.sleep(1)
        raise OSError(item)

    policy = Retry(3, OSError, Backoff(10))
    plan = Pipeline.from_iterable([1], name="numbers").map(Step(fails).retry(policy), on_error=OnError.skip())
    recording = recorded(plan)

    assert recording.seed is not None
    assert simulate(plan, recording).elapsed == pytest.approx(recording.elapsed)
    assert simulate(plan, replace(recording, seed=recording.seed + 1)).elapsed != pytest.approx(recording.elapsed)


# ---- the real clock


def test_what_held_the_event_loop_holds_the_simulated_one():
    """No real duration is compared with a number: a simulation has those that were recorded."""

    def busy(item: int) -> int:
        import time

        time.sleep(0.002)
        return item

    def plan() -> Plan:
        return Pipeline.from_iterable(range(30), name="numbers").map(busy).map(nap_shortly, concurrency=3)

    recorder = Recorder()
    trio.run(partial(plan().run, record=recorder))
    recording = recorder.recording

    held = [kept.samples[0] for place, kept in recording.tapes.items() if place.role == "bursts"]
    calls = next(kept.samples for place, kept in recording.tapes.items() if place.role == "calls")
    report = simulate(plan(), recording)
    least = max(sum(seconds for _values, seconds in held), sum(calls) / 3)
    assert least > 0.06
    assert least * 0.99 <= report.elapsed <= sum(seconds for _values, seconds in held) + sum(calls) + 0.001
    assert report.delivered == 30


async def nap_shortly(item: int) -> int:
    await trio.sleep(0.003)
    return item
