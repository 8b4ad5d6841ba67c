"""The operations of time: at which instant what leaves, what is superseded, and what is too late.

All in virtual time, so every instant is exact; where two things happen at one instant, under many schedules.

Mutants that die here: an item that came just when another was due takes its place, or does not, as the scheduler likes;
a debounce that stops taking while there is no room; tokens taken before there is room; a tail lost at the end, at a
failure or at a drain; a failure that overtakes what is kept; a timeout that counts the time of a slow consumer; an item
at the instant of a deadline that is in time; a clock that wakes its stage forever when the time is over.
"""

import itertools

import pytest
import trio

from funcpipe_trio import Pipeline, RateLimit, fair_merge, merge
from funcpipe_trio.testing import Probe, Script, run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import assert_run_balances, assert_stages_balance


def script(text, step=1.0):
    return Pipeline.from_async_iterable(Script(text, step=step), name="feed")


def played(line, *, pause=0.0):
    """Receive all, with a pause after each: what came when, the error, and the probe."""

    async def main():
        error = None
        async with Probe(line) as probe:
            try:
                while True:
                    await probe.take()
                    await trio.sleep(pause)
            except trio.EndOfChannel:
                pass
            except Exception as met:
                error = met
            ended = trio.current_time()
        return probe.log, error, ended, probe

    log, error, ended, probe = run_virtual(main)
    report = probe.run.report
    assert_stages_balance(report)
    assert report.discarded == len(probe.discarded)
    assert_run_balances(report)
    return log, error, ended, probe


def under_schedules(main, count=40):
    """Return what came of many orders of tasks."""
    answers = []
    for seed in range(count):
        with scheduled(Schedule(seed)):
            answers.append(run_virtual(main))
    return answers


# ---- throttle


def test_a_throttle_lets_a_burst_through_and_then_keeps_the_pace():
    """Tokens come back while nothing comes; the end waits for the last item and no longer."""
    log, error, ended, _ = played(script("(abcd)-------e|").throttle(RateLimit(1, per=2, burst=2)))

    assert log == [(0, "a"), (0, "b"), (2, "c"), (4, "d"), (8, "e")]
    assert (error, ended) == (None, 9)


def test_what_a_throttle_lets_through_is_paid_in_its_turn():
    """Catches a credit that outlives it: what is paid for too late is missing from a bucket that was full again."""
    items = Script([(at, item) for at, some in ((0, "a"), (50, "bcd"), (99, "efgh")) for item in some])
    log, *_ = played(Pipeline.from_async_iterable(items).throttle(RateLimit(1, burst=4)))

    assert [at for at, _ in log] == [0, 50, 50, 50, 99, 99, 99, 99]


def test_an_item_pays_what_it_costs():
    """Floats are taken exactly; nobody overtakes an expensive item."""
    costs = {"a": 2, "b": 0.5, "c": 1.5, "d": 1}
    log, *_ = played(script("(abcd)|").throttle(RateLimit(1, burst=2), cost=costs.get))

    assert log == [(0, "a"), (0.5, "b"), (2, "c"), (3, "d")]


@pytest.mark.parametrize(
    ("cost", "kind", "message"),
    [
        (2.5, ValueError, "cost must be <= the burst of 2, or it could never be paid, not 2.5"),
        (0, ValueError, "cost must be a finite number > 0, not 0"),
        (float("nan"), ValueError, "cost must be a finite number > 0, not nan"),
        (float("inf"), ValueError, "cost must be a finite number > 0, not inf"),
        (True, TypeError, "cost must be a finite number > 0, not True"),
        ("1", TypeError, "cost must be a finite number > 0, not a str of length 1"),
    ],
)
def test_a_cost_that_cannot_be_paid_fails_at_its_item(cost, kind, message):
    """The items before it are delivered, it counts as failed, what is behind it is given up."""
    source = Pipeline.from_iterable("abc").buffer(3)
    line = source.throttle(RateLimit(1, burst=2), cost=lambda item: cost if item == "b" else 1)
    log, error, _, probe = played(line)

    assert log == [(0, "a")]
    assert (type(error), str(error)) == (kind, f"throttle 'throttle': {message}")
    assert error.__notes__ == ["in stage 'throttle', item 1"]
    assert probe.run.report.failed == 1
    assert [item for item, *_ in probe.discarded] == ["c"]


def test_what_an_item_costs_is_asked_when_there_is_room_for_it():
    """A throttle keeps none that waits for room only; an error of the cost stops what is upstream at once."""
    source, asked = Script("abcdefg|"), []

    def cost(item):
        asked.append(item)
        return {"a": 1, "b": 1}[item]

    async def main():
        line = Pipeline.from_async_iterable(source).throttle(RateLimit(9), cost=cost).buffer(1)
        async with Probe(line) as probe:
            await trio.sleep(3.5)
            assert asked == ["a"]
            await probe.expect("a")
            await trio.sleep(1)
            assert asked == ["a", "b"]
            await probe.expect("b")
            await trio.sleep(1)
            assert source.closed == 1
            await probe.expect_error(KeyError)
        return probe.run.report

    report = run_virtual(main)
    assert (report.delivered, report.failed, asked) == (2, 1, ["a", "b", "c"])


def test_a_cost_that_failed_is_kept_if_nobody_reads_as_far():
    """Its item failed, and the run says of what."""

    def cost(item):
        return {"a": 1}[item]

    async def main():
        line = script("(abc)|").throttle(RateLimit(9, burst=9), cost=cost).map(lambda item: item * 2).buffer(1)
        async with Probe(line.batch(1).unbatch().flat_map(lambda item: item).buffer(1)) as probe:
            await trio.sleep(1)
        return probe.run.report

    report = run_virtual(main)

    assert isinstance(report.error, KeyError)
    assert (report.outcome, report.failed) == ("left", 1)


def test_tokens_are_taken_when_an_item_leaves():
    """One that waited for room does not leave together with the next: the consumer's rests are no credit."""
    line = script("(abcdef)|").throttle(RateLimit(1)).buffer(1).map(lambda item: item).buffer(1)

    async def main():
        async with Probe(line) as probe:
            await trio.sleep(10.25)
            await probe.take(6)
        return [at for at, _ in probe.log]

    # Two wait in links; the third has waited for room, and the others keep the pace behind it.
    assert run_virtual(main) == [10.25, 10.25, 10.25, 11.25, 12.25, 13.25]


def test_what_limits_a_throttled_run_is_the_throttle():
    """It waits for its clock, not for input; right behind a list it is in the stage of that."""
    source = Pipeline.from_iterable(range(8), name="feed")

    for line, limit in ((source.buffer(1), "throttle"), (source, "feed")):
        _, _, ended, probe = played(line.throttle(RateLimit(1)))
        assert (ended, probe.run.report.bottleneck) == (7, limit)


# ---- throttle, right behind a sync iterable: in its stage


def numbers(advanced, closed):
    """Numbers without end; what was advanced, and the tasks that opened and closed it."""
    opener = trio.lowlevel.current_task().name
    try:
        for number in itertools.count():
            advanced.append(number)
            yield number
    finally:
        closed.append((opener, trio.lowlevel.current_task().name))


def test_a_throttled_iterable_is_advanced_when_there_is_room():
    """Not ahead: a `take` behind advances it exactly so often, however full the link is; and it is closed, once."""
    advanced, closed = [], []
    line = (
        Pipeline.from_iterable(lambda: numbers(advanced, closed), name="feed").throttle(RateLimit(1, burst=2)).take(3)
    )

    async def main():
        async with Probe(line.buffer(3)) as probe:
            await trio.sleep(50)
            assert advanced == [0, 1, 2]
            await probe.take(3)
            await probe.expect_end()
        return probe.run.report

    report = run_virtual(main)
    assert (report.taken, report.delivered, report.discarded) == (3, 3, 0)
    assert closed == [("feed", "feed")]


@pytest.mark.parametrize("paused", [False, True])
def test_a_throttled_iterable_that_is_left_is_closed_once(paused):
    """In the task that opened it; what is kept is given up, with the name of its stage."""
    advanced, closed = [], []
    line = Pipeline.from_iterable(lambda: numbers(advanced, closed), name="feed").throttle(RateLimit(1))

    async def main():
        async with Probe(line) as probe:
            await probe.take(2)
            await trio.sleep(0.5)
            if paused:
                probe.run.pause()
        return probe

    probe = run_virtual(main)
    assert probe.log == [(0, 0), (1, 1)]
    assert (advanced, probe.discarded) == ([0, 1, 2], [(2, "feed", "not needed")])
    assert closed == [("feed", "feed")]


def test_what_is_made_of_a_throttled_item_is_closed_before_its_source():
    """As everywhere: what an item opens may be of use only while its source is open."""
    closed = []

    def opened():
        try:
            yield from "abc"
        finally:
            closed.append("source")

    def children(item):
        try:
            yield item
            yield item
        finally:
            closed.append(item)

    async def main():
        line = Pipeline.from_iterable(opened).throttle(RateLimit(1, burst=3)).flat_map(children).buffer(1)
        async with line.open() as run:
            await run.receive()

    run_virtual(main)
    assert closed == ["a", "source"]


def test_a_throttled_iterable_that_is_paused_lets_out_what_it_keeps():
    """In its time; then nothing, until it is resumed. A drain ends it as well."""

    async def main():
        async with Probe(Pipeline.from_iterable(itertools.count()).throttle(RateLimit(1))) as probe:
            await probe.take(2)
            await trio.sleep(0.5)
            probe.run.pause()
            await probe.expect(2, at=2)
            await trio.sleep(8)
            probe.run.resume()
            await probe.expect(3, at=10)
            await probe.expect(4, at=11)
            await trio.sleep(0.5)
            probe.run.pause()
            probe.run.drain_nowait()
            await probe.expect(5, at=12)
            await probe.expect_end(at=12)
        return probe.run.report

    report = run_virtual(main)
    assert (report.outcome, report.taken, report.delivered) == ("drained", 6, 6)


def test_a_throttled_iterable_that_fails_lets_out_what_came_before():
    """The failure is the source's, with a note of what its close raised."""

    class Broken:
        left = 3

        def __iter__(self):
            return self

        def __next__(self):
            self.left -= 1
            if self.left:
                return self.left
            raise ValueError("broken")

        def close(self):
            raise OSError("close")

    log, error, ended, _ = played(Pipeline.from_iterable(Broken, name="feed").throttle(RateLimit(1)))

    assert (log, ended) == ([(0, 2), (1, 1)], 1)
    assert error.__notes__ == ["in stage 'feed', item 2", "then cleanup in stage 'feed' raised OSError: close"]


# ---- debounce, sample

RARE = {"debounce": Pipeline.debounce, "sample": Pipeline.sample}


def test_a_debounce_lets_the_last_of_each_burst_through():
    """`delay` after it came; what a newer one superseded counts as dropped, and nobody is told of it."""
    log, _, ended, probe = played(script("abc---d--e|").debounce(1.5))

    assert log == [(3.5, "c"), (7.5, "d"), (10, "e")]
    assert ended == 10
    assert (probe.run.report.dropped, probe.discarded) == (2, [])
    assert [stage.dropped for stage in probe.run.report.stages] == [0, 2]


def test_a_sample_lets_the_newest_through_at_each_multiple():
    """Of the start of the run; at a multiple without a new item nothing leaves."""
    log, _, ended, probe = played(script("abcd-----e-f|").sample(2.5))

    assert log == [(2.5, "c"), (5, "d"), (10, "e"), (12, "f")]
    assert (ended, probe.run.report.dropped) == (12, 2)


@pytest.mark.parametrize("rare", RARE)
def test_what_comes_when_another_is_due_does_not_take_its_place(rare):
    """Under every schedule: the deadline is first."""

    async def main():
        async with Probe(RARE[rare](script("a-b-c|"), 2)) as probe:
            await probe.take(3)
        return probe.log

    assert {tuple(log) for log in under_schedules(main)} == {((2, "a"), (4, "b"), (5, "c"))}


@pytest.mark.parametrize("rare", RARE)
def test_the_last_item_leaves_before_a_failure_and_at_a_drain(rare):
    """At once: it came before."""
    log, error, _, _ = played(RARE[rare](script("ab#"), 9))
    assert log == [(2, "b")]
    assert type(error) is RuntimeError

    async def main():
        async with Probe(RARE[rare](script("ab---c"), 9)) as probe:
            await trio.sleep(2.5)
            probe.run.drain_nowait()
            await probe.expect("b", at=2.5)
            await probe.expect_end(at=2.5)
        return probe.run.report

    report = run_virtual(main)
    assert (report.outcome, report.taken, report.dropped) == ("drained", 2, 1)


def test_a_debounce_goes_on_superseding_while_there_is_no_room():
    """The consumer gets old values from the links, and then the newest there is."""
    line = script("abcdefghijklmnop|", step=2).debounce(0.5).buffer(1).map(lambda item: item).buffer(1)
    log, *_ = played(line, pause=9.25)

    assert log == [(0.5, "a"), (9.75, "b"), (19, "c"), (28.25, "e"), (37.5, "j"), (46.75, "o"), (56, "p")]


def test_a_sample_takes_the_newest_when_room_comes_late():
    """Not what it would have sent at the multiple, and its next multiple stays one."""
    log, *_ = played(script("abcdefghijkl|").sample(2).buffer(1), pause=5)

    assert log == [(2, "b"), (7, "d"), (12, "g"), (17, "l")]


def test_a_fast_source_behind_a_debounce_does_not_hold_the_others_up():
    """It takes what comes in bursts, though nothing leaves."""

    async def main():
        turns = 0
        async with Pipeline.from_iterable(range(10_000)).debounce(1).open() as run, trio.open_nursery() as nursery:

            async def other():
                nonlocal turns
                while True:
                    await trio.lowlevel.checkpoint()
                    turns += 1

            nursery.start_soon(other)
            got = [item async for item in run]
            nursery.cancel_scope.cancel()
        return got, turns

    got, turns = run_virtual(main)
    assert got == [9999]
    assert turns > 10_000 / 128


# ---- delay


def test_a_delay_keeps_order_and_distances():
    """Each leaves so long after it came, the end right behind the last."""
    log, error, ended, _ = played(script("ab(cd)---e|").delay(2.5))

    assert log == [(2.5, "a"), (3.5, "b"), (4.5, "c"), (4.5, "d"), (8.5, "e")]
    assert (error, ended) == (None, 8.5)


def test_no_more_than_so_many_wait_in_a_delay():
    """A source that is faster is held up: its items come later, and their time counts from then."""
    log, *_ = played(script("(abcd)|").delay(3, max_items=2))

    assert log == [(3, "a"), (3, "b"), (6, "c"), (6, "d")]
    assert script("a").buffer(2).delay(1, max_items=5).buffer(3).max_in_flight == 2 + 5 + 3


def test_the_time_of_a_delay_counts_while_there_is_no_room():
    """What has waited long enough leaves when there is room."""
    log, *_ = played(script("abcd|").delay(2).buffer(1), pause=4)

    assert log == [(2, "a"), (6, "b"), (10, "c"), (14, "d")]


def test_a_failure_waits_behind_what_is_delayed():
    """It leaves when all before it have left; the source was closed long before."""
    log, error, ended, _ = played(script("ab#").delay(10))

    assert log == [(10, "a"), (11, "b")]
    assert (type(error), ended) == (RuntimeError, 11)


def test_a_failure_behind_a_delay_keeps_the_one_that_waits_in_it():
    """The later error is that of an item behind: it is kept beside the first."""

    def fail(item):
        raise ValueError(item)

    log, error, _, probe = played(script("ab#").delay(10).map(fail))

    assert (log, type(error)) == ([], ValueError)
    assert [type(each) for each in probe.run.report.cleanup_errors] == [RuntimeError]
    assert probe.discarded == [("b", "delay", "behind a failure")]


PACED = {
    "throttle": lambda line: line.throttle(RateLimit(1, per=100)),
    "debounce": lambda line: line.debounce(100),
    "sample": lambda line: line.sample(100),
    "delay": lambda line: line.delay(100),
}


@pytest.mark.parametrize("name", PACED)
@pytest.mark.parametrize("end", ["leave", "abort", "cancel", "grace"])
def test_what_is_kept_is_given_up_with_the_run(name, end):
    """Once, with the stage and the reason; at that instant."""

    async def main():
        told = []
        with trio.CancelScope() as scope:
            async with PACED[name](script("ab---")).open(on_discard=lambda *what: told.append(what)) as run:
                await trio.sleep(2.5)
                if end == "abort":
                    run.abort()
                elif end == "grace":
                    await run.drain(grace=0)
                elif end == "cancel":
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        return told, run.report, trio.current_time()

    told, report, now = run_virtual(main)
    reason = {"leave": "not needed", "abort": "aborted", "cancel": "cancelled", "grace": "grace period over"}[end]
    assert {(stage, why) for _, stage, why in told} == {(name, reason)}
    assert now == 2.5
    assert report.taken == 2 == report.delivered + report.dropped + report.discarded
    assert len(told) == report.discarded >= 1


@pytest.mark.parametrize("name", PACED)
def test_behind_a_merge(name):
    """An operation of time takes from a fan-in directly; every input is let in."""
    line = PACED[name](merge(script("a---|"), script("-b--|"), script("--|")))

    async def main():
        return await line.collect()

    assert run_virtual(main) == (["a", "b"] if name in ("throttle", "delay") else ["b"])


def test_a_fair_merge_gives_the_newest_of_each_input():
    """A sample in an input of a merge."""
    lines = {key: script("abcdefgh|").sample(2) for key in "xy"}
    log, *_ = played(fair_merge(lines))

    assert [at for at, _ in log] == [2, 2, 4, 4, 6, 6, 8, 8]
    assert [item for _, item in log] == [*"bbddffhh"]


# ---- timeouts


def test_a_stream_that_falls_silent_fails():
    """`seconds` after its last item; the error is trio's, with a note, and the source is closed at once."""
    source = Script("ab------c|")
    line = Pipeline.from_async_iterable(source).idle_timeout(2.5)

    log, error, ended, probe = played(line)
    assert log == [(0, "a"), (1, "b")]
    assert (type(error), ended) == (trio.TooSlowError, 3.5)
    assert error.__notes__ == ["timeout of 2.5 s without an item", "in stage 'idle_timeout'"]
    assert (source.closed, source.cancelled) == (1, True)
    assert (probe.run.report.outcome, probe.run.report.failed) == ("failed", 0)


def test_a_stream_that_never_speaks_fails():
    """The time counts from the start of the run."""
    assert played(script("-----a|").idle_timeout(2))[2] == 2


def test_a_slow_consumer_is_no_silence():
    """While there is no room nobody could take an item: that time does not count."""
    log, error, *_ = played(script("abcde|").buffer(1).idle_timeout(2).buffer(1), pause=10)

    assert [item for _, item in log] == [*"abcde"]
    assert error is None


def test_after_a_slow_consumer_the_time_begins_again():
    """The stream has its full time from when there is room."""
    log, error, ended, _ = played(script("ab-------------------c|").idle_timeout(2).buffer(1), pause=10)

    # 'b' lies in the link until 10 s; from then on there is room, and nothing comes.
    assert log == [(0, "a"), (10, "b")]
    assert type(error) is trio.TooSlowError
    assert ended == 20


TIMES = {
    "idle": (lambda line: line.idle_timeout(2), "timeout of 2 s without an item"),
    "first": (lambda line: line.timeout(first=2), "timeout of 2 s for the first item"),
    "whole": (lambda line: line.timeout(2), "timeout of 2 s for the whole stream"),
}


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("text", ["--a|", "--|"])
def test_what_comes_at_the_instant_of_a_deadline_is_too_late(name, text):
    """P10, under every schedule; the end as well as an item."""
    make, note = TIMES[name]

    async def main():
        async with Probe(make(script(text))) as probe:
            error = await probe.expect_error(trio.TooSlowError)
        return trio.current_time(), probe.items, error.__notes__[0]

    assert {(at, *items, said) for at, items, said in under_schedules(main)} == {(2, note)}


@pytest.mark.parametrize("name", TIMES)
def test_what_comes_just_before_is_in_time(name):
    """The float before it is not too late."""
    make, _ = TIMES[name]
    early = 1.9999999999999998
    log, error, *_ = played(make(Pipeline.from_async_iterable(Script([(early, "a")]))))

    assert (log, error) == ([(early, "a")], None)


def test_a_whole_stream_has_its_time():
    """A slow consumer's included; the failure stands behind what came."""
    line = script("abcdefgh|").timeout(4.5).buffer(1)
    log, error, *_ = played(line, pause=2)

    assert log == [(0, "a"), (2, "b"), (4, "c"), (6, "d")]
    assert error.__notes__[0] == "timeout of 4.5 s for the whole stream"


def test_a_timeout_while_there_is_no_room_stops_what_is_above_at_once():
    """And the failure comes when what lies in the link was taken."""
    source = Script("abcdefgh|")

    async def main():
        async with Probe(Pipeline.from_async_iterable(source).timeout(4.5).buffer(1)) as probe:
            await trio.sleep(5)
            assert source.closed == 1
            await trio.sleep(5)
            await probe.expect("a", at=10)
            error = await probe.expect_error(trio.TooSlowError)
            assert await probe.expect_error(trio.TooSlowError) is error
        return probe

    probe = run_virtual(main)
    assert {reason for *_, reason in probe.discarded} == {"behind a failure"}
    assert probe.run.report.discarded == 4


def test_the_first_item_ends_its_time():
    """An end without any does, too."""
    assert played(script("a------b|").timeout(first=2))[1] is None
    assert played(script("-|").timeout(first=2))[:2] == ([], None)


def test_a_timeout_lets_out_what_a_batch_behind_it_has():
    """P5: what came before the failure goes out before it."""

    async def main():
        async with Probe(script("abc---d|").idle_timeout(2).batch(2)) as probe:
            await probe.expect(["a", "b"], ["c"])
            await probe.expect_error(trio.TooSlowError)
        return trio.current_time()

    assert run_virtual(main) == 4


def test_a_timeout_of_user_code_stays_the_users():
    """Only our own clock makes our note."""
    failure = trio.TooSlowError("the user's")

    def fail(item):
        raise failure

    _, error, *_ = played(script("a|").map(fail).idle_timeout(5))

    assert error is failure
    assert error.__notes__ == ["in stage 'fail', item 0"]


def test_a_stream_that_fails_in_time_is_not_too_slow():
    """Its own error comes."""
    assert type(played(script("a#").timeout(1.5).idle_timeout(1.5))[1]) is RuntimeError


# ---- the plan


def test_the_plan_says_it():
    """A golden plan, with the bound: what a stage keeps, and its link."""

    def size(item):
        return 1

    line = (
        Pipeline.from_iterable([1], name="feed")
        .throttle(RateLimit(5, burst=2), cost=size)
        .debounce(0.5, name="quiet")
        .sample(1)
        .delay(2, max_items=4)
        .idle_timeout(8)
        .timeout(60, first=5)
    )

    assert line.describe() == (
        "pipeline: 6 stages, items in flight: at most 102\n"
        "source feed: iterable -> throttle to 5 in 1 s, burst 2, an item costs what size says\n"
        "  | link of 16\n"
        "stage quiet: debounce of 0.5 s\n"
        "  | link of 16\n"
        "stage sample: sample every 1 s\n"
        "  | link of 16\n"
        "stage delay: delay of 2 s, for at most 4 at a time\n"
        "  | link of 16\n"
        "stage idle_timeout: idle_timeout of 8 s\n"
        "  | link of 16\n"
        "stage timeout: timeout of 60 s for the whole stream and 5 s for the first item\n"
        "  | link of 16 (of an open run; run(), collect() and the like need none)\n"
        "consumer"
    )


# ---- ticks


def test_ticks_and_samples_keep_to_their_multiples():
    """Ticks that nobody took are not made up for, and the next is at a multiple again, without a gap in the numbers."""

    async def main():
        async with Probe(Pipeline.ticks(0.5)) as probe:
            await probe.take(2)
            await trio.sleep(3.2)
            await probe.take(3)
        return probe.log

    # The third lay in the link since 1.0 s; the fourth is made at the first multiple after that one was taken.
    assert run_virtual(main) == [(0, 0), (0.5, 1), (3.7, 2), (4.0, 3), (4.5, 4)]
