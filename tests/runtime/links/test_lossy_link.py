"""Buffers that never make their sender wait: what is kept, what is dropped, and where it is reported.

Mutants that die here: a link that holds one item more in the middle of a burst; the newest dropped for the oldest; an
item reported twice, or as discarded; an overflow that overtakes what the buffer has; items dropped before the receiver,
which is ready, had a turn; a fast source that never lets its receiver run; a pool that stops taking because the link
behind is full, or takes more than its bound; a policy that is kept when a later buffer says otherwise.
"""

from itertools import count

import pytest
import trio

from funcpipe_trio import BufferOverflow, FairShare, Pipeline, fair_merge, merge
from funcpipe_trio.testing import Probe, Script, run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import assert_links_balance, assert_stages_balance, endless, nap, one_step


def script(text):
    return Pipeline.from_async_iterable(Script(text), name="sensor")


def books(run):
    """The sums of a report that must hold, whatever happened."""
    report = run.report
    assert_stages_balance(report)
    assert_links_balance(report)
    for link in report.links:
        assert link.peak <= link.capacity
    return report


@pytest.mark.parametrize(
    ("policy", "kept", "dropped"),
    [("drop_oldest", ["a", "d", "e"], ["b", "c"]), ("drop_newest", ["a", "b", "c"], ["d", "e"])],
)
def test_what_a_full_buffer_drops(policy, kept, dropped):
    """Each dropped item is reported once, with the policy as its reason, and counts as dropped in run and link."""

    async def main():
        async with Probe(script("abcde|").buffer(2, overflow=policy)) as probe:
            await probe.expect("a", at=0)
            await trio.sleep(10)
            await probe.expect(*kept[1:], at=10)
            await probe.expect_end()
        return probe

    probe = run_virtual(main)
    report = books(probe.run)
    assert probe.discarded == [(item, "sensor", policy) for item in dropped]
    assert (report.taken, report.delivered, report.dropped, report.discarded) == (5, 3, 2, 0)
    (link,) = report.links
    assert (link.passed, link.taken, link.dropped, link.discarded, link.peak) == (5, 3, 2, 0, 2)
    assert report.outcome == "completed"


def test_one_place_keeps_the_latest_value():
    """A consumer that is slower than the sensor always gets the newest value that there is."""

    async def main():
        got = []
        async with script("abcdefgh|").buffer(1, overflow="drop_oldest").open() as run:
            async for item in run:
                got.append((trio.current_time(), item))
                await trio.sleep(2.25)
        return got

    assert run_virtual(main) == [(0, "a"), (2.25, "c"), (4.5, "e"), (6.75, "g"), (9, "h")]


def test_an_overflow_is_a_failure_behind_what_the_buffer_holds():
    """P5: what came before is delivered, then the error; the item counts as failed; the source is closed at once."""
    source = Script("abcdefgh|")

    async def main():
        async with Probe(Pipeline.from_async_iterable(source, name="sensor").buffer(2, overflow="fail")) as probe:
            await trio.sleep(4.5)
            assert source.closed == 1
            await probe.expect("a", "b", at=4.5)
            error = await probe.expect_error(BufferOverflow)
            assert await probe.expect_error(BufferOverflow) is error
        return probe, error

    probe, error = run_virtual(main)
    report = books(probe.run)
    assert str(error) == "the buffer of 2 behind 'sensor' was full"
    assert error.__notes__ == ["in stage 'sensor', item 2"]
    assert (report.taken, report.delivered, report.failed, report.dropped, report.discarded) == (3, 2, 1, 0, 0)
    assert probe.discarded == []
    assert report.error is error


def test_a_sync_source_that_overflows_takes_no_further():
    """It fails in the middle of a burst: nothing behind the item was taken."""

    async def main():
        got = []
        with pytest.raises(BufferOverflow, match=r"^the buffer of 3 behind 'iterable' was full\n"):
            async with Pipeline.from_iterable(count()).buffer(3, overflow="fail").open() as run:
                await trio.sleep(1)
                async for item in run:
                    got.append(item)
        return got, books(run)

    got, report = run_virtual(main)
    assert got == [0, 1, 2]
    assert (report.taken, report.failed) == (4, 1)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
@pytest.mark.parametrize("source", ["iterable", "async"])
def test_a_source_without_end_lets_its_receiver_run(policy, source):
    """It has room always, and breathes all the same: the consumer gets its items, others their turns."""

    line = Pipeline.from_iterable(count()) if source == "iterable" else Pipeline.from_async_iterable(endless)

    async def main():
        async with line.buffer(2, overflow=policy).open() as run:
            got = [await run.receive() for _ in range(20)]
        assert got == sorted(set(got))
        return books(run)

    report = run_virtual(main)
    assert report.taken <= 64 * 64


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "fail"])
@pytest.mark.parametrize("capacity", [1, 3, 16])
@pytest.mark.parametrize("seed", range(10))
def test_a_receiver_that_keeps_up_loses_nothing(policy, capacity, seed):
    """However many items come at one instant, under every schedule: it gets its turn before anything is dropped."""
    chunks = Pipeline.from_async_iterable(Script([(1, range(100)), (2, range(100, 300))]))
    got = []

    def line():
        return chunks.unbatch().buffer(capacity, overflow=policy).tap(got.append)

    with scheduled(Schedule(seed)):
        report = run_virtual(line().run)

    assert got == [*range(300)]
    assert report.dropped == report.failed == 0


def test_of_two_buffers_in_a_row_the_later_counts():
    """With its policy: an earlier one is not kept with a later capacity."""
    line = script("abc|").buffer(1, overflow="fail").buffer(2)

    assert "link of 2 (" in line.describe()
    assert run_virtual(line.collect) == ["a", "b", "c"]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "fail"])
def test_without_a_link_nothing_overflows(policy):
    """`run()`, `collect()` and the like have no link behind the last stage."""
    line = Pipeline.from_iterable(range(1000)).buffer(1, overflow=policy)

    assert run_virtual(line.collect) == [*range(1000)]
    assert run_virtual(line.count) == 1000


def test_the_plan_says_what_a_full_buffer_does():
    """A golden plan; capacity counts as usual in the bound."""
    line = (
        Pipeline.from_iterable([1], name="sensor")
        .buffer(4, overflow="drop_oldest")
        .map(nap)
        .buffer(2, overflow="drop_newest")
        .tap(print)
        .buffer(3, overflow="fail")
    )

    assert line.describe() == (
        "pipeline: 3 stages, items in flight: at most 10\n"
        "source sensor: iterable\n"
        "  | link of 4, drops the oldest when full\n"
        "stage nap: async map nap, 1 at a time, in order\n"
        "  | link of 2, drops the newest when full\n"
        "stage print: tap print\n"
        "  | link of 3, fails when full (of an open run; run(), collect() and the like need none)\n"
        "consumer"
    )
    assert line != Pipeline.from_iterable([1], name="sensor").buffer(4)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_pool_goes_on_behind_which_items_are_dropped(ordered):
    """Its calls do not wait for the consumer, and no more are in flight than the plan says."""
    line = Pipeline.from_iterable(range(12)).buffer(1).map(nap, concurrency=3, ordered=ordered)
    line = line.buffer(2, overflow="drop_oldest")

    async def main():
        async with line.open() as run:
            most = 0
            for _ in range(20):
                counts = run.statistics()
                most = max(most, counts.taken - counts.delivered - counts.dropped)
                await trio.sleep(0.5)
            got = [item async for item in run]
        return got, most, books(run)

    got, most, report = run_virtual(main)
    assert (len(got), most) == (2, line.max_in_flight)
    assert not ordered or got == [10, 11]
    assert report.dropped == 10


def test_a_batch_is_dropped_whole():
    """And reported as the batch that it was."""

    async def main():
        async with Probe(Pipeline.from_iterable(range(6)).batch(2).buffer(1, overflow="drop_newest")) as probe:
            await trio.sleep(1)
            await probe.expect([0, 1])
            await probe.expect_end()
        return probe

    probe = run_virtual(main)
    assert [item for item, *_ in probe.discarded] == [[2, 3], [4, 5]]
    assert books(probe.run).dropped == 2


def test_fan_ins_take_the_latest_of_each_input():
    """An input of a merge that drops is backlogged like any other: shares are exact."""
    lines = {key: Pipeline.from_iterable(count()).buffer(1, overflow="drop_oldest") for key in "ab"}

    async def main():
        async with fair_merge(lines, FairShare({"a": 3})).open() as run:
            for _ in range(400):
                await run.receive()
        return books(run)

    report = run_virtual(main)
    a, b = report.inputs
    assert (a.taken, b.taken) == (300, 100)


def test_right_behind_a_merge_it_makes_a_link():
    """A stage that only passes items on fills it."""

    async def main():
        line = merge(script("a-b|"), script("-c-d|")).buffer(1, overflow="drop_oldest", name="latest")
        async with Probe(line) as probe:
            await trio.sleep(10)
            await probe.expect("d", at=10)
            await probe.expect_end()
        return probe

    probe = run_virtual(main)
    assert probe.discarded == [(item, "latest", "drop_oldest") for item in "acb"]


def test_an_overflow_behind_a_merge_stops_all_inputs():
    """What they hold is discarded: it stood behind the failure."""

    async def main():
        line = merge(script("aa|"), script("b---|")).buffer(2, overflow="fail", name="narrow")
        async with Probe(line) as probe:
            await trio.sleep(10)
            await probe.take(2)
            await probe.expect_error(BufferOverflow)
        return probe

    report = books(run_virtual(main).run)
    assert (report.delivered, report.failed) == (2, 1)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
@pytest.mark.parametrize("at", [1, 2, 5])
def test_whoever_hears_of_a_drop_may_stop_the_run(policy, at):
    """`on_discard` aborts in the middle of a burst: every item is accounted for, once."""
    told = []

    async def main():
        def hear(item, stage, reason):
            told.append(item)
            if len(told) == at:
                run.abort()

        async with Pipeline.from_iterable(range(9)).buffer(2, overflow=policy).open(on_discard=hear) as run:
            await trio.sleep(1)
        return books(run)

    report = run_virtual(main)
    assert report.outcome == "aborted"
    assert sorted(told) == [*range(report.taken)]
    assert report.taken == report.dropped + report.discarded


def test_an_error_of_the_listener_changes_nothing():
    """It is kept in the report."""
    error = OSError("the log is full")

    def hear(item, stage, reason):
        raise error

    async def main():
        async with Pipeline.from_iterable(range(4)).buffer(3, overflow="drop_oldest").open(on_discard=hear) as run:
            await trio.sleep(1)
            return [item async for item in run], run

    got, run = run_virtual(main)
    assert got == [1, 2, 3]
    assert books(run).cleanup_errors == (error,)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_a_failure_stands_behind_what_is_kept(policy):
    """The error of the source comes after the items that were not dropped."""

    async def main():
        async with Probe(script("abc#").buffer(2, overflow=policy)) as probe:
            await trio.sleep(10)
            await probe.take(2)
            await probe.expect_error(RuntimeError)
        return probe

    probe = run_virtual(main)
    assert probe.items == (["b", "c"] if policy == "drop_oldest" else ["a", "b"])
    assert len(probe.discarded) == 1


def test_what_is_kept_is_delivered_by_a_drain_and_discarded_by_leaving():
    """As with every link."""

    async def main(leave):
        async with Probe(script("abcdef|").buffer(2, overflow="drop_oldest")) as probe:
            await trio.sleep(3.5)
            if leave:
                return probe
            probe.run.drain_nowait()
            await probe.expect("c", "d", at=3.5)
            await probe.expect_end(at=3.5)
        return probe

    drained, left = run_virtual(main, False), run_virtual(main, True)
    assert books(drained.run).outcome == "drained"
    assert left.discarded[2:] == [("c", "sensor", "not needed"), ("d", "sensor", "not needed")]
    assert (books(left.run).dropped, left.run.report.discarded) == (2, 2)


def test_ticks_that_nobody_takes_go_on_into_a_buffer_that_drops():
    """Each tick is then taken by the link: one at each multiple."""

    async def main():
        async with Pipeline.ticks(1).buffer(1, overflow="drop_oldest").open() as run:
            await trio.sleep(5.5)
            return await run.receive()

    assert run_virtual(main) == 5


async def at_once(item):
    return item


async def many(item):
    for child in range(20):
        yield 20 * item + child


NUMBERS = Pipeline.from_iterable(range(100))


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "fail"])
@pytest.mark.parametrize(
    "calls",
    [
        NUMBERS.map(at_once),
        NUMBERS.map(at_once, concurrency=4),
        NUMBERS.map(one_step, concurrency=4, ordered=False),
        NUMBERS.map(one_step, concurrency=4, key=lambda item: item % 2),
        Pipeline.from_iterable(range(5)).flat_map(many),
        Pipeline.from_iterable(range(5)).flat_map(lambda item: range(20 * item, 20 * item + 20), concurrency=2),
    ],
    ids=["at once", "at once, four", "one step, four", "by key", "async flat_map", "flat_map"],
)
def test_calls_that_hardly_wait_let_the_receiver_run_before_anything_is_dropped(calls, overflow):
    """Nothing is lost that a receiver which keeps up would have taken, in whatever order the tasks run.

    Caught here: a worker that puts a burst of results into the buffer; a second worker that finds it full.
    """
    for seed in range(10):
        with scheduled(Schedule(seed)):
            got = run_virtual(calls.buffer(2, overflow=overflow).map(lambda item: item).buffer(50).collect)
        assert sorted(got) == [*range(100)]
