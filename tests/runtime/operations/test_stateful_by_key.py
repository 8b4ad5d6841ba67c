"""An object of the user's for each key: which is asked when, which makes room, and what becomes of what they hold?

Mutants that die here: one object for all keys; an object made anew for each item; one that is flushed twice, or also
told as held; a flush in the order of the last items; one time for all; an object that keeps its time when it is gone; a
`tick` of only the first of those that are due.
"""

from typing import ClassVar

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import MisuseError, Pipeline, TooManyKeys
from funcpipe_trio.testing import Fail, Script, run_virtual
from tests._kit import Boom, assert_stages_balance, outcome_of, received


def kind(item):
    return item[0]


def words(text):
    return Pipeline.from_iterable(text.split())


def script(*timeline):
    return Pipeline.from_async_iterable(Script(timeline))


class Joined:
    """Gives all items of its key together, in the end; notes each call."""

    log: ClassVar = []

    def __init__(self):
        self.kept = []
        self.log.append("made")

    def push(self, item):
        self.log.append(item)
        self.kept.append(item)
        return ()

    def flush(self):
        self.log.append(f"flush {self.kept[0]}")
        return ["+".join(self.kept)]

    def held(self):
        return self.kept


class Sessions:
    """Gives what came, a while after the last of it."""

    def __init__(self, patience=2):
        self.patience = patience
        self.kept, self.at = [], None

    def push(self, item):
        self.kept.append(item)
        self.at = trio.current_time() + self.patience
        return ()

    def flush(self):
        kept, self.kept, self.at = self.kept, [], None
        return ["+".join(kept)] if kept else []

    def held(self):
        return self.kept

    def due(self):
        return self.at

    def tick(self, now):
        return self.flush()


@pytest.fixture(autouse=True)
def log():
    Joined.log = []
    return Joined.log


def test_each_key_has_an_object_from_its_first_item_on():
    line = words("a1 b2 a3 b4").stateful(Joined, key=kind, max_keys=9)

    assert run_virtual(line.collect) == ["a1+a3", "b2+b4"]
    assert Joined.log == ["made", "a1", "made", "b2", "a3", "b4", "flush a1", "flush b2"]


def test_the_key_that_was_idle_longest_is_flushed_and_forgotten():
    """In front of what the new one gives; if it comes again, it is new."""
    line = words("a1 b2 a3 c4 b5").stateful(Joined, key=kind, max_keys=2)

    assert run_virtual(line.collect) == ["b2", "a1+a3", "c4", "b5"]
    assert Joined.log[5:9] == ["flush b2", "made", "c4", "flush a1"]


def test_at_the_end_they_are_flushed_in_the_order_in_which_their_keys_came():
    line = words("a1 b2 c3 b4 a5").stateful(Joined, key=kind, max_keys=3)

    assert run_virtual(line.collect) == ["a1+a5", "b2+b4", "c3"]


def test_one_too_many_may_fail_and_says_only_how_many():
    line = words("a1 b2 a3 secret").stateful(Joined, key=kind, max_keys=2, full="fail", name="joined")
    told = []

    async def main():
        async with line.open(on_discard=lambda item, stage, reason: told.append((item, reason))) as run:
            with pytest.raises(TooManyKeys) as raised:
                await run.receive()
        return raised.value, run.report

    error, report = run_virtual(main)

    assert str(error).startswith("2 keys have an object, which is max_keys, and another key came\n")
    assert error.__notes__ == ["in stage 'joined', item 3"]
    assert sorted(told) == [(item, "behind a failure") for item in ("a1", "a3", "b2")]
    assert (report.taken, report.failed) == (4, 1)
    assert_stages_balance(report)


# ---- times


def test_each_object_is_called_at_its_own_time():
    line = script((0, "a1"), (1, "b2"), (1.5, "a3"), (9, "c4"))

    seen = outcome_of(line.stateful(Sessions, key=kind, max_keys=9))

    assert [*zip(seen.times, seen.items, strict=True)] == [(3, "b2"), (3.5, "a1+a3"), (9, "c4")]


def test_several_that_are_due_at_one_time_are_all_called():
    line = script((0, "a1"), (0, "b2"), (0, "c3"), (9, "d4"))

    seen = outcome_of(line.stateful(Sessions, key=kind, max_keys=9))

    assert [*zip(seen.times, seen.items, strict=True)] == [(2, "a1"), (2, "b2"), (2, "c3"), (9, "d4")]


def test_one_that_made_room_is_called_no_more():
    line = script((0, "a1"), (1, "b2"), (9, "c3"))

    seen = outcome_of(line.stateful(Sessions, key=kind, max_keys=1))

    assert [*zip(seen.times, seen.items, strict=True)] == [(1, "a1"), (3, "b2"), (9, "c3")]


arrivals = st.lists(st.tuples(st.sampled_from([0, 0, 0.25, 1, 3]), st.sampled_from("abcd")), max_size=14)


@settings(max_examples=80, deadline=None)
@given(arrivals, st.integers(1, 4))
def test_sessions_of_each_key_are_those_of_the_definition(gaps, max_keys):
    now, timeline = 0.0, []
    for number, (gap, key) in enumerate(gaps):
        now += gap
        timeline.append((now, f"{key}{number}"))

    seen = outcome_of(script(*timeline, (now + 10, "z")).stateful(Sessions, key=kind, max_keys=max_keys))

    open_, left = [], []  # of each key: [its last time, its items]; in the order of their last items
    for at, item in [*timeline, (now + 10, "z")]:
        for session in [each for each in open_ if each[1] and each[0] + 2 <= at]:
            left.append((session[0] + 2, "+".join(session[1])))
            session[1] = []
        mine = next((each for each in open_ if each[2] == kind(item)), None)
        if mine is None:
            if len(open_) == max_keys:
                idle = open_.pop(0)
                left += [(at, "+".join(idle[1]))] if idle[1] else []
            mine = [at, [], kind(item)]
        else:
            open_.remove(mine)
        open_.append([at, [*mine[1], item], kind(item)])
    left.append((now + 10, "z"))
    assert seen.times == sorted(seen.times)
    assert sorted(zip(seen.times, seen.items, strict=True)) == sorted(left)  # at one instant in any order


class Stuck(Sessions):
    def tick(self, now):
        return ()


def test_one_that_does_not_move_its_time_on_is_a_mistake():
    _items, error, report = run_virtual(received, script((0, "a1"), (9, "b2")).stateful(Stuck, key=kind, max_keys=9))

    assert isinstance(error, MisuseError)
    assert "gave a time that was over, again, after tick" in str(error)
    assert_stages_balance(report)


# ---- ends


@pytest.mark.parametrize("make", [Joined, Sessions])
def test_after_a_failure_nothing_is_flushed_and_what_they_hold_is_told(make):
    line = script((0, "a1"), (0, "b2"), (1, "a3"), (1, Fail(Boom()))).stateful(make, key=kind, max_keys=9)
    told = []

    async def main():
        async with line.open(on_discard=lambda item, stage, reason: told.append((item, reason))) as run:
            with pytest.raises(Boom):
                await run.receive()
        return run.report

    report = run_virtual(main)

    assert sorted(told) == [(item, "behind a failure") for item in ("a1", "a3", "b2")]
    assert_stages_balance(report)


def test_what_was_flushed_and_waits_for_room_is_told_once():
    """And what is not yet flushed, too."""
    told = []
    line = words("a1 b2 c3").stateful(Joined, holds=1, key=kind, max_keys=9).buffer(1)

    async def main():
        async with line.open(on_discard=lambda item, stage, reason: told.append(item)) as run:
            first = await run.receive()
            await trio.testing.wait_all_tasks_blocked()
            run.abort()
        return first, run.report

    first, report = run_virtual(main)

    assert (first, sorted(told)) == ("a1", ["b2", "c3"])
    assert_stages_balance(report)


def test_what_one_object_flushed_and_waits_for_room_is_told_once():
    """Without keys as well: what flush gave is no longer held, whatever the object says."""

    class Each(Joined):
        def flush(self):
            return self.kept

    told = []
    line = words("a1 b2 c3").stateful(Each, holds=3).buffer(1)

    async def main():
        async with line.open(on_discard=lambda item, stage, reason: told.append(item)) as run:
            first = await run.receive()
            await trio.testing.wait_all_tasks_blocked()
            run.abort()
        return first

    assert (run_virtual(main), sorted(told)) == ("a1", ["b2", "c3"])


def test_an_error_of_the_flush_that_makes_room_is_one_of_its_item():
    class Bad(Joined):
        def flush(self):
            raise Boom

    told = []
    line = words("a1 b2").stateful(Bad, key=kind, max_keys=1, name="bad")

    async def main():
        async with line.open(on_discard=lambda item, stage, reason: told.append(item)) as run:
            with pytest.raises(Boom) as raised:
                await run.receive()
        return raised.value, run.report

    error, report = run_virtual(main)

    assert error.__notes__ == ["in stage 'bad', item 1"]
    assert (told, report.failed) == (["a1"], 1)
    assert_stages_balance(report)


def test_a_drain_flushes_all():
    line = script((0, "a1"), (0, "b2"), (1, "a3"), (99, "z")).stateful(Joined, key=kind, max_keys=9)

    async def main():
        async with line.open() as run:
            await trio.sleep(2)
            run.drain_nowait()
            return [item async for item in run]

    assert run_virtual(main) == ["a1+a3", "b2"]


class Late:
    def __init__(self):
        self.kept = []

    def push(self, item):
        given, self.kept = self.kept, [item]
        return given

    def flush(self):
        return self.kept

    def held(self):
        return self.kept


@pytest.mark.parametrize("max_keys", [1, 2, 5])
def test_the_bound_counts_what_each_key_holds_and_is_reached(max_keys):
    """P4: one item in each object, and those in the link behind."""
    items = [f"{number % max_keys} {number}" for number in range(99)]
    line = Pipeline.from_iterable(items).stateful(Late, holds=1, key=kind, max_keys=max_keys).buffer(3)

    async def main():
        async with line.open() as run:
            await trio.testing.wait_all_tasks_blocked()
            return run.statistics().taken

    assert run_virtual(main) == line.max_in_flight == max_keys + 3


def test_two_runs_share_nothing():
    line = words("a1 a2").stateful(Joined, key=kind, max_keys=1, full="fail")

    async def main():
        got = []

        async def one():
            got.append(await line.collect())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
        return got

    assert run_virtual(main) == [["a1+a2"]] * 2
