"""What can be changed while a run is at work: whether it takes anything, weights, how many calls a stage makes.

Mutants that die here: a pause that a source which is asked at each item does not see; one that stops timers, or calls;
a drain that waits for a paused source; a weight that is read once; more calls than a lowered concurrency allows; a
raised one for which nobody is employed until the next item comes.
"""

import itertools
from collections import Counter
from fractions import Fraction
from functools import partial

import pytest
import trio

from funcpipe_trio import FairShare, Pipeline, RateLimit, Step, concat, fair_merge, merge
from funcpipe_trio.testing import Script, run_virtual
from tests._kit import endless, nap


async def produce(channel):
    async with channel:
        for number in itertools.count():
            await channel.send(number)


def channel():
    send, receive = trio.open_memory_channel(1000)
    for number in range(1000):
        send.send_nowait(number)
    return Pipeline.from_channel(receive)


SOURCES = {
    "iterable": lambda: Pipeline.from_iterable(itertools.count),
    "async iterable": lambda: Pipeline.from_async_iterable(endless),
    "producer": lambda: Pipeline.from_producer(produce),
    "channel": channel,
    "ticks": lambda: Pipeline.ticks(0.25),
}
every_source = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)


async def note_times(run, got):
    """Take everything, and note what came when."""
    async for item in run:
        got.append((trio.current_time(), item))


@every_source
def test_a_paused_source_is_not_taken_from(source):
    """What was taken before continues; then all is quiet, until it is resumed; nothing is lost, or comes twice."""

    async def main():
        got = []

        async def consume(run):
            async for item in run:
                got.append(item)
                await trio.sleep(0.1)

        async with source().buffer(2).open() as run, trio.open_nursery() as nursery:
            nursery.start_soon(consume, run)
            await trio.sleep(2)
            run.pause()
            run.pause()
            await trio.sleep(10)
            still, taken = len(got), run.statistics().taken
            await trio.sleep(10)
            assert len(got) == still
            assert run.statistics().taken == taken
            run.resume()
            run.resume()
            await trio.sleep(5)
            assert len(got) > still
            assert got == list(range(len(got)))
            assert run.statistics().paused == 20
            nursery.cancel_scope.cancel()
        return run.report

    report = run_virtual(main)
    assert report.paused == 20
    assert "paused for 20.000 s" in report.describe()


@every_source
def test_a_paused_run_can_be_drained(source):
    async def main():
        async with source().map(nap, concurrency=2).open() as run:
            await run.receive()
            run.pause()
            await trio.sleep(30)
            run.drain_nowait()
            rest = [item async for item in run]
        return rest, run.report

    rest, report = run_virtual(main)
    assert report.outcome == "drained"
    assert rest == list(range(1, 1 + len(rest)))
    assert report.taken == report.delivered == 1 + len(rest)


@every_source
@pytest.mark.parametrize("how", ["leave", "abort", "cancel"])
def test_a_paused_run_can_be_stopped(source, how):
    async def main():
        with trio.move_on_after(50) as scope:
            async with source().open() as run:
                await run.receive()
                run.pause()
                await trio.sleep(5)
                if how == "abort":
                    run.abort()
                elif how == "cancel":
                    await trio.sleep(1000)
        return scope.cancelled_caught, run.report

    cancelled, report = run_virtual(main)
    assert cancelled == (how == "cancel")
    assert report.outcome == {"leave": "left", "abort": "aborted", "cancel": "cancelled"}[how]
    assert report.taken == report.delivered + report.discarded


def test_a_source_whose_turn_comes_later_is_paused_too():
    async def main():
        pipeline = concat(Pipeline.from_iterable([0]).map(nap), Pipeline.from_iterable([1]), Pipeline.ticks(1).take(2))
        got = []
        async with pipeline.open() as run, trio.open_nursery() as nursery:
            nursery.start_soon(note_times, run, got)

            await trio.sleep(0.5)
            run.pause()
            await trio.sleep(10)
            assert got == [(1, 0)]
            run.resume()
        return got

    assert run_virtual(main) == [(1, 0), (10.5, 1), (10.5, 0), (11.5, 1)]


def test_a_run_that_is_paused_anew_before_anybody_ran_stays_paused():
    """Caught here: a source that waits for one end of a pause only, and then takes an item in the next."""

    async def main():
        async with Pipeline.from_async_iterable(endless).buffer(5).map(nap).buffer(1).open() as run:
            await run.receive()
            run.pause()
            await trio.sleep(50)
            while run.statistics().taken > run.statistics().delivered:
                await run.receive()
            taken = run.statistics().taken
            for _ in range(3):
                run.resume()
                run.pause()
                await trio.sleep(50)
            return run.statistics().taken - taken

    assert run_virtual(main) == 0


def test_timers_and_calls_go_on_while_the_run_is_paused():
    """A batch that is due leaves, a call that runs ends, a rate limit gives its tokens."""

    async def main():
        got = []
        step = Step(nap).rate_limit(RateLimit(1))
        line = (
            Pipeline.from_async_iterable(Script([(0, 1), (0, 2), (9, 3), (9, 4)]))
            .map(step, concurrency=2)
            .batch(9, max_delay=3)
        )
        async with line.open() as run, trio.open_nursery() as nursery:
            nursery.start_soon(note_times, run, got)

            await trio.sleep(0.5)
            run.pause()
            await trio.sleep(20)
            # The third was being waited for when the pause came.
            assert got == [(4, [1, 2]), (13, [3])]
            run.resume()
        return got

    assert run_virtual(main)[2:] == [(21.5, [4])]


def test_pausing_from_within_user_code():
    """The item at hand continues, the next is not asked for."""

    async def main():
        asked = []

        def source():
            for number in range(6):
                asked.append(number)
                yield number

        def look(item):
            if item == 2:
                run.pause()
            return item

        async with Pipeline.from_iterable(source).map(look).open() as run:
            first = [await run.receive() for _ in range(3)]
            await trio.testing.wait_all_tasks_blocked()
            assert asked == [0, 1, 2]
            run.resume()
            return first + [item async for item in run]

    assert run_virtual(main) == [0, 1, 2, 3, 4, 5]


def test_a_weight_counts_from_the_next_choice_on():
    async def main():
        inputs = {key: Pipeline.from_iterable(itertools.repeat(key)) for key in "ab"}
        async with fair_merge(inputs, FairShare({"a": 1, "b": 1})).open() as run:
            before = Counter([await run.receive() for _ in range(100)])
            run.set_weight("a", 4)
            after = Counter([await run.receive() for _ in range(100)])
            run.set_weight("a", Fraction(1, 4))
            last = Counter([await run.receive() for _ in range(100)])
            weights = {each.key: each.weight for each in run.statistics().inputs}
        return before, after, last, weights

    before, after, last, weights = run_virtual(main)
    assert before == {"a": 50, "b": 50}
    assert abs(after["a"] - 80) <= 1
    assert abs(last["a"] - 20) <= 2
    assert weights == {"a": Fraction(1, 4), "b": 1}


def test_which_merge_is_meant():
    async def main():
        line = Pipeline.from_iterable
        inner = fair_merge({"a": line([1]), "b": line([2])}, name="inner")
        async with fair_merge({"a": inner, "c": merge(line([3]))}, name="outer").open() as run:
            with pytest.raises(ValueError, match=r"several merges may have an input 'a': 'inner', 'outer'\nUse merge="):
                run.set_weight("a", 2)
            run.set_weight("a", 2, merge="inner")
            run.set_weight("b", 3)
            with pytest.raises(
                KeyError, match="no input is named 'x'; the inputs are inner: 'a', 'b'; merge: 0; outer: 'a', 'c'"
            ):
                run.set_weight("x", 2)
            with pytest.raises(KeyError, match="no input is named 'c'; the inputs are inner: 'a', 'b'"):
                run.set_weight("c", 2, merge="inner")
            with pytest.raises(KeyError, match="no merge is named 'other'; the merges are 'inner', 'merge', 'outer'"):
                run.set_weight("a", 2, merge="other")
            for value, kind in ((0.5, TypeError), (True, TypeError), (0, ValueError), (-1, ValueError)):
                with pytest.raises(kind, match=r"Run\.set_weight: weight must be"):
                    run.set_weight("b", value)
            with pytest.raises(TypeError, match=r"Run\.set_weight: key must be hashable, not a list"):
                run.set_weight(["a"], 2)
            return {(each.merge, each.key): each.weight for each in run.statistics().inputs}

    assert run_virtual(main) == {
        ("inner", "a"): 2,
        ("inner", "b"): 3,
        ("merge", 0): 1,
        ("outer", "a"): 1,
        ("outer", "c"): 1,
    }


def test_a_run_without_weights_says_so():
    """Instead of that a merge named None is not there."""

    async def main():
        async with Pipeline.from_iterable([1]).open() as run:
            with pytest.raises(KeyError, match="this run has no merge and no fair_by, so there are no weights"):
                run.set_weight("a", 2)

    run_virtual(main)


def test_the_weight_of_a_key():
    """Of one that has items, and of one that comes later."""

    async def main():
        line = Pipeline.from_iterable(itertools.cycle("ab")).fair_by(str, FairShare(capacity=4), max_keys=9)
        async with line.open() as run:
            run.set_weight("b", 3)
            first = Counter([await run.receive() for _ in range(80)])
            run.set_weight("b", 1)
            run.set_weight("a", 1)
            run.set_weight("z", 7)
            return first, Counter([await run.receive() for _ in range(80)])

    first, then = run_virtual(main)
    assert abs(first["b"] - first["a"]) <= 8  # the stream itself is half and half: a queue of four is all that b gains
    assert abs(then["a"] - then["b"]) <= 8

    async def queued():
        items = ["a"] * 60 + ["b"] * 60
        async with Pipeline.from_iterable(items).fair_by(str, FairShare(capacity=60), max_keys=9).open() as run:
            run.set_weight("b", 3)
            early = [await run.receive() for _ in range(20)]
            run.set_weight("b", Fraction(1, 9))
            late = [await run.receive() for _ in range(20)]
            weights = {each.key: each.weight for each in run.statistics().inputs}
        return Counter(early), Counter(late), weights

    early, late, weights = run_virtual(queued)
    assert abs(early["b"] - 15) <= 2
    assert abs(late["b"] - 2) <= 1
    assert weights == {"a": 1, "b": Fraction(1, 9)}


class Gauge:
    """An async function that counts how many of its calls run."""

    __name__ = "gauge"

    def __init__(self):
        self.running = 0
        self.log = []

    async def __call__(self, item):
        self.running += 1
        self.log.append((trio.current_time(), self.running))
        try:
            await trio.sleep(1)
        finally:
            self.running -= 1
        return item

    def most(self, begin, end):
        return max((running for at, running in self.log if begin <= at < end), default=0)


KINDS = {
    "ordered": {"ordered": True},
    "as completed": {"ordered": False},
    "keyed": {"key": lambda item: item % 50},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_more_and_fewer_calls_at_once(kind):
    gauge = Gauge()

    async def main():
        line = Pipeline.from_iterable(range(200)).map(gauge, concurrency=3, **kind)
        async with line.open() as run, trio.open_nursery() as nursery:
            got = []

            @nursery.start_soon
            async def consume():
                async for item in run:
                    got.append(item)

            await trio.sleep(4.5)
            run.set_concurrency("gauge", 10)
            await trio.sleep(5)
            run.set_concurrency("gauge", 2)
            await trio.sleep(10)
            run.set_concurrency("gauge", 5)
        return got, run.report

    got, report = run_virtual(main)
    assert sorted(got) == list(range(200))
    assert "key" in kind or not kind.get("ordered") or got == list(range(200))
    assert gauge.most(0, 4.5) == 3
    assert gauge.most(4.5, 9) == 10
    assert gauge.log[3 * 5 : 3 * 5 + 7][0][0] == 4.5  # at once, not with the next item
    assert gauge.most(11, 19) == 2
    assert gauge.most(20, 10**6) == 5
    assert report.discarded == 0


def test_fewer_calls_with_a_consumer_that_is_slow():
    """Those who are too many do not keep the rest from going on."""
    gauge = Gauge()

    async def main():
        async with Pipeline.from_iterable(range(40)).map(gauge, concurrency=8).buffer(1).open() as run:
            got = []
            async for item in run:
                got.append(item)
                await trio.sleep(0.7)
                run.set_concurrency("gauge", 1 + item % 3)
        return got

    assert run_virtual(main) == list(range(40))


def test_which_stage_is_meant():
    async def main():
        async with Pipeline.from_iterable([1]).map(nap).map(str, name="text").open() as run:
            with pytest.raises(KeyError, match="no stage named 'text' makes calls; those that do are 'nap'"):
                run.set_concurrency("text", 2)
            for value, kind in ((0, ValueError), (True, TypeError), (1.0, TypeError)):
                with pytest.raises(kind, match=r"Run\.set_concurrency: concurrency must be"):
                    run.set_concurrency("nap", value)
            run.set_concurrency("nap", 2)
            assert [item async for item in run] == ["1"]
        run.set_concurrency("nap", 3)  # of a run that has ended it changes nothing
        run.pause()
        run.resume()
        return run.report.outcome

    assert run_virtual(partial(main)) == "completed"


@pytest.mark.parametrize(
    ("watch", "late"),
    [
        (lambda line: line.idle_timeout(5), 5),
        (lambda line: line.timeout(first=5), 5),
        (lambda line: line.timeout(100, first=5), 5),
        (lambda line: line.timeout(50), 16),
    ],
    ids=["idle", "first", "first of a whole", "whole"],
)
def test_a_timeout_of_the_stream_starts_anew_when_it_goes_on(watch, late):
    """Time in which the run is paused is nobody's silence; but a timeout of the whole stream counts it."""

    async def silent():
        await trio.sleep_forever()
        yield

    async def main():
        with pytest.raises(trio.TooSlowError, match=r"^the stream was too slow at '(idle_)?timeout'\n"):
            async with watch(Pipeline.from_async_iterable(silent)).open() as run:
                await trio.sleep(4)
                run.pause()
                await trio.sleep(30)
                run.resume()
                await run.receive()
        return trio.current_time()

    assert run_virtual(main) == 34 + late


def test_items_that_come_while_a_run_is_paused_do_not_start_the_clock():
    """What was taken before continues, and then there is silence that does not count."""

    async def slowly(item):
        await trio.sleep(10)
        return item

    async def main():
        source = Pipeline.from_iterable(range(2)).map(slowly).idle_timeout(20)
        async with source.open() as run:
            run.pause()
            await trio.sleep(100)
            run.resume()
            return [item async for item in run]

    assert run_virtual(main) == [0, 1]


def test_a_key_of_a_fair_by_must_be_hashable():
    """Also where any key may come."""

    async def main():
        async with Pipeline.from_iterable("ab").fair_by(str, max_keys=2).open() as run:
            with pytest.raises(TypeError, match=r"Run\.set_weight: key must be hashable, not a dict"):
                run.set_weight({}, 2)
            return [item async for item in run]

    assert sorted(run_virtual(main)) == ["a", "b"]
