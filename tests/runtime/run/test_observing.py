"""Observers: when they are told of a run, what they may put around calls, and what if they fail.

Mutants that die here: a variable of an observer that the opener sees, or that no call sees; an `around` for each item;
a run that goes on after its observer could not begin; an error of `ended` that replaces another.
"""

from contextvars import ContextVar

import pytest
import trio

from funcpipe_trio import OnError, Pipeline, Recorder, Step, run_service
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, nap

WHO = ContextVar("who", default="nobody")


class Watching:
    """An observer that is its own observation: it notes what it is told and what is called."""

    def __init__(self, *, fails_in=None):
        self.fails_in = fails_in
        self.told = []
        self.calls = []

    def _note(self, method, *about):
        self.told.append((method, *about))
        if self.fails_in == method:
            raise Boom(method)

    def begin(self):
        self._note("begin")
        WHO.set("observer")
        return self

    def around(self, stage, call):
        self._note("around", stage)

        async def noted(*arguments):
            try:
                result = await call(*arguments)
            except Exception as error:
                self.calls.append((stage, arguments[0], type(error)))
                raise
            self.calls.append((stage, arguments[0], result))
            return result

        return noted

    def ended(self, report):
        self._note("ended", report.outcome)


async def double(number):
    await trio.sleep(1)
    return 2 * number


DRIVERS = {
    "run": lambda plan, observer: plan.run(observer=observer),
    "run_service": lambda plan, observer: run_service(plan, observer=observer),
}


async def through_open(plan, observer):
    async with plan.open(observer=observer) as run:
        async for _ in run:
            pass
    return run.report


@pytest.mark.parametrize("drive", [*DRIVERS.values(), through_open])
def test_it_is_told_of_a_run_and_put_around_its_calls(drive):
    """Once for each stage with calls, not for sync ones; the step is called with its policies."""
    watching = Watching()
    plan = Pipeline.from_iterable(range(3)).map(str).map(int).map(double, concurrency=2).tap(Step(nap).timeout(3))

    report = run_virtual(lambda: drive(plan, watching))

    assert watching.told == [("begin",), ("around", "double"), ("around", "nap"), ("ended", "completed")]
    assert sorted(call for call in watching.calls if call[0] == "double") == [("double", n, 2 * n) for n in range(3)]
    assert len(watching.calls) == report.delivered + 3 == 6


@pytest.mark.parametrize("plan", ["plain", "inner"])
def test_what_it_sets_is_seen_by_the_run_alone(plan):
    """By calls, sync functions and runs inside the run; not by the opener, nor by another run."""
    seen = set()

    async def look(item):
        seen.add(WHO.get())
        return item

    def glance(item):
        seen.add(WHO.get())
        return item

    line = Pipeline.from_iterable(range(3)).map(glance).map(look)
    if plan == "inner":
        inner = line
        line = Pipeline.from_iterable(range(3)).flat_map(lambda _: inner, concurrency=2)

    async def main():
        async with line.open(observer=Watching()) as run:
            here = WHO.get()
            async for _ in run:
                pass
        return here

    assert run_virtual(main) == "nobody"
    assert seen == {"observer"}


def test_an_error_passes_as_it_is():
    async def fail(_item):
        raise Boom("no")

    watching = Watching()
    with pytest.raises(Boom, match="no"):
        run_virtual(lambda: Pipeline.from_iterable([1]).map(fail).run(observer=watching))

    assert (watching.calls, watching.told[-1]) == ([("fail", 1, Boom)], ("ended", "failed"))


def test_the_step_for_failures_is_observed_under_its_own_name():
    async def fail(_item):
        raise Boom("no")

    watching = Watching()
    plan = Pipeline.from_iterable([1]).map(fail, on_error=OnError.divert(nap))
    run_virtual(lambda: plan.run(observer=watching))

    assert [stage for stage, *_ in watching.calls] == ["fail", "fail (diverting)"]


@pytest.mark.parametrize("method", ["begin", "around"])
def test_a_run_whose_observer_cannot_begin_does_not(method):
    taken = []
    plan = Pipeline.from_iterable(range(3)).tap(taken.append).map(double)

    with pytest.raises(Boom, match=method):
        run_virtual(lambda: plan.run(observer=Watching(fails_in=method)))

    assert taken == []


def test_an_error_at_the_end_is_one_of_cleanup():
    """A note on the error of the run, or in the report."""

    async def fail(_item):
        raise Boom("first")

    report = run_virtual(lambda: Pipeline.from_iterable([1]).map(nap).run(observer=Watching(fails_in="ended")))
    assert (report.outcome, [str(error) for error in report.cleanup_errors]) == ("completed", ["ended"])

    with pytest.raises(Boom, match="first") as caught:
        run_virtual(lambda: Pipeline.from_iterable([1]).map(fail).run(observer=Watching(fails_in="ended")))
    assert "then the observer raised Boom: ended" in caught.value.__notes__


def test_under_every_schedule_it_changes_nothing():
    """Neither results nor their order."""

    def main():
        plan = Pipeline.from_iterable(range(5)).map(double, concurrency=3).filter(nap)

        async def drive():
            async with plan.open(observer=Watching()) as run:
                return [item async for item in run]

        return run_virtual(drive)

    for seed in range(20):
        with scheduled(Schedule(seed)):
            assert main() == [2, 4, 6, 8]


@pytest.mark.parametrize("drive", [lambda plan, **how: plan.run(**how), run_service])
def test_a_run_may_be_recorded_as_well(drive):
    """Also a run inside it; the recording has what took its time, and the observer what was called."""
    watching, recorder = Watching(), Recorder()
    plan = Pipeline.from_iterable(range(2)).flat_map(
        lambda n: Pipeline.from_iterable([n]).map(double), concurrency=1, name="outer"
    )

    report = run_virtual(lambda: drive(plan, record=recorder, observer=watching))

    assert (report.delivered, recorder.recording.delivered) == (2, 2)
    assert sorted(stage for stage, *_ in watching.calls) == ["double", "double", "outer", "outer"]


@pytest.mark.parametrize("observer", [3, object(), nap])
def test_what_is_no_observer_is_refused(observer):
    with pytest.raises(TypeError, match="Pipeline: observer must be an Observer, with a method begin, not "):
        Pipeline.from_iterable([1]).open(observer=observer)


def test_around_must_return_a_function():
    class Forgetful(Watching):
        def around(self, stage, call):
            return None

    with pytest.raises(TypeError, match=r"Observation\.around: what it returns must be callable, not None"):
        run_virtual(lambda: Pipeline.from_iterable([1]).map(nap).run(observer=Forgetful()))
