"""A recorded run is the same as one that is not, and nothing of an item is left in what was recorded.

Mutants that die here: a function that is called otherwise, or twice; an error that is another, or has other notes; a
scope or a context that is not that of the user's code; an item, a key, a text of an error that is kept; a recorder that
two runs share, or that a refused run uses up.
"""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import pytest
import trio

from funcpipe_trio import (
    Backoff,
    FairShare,
    OnError,
    Pipeline,
    PlaceLimiter,
    PlanError,
    RateLimit,
    RateLimiter,
    Recorder,
    Recording,
    Retry,
    StateError,
    Step,
    fair_merge,
    simulate,
    threads,
)
from funcpipe_trio.testing import Scenario, interrupt_everywhere, run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, nap, one_step, run_real
from tests.operators.catalogue import CASES, Case, Feed, plain, tokens

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


async def consumed(plan: Pipeline[Any], recorder: Recorder | None = None, hold: float = 0.0, leave: int = -1) -> Any:
    """Return all that can be seen of a run."""
    items, lost, error = [], [], None
    async with plan.open(record=recorder, on_discard=lambda item, *why: lost.append((plain(item), why))) as run:
        try:
            async for item in run:
                items.append(plain(item))
                if len(items) == leave:
                    break
                await trio.sleep(hold)
        except Exception as met:
            error = repr(met), getattr(met, "__notes__", [])
    # A function is called as a step, so there is a report of policies, which have done nothing.
    stages = [replace(stage, policies=stage.policies or None, failures=()) for stage in run.report.stages]
    failures = [repr(stage.failures) for stage in run.report.stages]
    stages = [replace(each, policies=None if each.policies is None else each.policies.describe()) for each in stages]
    report = replace(run.report, stages=(), error=None)
    return items, lost, error, report.describe(), [repr(each) for each in stages], failures


def assert_same(make: Callable[[], Pipeline[Any]], **how: Any) -> None:
    for seed in range(2):
        seen = []
        for recorder in (None, Recorder()):
            with scheduled(Schedule(seed)):
                seen.append(run_virtual(partial(consumed, make(), recorder, **how)))
        usual, recorded = seen
        for one, other in zip(usual, recorded, strict=True):
            assert repr(other).replace("''", "None") == repr(one).replace("''", "None")


@every_case
def test_a_recorded_run_is_the_same(case: Case):
    assert_same(lambda: case.make(Feed(tokens(9), 0.7)), hold=0.9)


@every_case
def test_one_that_fails_is_the_same(case: Case):
    assert_same(lambda: case.make(Feed(tokens(5), 0.0, Boom("at the end"))))


@every_case
def test_one_that_is_left_is_the_same(case: Case):
    if case.name == "from_iterable: in a thread":
        pytest.skip("how far its thread is when the run is left, real time decides")
    assert_same(lambda: case.make(Feed(tokens(9), 0.0)), leave=2)


# ---- answers that the run refuses


class Odd:
    """Something that must not be asked."""

    def __bool__(self) -> bool:
        raise RuntimeError("it is neither")


SECRET = "a secret"


def raises(*_items: Any) -> Any:
    raise ValueError(SECRET)


async def fails(item: Any) -> Any:
    await trio.sleep(1)
    raise OSError(item)


def one(item: Any = SECRET) -> Pipeline[Any]:
    return Pipeline.from_iterable([item], name="one")


def retried(policy: Retry) -> Pipeline[Any]:
    return one().map(Step(fails).retry(policy), name="retried", on_error=OnError.skip())


def fair() -> RateLimiter:
    return RateLimiter(RateLimit(99, burst=9), FairShare())


ODD = {
    "batch: cost": lambda: one().batch(max_cost=3, cost=lambda item: item),
    "batch: a cost that is no number": lambda: one().batch(max_cost=3, cost=lambda item: math.nan),
    "batch: a bool": lambda: one().batch(max_cost=3, cost=lambda item: True),
    "batch: huge": lambda: one().batch(max_cost=3, cost=lambda item: 10**5000),
    "batch: a key without a hash": lambda: one().batch(3, key=lambda item: [item], max_keys=2),
    "throttle: cost": lambda: one().throttle(RateLimit(1), cost=lambda item: item),
    "rate limit: per_key": lambda: one().map(Step(nap).rate_limit(RateLimit(1), per_key=lambda item: item)),
    "rate limit: cost": lambda: one().map(Step(nap).rate_limit(RateLimit(1), cost=lambda item: item)),
    "rate limit: key, no hash": lambda: one().map(Step(nap).rate_limit(fair(), key=lambda item: [item])),
    "rate limit: settle": lambda: one().map(Step(nap).rate_limit(fair(), settle=lambda item: item)),
    "rate limit: settle fails": lambda: one().map(Step(nap).rate_limit(fair(), settle=raises)),
    "places: key": lambda: one().map(Step(nap).places(PlaceLimiter(1, FairShare()), key=lambda item: item)),
    "places: key fails": lambda: one().map(Step(nap).places(PlaceLimiter(1, FairShare()), key=raises)),
    "fair_merge: cost": lambda: fair_merge({"a": one()}, FairShare({"a": 1}, cost=lambda item: item)),
    "fair_by: cost": lambda: one().fair_by(len, FairShare(cost=lambda item: item), max_keys=2),
    "fair_merge: cost fails": lambda: fair_merge({"a": one()}, FairShare({"a": 1}, cost=raises)),
    "partition": lambda: one().partition(lambda item: item, {"a": lambda line: line}),
    "partition: no hash": lambda: one().partition(lambda item: [item], {"a": lambda line: line}),
    "distinct: no hash": lambda: one().distinct(lambda item: [item], remember=3),
    "distinct: no hash of the item": lambda: one([SECRET]).distinct(remember=3),
    "map: a key without a hash": lambda: one().map(nap, key=lambda item: [item], concurrency=2),
    "filter: no answer": lambda: one().filter(lambda item: Odd()),
    "filter: nobody awaits": lambda: one().filter(lambda item: nap(item)),
    "filter: async, no answer": lambda: one().filter(lambda item: nap(Odd()), concurrency=2),
    "filter: fails": lambda: one().filter(raises),
    "flat_map: no iterable": lambda: one().flat_map(lambda item: 3),
    "flat_map: async, no iterable": lambda: one().map(lambda item: 3).flat_map(nap, concurrency=2),
    "unbatch: no iterable": lambda: one().map(lambda item: 3).unbatch(),
    "retry_after: text": lambda: retried(Retry(2, OSError, retry_after=lambda error: SECRET)),
    "retry_after: nothing": lambda: retried(Retry(2, OSError, Backoff(1), retry_after=lambda error: None)),
    "retry_after: no number": lambda: retried(Retry(2, OSError, retry_after=lambda error: math.nan)),
    "retry_after: for ever": lambda: retried(Retry(2, OSError, retry_after=lambda error: math.inf)),
    "retry_after: huge": lambda: retried(Retry(2, OSError, retry_after=lambda error: 10**5000)),
    "retry_after: some": lambda: retried(Retry(2, OSError, retry_after=lambda error: 2.5)),
    "retry: a match": lambda: retried(Retry(2, lambda error: [SECRET], Backoff(1))),
    "retry: no match": lambda: retried(Retry(2, lambda error: "", Backoff(1))),
    "retry: no answer": lambda: retried(Retry(2, lambda error: Odd(), Backoff(1))),
    "retry: fails": lambda: retried(Retry(2, raises, Backoff(1))),
}
every_odd = pytest.mark.parametrize("odd", ODD)


@every_odd
def test_what_is_refused_is_refused_in_the_same_words(odd):
    assert_same(ODD[odd])


@every_odd
def test_what_is_refused_is_refused_in_a_simulation_too(odd, tmp_path):
    recorder = Recorder()
    run_virtual(consumed, ODD[odd](), recorder)
    recorder.recording.save(tmp_path / "run.jsonl")

    report = simulate(ODD[odd](), Recording.load(tmp_path / "run.jsonl"))

    recorded = recorder.recording
    assert (report.outcome, report.taken, report.delivered) == (recorded.outcome, recorded.taken, recorded.delivered)
    assert report.elapsed == pytest.approx(recorded.elapsed, abs=1e-5)
    assert SECRET not in (tmp_path / "run.jsonl").read_text()


def test_numbers_past_those_of_a_file_are_kept_as_far_as_they_go():
    plan = one().batch(max_cost=1e300, cost=lambda item: 10**299).map(len)
    recorder = Recorder()
    run_virtual(consumed, plan, recorder)

    assert simulate(plan, recorder.recording).delivered == 1


# ---- privacy


class Secret:
    """An item, a key and an error text, in one; it knows how many of it there are."""

    alive: ClassVar[weakref.WeakSet[Secret]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.alive.add(self)

    def __repr__(self) -> str:
        return SECRET


class SecretError(Exception):
    pass


async def refused(item: Any) -> Any:
    await trio.sleep(1)
    raise SecretError(SECRET, item)


async def diverted(failure: Any) -> None:
    await trio.sleep(1)


async def pieces(item: Any) -> Any:
    yield item
    await trio.sleep(1)
    yield SECRET


def secretive() -> Pipeline[Any]:
    """Return a plan through all of whose functions secrets pass."""
    step = Step(refused).timeout(5).retry(Retry(2, lambda error: True, Backoff(0.5), retry_after=lambda error: 0.25))
    items = (Secret() for _ in range(20))
    return (
        Pipeline.from_iterable(items, name="items")
        .map(lambda item: item)
        .distinct(remember=30)
        .filter(lambda item: SECRET)
        .fair_by(lambda item: item, max_keys=30)
        .scan(lambda state, item: item, None)
        .flat_map(pieces, concurrency=3)
        .partition(lambda item: "a", {"a": lambda line: line.map(one_step, key=repr, concurrency=2)})
        .batch(2)
        .unbatch()
        .broadcast({
            "kept": lambda line: line.map(nap, concurrency=4, ordered=False),
            "lost": lambda line: line.map(step, name="lost", concurrency=4, on_error=OnError.divert(diverted)),
        })
    )  # fmt: skip


def reachable(value: object) -> Iterator[object]:
    """Yield all that something holds on to, apart from code."""
    seen, waiting = {id(value)}, [value]
    while waiting:
        each = waiting.pop()
        yield each
        for inner in gc.get_referents(each):
            if id(inner) not in seen and not isinstance(inner, type | type(gc) | type(reachable)):
                seen.add(id(inner))
                waiting.append(inner)


@pytest.mark.parametrize("leave", [-1, 3])
def test_nothing_of_an_item_is_kept(leave, tmp_path):
    recorder = Recorder()
    run_virtual(consumed, secretive(), recorder, 0.125, leave)
    recording = recorder.recording
    recording.save(tmp_path / "run.jsonl")
    text = (tmp_path / "run.jsonl").read_text()

    assert recording.taken
    assert SECRET not in text + repr(recording) + repr(recorder)
    assert "SecretError" in text
    found = [*reachable(recording), *reachable(recorder)]
    assert not [each for each in found if isinstance(each, Secret | BaseException) or each == SECRET]
    gc.collect()
    assert not list(Secret.alive)


def test_while_it_runs_it_keeps_no_items_of_calls_alive():
    """Neither does the recorder of a run that fails, when that is over."""
    recorder = Recorder()
    alive = []

    async def main() -> None:
        async with Pipeline.from_iterable(lambda: (Secret() for _ in range(500))).map(refused, concurrency=5,
                on_error=OnError.skip()).open(record=recorder) as run:  # fmt: skip
            run.statistics()
            with trio.move_on_after(50):
                async for _ in run:
                    pass
            gc.collect()
            alive.append(len(Secret.alive))

    run_virtual(main)
    gc.collect()
    assert alive[0] < 60
    assert not list(Secret.alive)


# ---- what runs in a recorded run


request: ContextVar[str] = ContextVar("request", default="none")


def test_what_a_call_sets_no_other_item_sees():
    seen = []

    async def look(item: Any) -> Any:
        seen.append(request.get())
        request.set(f"request {item}")
        await trio.sleep(1)
        return item

    async def children(item: Any) -> Any:
        yield await look(item)

    async def main() -> None:
        request.set("opener")
        for shape in (
            ten.map(look),
            ten.map(look, concurrency=3),
            ten.map(Step(look).timeout(5), concurrency=3),
            ten.map(Step(look).start(), concurrency=3),
            ten.filter(look),
            ten.tap(look, concurrency=2),
            ten.flat_map(children, concurrency=3),
        ):
            await shape.run(record=Recorder())

    ten = Pipeline.from_iterable(range(10))
    run_virtual(main)
    assert len(seen) == 70
    assert set(seen) == {"opener"}


def test_a_source_may_hold_scopes_over_its_yields():
    async def held() -> Any:
        with trio.move_on_after(4.5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                for number in range(10):
                    await trio.sleep(1)
                    yield number

    assert_same(lambda: Pipeline.from_async_iterable(held).map(nap, concurrency=2))
    assert_same(lambda: Pipeline.from_iterable([1, 2]).flat_map(lambda item: held(), concurrency=2))


@pytest.mark.parametrize("shape", ["map", "step", "filter", "flat_map", "sync"])
def test_ctrl_c_arrives_as_without(shape):
    async def recorded(run: Any) -> None:
        async for _ in run:
            pass

    shapes: dict[str, Callable[[Pipeline[int]], Pipeline[Any]]] = {
        "map": lambda line: line.map(nap, concurrency=2),
        "step": lambda line: line.map(Step(nap).timeout(5)),
        "filter": lambda line: line.filter(one_step),
        "flat_map": lambda line: line.flat_map(lambda item: Pipeline.from_iterable([item]).map(nap), concurrency=2),
        "sync": lambda line: line.map(str).filter(bool).batch(2),
    }

    class Recorded(Pipeline[Any]):
        """Opens with a recorder, whoever opens it."""

        def open(self, **how: Any) -> Any:
            return super().open(**how, record=Recorder())

    def make() -> Pipeline[Any]:
        plan = shapes[shape](Pipeline.from_iterable(range(3)))
        return Recorded(plan._plan)

    interrupt_everywhere(Scenario(make, recorded), every=3)


# ---- misuse


def line() -> Pipeline[int]:
    return Pipeline.from_iterable(range(6), name="numbers").map(nap, concurrency=2)


def test_a_recorder_says_what_it_is():
    recorder = Recorder()
    with pytest.raises(StateError, match=r"^Recorder\.recording: its run has not begun\nUse it behind the block"):
        _ = recorder.recording
    assert repr(recorder) == "<Recorder: not used yet>"

    async def main() -> None:
        async with line().open(record=recorder) as run:
            assert repr(recorder) == "<Recorder: at work>"
            with pytest.raises(StateError, match=r"^Recorder\.recording: its run is not over\nUse it behind the block"):
                _ = recorder.recording
            async for _item in run:
                pass

    run_virtual(main)
    assert repr(recorder) == "<Recorder: <Recording of 3 s: 6 taken, 6 delivered, completed>>"


def test_a_recorder_records_one_run():
    recorder = Recorder()
    source = iter([1, 2])

    async def main() -> list[int]:
        plan = Pipeline.from_iterable(source)
        async with line().open(record=recorder):
            for again in (plan.run, plan.open):
                with pytest.raises(StateError, match=r"^a Recorder records one run\nUse Recorder\(\) to make another"):
                    await refused_on_entry(again, recorder)
        with pytest.raises(StateError, match="a Recorder records one run"):
            await plan.run(record=recorder)
        return await plan.collect()

    async def refused_on_entry(way: Any, recorder: Recorder) -> None:
        if way.__name__ == "run":
            await way(record=recorder)
        else:
            async with way(record=recorder):
                pass

    assert run_virtual(main) == [1, 2], "the source was claimed by a run that was refused"


def test_a_run_that_was_refused_leaves_the_recorder_for_another():
    recorder = Recorder()
    used = Pipeline.from_iterable(iter([1]))

    async def main() -> None:
        await used.run()
        with pytest.raises(PlanError):
            await used.run(record=recorder)
        with pytest.raises(StateError, match="has not begun"):
            _ = recorder.recording
        await line().run(record=recorder)

    run_virtual(main)
    assert recorder.recording.taken == 6


@pytest.mark.parametrize("value", [True, 1.5, "1", None])
def test_a_number_of_samples_is_an_int(value):
    with pytest.raises(TypeError, match=r"^Recorder: max_samples must be an int >= 1, not"):
        Recorder(max_samples=value)
    with pytest.raises(ValueError, match=r"^Recorder: max_samples must be >= 1, not 0"):
        Recorder(max_samples=0)


@pytest.mark.parametrize("value", [True, Recorder, "run.jsonl", object()])
def test_record_is_a_recorder(value):
    with pytest.raises(TypeError, match=r"^Pipeline: record must be a Recorder, not"):
        line().open(record=value)
    with pytest.raises(TypeError, match=r"^Pipeline: record must be a Recorder, not"):
        run_virtual(partial(line().run, record=value))


# ---- runs that end at any moment


class CancelAt(trio.abc.Instrument):
    """Cancels a scope at a step of the tasks."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope, self.step = scope, step

    def before_task_step(self, task: object) -> None:
        self.step -= 1
        if not self.step:
            self.scope.cancel()


@pytest.mark.parametrize("kind", ["run", "open"])
def test_a_run_that_is_cancelled_at_any_moment_is_recorded(kind, tmp_path):
    def plan() -> Pipeline[Any]:
        return line().flat_map(pieces, concurrency=2).map(Step(nap).retry(Retry(2)))

    async def main(recorder: Recorder, step: int) -> bool:
        with trio.CancelScope() as scope:
            stop = CancelAt(scope, step)
            trio.lowlevel.add_instrument(stop)
            if kind == "run":
                await plan().run(record=recorder)
            else:
                await consumed(plan(), recorder)
        return stop.step > 0

    for step in range(1, 10_000):
        recorder = Recorder()
        if run_virtual(main, recorder, step):
            break
        if repr(recorder) != "<Recorder: not used yet>":
            recorded = recorder.recording
            recorded.save(tmp_path / "run.jsonl")
            report = simulate(plan(), Recording.load(tmp_path / "run.jsonl"))
            assert (report.outcome, report.elapsed) == (recorded.outcome, pytest.approx(recorded.elapsed, abs=1e-4))
    assert step > 30
    assert recorder.recording.outcome == "completed"


# ---- what runs share


def test_runs_that_share_a_started_step_and_a_limiter_are_recorded_each():
    limiter = RateLimiter(RateLimit(2, burst=1))
    recorders = [Recorder(), Recorder()]
    plans: list[Pipeline[Any]] = []

    async def main() -> None:
        step = Step(nap).retry(Retry(2)).start()
        plans[:] = [
            Pipeline.from_iterable(range(8)).map(step, concurrency=4, name=name).map(
                Step(one_step).rate_limit(limiter), name="limited")
            for name in "ab"
        ]  # fmt: skip
        async with trio.open_nursery() as nursery:
            for plan, recorder in zip(plans, recorders, strict=True):
                nursery.start_soon(partial(plan.run, record=recorder))

    async def acquired() -> int:
        return limiter.statistics().acquired

    run_virtual(main)
    used = run_virtual(acquired)
    for plan, recorder in zip(plans, recorders, strict=True):
        recorded, report = recorder.recording, simulate(plan, recorder.recording)
        assert report.delivered == recorded.delivered == 8
        assert report.elapsed < recorded.elapsed, "here the other does not wait for the limiter"
    assert run_virtual(acquired) == used


def test_calls_in_threads_are_recorded_and_none_is_made_in_a_simulation():
    calls = []
    plan = Pipeline.from_iterable(range(4)).map(Step(calls.append).on(threads(2)), concurrency=2)
    recorder = Recorder()

    run_real(partial(plan.run, record=recorder))

    assert simulate(plan, recorder.recording).delivered == len(calls) == 4


# ---- bounds and times


def test_its_memory_does_not_grow_with_the_run():
    async def items() -> Any:
        for number in range(6000):
            await trio.sleep(1)
            yield number

    most = []

    async def main() -> None:
        plan = Pipeline.from_async_iterable(items).map(one_step).map(str).filter(bool).scan(lambda _, item: item, None)
        plan = plan.flat_map(lambda item: [item]).map(Step(one_step).retry(Retry(2)), concurrency=2)
        async with plan.open(record=recorder) as run:
            async for _ in run:
                assert recorder._tapes is not None
                most.append(max(len(tape.samples) for tape in recorder._tapes.tapes.values()))

    recorder = Recorder(max_samples=100)
    run_virtual(main)
    assert max(most) <= 100 + 1024 + 1
    assert max(len(kept.samples) for kept in recorder.recording.tapes.values()) == 100


def test_times_count_from_the_beginning_of_the_run():
    async def change(run: Any) -> None:
        await trio.sleep(1.25)
        run.pause()
        run.pause()
        await trio.sleep(10)
        run.resume()
        run.resume()
        await trio.sleep(0.5)
        run.drain_nowait()

    async def main() -> None:
        await trio.sleep(1000)
        async with trio.open_nursery() as nursery, long.open(record=recorder) as run:
            nursery.start_soon(change, run)
            async for _ in run:
                pass

    long = Pipeline.from_iterable(range(60), name="numbers").map(nap, concurrency=2)
    recorder = Recorder()
    run_virtual(main)
    recorded = recorder.recording
    assert recorded.changes[0] == (1.25, "pause")
    assert recorded.changes[-2:] == ((11.25, "resume"), (11.75, "drain"))
    assert simulate(long, recorded).elapsed == recorded.elapsed
