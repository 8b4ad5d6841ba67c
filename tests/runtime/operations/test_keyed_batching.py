"""Batches by key in a run: when each leaves, in which order, what is held, and what a key too many does.

Mutants that die here: one deadline for all keys; a deadline that every item moves; batches that leave at the end in the
order of their last items; an open batch that is lost when the time comes at the end; a bound that counts one key; a key
or an item in the error; a key that is asked twice; what is idle that stays at `max_keys`.
"""

from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import OnError, Pipeline, TooManyKeys, merge
from funcpipe_trio.testing import Fail, Script, run_virtual
from tests._kit import Boom, assert_links_balance, assert_stages_balance, outcome_of, received


def kind(item):
    return item[0]


def script(*timeline):
    return Pipeline.from_async_iterable(Script(timeline))


def words(text):
    """Items of one key each, by their letters: a1 a2 b3."""
    return Pipeline.from_iterable([*text.split()])


# ---- when


def test_each_key_has_its_own_deadline():
    line = script((0, "a1"), (0.5, "b2"), (1.5, "a3"), (2, "a4"), (7, "c5"))

    seen = outcome_of(line.batch(9, max_delay=2, key=kind, max_keys=5))

    assert seen.items == [["a1", "a3"], ["b2"], ["a4"], ["c5"]]
    assert seen.times == [2, 2.5, 4, 7]


def test_a_deadline_comes_before_an_item_of_that_instant():
    line = script((0, "a1"), (1, "b2"), (2, "a3"), (9, "d4"))

    seen = outcome_of(line.batch(9, max_delay=2, key=kind, max_keys=5))

    assert seen.items == [["a1"], ["b2"], ["a3"], ["d4"]]
    assert seen.times == [2, 3, 4, 9]


arrivals = st.lists(st.tuples(st.sampled_from([0, 0, 0.25, 1, 3]), st.sampled_from("abcd")), max_size=14)


@settings(max_examples=150, deadline=None)
@given(arrivals, st.integers(2, 4), st.sampled_from([1, 2.5]), st.integers(1, 4))
def test_batches_leave_exactly_when_the_definition_says(gaps, size, delay, max_keys):
    """For every way in which items may come; the consumer takes at once."""
    now, timeline = 0.0, []
    for number, (gap, key) in enumerate(gaps):
        now += gap
        timeline.append((now, f"{key}{number}"))
    timeline.append((now + 10, "z"))  # so that all others are due

    seen = outcome_of(script(*timeline).batch(size, max_delay=delay, key=kind, max_keys=max_keys))

    assert [*zip(seen.times, seen.items, strict=True)] == expected(timeline, size, delay, max_keys)


def expected(timeline, size, delay, max_keys):
    open_, left = [], []  # open: [first time, last number, items], in the order of the first items

    def close(batch, at):
        open_.remove(batch)
        left.append((at, batch[2]))

    for number, (at, item) in enumerate(timeline):
        for batch in [each for each in open_ if each[0] + delay <= at]:
            close(batch, batch[0] + delay)
        batch = next((each for each in open_ if kind(each[2][0]) == kind(item)), None)
        if batch is None:
            if len(open_) == max_keys:
                close(min(open_, key=lambda each: each[1]), at)
            batch = [at, 0, []]
            open_.append(batch)
        batch[1] = number
        batch[2].append(item)
        if len(batch[2]) == size:
            close(batch, at)
    return left + [(timeline[-1][0], batch[2]) for batch in open_]


def test_what_is_due_waits_for_room_and_leaves_in_order():
    line = script((0, "a1"), (0, "b2"), (0, "c3"), (9, "d4")).batch(9, max_delay=1, key=kind, max_keys=5).buffer(1)

    async def main():
        got = []
        async with line.open() as run:
            await trio.sleep(4)
            async for batch in run:
                got.append((trio.current_time(), batch))
                await trio.sleep(1)
        return got

    assert run_virtual(main) == [(4, ["a1"]), (5, ["b2"]), (6, ["c3"]), (9, ["d4"])]


# ---- the end, whichever it is


def test_at_the_end_batches_leave_in_the_order_of_their_first_items():
    assert run_virtual(words("a1 b2 c3 b4 a5").batch(9, key=kind, max_keys=9).collect) == [
        ["a1", "a5"],
        ["b2", "b4"],
        ["c3"],
    ]


@pytest.mark.parametrize("delay", [None, 60])
def test_what_came_before_a_failure_goes_out_before_it(delay):
    line = script((0, "a1"), (0, "b2"), (1, "a3"), (1, Fail(Boom()))).batch(9, max_delay=delay, key=kind, max_keys=9)

    items, error, report = run_virtual(received, line)

    assert items == [["a1", "a3"], ["b2"]]
    assert isinstance(error, Boom)
    assert (report.taken, report.discarded) == (3, 0)


def test_an_error_of_the_key_function_is_one_of_its_item():
    def bad(item):
        if item == "c3":
            raise Boom
        return item[0]

    items, error, report = run_virtual(received, words("a1 b2 c3 a4").batch(9, key=bad, max_keys=9, name="by letter"))

    assert items == [["a1"], ["b2"]]
    assert isinstance(error, Boom)
    assert error.__notes__ == ["in stage 'by letter', item 2"]
    assert report.failed == 1
    assert_stages_balance(report)


def test_a_key_without_a_hash_is_an_error_of_its_item():
    items, error, report = run_virtual(received, words("a1 b2").batch(9, key=list, max_keys=9))

    assert (items, type(error), report.failed) == ([], TypeError, 1)


def test_a_drain_lets_all_out_in_order():
    line = script((0, "a1"), (0, "b2"), (1, "a3"), (99, "z")).batch(9, max_delay=50, key=kind, max_keys=9)

    async def main():
        async with line.open() as run:
            await trio.sleep(2)
            run.drain_nowait()
            return [batch async for batch in run], trio.current_time(), run.report

    batches, at, report = run_virtual(main)

    assert (batches, at) == ([["a1", "a3"], ["b2"]], 2)
    assert (report.outcome, report.discarded) == ("drained", 0)


def test_what_is_held_when_it_is_stopped_is_told_item_by_item():
    line = script((0, "a1"), (0, "b2"), (1, "a3"), (1, "b4"), (99, "z")).batch(3, key=kind, max_keys=9)
    told = []

    async def main():
        async with line.open(on_discard=lambda item, stage, reason: told.append(item)) as run:
            await trio.sleep(2)
            run.abort()
        return run.report

    report = run_virtual(main)

    assert told == ["a1", "a3", "b2", "b4"]
    assert_stages_balance(report)
    assert_links_balance(report)


def test_two_runs_share_nothing():
    line = script((0, "a1"), (1, "b2"), (2, "a3")).batch(9, max_delay=5, key=kind, max_keys=2, full="fail")

    async def main():
        got = []
        async with trio.open_nursery() as nursery:
            for _ in range(2):

                async def one():
                    got.append(await line.collect())

                nursery.start_soon(one)
        return got

    assert run_virtual(main) == [[["a1", "a3"], ["b2"]]] * 2


def test_inside_others():
    """In a branch, in a flat_map, before and behind a merge."""
    keyed = partial(Pipeline.batch, max_items=2, key=kind, max_keys=2)
    line = words("a1 b2 a3 c4")

    assert run_virtual(line.broadcast({"a": lambda branch: keyed(branch)}).collect) == [["a1", "a3"], ["b2"], ["c4"]]
    inner = line.flat_map(lambda item: keyed(words(f"{item} b2")), concurrency=1)
    assert run_virtual(inner.collect) == [["a1"], ["b2"], ["b2", "b2"], ["a3"], ["b2"], ["c4"], ["b2"]]
    assert sorted(run_virtual(merge(keyed(line), keyed(line)).collect)) == sorted([["a1", "a3"], ["b2"], ["c4"]] * 2)
    assert run_virtual(keyed(merge(line)).collect) == [["a1", "a3"], ["b2"], ["c4"]]


# ---- too many keys


def test_the_key_that_was_idle_longest_makes_room():
    """By its last item; so a key that comes often stays."""
    line = words("a1 b2 a3 c4 a5 d6 a7")

    assert run_virtual(line.batch(9, key=kind, max_keys=2).collect) == [
        ["b2"],
        ["c4"],
        ["a1", "a3", "a5", "a7"],
        ["d6"],
    ]


def test_one_too_many_may_fail_and_says_only_how_many():
    line = words("a1 b2 secret c4").batch(9, key=lambda item: item[0], max_keys=2, full="fail", name="by letter")

    items, error, report = run_virtual(received, line)

    assert items == [["a1"], ["b2"]]
    assert isinstance(error, TooManyKeys)
    assert str(error) == (
        "2 keys have an open batch, which is max_keys, and another key came\nUse a larger max_keys, or full='oldest'."
    )
    assert error.__notes__ == ["in stage 'by letter', item 2"]
    assert (report.failed, report.delivered) == (1, 2)


def test_a_key_whose_batch_is_full_has_no_place():
    line = words("a1 a2 b3 b4 c5").batch(2, key=kind, max_keys=1, full="fail")

    assert run_virtual(line.collect) == [["a1", "a2"], ["b3", "b4"], ["c5"]]
    assert run_virtual(words("a1 b2 c3").batch(1, key=kind, max_keys=1, full="fail").collect) == [
        ["a1"],
        ["b2"],
        ["c3"],
    ]


def test_the_key_is_asked_once_for_each_item():
    asked = []

    def key(item):
        asked.append(item)
        return item[0]

    run_virtual(words("a1 b2 a3 c4").batch(2, key=key, max_keys=1).collect)

    assert asked == ["a1", "b2", "a3", "c4"]


# ---- how many


def test_the_bound_holds_and_is_reached():
    """P4: a link of full batches, and each other key with all but one item of a batch."""
    keys, size, capacity = 3, 4, 2
    items = [*"abc" * (size - 1), *"a" * size * capacity, *"abc" * 9]
    line = Pipeline.from_iterable(items).batch(size, key=kind, max_keys=keys).buffer(capacity)

    async def main():
        async with line.open() as run:
            await trio.testing.wait_all_tasks_blocked()
            return run.statistics().taken

    assert line.max_in_flight == capacity * size + (keys - 1) * (size - 1) == 14
    assert run_virtual(main) == 14


def test_one_key_holds_what_a_batch_without_keys_does():
    plain, keyed = words("a").batch(5), words("a").batch(5, key=kind, max_keys=1)

    assert plain.max_in_flight == keyed.max_in_flight
    assert words("a").batch(1, key=kind, max_keys=99).max_in_flight == words("a").batch(1).max_in_flight


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=60),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from([None, 0.5, 3]),
    st.sampled_from(["block", "drop_oldest", "drop_newest"]),
)
def test_no_more_is_in_flight_than_the_bound(keys, size, max_keys, capacity, delay, overflow):
    """P4, at every step, before every kind of buffer; each key's items stay in order."""
    line = Pipeline.from_iterable([*enumerate(keys)]).map(slowly, on_error=OnError.stop())
    line = line.batch(size, key=lambda item: item[1], max_keys=max_keys, max_delay=delay)
    line = line.buffer(capacity, overflow=overflow)
    most = []

    most, got, dropped = [], [], []

    async def main():
        async with line.open(on_discard=lambda batch, stage, reason: dropped.extend(batch)) as run:

            class Look(trio.abc.Instrument):
                def after_task_step(self, task):
                    most.append(run.statistics().taken - len(dropped) - sum(map(len, got)))

            look = Look()
            trio.lowlevel.add_instrument(look)
            await trio.sleep(2)
            async for batch in run:
                got.append(batch)
                await trio.sleep(1)
            trio.lowlevel.remove_instrument(look)

    run_virtual(main)

    assert max(most) <= line.max_in_flight
    assert sorted(dropped + [item for batch in got for item in batch]) == [*enumerate(keys)]
    for key in set(keys):
        came = [number for batch in got for number, each in batch if each == key]
        assert came == sorted(came)


async def slowly(item):
    await trio.sleep(item[0] % 3 / 4)
    return item
