"""What a report says limited the run, in virtual time.

Mutants that die here: whoever is busiest, though what it gave was turned away; a source that waits for the outside in
place of the stage that the outside waits for; one lost item that is taken for a flood; a branch that drops, though
another one takes everything; a fan-in that hides what comes behind it.
"""

import trio

from funcpipe_trio import FairShare, OnError, Pipeline, RateLimit, merge
from funcpipe_trio.testing import run_virtual


def every(seconds, count):
    """A source that always waits for the outside."""

    async def arrivals():
        for number in range(count):
            await trio.sleep(seconds)
            yield number

    return Pipeline.from_async_iterable(arrivals)


def working(seconds, name="work"):
    async def work(item):
        await trio.sleep(seconds)
        return item

    return lambda line: line.map(work, name=name)


def limit(line):
    return run_virtual(line.run).bottleneck


def test_of_equals_the_one_furthest_downstream_is_named():
    assert limit(every(0, 9).pipe(working(1, "one")).pipe(working(1, "two"))) == "two"


def test_a_source_that_waits_limits_what_is_idle_behind_it():
    assert limit(every(1, 9).pipe(working(0.5))) == "arrivals"


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
    line = every(0.125, 80).buffer(1, overflow="drop_oldest").throttle(RateLimit(1)).pipe(working(0.25))

    assert limit(line) == "throttle"


def test_what_loses_next_to_nothing_does_limit():
    """A burst at the beginning is no flood."""

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
        fair = every(0.125, 80).fair_by(lambda number: number % 2, FairShare(capacity=1), max_keys=2, overflow=overflow)
        assert limit(fair.pipe(working(0.9))) == "work"


def test_it_is_seen_through_a_fan_in():
    """What is lost behind the merge says of the inputs that they were too fast."""
    both = merge(every(0.125, 80), every(0.125, 80))

    assert limit(both.map(lambda item: item).buffer(1, overflow="drop_oldest").pipe(working(0.5))) == "work"


def test_a_trunk_is_outpacing_only_if_every_branch_loses():
    """One that takes everything is held up by nobody else. Asked in the middle: at the end the trunk has left."""

    def lossy(line):
        return line.buffer(1, overflow="drop_oldest").pipe(working(0.9))

    def limit_after_5_s(**branches):
        async def main():
            async with trio.open_nursery() as nursery:
                run = await nursery.start(every(0, 80).pipe(working(0.125, "feed")).broadcast(branches).run)
                await trio.sleep(5)
                return run.statistics().bottleneck

        return run_virtual(main)

    assert limit_after_5_s(loses=lossy, keeps_up=working(0, "look")) == "feed"
    assert limit_after_5_s(loses=lossy, too=lossy) == "work#2"


def test_a_pause_is_nobodys_work():
    """A source that is paused waits as everyone does: what limits is who worked the rest of the time."""

    async def main():
        async with trio.open_nursery() as nursery:
            run = await nursery.start(every(0.125, 16).pipe(working(0.5)).run)
            await trio.sleep(1)
            run.pause()
            await trio.sleep(100)
            run.resume()
        return run.report

    report = run_virtual(main)

    assert (report.paused, report.bottleneck) == (100, "work")
