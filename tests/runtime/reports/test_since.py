"""What happened between two snapshots of a run: `later.since(earlier)`.

Mutants that die here: a count that is not subtracted; a share, or a limit, of the whole run; policies, failures or
costs of keys left as they are; a snapshot of another run, or the two the wrong way round, taken as they come.
"""

import pickle
import re
from fractions import Fraction

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import (
    Backoff,
    FairShare,
    OnError,
    Pipeline,
    PlaceLimiter,
    RateLimit,
    Retry,
    RunStatistics,
    Step,
    fair_merge,
)
from funcpipe_trio.testing import run_virtual
from tests._kit import nap


def at_work(line, looks, *, pause=0.0, between=None):
    """Run it, and give the snapshots taken after each of these waits, and last the report."""

    async def look(run):
        for number, wait in enumerate(looks):
            await trio.sleep(wait)
            seen.append(run.statistics())
            if between is not None:
                between(run, number)
        run.resume()

    async def main():
        async with trio.open_nursery() as nursery:
            async with line.open() as run:
                seen.append(run.statistics())
                nursery.start_soon(look, run)
                async for _item in run:
                    await trio.sleep(pause)
            nursery.cancel_scope.cancel()
        return [*seen, run.report]

    seen = []
    return run_virtual(main)


async def fetch(item):
    await trio.sleep(item % 3 / 4)
    if item % 5 == 0:
        raise OSError(item)
    return item


def everything():
    """A plan in which all is counted that can be: policies, keys, inputs, branches, batches, drops, waits."""

    async def feed():
        for number in range(60):
            await trio.sleep(number % 4 / 8)
            yield number

    step = Step(fetch).rate_limit(RateLimit(8)).retry(Retry(2, OSError, Backoff(0.25, jitter=0)))
    left = Pipeline.from_async_iterable(feed).map(step, concurrency=3, on_error=OnError.skip())
    few = Step(nap).places(PlaceLimiter(2, FairShare()), key=lambda number: number % 3)
    right = Pipeline.from_iterable(range(40)).filter(lambda number: number % 2).map(few, concurrency=5, ordered=False)
    return (
        fair_merge({"left": left, "right": right}, FairShare({"left": 2}, capacity=4))
        .fair_by(lambda item: item % 3, FairShare({1: 3}, capacity=2), max_keys=3, overflow="drop_newest")
        .partition(
            lambda item: "ab"[item % 2], {"a": lambda line: line.map(nap), "b": lambda line: line.batch(4).unbatch()}
        )
        .buffer(2, overflow="drop_oldest")
    )


NOW = {"capacity", "concurrency", "peak", "held", "in_flight", "in_flight_peak", "oldest"}
"""What cannot be taken apart: it is that of the later snapshot."""


def flat(statistics):
    """Return all that adds up, by where it stands."""
    numbers = {name: getattr(statistics, name) for name in ("taken", "delivered", "failed", "dropped", "discarded")}
    numbers |= {"elapsed": statistics.elapsed, "paused": statistics.paused}
    for kind in ("stages", "links"):
        for number, part in enumerate(getattr(statistics, kind)):
            for name in part.__slots__:
                value = getattr(part, name)
                if name in ("failures", "policies", "divert"):
                    numbers |= nested((kind, number, name), value)
                elif isinstance(value, int | float | Fraction) and name not in NOW:
                    numbers[kind, number, name] = value
    for each in statistics.inputs:
        for name in ("taken", "cost", "contested"):
            numbers[each.merge, each.key, name] = getattr(each, name)
    return numbers


def nested(where, value):
    if isinstance(value, tuple):
        return {(*where, error): count for error, count in value}
    if value is None:
        return {}
    counts = {(*where, name): getattr(value, name) for name in value.__slots__ if name != "limits"}
    for each in value.limits:
        counts |= {(*where, each.limit, each.key, name): getattr(each, name) for name in ("calls", "waited")}
    return counts


@settings(max_examples=60, deadline=None)
@given(
    looks=st.lists(st.sampled_from((0, 0.125, 1, 2.5, 7)), min_size=2, max_size=6),
    pause=st.sampled_from((0, 0.5, 2)),
    stops=st.booleans(),
)
def test_what_happened_one_after_the_other_adds_up(looks, pause, stops):
    """Of any three snapshots: what happened from the first to the third is the sum of the parts, in every count."""

    def turn(run, number):
        if stops:
            (run.resume if number % 2 else run.pause)()

    seen = at_work(everything(), looks, pause=pause, between=turn)

    for first, second, third in zip(seen, seen[1:], seen[2:], strict=False):
        parts, whole = [flat(second.since(first)), flat(third.since(second))], flat(third.since(first))
        for where, value in whole.items():
            assert value == pytest.approx(sum(part.get(where, 0) for part in parts), abs=1e-9), where
        assert type(third.since(first)) is RunStatistics
    assert flat(seen[-1].since(seen[0])) == pytest.approx(flat(seen[-1]))


def test_shares_are_those_of_the_time_between():
    """The weights were turned round in the middle: so were the shares, which of the whole run are equal."""

    inputs = {"a": Pipeline.from_iterable(range(0, 2000, 2)), "b": Pipeline.from_iterable(range(1, 2000, 2))}
    share = FairShare({"a": 3})
    line = fair_merge(inputs, share).map(nap).buffer(1)
    keys = Pipeline.from_iterable(range(2000)).fair_by(
        lambda item: item % 2, FairShare({0: 3}), max_keys=2, overflow="drop_newest", name="keys"
    )
    merged = at_work(line.take(600), [200, 300], between=lambda run, number: number or _swap(run, "a", "b"))
    keyed = at_work(keys.map(nap).take(30), [8, 16], between=lambda run, number: number or _swap(run, 0, 1))

    start, middle, end, _report = merged
    assert [each.share for each in middle.since(start).inputs] == [
        pytest.approx(share, abs=0.02) for share in (0.75, 0.25)
    ]
    assert [each.share for each in end.since(middle).inputs] == [
        pytest.approx(share, abs=0.02) for share in (0.25, 0.75)
    ]
    assert sum(each.taken for each in end.since(middle).inputs) == pytest.approx(300, abs=2)
    start, middle, end, _report = keyed
    for statistics in (middle.since(start), end.since(middle)):
        total = sum(each.cost for each in statistics.inputs)
        assert {each.key: each.share for each in statistics.inputs} == {
            each.key: float(Fraction(each.cost, total)) for each in statistics.inputs
        }
    assert end.since(middle).inputs != end.inputs


def _swap(run, heavy, light):
    run.set_weight(heavy, 1)
    run.set_weight(light, 3)


def test_what_cannot_be_taken_apart_is_that_of_the_later_one():
    """The most that a link held, its capacity, the weights of now, names."""
    line = Pipeline.from_iterable(range(20)).map(nap).buffer(3)
    first, _second, report = at_work(line, [5], pause=2)
    between = report.since(first)

    assert [(link.peak, link.capacity, link.behind) for link in between.links] == [
        (link.peak, link.capacity, link.behind) for link in report.links
    ]
    assert [(stage.name, stage.kind) for stage in between.stages] == [
        (stage.name, stage.kind) for stage in report.stages
    ]


def test_no_time_between_is_nothing_at_all():
    async def main():
        async with Pipeline.ticks(1).map(nap, concurrency=4).open() as run:
            await run.receive()
            snapshot = run.statistics()
            return snapshot, snapshot.since(snapshot), run.statistics().since(snapshot)

    snapshot, same, again = run_virtual(main)

    assert same == again
    assert (same.elapsed, same.bottleneck, same.throughput) == (0, None, 0)
    assert [stage.busy for stage in same.stages] == [0, 0]
    assert snapshot.elapsed == 1
    assert snapshot.throughput == 1


def test_a_report_is_a_snapshot_too():
    """The last, and any that was looked at before."""

    async def main():
        async with Pipeline.from_iterable(range(10)).map(nap).open() as run:
            for _ in range(4):
                await run.receive()
            early = run.report
            async for _item in run:
                pass
        return early, run.report

    early, report = run_virtual(main)
    between = report.since(early)

    assert (between.delivered, between.elapsed, between.throughput) == (6, 6, 1)
    assert (between.bottleneck, between.stages[-1].busy) == ("nap", 1)


def test_two_snapshots_can_be_kept_together():
    """Pickled as one, they are of one run still; and each says what it said."""
    first, _second, report = at_work(Pipeline.from_iterable(range(10)).map(nap), [5])
    kept_first, kept_report = pickle.loads(pickle.dumps((first, report)))

    assert (kept_first, kept_report) == (first, report)
    assert kept_report.since(kept_first) == report.since(first)


def run_of(line):
    return run_virtual(line.run)


def test_a_snapshot_of_another_run_is_refused():
    """Of the same plan, too, with the same numbers in it."""
    line = Pipeline.from_iterable(range(10)).map(nap)
    said = (
        "Report.since: earlier must be a snapshot of the same run, not of another\n"
        "Use what statistics() of that run returned before."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        run_of(line).since(run_of(line))


def test_the_later_one_cannot_come_first():
    first, second, report = at_work(Pipeline.from_iterable(range(10)).map(nap), [5])
    said = "RunStatistics.since: earlier must be the earlier of the two, not the later\nUse later.since(earlier)."

    for later in (second, report):
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            first.since(later)


@pytest.mark.parametrize(
    ("other", "shown"), [(None, "None"), (5.0, "5.0"), ("report", "a str of length 6")], ids=["None", "number", "text"]
)
def test_what_is_no_snapshot_is_refused(other, shown):
    said = f"Report.since: earlier must be a snapshot of the same run, not {shown}\n"

    with pytest.raises(TypeError, match=f"^{re.escape(said)}"):
        run_of(Pipeline.from_iterable(range(3))).since(other)
