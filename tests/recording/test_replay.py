"""A recording, played, is the run that was recorded: over every operation, source and ending.

Mutants that die here: a function of the user's that is called in a simulation; a source that is opened there; a wait
that is left out, or taken twice; an answer that is not played, or in the wrong order; a failure that is not one; a
child too many or too few; a drain, pause or abort that does not come again; a step's policies that are told of errors
otherwise than they were.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio

from funcpipe_trio import Pipeline, Recorder, Recording, Report, Run, simulate
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, pairs
from tests.campaigns.pipelines import SCENARIOS
from tests.operators import catalogue
from tests.operators.catalogue import CASES, Case, Feed, tokens

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)

COUNTED = ("received", "emitted", "failed", "dropped", "discarded", "as_failures", "failures")

Act = Callable[[Run[Any]], Awaitable[None]]


@pytest.fixture(autouse=True)
def same_order() -> Iterator[None]:
    """Record and play in one order of tasks, the first of those that say what is sure: few of them are tried."""
    with scheduled(Schedule(0)):
        yield


async def nothing(run: Run[Any]) -> None:
    """Let the run be."""


async def drain(run: Run[Any]) -> None:
    await trio.sleep(2.25)
    run.drain_nowait()


async def pause(run: Run[Any]) -> None:
    await trio.sleep(1.125)
    run.pause()
    await trio.sleep(3)
    run.resume()


async def abort(run: Run[Any]) -> None:
    await trio.sleep(2.25)
    run.abort()


def recorded(
    pipeline: Pipeline[Any], *, hold: float = 0.0, leave: int | None = None, act: Act = nothing, seconds: float = 1e6
) -> tuple[Report, Recording]:
    """Run a pipeline, and record it."""
    recorder = Recorder()

    async def main() -> Report:
        got = 0
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(seconds):
                async with pipeline.open(record=recorder) as run:
                    nursery.start_soon(act, run)
                    try:
                        async for _ in run:
                            got += 1
                            if got == leave:
                                break
                            if hold:
                                await trio.sleep(hold)
                    except Exception:
                        assert run.report.outcome in ("failed", "aborted")
            nursery.cancel_scope.cancel()
        return run.report

    return run_virtual(main), recorder.recording


def refuse(item: object) -> int:
    raise AssertionError("a function of the user's was called in a simulation")


def played(monkeypatch: pytest.MonkeyPatch, case: Case, feed: Feed, recording: Recording) -> Report:
    """Play the recording of a row."""
    before = feed.handed, feed.opened, feed.closed
    monkeypatch.setattr(catalogue, "number", refuse)  # whatever function of a row is called asks for the number
    report = simulate(case.make(feed), recording)
    assert (feed.handed, feed.opened, feed.closed) == before
    return report


def facts(report: Report) -> dict[str, Any]:
    """Give the numbers of a report by names, rounded; the waits of idle workers hang on the order of tasks."""
    found = {
        name: getattr(report, name) for name in ("outcome", "taken", "delivered", "failed", "dropped", "discarded")
    }
    found["elapsed"] = round(report.elapsed, 5)
    for stage in report.stages:
        found |= {f"{stage.name} {name}": getattr(stage, name) for name in COUNTED}
        found[f"{stage.name} used"] = round(stage.used, 5)
    return found


def sure(run: Callable[[], Report]) -> dict[str, Any]:
    """Give what the order of tasks does not change."""
    reports = []
    for seed in range(6):
        with scheduled(Schedule(seed)):
            reports.append(facts(run()))
    first, *others = reports
    return {name: value for name, value in first.items() if all(other[name] == value for other in others)}


def assert_same(report: Report, expected: dict[str, Any], name: str) -> None:
    """Compare what is sure. What a pipeline inside of an item gives up is not known, nor how long it closes."""
    hidden = ("discarded", "received") if "pipeline" in name or "nested" in name else ()
    hidden += ("used",) if name == "pipelines_of_resources" else ()
    found = facts(report)
    assert {each: found[each] for each in expected if not each.endswith(hidden)} == {
        each: value for each, value in expected.items() if not each.endswith(hidden)
    }


@every_case
@pytest.mark.parametrize(("gap", "hold"), [(0.0, 0.9), (0.7, 0.0)])
def test_it_repeats_the_run(monkeypatch, case, gap, hold):
    feed = Feed(tokens(12), gap)
    expected = sure(lambda: recorded(case.make(Feed(tokens(12), gap)), hold=hold)[0])
    _report, recording = recorded(case.make(feed), hold=hold)

    assert_same(played(monkeypatch, case, feed, recording), expected, case.name)


@every_case
def test_it_repeats_a_failure(monkeypatch, case):
    feed = Feed(tokens(7), 0.7, Boom("at the end"))
    expected = sure(lambda: recorded(case.make(Feed(tokens(7), 0.7, Boom("at the end"))), hold=0.9)[0])
    _report, recording = recorded(case.make(feed), hold=0.9)

    assert_same(played(monkeypatch, case, feed, recording), expected, case.name)


@pytest.mark.parametrize(
    ("case", "act"),
    pairs(CASES, [drain, pause, abort]),
    ids=lambda part: part.name if isinstance(part, Case) else part.__name__,
)
def test_it_repeats_what_was_done_to_the_run(monkeypatch, case, act):
    if case.name == "using: a pipeline" and act is drain:
        pytest.skip("what a pipeline of a resource still had when it was drained is not known")
    feed = Feed(tokens(12), 0.7)
    expected = sure(lambda: recorded(case.make(Feed(tokens(12), 0.7)), hold=0.9, act=act)[0])
    _report, recording = recorded(case.make(feed), hold=0.9, act=act)

    assert_same(played(monkeypatch, case, feed, recording), expected, case.name)


@every_case
@pytest.mark.parametrize("ending", [{"leave": 2}, {"seconds": 3.3}])
def test_it_repeats_an_early_end(monkeypatch, case, ending):
    feed = Feed(tokens(12), 0.7)
    expected = sure(lambda: recorded(case.make(Feed(tokens(12), 0.7)), hold=0.9, **ending)[0])
    _report, recording = recorded(case.make(feed), hold=0.9, **ending)

    assert_same(played(monkeypatch, case, feed, recording), expected, case.name)


@every_scenario
@pytest.mark.parametrize("hold", [0.0, 0.9])
def test_it_repeats_the_pipelines_of_the_campaigns(scenario, hold):
    expected = sure(lambda: recorded(scenario.make(), hold=hold)[0])
    _report, recording = recorded(scenario.make(), hold=hold)

    assert_same(simulate(scenario.make(), recording), expected, scenario.name)
