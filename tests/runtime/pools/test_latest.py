"""Only the latest item counts: when is an older one given up, and what becomes of it?

Mutants that die here: two calls at once; a call that goes on beside a newer one; the oldest of several instead of the
newest; a result of an item that was superseded; one that is dropped without a word, or told twice; an end, or a failure
upstream, that supersedes the last item; a timeout of a step that stays open around the next call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    OnError,
    Pipeline,
    PlanError,
    Retry,
    Run,
    Step,
    merge,
)
from funcpipe_trio.testing import Fail, Script, run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, assert_links_balance, assert_stages_balance

Line = Pipeline[Any]


def script(*timeline: Any) -> Line:
    return Pipeline.from_async_iterable(Script([*timeline]))


class Outcome:
    """What came when, what was told, and the report."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.told: list[Any] = []
        self.error: Exception | None = None
        self.report: Any = None

    @property
    def dropped(self) -> list[Any]:
        return [item for item, _, reason in self.told if reason == "latest"]


async def play(line: Line, pause: float = 0) -> Outcome:
    outcome, run = Outcome(), None
    began = trio.current_time()
    try:
        async with line.open(on_discard=lambda *what: outcome.told.append(what)) as run:
            async for item in run:
                outcome.got.append((trio.current_time() - began, item))
                await trio.sleep(pause)
    except Exception as raised:
        outcome.error = raised
    assert run is not None
    outcome.report = report = run.report
    assert_stages_balance(report)
    assert_links_balance(report)
    changed = sum(each.made - each.used for each in report.remade)
    assert report.taken + changed == report.delivered + report.failed + report.dropped + report.discarded
    assert len(outcome.dropped) == report.dropped
    assert len(outcome.told) == report.dropped + report.discarded
    return outcome


async def look_up(item: Any) -> str:
    await trio.sleep(2)
    return f"found {item}"


def test_a_newer_item_cancels_the_call_for_the_older_one():
    typed = script((1, "a"), (2, "ab"), (3, "abc"), (9, "x"))

    played = run_virtual(play, typed.map(look_up, latest=True))

    assert played.got == [(5, "found abc"), (11, "found x")]
    assert played.told == [("a", "look_up", "latest"), ("ab", "look_up", "latest")]
    assert played.report.outcome == "completed"
    (stage,) = [each for each in played.report.stages if each.name == "look_up"]
    assert (stage.received, stage.emitted, stage.dropped) == (4, 2, 2)


def test_of_several_that_are_there_the_newest_is_taken():
    called = []

    async def call(item: int) -> int:
        called.append(item)
        await trio.sleep(1)
        return item

    played = run_virtual(play, Pipeline.from_iterable(range(10)).map(call, latest=True))

    assert played.got[-1][1] == 9
    assert len(called) < 4
    assert len(played.dropped) == 9


def test_a_call_that_shields_itself_goes_on_and_its_result_is_dropped():
    log = []

    async def save(item: str) -> str:
        log.append((trio.current_time() - began, "begin", item))
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
        log.append((trio.current_time() - began, "end", item))
        return item

    began = 0.0

    async def main() -> Outcome:
        nonlocal began
        began = trio.current_time()
        return await play(script((1, "a"), (2, "b"), (3, "c")).map(save, latest=True))

    played = run_virtual(main)

    assert log == [(1, "begin", "a"), (4, "end", "a"), (4, "begin", "c"), (7, "end", "c")]
    assert played.got == [(7, "c")]
    assert played.dropped == ["a", "b"]


async def swallowing(item: str) -> str:
    with suppress(trio.Cancelled):
        await trio.sleep(3)
    return item


async def failing_when_cancelled(item: str) -> str:
    try:
        await trio.sleep(3)
    except trio.Cancelled:
        raise Boom(item) from None
    return item


async def failing_in_a_shield(item: str) -> str:
    with trio.CancelScope(shield=True):
        await trio.sleep(1.5)
    if item == "a":
        raise Boom(item)
    return item


async def failing_in_a_nursery(item: str) -> str:
    async def other() -> None:
        try:
            await trio.sleep(3)
        except trio.Cancelled:
            raise Boom(item) from None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await trio.sleep(3)
    return item


@pytest.mark.parametrize("fn", [swallowing, failing_when_cancelled, failing_in_a_shield, failing_in_a_nursery])
@pytest.mark.parametrize("step", [False, True])
def test_whatever_a_superseded_call_does_it_ends_nothing(fn, step):
    call = Step(fn).timeout(9).retry(Retry(1)) if step else fn

    played = run_virtual(play, script((1, "a"), (2, "b")).map(call, latest=True))

    assert [item for _, item in played.got] == ["b"]
    assert (played.error, played.dropped) == (None, ["a"])
    assert played.report.cleanup_error_count == (fn is not swallowing)


@pytest.mark.parametrize("end", [(), ((2, Fail(Boom())),)])
def test_neither_the_end_nor_a_failure_supersedes_the_last_item(end):
    played = run_virtual(play, script((1, "a"), *end).map(look_up, latest=True))

    assert played.got == [(3, "found a")]
    assert type(played.error) is (Boom if end else type(None))
    assert played.dropped == []


def test_a_call_that_fails_before_a_newer_item_comes_is_a_failure():
    async def fail(item: str) -> str:
        await trio.sleep(0.5)
        if item == "b":
            raise Boom(item)
        return item

    played = run_virtual(play, script((1, "a"), (2, "b"), (3, "c")).map(fail, latest=True))
    assert (played.got, str(played.error), played.report.failed) == ([(1.5, "a")], "b", 1)

    skipping = script((1, "a"), (2, "b"), (3, "c")).map(fail, latest=True, on_error=OnError.skip())
    played = run_virtual(play, skipping)
    assert [item for _, item in played.got] == ["a", "c"]


def test_policies_of_a_step_begin_anew_for_each_item():
    """A timeout that was kept open around the cancelled call would corrupt the scopes, or count for the next one."""

    async def call(item: int) -> int:
        await trio.sleep(1.75)
        return item

    step = Step(call).timeout(2).retry(Retry(2, backoff=Backoff(0.25))).circuit_breaker(CircuitBreaker(1)).timeout(9)

    played = run_virtual(play, script(*((at, at) for at in range(8)), (11, 11)).map(step, latest=True))

    assert [item for _, item in played.got] == [7, 11]
    assert played.error is None


def test_no_call_begins_while_there_is_no_room_behind_it():
    begun = []

    async def call(item: int) -> int:
        begun.append((trio.current_time(), item))
        await trio.sleep(0.25)
        return item

    line = script(*((at, at) for at in range(12))).buffer(4).map(call, latest=True).buffer(1)

    async def main() -> Any:
        started = trio.current_time()
        played = await play(line, 2.6)
        return played, [(at - started, item) for at, item in begun]

    played, calls = run_virtual(main)

    assert [item for _, item in played.got] == sorted(item for _, item in played.got)
    assert played.got[-1][1] == 11
    assert len(calls) == len(played.got)  # none was cancelled: each was done long before there was room for the next
    assert len(played.dropped) == 12 - len(played.got)


@given(
    st.lists(st.sampled_from((0.0, 0.5, 1.0, 3.0)), min_size=1, max_size=9),
    st.sampled_from((0.25, 1.25)),
    st.booleans(),
    st.sampled_from((0, 2)),
    st.integers(0, 9),
)
def test_one_call_at_a_time_and_the_last_item_is_never_dropped(gaps, seconds, shields, pause, seed):
    times = [sum(gaps[: at + 1]) for at in range(len(gaps))]
    at_once, most = 0, 0

    async def call(item: int) -> int:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            with trio.CancelScope(shield=shields):
                await trio.sleep(seconds)
        finally:
            at_once -= 1
        return item

    line = script(*((time, number) for number, time in enumerate(times))).map(call, latest=True)

    with scheduled(Schedule(seed)):
        played = run_virtual(play, line, pause)

    got = [item for _, item in played.got]
    assert most == 1
    assert got == sorted(set(got))
    assert got[-1] == len(gaps) - 1
    assert sorted([*got, *played.dropped]) == [*range(len(gaps))]


@pytest.mark.parametrize("how", ["abort", "leave", "drain", "cancel"])
@pytest.mark.parametrize("flat", [False, True])
def test_stopped_in_the_middle_of_a_call(how, flat):
    line = script(*((at, at) for at in range(1, 30)))
    line = line.flat_map(slowly, latest=True) if flat else line.map(look_up, latest=True)

    async def main() -> Any:
        told: list[Any] = []
        run: Run[Any] | None = None
        with trio.move_on_after(4.5) as scope:
            async with line.open(on_discard=lambda *what: told.append(what)) as run:
                await trio.sleep(3.5)
                if how == "abort":
                    run.abort()
                elif how == "drain":
                    run.drain_nowait()
                    scope.deadline = trio.current_time() + 9
                    return [item async for item in run], told, run.report
                elif how == "cancel":
                    await trio.sleep(5)
        assert run is not None
        return [], told, run.report

    got, told, report = run_virtual(main)

    assert report.dropped == sum(reason == "latest" for _, _, reason in told)
    assert report.discarded == len(told) - report.dropped
    assert_stages_balance(report)
    assert report.outcome == {"abort": "aborted", "leave": "left", "drain": "drained", "cancel": "cancelled"}[how]
    assert bool(got) == (how == "drain")


# ---- flat_map


closed: list[Any] = []


async def slowly(item: Any) -> AsyncIterator[Any]:
    try:
        for number in range(3):
            await trio.sleep(1)
            yield item, number
    finally:
        closed.append(item)


@pytest.fixture(autouse=True)
def nothing_closed():
    closed.clear()


def test_a_newer_item_stops_what_the_older_one_gives():
    played = run_virtual(play, script((1, "a"), (3.5, "b")).flat_map(slowly, latest=True))

    assert played.got == [(2, ("a", 0)), (3, ("a", 1)), (4.5, ("b", 0)), (5.5, ("b", 1)), (6.5, ("b", 2))]
    assert played.told == [("a", "slowly", "latest")]
    assert closed == ["a", "b"]


def test_what_it_holds_open_is_closed_before_the_next_begins():
    log = []

    async def lasting(item: str) -> AsyncIterator[str]:
        log.append(f"open {item}")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                while True:
                    await trio.sleep(1)
                    yield item
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.25)
            log.append(f"closed {item}")

    line = script((1, "a"), (3.5, "b")).flat_map(lasting, latest=True).take(4)

    played = run_virtual(play, line)

    assert [item for _, item in played.got] == ["a", "a", "b", "b"]
    assert log == ["open a", "closed a", "open b", "closed b"]


def test_a_child_that_waits_for_room_is_dropped_with_its_item():
    """It leaves at once: the scope of its stream is not cancelled, but closed."""

    async def two(item: Any) -> AsyncIterator[Any]:
        try:
            with trio.CancelScope():
                yield item, 0
                yield item, 1
                yield item, 2
        finally:
            closed.append(item)

    line = script((1, "a"), (2, "b")).flat_map(two, latest=True).buffer(1)

    async def main() -> Any:
        told: list[Any] = []
        async with line.open(on_discard=lambda *what: told.append(what)) as run:
            await trio.sleep(5)
            assert closed == ["a"]
            got = [item async for item in run]
        return got, told, run.report

    got, told, report = run_virtual(main)

    assert got == [("a", 0), ("b", 0), ("b", 1), ("b", 2)]
    assert [(item, reason) for item, _, reason in told] == [(("a", 1), "latest"), ("a", "latest")]
    assert report.dropped == 2
    assert_stages_balance(report)


def test_a_pipeline_of_the_older_item_is_stopped():
    def inner(item: str) -> Pipeline[str]:
        numbers = Pipeline.from_iterable(range(3), name="numbers")
        return numbers.map(nap).map(lambda number: f"{item}{number}")

    async def nap(number: int) -> int:
        await trio.sleep(1)
        return number

    played = run_virtual(play, script((1, "a"), (3.5, "b")).flat_map(inner, concurrency=1, latest=True))

    assert [item for _, item in played.got] == ["a0", "a1", "b0", "b1", "b2"]
    assert ("a", "inner", "latest") in played.told
    assert {reason for _, stage, reason in played.told if " > " in stage} == {"not needed"}


def test_an_error_of_a_stopped_stream_is_one_of_cleanup():
    async def fails(item: str) -> AsyncIterator[str]:
        try:
            yield item
            await trio.sleep(9)
        finally:
            if item == "a":
                raise Boom(item)

    played = run_virtual(play, script((1, "a"), (2, "b")).flat_map(fails, latest=True))

    assert [item for _, item in played.got] == ["a", "b"]
    assert played.error is None
    assert [str(each) for each in played.report.cleanup_errors] == ["a"]


# ---- where it stands, and the plan


def test_behind_a_merge_and_in_a_branch():
    line = merge(script((1, "a"), (4.5, "c")), script((2, "b"))).broadcast(
        {"latest": lambda items: items.map(look_up, latest=True), "all": lambda items: items}
    )

    played = run_virtual(play, line)

    assert sorted(item for _, item in played.got) == ["a", "b", "c", "found b", "found c"]


def test_its_concurrency_cannot_be_changed():
    async def main() -> None:
        async with script((1, "a")).map(look_up, latest=True).open() as run:
            run.set_concurrency("look_up", 1)
            with pytest.raises(ValueError, match="concurrency must be 1 with latest=True, not 2"):
                run.set_concurrency("look_up", 2)

    run_virtual(main)


ONE = Pipeline.from_iterable([1])
REFUSED = {
    "sync": (
        lambda: ONE.map(abs, latest=True),
        "map 'abs': with latest=True, fn must be async: a sync function cannot be cancelled\n"
        "Use an async function, or Step(fn).on(threads(1)).",
    ),
    "sync, with a diversion": (
        lambda: ONE.map(abs, latest=True, on_error=OnError.divert(look_up)),
        "map 'abs': with latest=True, fn must be async: a sync function cannot be cancelled\n"
        "Use an async function, or Step(fn).on(threads(1)).",
    ),
    "sync flat_map": (
        lambda: ONE.flat_map(range, latest=True),
        "flat_map 'range': with latest=True, fn must be async: a sync function cannot be cancelled\n"
        "Use an async function, or Step(fn).on(threads(1)).",
    ),
    "many": (
        lambda: ONE.map(look_up, latest=True, concurrency=2),
        "map 'look_up': with latest=True, concurrency must be 1: one item is worked on at a time",
    ),
    "many of flat_map": (
        lambda: ONE.flat_map(slowly, latest=True, concurrency=2),
        "flat_map 'slowly': with latest=True, concurrency must be 1: one item is worked on at a time",
    ),
    "key": (
        lambda: ONE.map(look_up, latest=True, key=abs),
        "map 'look_up': key must not be given with latest=True, which works on one item at a time",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_by_the_plan(what):
    make, message = REFUSED[what]

    with pytest.raises(PlanError) as raised:
        make().check()

    assert raised.value.problems == (message,)


def test_what_limits_it_is_said_and_not_how_to_make_more_calls():
    played = run_virtual(play, script(*((at, at) for at in range(9))).map(look_up, latest=True))

    assert played.report.bottleneck == "look_up"
    assert played.report.advice == "look_up: it works on one item at a time, the latest; only quicker calls would help"


def test_a_prediction_counts_what_is_superseded():
    """A formula for calls that are all made would say that each is."""
    plan = Pipeline.from_iterable([1], name="source").map(look_up, latest=True)

    quick, slow = plan.predict({"look_up": 1}, arrivals=2), plan.predict({"look_up": 3}, arrivals=2)

    assert (quick.throughput, slow.throughput) == (0.5, 0.5)
    assert (quick.utilisation["look_up"], slow.utilisation["look_up"]) == (0.5, 1.0)


def test_what_the_plan_says():
    plan = ONE.map(look_up, latest=True).flat_map(slowly, latest=True)

    said = plan.describe()

    assert "async map look_up, the latest item only" in said
    assert "flat_map slowly, the latest item only" in said
    assert plan.max_in_flight == 16 + 1 + 16 + 1 + 16
