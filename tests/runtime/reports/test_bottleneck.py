"""What a report says limited the run, in virtual time: programs whose limit is known by construction, and a law.

Mutants that die here: the busiest part, though what it gave was turned away; a source that waits for the outside in
place of the stage that the outside waits for; one lost item that is taken for a flood; a branch that drops, though
another one takes everything; a fan-in that hides what comes behind it; places that were never hired taken for busy
ones; free places that the order, or a key, keeps from working taken for idle ones; what is done in a pause, or after
the end; the whole of a run instead of the time that was asked for.
"""

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import FairShare, OnError, Pipeline, RateLimit, Step, fair_merge, merge
from funcpipe_trio.testing import run_virtual
from tests._kit import every


def working(seconds, name="work"):
    async def work(item):
        await trio.sleep(seconds)
        return item

    return lambda line: line.map(work, name=name)


def limit(line):
    return run_virtual(line.run).bottleneck


def consumed(line, seconds=0.0):
    """Run it for a consumer that is busy with each item for so long; give the report."""

    async def main():
        async with line.open() as run:
            async for _item in run:
                await trio.sleep(seconds)
        return run.report

    return run_virtual(main)


def served(line, seconds, then):
    """Run it for so long, for a consumer that is always there; then give what `then` makes of the run."""

    async def consume(run):
        async for _item in run:
            pass

    async def main():
        async with line.open() as run, trio.open_nursery() as nursery:
            nursery.start_soon(consume, run)
            await trio.sleep(seconds)
            result = await then(run)
            nursery.cancel_scope.cancel()
        return result

    return run_virtual(main)


async def snapshot(run):
    return run.statistics()


def slow_head(slow=100.0, quick=0.1):
    """One slow call, the first; all others are quick."""

    async def call(item):
        await trio.sleep(quick if item else slow)
        return item

    return call


PLACES = pytest.mark.parametrize("places", [1, 4, 32, 100])


def test_of_equals_the_one_furthest_downstream_is_named():
    assert limit(every(0, range(9)).pipe(working(1, "one")).pipe(working(1, "two"))) == "two"


def test_a_source_that_waits_limits_what_is_idle_behind_it():
    assert limit(every(1, range(9)).pipe(working(0.5))) == "arrivals"


def test_a_source_that_waits_does_not_limit_what_is_nearly_as_busy():
    """It gives nothing more until it gets answers, so it never waits for room: the work is what takes so long."""
    answers = trio.Semaphore(1)

    async def client(send):
        for number in range(50):
            await answers.acquire()
            if not number:
                await trio.sleep(1)
            await send.send(number)

    async def answer(item):
        await trio.sleep(1)
        answers.release()

    assert limit(Pipeline.from_producer(client).map(answer)) == "answer"


def test_what_outpaces_a_buffer_that_drops_does_not_limit():
    """Though it is busy all the time, and what is behind the buffer is not (here: paced to less)."""
    line = every(0.125, range(80)).buffer(1, overflow="drop_oldest").throttle(RateLimit(1)).pipe(working(0.25))

    assert limit(line) == "throttle"


def test_what_loses_next_to_nothing_does_limit():
    """A burst at the beginning is not a flood."""

    async def mostly_slow():
        for number in range(100):
            await trio.sleep(1 if number > 2 else 0)
            yield number

    line = Pipeline.from_async_iterable(mostly_slow).buffer(1, overflow="drop_newest").pipe(working(0.5))
    report = run_virtual(line.run)

    assert report.dropped > 0
    assert report.bottleneck == "mostly_slow"


def test_what_floods_the_queues_of_a_fair_by_does_not_limit():
    async def refuse(failure):
        pass

    for overflow in ("drop_newest", OnError.divert(refuse)):
        fair = every(0.125, range(80)).fair_by(
            lambda number: number % 2, FairShare(capacity=1), max_keys=2, overflow=overflow
        )
        assert limit(fair.pipe(working(0.9))) == "work"


def test_it_is_seen_through_a_fan_in():
    """What is lost behind the merge says of the inputs that they were too fast."""
    both = merge(every(0.125, range(80)), every(0.125, range(80)))

    assert limit(both.map(lambda item: item).buffer(1, overflow="drop_oldest").pipe(working(0.5))) == "work"


def test_a_trunk_is_outpacing_only_if_every_branch_loses():
    """One that takes everything is held up by nobody else. Asked in the middle: at the end the trunk has left."""

    def lossy(line):
        return line.buffer(1, overflow="drop_oldest").pipe(working(0.9))

    def limit_after_5_s(**branches):
        async def main():
            async with trio.open_nursery() as nursery:
                run = await nursery.start(every(0, range(80)).pipe(working(0.125, "feed")).broadcast(branches).run)
                await trio.sleep(5)
                return run.statistics().bottleneck

        return run_virtual(main)

    assert limit_after_5_s(loses=lossy, keeps_up=working(0, "look")) == "feed"
    assert limit_after_5_s(loses=lossy, too=lossy) == "work#2"


def test_a_pause_is_nobodys_work():
    """A paused source waits as everything does: the limit is what worked the rest of the time."""

    async def main():
        async with trio.open_nursery() as nursery:
            run = await nursery.start(every(0.125, range(16)).pipe(working(0.5)).run)
            await trio.sleep(1)
            run.pause()
            await trio.sleep(100)
            run.resume()
        return run.report

    report = run_virtual(main)

    assert (report.paused, report.bottleneck) == (100, "work")


# ---- generous concurrency


@PLACES
def test_a_slow_feed_is_the_limit_however_many_places_wait_for_it(places):
    async def call(item):
        await trio.sleep(0.01)

    assert limit(every(1, range(20)).map(call, concurrency=places)) == "arrivals"


@PLACES
def test_a_service_to_which_nothing_comes_waits_for_its_source(places):
    """In the middle, at the end, and in any part of it."""

    async def later(run):
        earlier = run.statistics()
        await trio.sleep(10)
        return earlier.bottleneck, run.statistics().since(earlier).bottleneck

    line = every(1000, range(2)).map(slow_head(), concurrency=places)

    assert served(line, 10, later) == ("arrivals", "arrivals")
    assert limit(every(1000, range(0)).map(slow_head(), concurrency=places)) is None  # it ended at once


@PLACES
@pytest.mark.parametrize("gap", [0, 0.01])
@pytest.mark.parametrize("consumer", [0, 0.1])
def test_an_ordered_stage_that_waits_for_its_head_is_the_limit(places, gap, consumer):
    """It makes one call, and all others wait for it: the rest of its places could do more if the order let them."""
    feed = every(gap, range(400)) if gap else Pipeline.from_iterable(range(400))
    report = consumed(feed.map(slow_head(), concurrency=places, name="call"), consumer)

    assert report.bottleneck == "call"
    if places > 1:
        assert "limited by: call (its places wait for earlier items)" in report.describe()


@PLACES
@pytest.mark.parametrize("ordered", [True, False])
def test_a_stage_whose_items_are_all_of_one_key_is_the_limit(places, ordered):
    async def call(item):
        await trio.sleep(1)

    line = every(0.2, range(200)).map(call, concurrency=places, ordered=ordered, key=lambda item: "one", name="call")

    assert consumed(line, 0.3).bottleneck == "call"


@PLACES
def test_the_last_call_is_the_limit_when_all_wait_for_it(places):
    """With or without order: 100 s of the run are this call's, and of 32 places 31 have nothing left to do."""
    line = Pipeline.from_iterable(range(32)).map(slow_head(), concurrency=places, ordered=False, name="call")

    assert consumed(line, 0.1).bottleneck == "call"


def test_an_ordered_stage_whose_head_is_through_is_not_the_limit_any_more():
    """Its workers were told to wait for the head, and nothing woke them since: they may no longer wait."""

    async def later(run):
        earlier = run.statistics()
        await trio.sleep(100)
        return earlier, run.statistics().since(earlier)

    async def burst():
        for number in range(200):
            await trio.sleep(0 if number < 100 else 10)
            yield number

    line = Pipeline.from_async_iterable(burst).map(slow_head(10), concurrency=32, name="call")
    earlier, since = served(line, 15, later)

    assert (earlier.bottleneck, since.bottleneck) == ("call", "burst")
    assert since.stages[-1].stalled == 0


def test_of_two_generous_stages_the_one_that_is_fuller_limits():
    def stage(seconds, places, name):
        async def call(item):
            await trio.sleep(seconds)
            return item

        return lambda line: line.map(call, concurrency=places, ordered=False, name=name)

    line = Pipeline.from_iterable(range(400))

    assert limit(line.pipe(stage(4, 16, "wide")).pipe(stage(0.5, 1, "narrow"))) == "narrow"
    assert limit(line.pipe(stage(4, 6, "wide")).pipe(stage(0.5, 1, "narrow"))) == "wide"
    assert limit(line.pipe(stage(0.5, 1, "narrow")).pipe(stage(4, 6, "wide"))) == "wide"


# ---- limits of rates


def test_a_rate_limit_is_told_with_the_stage():
    """The stage is what the limit stands at; that it waits for tokens most of its time is said beside its name."""

    async def call(item):
        await trio.sleep(0.01)

    step = Step(call, name="call").rate_limit(RateLimit(5))
    slowed = run_virtual(every(0.1, range(200)).map(step, concurrency=32).run)
    ample = run_virtual(every(0.5, range(50)).map(step, concurrency=32).run)

    assert (slowed.bottleneck, ample.bottleneck) == ("call", "arrivals")
    assert "limited by: call (its rate limit)" in slowed.describe().splitlines()
    assert "limited by: arrivals" in ample.describe().splitlines()


# ---- part of a run


def test_a_limit_of_late_is_seen_between_two_snapshots():
    """The consumer was slow for 900 s, and has waited for 10: the whole says one thing, the last seconds another."""

    async def main():
        async with every(1, range(2000)).map(slow_head(), concurrency=8, name="call").open() as run:
            for _ in range(300):
                await run.receive()
                await trio.sleep(3)
            async with trio.open_nursery() as nursery:

                async def consume():
                    async for _item in run:
                        pass

                nursery.start_soon(consume)
                await trio.sleep(1)
                earlier = run.statistics()
                await trio.sleep(10)
                later = run.statistics()
                nursery.cancel_scope.cancel()
        return later.bottleneck, later.since(earlier).bottleneck, earlier.since(earlier).bottleneck

    assert run_virtual(main) == ("consumer", "arrivals", None)


def test_what_a_consumer_does_after_the_end_limits_nothing():
    """Nor is anybody the limit of a time in which all was over."""

    async def main():
        async with every(0.1, range(50)).pipe(working(1)).open() as run:
            async for _item in run:
                pass
            earlier = run.statistics()
            await trio.sleep(10_000)
            return run.statistics(), run.statistics().since(earlier)

    whole, since = run_virtual(main)

    assert (whole.bottleneck, since.bottleneck) == ("work", None)


def test_of_several_who_receive_one_that_waits_is_enough():
    """There is somebody to take the next item, so it is not the consumer that is missing."""

    async def main():
        async with every(1, range(100)).pipe(working(0.5)).open() as run, trio.open_nursery() as nursery:

            async def consume(seconds):
                async for _item in run:
                    await trio.sleep(seconds)

            nursery.start_soon(consume, 50)
            nursery.start_soon(consume, 0.5)
        return run.report.bottleneck

    assert run_virtual(main) == "arrivals"


# ---- pauses


def test_nobody_limits_a_time_in_which_the_run_was_paused():
    async def paused(run):
        run.pause()
        earlier = run.statistics()
        await trio.sleep(100)
        still = run.statistics()
        run.resume()
        return still.bottleneck, still.since(earlier).bottleneck, run.statistics().since(earlier).bottleneck

    assert served(every(1, range(1000)).map(slow_head(), concurrency=8), 10.5, paused) == ("arrivals", None, None)


@pytest.mark.parametrize("work", [0.5, 2])
def test_a_pause_changes_nothing_of_what_limits(work):
    """The part that still works in it, if only the consumer that pauses its own run and sleeps."""

    async def main():
        async with every(1, range(600)).buffer(1).pipe(working(work)).buffer(1).open() as run:
            for number in range(500):
                await run.receive()
                if number % 50 == 49:
                    run.pause()
                    await trio.sleep(1000)
                    run.resume()
            return run.statistics()

    said = run_virtual(main)

    assert (said.paused, said.bottleneck) == (10_000, "arrivals" if work < 1 else "work")


# ---- fan-ins and branches


def test_it_is_seen_between_two_snapshots_through_merges_queues_and_branches():
    """A flood that is turned away is not a limit in a part of a run either."""

    async def later(run):
        earlier = run.statistics()
        await trio.sleep(50)
        return run.statistics().since(earlier).bottleneck

    share = FairShare(capacity=1)
    flood = every(0.125, range(10_000)).fair_by(lambda number: number % 2, share, max_keys=2, overflow="drop_newest")
    lossy = every(0.125, range(10_000)).buffer(1, overflow="drop_oldest")
    both = fair_merge({"one": every(2, range(10_000)), "two": every(2, range(10_000))})
    parts = every(0.5, range(10_000)).partition(
        lambda number: "a" if number % 2 else "b", {"a": working(0.9, "busy"), "b": working(0.25, "idle")}
    )

    assert served(flood.pipe(working(0.9)), 20, later) == "work"
    assert served(lossy.throttle(RateLimit(1)), 20, later) == "throttle"
    assert served(both.pipe(working(1.1)), 20, later) == "work"
    assert served(both.pipe(working(0.5)), 20, later) == "arrivals#2"
    assert served(parts, 20, later) == "arrivals"
    assert served(parts.pipe(working(0.55)), 20, later) == "work"


# ---- the law


@st.composite
def lines(draw):
    """Return a source, stages and a consumer; of each how long it takes for an item, over its places."""
    stages = draw(
        st.lists(
            st.tuples(st.integers(1, 96), st.integers(1, 8), st.booleans(), st.integers(1, 20)), min_size=1, max_size=4
        )
    )
    source = draw(st.integers(0, 24))
    consumer = draw(st.one_of(st.none(), st.integers(0, 24)))
    line = every(source / 16, range(150)) if source else Pipeline.from_iterable(range(150))
    speeds = {"arrivals": source / 16}
    for number, (sixteenths, places, ordered, capacity) in enumerate(stages):
        name = f"stage {number}"
        seconds = sixteenths / 16
        speeds[name] = seconds / places

        async def call(item, seconds=seconds):
            await trio.sleep(seconds)
            return item

        line = line.map(call, concurrency=places, ordered=ordered, name=name).buffer(capacity)
    if consumer is not None:
        speeds["consumer"] = consumer / 16
    return line, speeds, consumer


@settings(max_examples=80, deadline=None)
@given(drawn=lines())
def test_who_takes_longest_for_an_item_is_the_limit(drawn):
    """Of constant times: the greatest time per item over places, if it is ahead of all others by a tenth."""
    line, speeds, consumer = drawn
    *_, second, (first, name) = sorted((seconds, name) for name, seconds in speeds.items())
    if first < 1.1 * second[0]:
        return
    report = run_virtual(line.run) if consumer is None else consumed(line, consumer / 16)

    assert report.bottleneck == name
