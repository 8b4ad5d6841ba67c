"""An object of the user's as an operation: when is it called, with what, and what becomes of what it holds?

That it keeps all promises, for every ending, is in `tests/operators`. Mutants that die here: a `flush` after a failure,
or none after a drain; a `tick` that comes after the item of its instant; an item taken though there is no room, because
a tick used it; a state that two runs share; an item told twice because the object kept what it failed at.
"""

from functools import partial

import pytest
import trio

from funcpipe_trio import Aborted, MisuseError, Pipeline, concat
from funcpipe_trio.testing import Script, cancel_everywhere, drain_everywhere, fail_everywhere, run_virtual
from tests._kit import Boom, nap, play


class Recording:
    """Gives what it took when the next one comes, and notes each call."""

    def __init__(self, log):
        self.log = log
        self.kept = []

    def push(self, item):
        self.log.append(("push", item))
        given, self.kept = self.kept, [item]
        return given

    def flush(self):
        self.log.append(("flush",))
        return self.kept

    def held(self):
        self.log.append(("held",))
        return self.kept


class Reminding:
    """Gives an item a second after it came."""

    def __init__(self):
        self.kept = []

    def push(self, item):
        self.kept.append((trio.current_time() + 1, item))
        return ()

    def due(self):
        return self.kept[0][0] if self.kept else None

    def tick(self, now):
        while self.kept and self.kept[0][0] <= now:
            yield self.kept.pop(0)[1]


def fails_at_the_end(items):
    yield from items
    raise Boom


async def slowly():
    for item in range(9):
        await trio.sleep(1)
        yield item


def test_it_is_asked_for_the_rest_at_the_end_and_once():
    log = []
    got, report, _ = play(Pipeline.from_iterable("abc").stateful(lambda: Recording(log)))

    assert [item for _, item in got] == ["a", "b", "c"]
    assert log == [("push", "a"), ("push", "b"), ("push", "c"), ("flush",)]
    assert (report.taken, report.delivered, report.discarded) == (3, 3, 0)
    assert [(each.name, each.used, each.made) for each in report.remade] == [("<lambda>", 3, 3)]


def test_it_is_flushed_without_any_item():
    log = []
    play(Pipeline.from_iterable([]).stateful(lambda: Recording(log)))

    assert log == [("flush",)]


def test_a_drain_is_an_end():
    log = []
    got, report, discarded = play(
        Pipeline.from_async_iterable(slowly).stateful(lambda: Recording(log)),
        stop=lambda run: run.drain_nowait(),
    )

    assert ([item for _, item in got], discarded) == ([0, 1], [])
    assert report.outcome == "drained"
    assert log[-1] == ("flush",)


@pytest.mark.parametrize("source", [lambda: fails_at_the_end("abc"), "abc"])
def test_after_a_failure_it_is_asked_for_what_it_holds_and_not_flushed(source):
    """Of the source, or of an operation before it or behind it in the same stage."""
    log = []
    line = Pipeline.from_iterable(source)
    if source == "abc":
        line = line.map(lambda item: item if item != "c" else 1 // 0)
    _, report, discarded = play(line.stateful(lambda: Recording(log), name="late"))

    assert log[-1] == ("held",)
    assert ("flush",) not in log
    item = "c" if callable(source) else "b"
    assert discarded == [(item, "iterable" if not callable(source) else report.stages[0].name, "behind a failure")]
    assert report.taken == report.delivered + report.failed + report.discarded


def test_an_item_at_which_it_fails_is_the_failure_and_not_told_as_held():
    """Though it had kept it before it raised."""

    class Greedy:
        def __init__(self):
            self.kept = []

        def push(self, item):
            self.kept.append(item)
            yield len(self.kept)
            if len(self.kept) == 3:
                raise Boom

        def held(self):
            return self.kept

    got, report, discarded = play(Pipeline.from_iterable(lambda: "abc").stateful(Greedy, holds=9))

    assert [item for _, item in got[:-1]] == [1, 2, 3]  # what it gave before it raised, too
    assert isinstance(got[-1][1], Boom)
    assert got[-1][1].__notes__ == ["in stage 'Greedy', item 2"]
    assert [item for item, _, _ in discarded] == ["a", "b"]
    assert report.failed == 1


class Keeping:
    """Keeps all until the end; never forgets what it has given out."""

    def __init__(self, fails_at=None):
        self.kept = []
        self.fails_at = fails_at

    def push(self, item):
        self.kept.append(item)
        if len(self.kept) == self.fails_at:
            raise Boom
        return ()

    def flush(self):
        return self.kept

    held = flush


@pytest.mark.parametrize("end", ["taken", "left"])
def test_what_flush_gave_is_not_asked_for_again(end):
    line = Pipeline.from_iterable(range(5)).stateful(Keeping, holds=5)
    if end == "taken":
        got, report, discarded = play(line.take(2))
    else:
        got, report, discarded = play(line.buffer(1), stop=lambda run: run.abort())

    given = [item for _, item in got if isinstance(item, int)] + [item for item, _, _ in discarded]
    assert sorted(given) == [*range(5)]
    assert report.taken == report.delivered + report.discarded


def test_only_one_item_is_the_one_at_which_it_failed():
    """Though they are one object: `None`, say."""
    _, report, discarded = play(Pipeline.from_iterable([None, 1, None, None]).stateful(partial(Keeping, 4), holds=4))

    assert [item for item, _, _ in discarded] == [None, 1, None]
    assert (report.taken, report.failed, report.discarded) == (4, 1, 3)


class GivingFirst:
    """Gives an item twice, and fails; or fails so at the end."""

    def __init__(self, error, at):
        self.error = error
        self.at = at

    def push(self, item):
        return self.failing(item) if self.at == "push" else [item]

    def flush(self):
        return self.failing("end") if self.at == "flush" else ()

    def failing(self, item):
        yield item
        yield item
        raise self.error


@pytest.mark.parametrize("at", ["push", "flush"])
@pytest.mark.parametrize("end", ["completed", "left"])
def test_a_failure_behind_what_nobody_reads_is_kept(at, end):
    """The item counts, though the stream ended between what it had given and the failure."""
    error = Boom()
    line = Pipeline.from_iterable([1]).stateful(partial(GivingFirst, error, at))

    async def main():
        async with (line.take(1 if at == "push" else 2) if end == "completed" else line.buffer(1)).open() as run:
            async for item in run:
                if end == "left" and item == (1 if at == "push" else "end"):
                    break
        return run.report

    report = run_virtual(main)

    assert (report.outcome, report.error) == (end, error)
    assert report.failed == (at == "push")
    used, made = sum(each.used for each in report.remade), sum(each.made for each in report.remade)
    assert report.taken - used + made == report.delivered + report.failed + report.discarded


@pytest.mark.parametrize("at", ["push", "flush"])
def test_a_ctrl_c_behind_what_nobody_reads_still_ends_the_program(at):
    line = Pipeline.from_iterable([1]).stateful(partial(GivingFirst, KeyboardInterrupt(), at))

    with pytest.raises(KeyboardInterrupt):
        run_virtual(line.take(1 if at == "push" else 2).collect)


def test_a_run_that_is_stopped_within_push_is_no_end():
    log = []

    class Stopping(Recording):
        def push(self, item):
            if item == 2:
                run.abort()
            return super().push(item)

    async def main():
        nonlocal run
        async with Pipeline.from_iterable(range(5)).stateful(lambda: Stopping(log)).open() as run:
            with pytest.raises(Aborted):
                _ = [item async for item in run]

    run = None
    run_virtual(main)

    assert log[-1] == ("held",)
    assert ("flush",) not in log


def test_each_run_has_its_own():
    plan = Pipeline.from_iterable("abc").stateful(partial(Recording, []))

    async def main():
        results = []

        async def collect():
            results.append(await plan.collect())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            nursery.start_soon(collect)
        return results

    assert run_virtual(main) == [["a", "b", "c"]] * 2


# ---- time


@pytest.mark.parametrize("make", [Reminding, lambda: Reminding()], ids=["a class", "a function"])
@pytest.mark.parametrize("has_link", [False, True])
def test_it_is_called_when_it_is_due_though_no_item_comes(make, has_link):
    line = Pipeline.from_async_iterable(Script("a-b------c--|"))
    line = line.buffer(2) if has_link else line

    log, _, _ = play(line.stateful(make))

    assert log == [(1.0, "a"), (3.0, "b"), (10.0, "c")]


def test_a_tick_comes_before_an_item_of_its_instant():
    seen = []

    class Ordered(Reminding):
        def push(self, item):
            seen.append(item)
            return super().push(item)

        def tick(self, now):
            seen.append("tick")
            return super().tick(now)

    play(Pipeline.from_async_iterable(Script("ab-|")).stateful(Ordered))

    assert seen == ["a", "tick", "b", "tick"]


class Prompt:
    """Wants to be called at once: from the start, and after each item."""

    def __init__(self, log):
        self.log = log
        self.at = -1

    def push(self, item):
        self.log.append(item)
        self.at = trio.current_time()
        return [item]

    def due(self):
        return self.at

    def tick(self, now):
        self.log.append("tick")
        self.at = None
        return ()


@pytest.mark.parametrize("source", ["iterable", "link", "async"])
def test_a_time_that_has_come_is_told_before_the_next_item_of_a_burst(source):
    log = []
    line = Pipeline.from_iterable("abc")
    if source == "link":
        line = line.buffer(3)
    if source == "async":
        line = Pipeline.from_async_iterable(Script([(0, "a"), (0, "b"), (0, "c")]))

    play(line.stateful(partial(Prompt, log)))

    assert log == ["tick", "a", "tick", "b", "tick", "c", "tick"]


@pytest.mark.parametrize(
    ("at", "ticks"),
    [(10**400, 0), (float("inf"), 0), (-(10**400), 1), (float("-inf"), 1)],
    ids=["far", "never", "long ago", "always"],
)
def test_any_number_is_a_time(at, ticks):
    class Ever(Prompt):
        def __init__(self, log):
            super().__init__(log)
            self.at = at

        def push(self, item):
            return [item]

    log = []
    got, _, _ = play(Pipeline.from_async_iterable(Script("a-b|")).stateful(partial(Ever, log)))

    assert [item for _, item in got] == ["a", "b"]
    assert log == ["tick"] * ticks


def test_several_times_that_are_over_are_ticks_in_turn():
    """It is late where the consumer was slow."""
    times = []

    class Ticking:
        def __init__(self):
            self.next = 1.0

        def push(self, item):
            return [item]

        def due(self):
            return self.next

        def tick(self, now):
            times.append((now, self.next))
            self.next += 1
            return ()

    async def main():
        async with Pipeline.from_async_iterable(slowly).take(2).buffer(1).stateful(Ticking).buffer(1).open() as run:
            await trio.sleep(3.5)
            return [item async for item in run]

    assert run_virtual(main) == [0, 1]
    assert [due for _, due in times] == [1.0, 2.0, 3.0]
    assert all(now >= due for now, due in times)


def test_one_behind_a_sync_iterable_counts_from_the_start_of_the_stage():
    """In the second input of a concat, say."""
    first = Pipeline.from_async_iterable(Script("a--|"))
    log, _, _ = play(concat(first, Pipeline.from_iterable("bc").stateful(Reminding)))

    assert log == [(0.0, "a")]  # without a flush, what waits at the end is lost to the object


@pytest.mark.parametrize("limit", [1, 2])
def test_it_takes_nothing_for_which_a_tick_used_the_room(limit):
    """Else more would be in flight than the plan says."""

    async def main():
        taken = []
        line = Pipeline.from_async_iterable(slowly).tap(taken.append).buffer(1)
        async with line.stateful(Reminding, holds=9).buffer(limit).open() as run:
            await trio.sleep(8.5)
            before = run.statistics().stages[1].received
            await run.receive()
            return before, run.statistics().stages[1].received

    before, after = run_virtual(main)

    assert after - before <= 1


# ---- what it need not have


class Bare(Keeping):
    """Takes all that is optional back."""

    flush = held = due = tick = None

    def push(self, item):
        return [item]


@pytest.mark.parametrize("make", [Bare, lambda: Bare()], ids=["a class", "a function"])
def test_a_method_that_is_none_is_none(make):
    def line():
        return Pipeline.from_async_iterable(Script("ab-c|")).stateful(make)

    assert [item for _, item in play(line())[0]] == ["a", "b", "c"]
    for campaign in (cancel_everywhere, drain_everywhere, fail_everywhere):
        campaign(line)


# ---- what is wrong


class Nothing:
    pass


class NoIterable:
    def push(self, item):
        return item


class Waiting:
    def push(self, item):
        return nap(item)


class Yielding:
    def push(self, item):
        return slowly()


class Standing(Reminding):
    def tick(self, now):
        return ()


class NoTime(Reminding):
    def due(self):
        return "soon"


class NoNumber(Reminding):
    def due(self):
        return float("nan")


class WaitingTime(Reminding):
    def due(self):
        return nap(1)


class HalfTimed:
    def __init__(self):
        self.due = lambda: 1

    def push(self, item):
        return ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Nothing(), "make gave a Nothing, which has no method push"),
        (lambda: None, "make gave a NoneType, which has no method push"),
        (NoIterable, "push of 'NoIterable' returned an int, which is not iterable\nUse `return ()` where"),
        (Waiting, "push of 'Waiting' is not async, but returned something to await\nUse .through(fn) for what waits."),
        (Yielding, "push of 'Yielding' returned an async_generator, which is not iterable\nUse .through(fn) for what"),
        (Standing, "due of 'Standing' gave a time that was over, again, after tick\nLet tick move it on"),
        (NoTime, "due of 'NoTime' gave a str of length 4, not a time in seconds, or None\nUse trio.current_time()"),
        (NoNumber, "due of 'NoNumber' gave nan, not a time in seconds, or None\nUse trio.current_time() + seconds."),
        (WaitingTime, "due of 'WaitingTime' is not async, but returned something to await\nUse .through(fn) for what"),
        (lambda: HalfTimed(), "make gave a HalfTimed, which has due or tick, not both"),
        (partial(HalfTimed), "make gave a HalfTimed, which has due or tick, not both"),
    ],
)
def test_what_cannot_work_is_an_error_of_the_stream(make, message):
    async def main():
        await Pipeline.from_async_iterable(Script([(0.5, 1), (9, 2)])).stateful(make).collect()

    with pytest.raises(MisuseError) as caught:
        run_virtual(main)

    assert message in str(caught.value)


def half(items):
    yield items[0]
    raise Boom


@pytest.mark.parametrize(
    ("held", "error", "told"),
    [
        (lambda kept: 1 // 0, ZeroDivisionError, []),
        (half, Boom, [0]),  # what it had told before
        (lambda kept: None, MisuseError, []),
        (lambda kept: nap(kept), MisuseError, []),
    ],
)
def test_an_error_of_held_is_one_of_cleanup(held, error, told):
    class Broken(Keeping):
        def held(self):
            return held(self.kept)

    async def main():
        discarded = []
        line = Pipeline.from_async_iterable(slowly).stateful(Broken)
        async with line.open(on_discard=lambda *told: discarded.append(told[0])) as run:
            await trio.sleep(2.5)
        return run.report, discarded

    report, discarded = run_virtual(main)

    assert [type(each) for each in report.cleanup_errors] == [error]
    assert discarded == told


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_in_held_does_so_when_everything_is_told(error):
    discarded = []

    class Struck(Keeping):
        def push(self, item):
            self.kept.append(item)
            return [item] * 3

        def held(self):
            raise error

    async def main():
        line = Pipeline.from_iterable(range(3)).stateful(Struck).buffer(1)
        async with line.open(on_discard=lambda *told: discarded.append(told[0])) as run:
            await run.receive()

    with pytest.raises(error):
        run_virtual(main)

    assert discarded == [0, 0]


def test_how_it_reads_in_a_plan():
    pipeline = Pipeline.from_async_iterable(slowly).stateful(partial(Recording, []), holds=1).stateful(Reminding)

    assert "-> stateful Recording, holding at most 1" in pipeline.describe()
    assert "stage Reminding: stateful Reminding" in pipeline.describe()
    assert pipeline.max_in_flight == 16 + 1 + 16


def test_what_waits_for_room_is_in_flight():
    """So a loop around it knows that something is left."""

    class Wide:
        def push(self, item):
            return [item] * 4

    async def main():
        async with Pipeline.from_iterable("a").stateful(Wide).buffer(1).open() as run:
            await trio.testing.wait_all_tasks_blocked()
            statistics = run.statistics()
            return statistics.stages[0].in_flight, statistics.links[0].held

    assert run_virtual(main) == (3, 1)
