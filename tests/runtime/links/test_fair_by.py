"""`fair_by` at work: one mixed stream, of which each key gets its share, in exact virtual time.

Mutants that die here: a choice made ahead of the hand-over; a link that hands over while its sender was woken for room
and has not run (the schedule decides the shares), or one that waits for a sender which never stops; an item at a full
queue lost, reported twice, counted twice, or diverted though only `max_keys` is in its way; an error that overtakes
items of other keys; a sink that takes past the queues.
"""

from collections import Counter
from fractions import Fraction
from itertools import count

import pytest
import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import Aborted, BufferOverflow, FairShare, OnError, Pipeline, Step, concat, fair_merge, merge
from funcpipe_trio.testing import Probe, Script, assert_fair, run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, assert_run_balances, assert_stages_balance, nap


def first(item):
    """The key in most tests: the first letter."""
    return item[0]


def numbered(keys):
    """Items of one letter and their number among those of it: "aab" gives a0, a1, b0."""
    seen = Counter()
    items = []
    for key in keys:
        items.append(f"{key}{seen[key]}")
        seen[key] += 1
    return items


def stream(keys):
    return Pipeline.from_iterable(numbered(keys))


def fair(keys, weights=None, capacity=16, max_keys=9, **rest):
    return stream(keys).fair_by(first, FairShare(weights or {}, capacity=capacity), max_keys=max_keys, **rest)


def collected(line):
    return " ".join(run_virtual(line.collect))


def assert_adds_up(report):
    """The sums of a report, for operations that are one to one; what `fair_by` drops never was in its link."""
    assert_stages_balance(report)
    for link in report.links:
        assert link.passed == link.taken + link.discarded
    assert_run_balances(report)


# ---- shares


def test_the_order_is_the_fair_one():
    """Two to one, though the stream has all of one key first; a sink at the end changes nothing."""
    assert collected(fair("aaaaaabbb", {"a": 2})) == "a0 b0 a1 b1 a2 a3 b2 a4 a5"


async def receive_all(line, items):
    async with line.open() as run:
        async for item in run:
            items.append(item)
    return run.report


def test_an_open_run_gives_the_same_order():
    items = []
    report = run_virtual(receive_all, fair("aaaaaabbb", {"a": 2}), items)

    assert " ".join(items) == "a0 b0 a1 b1 a2 a3 b2 a4 a5"
    assert_adds_up(report)


def test_the_choice_is_made_at_the_hand_over():
    """A key that comes while others wait is next, though nobody knew of it at the hand-over before."""
    script = Script([*((0, item) for item in ("a0", "a1", "a2", "a3")), (1.5, "b0")])

    async def main():
        line = Pipeline.from_async_iterable(script).fair_by(first, max_keys=2)
        async with Probe(line) as probe:
            await trio.sleep(1)
            await probe.expect("a0", "a1")
            await trio.sleep(1)
            await probe.expect("b0", "a2", "a3")
            await probe.expect_end()

    run_virtual(main)


def test_workers_take_from_the_queues_directly():
    """With one worker that is busy with a flood, a single item of another key waits for the call that runs."""
    started = []

    async def work(item):
        started.append((trio.current_time(), item))
        await trio.sleep(1)

    script = Script([*((0, f"a{number}") for number in range(6)), (1.5, "b0")])
    line = Pipeline.from_async_iterable(script).fair_by(first, max_keys=2).map(work)
    run_virtual(line.run)

    assert started[:4] == [(0, "a0"), (1, "a1"), (2, "b0"), (3, "a2")]


def test_costs_count():
    """An item of cost 3 pays for three of cost 1."""
    share = FairShare(cost=lambda item: 3 if item[0] == "a" else 1)

    assert collected(stream("aaabbbbbb").fair_by(first, share, max_keys=2)) == "a0 b0 b1 b2 a1 b3 b4 b5 a2"


def test_a_lone_key_gets_everything():
    """Work is conserved: with nobody else there a weight of a thousandth is not a limit."""
    assert run_virtual(fair("a" * 100, {"a": Fraction(1, 1000)}).count) == 100


@pytest.mark.parametrize("overflow", ["block", "drop_newest"])
@settings(max_examples=40, deadline=None)
@given(
    arrivals=st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from("abbbc")), max_size=40),
    capacity=st.integers(1, 4),
    weights=st.fixed_dictionaries({key: st.integers(1, 9) for key in "abc"}),
)
def test_random_arrivals_keep_order_and_lag(overflow, arrivals, capacity, weights):
    """Per key the order is that of the stream; between any two keys that both have items the lag is in its bound."""
    at, timeline = 0.0, []
    for (gap, _), item in zip(arrivals, numbered(key for _, key in arrivals), strict=True):
        at += gap
        timeline.append((at, item))
    share = FairShare(weights, capacity=capacity)
    line = Pipeline.from_async_iterable(Script(timeline)).fair_by(first, share, max_keys=3, overflow=overflow)
    log, backlog, dropped = [], [], []

    async def main():
        async with line.open(on_discard=lambda item, stage, reason: dropped.append(item)) as run:
            lanes = run._engine.inlet.queues
            while True:
                await trio.sleep(0.75)
                await trio.testing.wait_all_tasks_blocked()
                live = set(lanes._lanes)
                try:
                    log.append(await run.receive())
                except trio.EndOfChannel:
                    return run.report
                backlog.append(live or {log[-1][0]})

    report = run_virtual(main)
    assert_adds_up(report)
    assert report.dropped == len(dropped)
    assert sorted(log + dropped) == sorted(item for _, item in timeline)
    for key in "abc":
        numbers = [int(item[1:]) for item in log if item[0] == key]
        assert numbers == sorted(numbers)
    assert_fair([item[0] for item in log], weights, backlog)


def test_the_schedule_decides_nothing():
    """With queues of one, every hand-over makes room that the sender must fill before the next choice.

    Neither does it matter who takes: the consumer, a worker, or a stage that takes as much as it can get in one turn.
    """
    line = fair("aabcabbacabcaabbccaabcab" * 3, {"a": 2, "b": 3}, capacity=1, max_keys=3)

    async def work(item):
        await trio.lowlevel.checkpoint()
        return item

    orders = set()
    for taken in (line, line.map(work), line.map(str), line.map(str).buffer(1)):
        for seed in range(25):
            with scheduled(Schedule(seed)):
                items = []
                run_virtual(receive_all, taken, items)
                orders |= {" ".join(items), collected(taken)}

    assert len(orders) == 1


def test_every_schedule_keeps_the_shares_of_a_stream_that_is_there():
    """Whatever the order of tasks: half each while both are there, though one sent four times as much."""
    for seed in range(30):
        with scheduled(Schedule(seed)):
            order = collected(fair("aaaab" * 10, capacity=100))
        assert "".join(item[0] for item in order.split()) == "ab" * 10 + "a" * 30


# ---- room


def test_what_is_behind_a_full_queue_comes_as_soon_as_that_has_room():
    """One hand-over is enough, however full the queues still are: the item behind is of a key that has none."""
    assert collected(fair("aaaaaaaaab", capacity=8)).split()[:2] == ["a0", "b0"]


@pytest.mark.parametrize(("keys", "held"), [("aaaaa", 3), ("abcde", 3), ("aabbcc", 5), ("ababab", 5)])
def test_the_bound_is_reached_and_kept(keys, held):
    """Queues of 2 for two keys, and one item that has no room: then the source is asked for no more."""
    line = fair(keys, capacity=2, max_keys=2)

    async def main():
        async with line.open() as run:
            await trio.testing.wait_all_tasks_blocked()
            return run.statistics()

    assert line.max_in_flight == 5
    assert run_virtual(main).taken == held


def test_a_full_queue_blocks_the_stream():
    """An item that has no room holds up what is behind it, of other keys, too, until its own queue has room."""

    async def main():
        async with Probe(fair("aaabb", capacity=2)) as probe:
            await trio.testing.wait_all_tasks_blocked()
            assert probe.run.statistics().taken == 3
            await probe.expect("a0", "b0", "a1", "b1", "a2")
            await probe.expect_end()

    run_virtual(main)


def test_one_key_too_many_waits_until_another_is_gone():
    """With `max_keys` keys here the next new one waits, whatever becomes of items at full queues."""
    told = []

    async def tell(failure):
        told.append(failure)

    for overflow in ("block", "drop_newest", OnError.divert(tell)):
        assert collected(fair("aabbcab", max_keys=2, overflow=overflow)) == "a0 b0 a1 b1 c0 a2 b2"
    assert told == []


def test_what_is_new_is_dropped_and_told():
    """Only what has no room falls; it counts as dropped, and `on_discard` hears of it once, with the reason."""
    told = []

    async def main():
        async with fair("aaaabab", capacity=2, overflow="drop_newest").open(
            on_discard=lambda *given: told.append(given)
        ) as run:
            await trio.testing.wait_all_tasks_blocked()
            items = [item async for item in run]
        return items, run.report

    items, report = run_virtual(main)
    assert items == ["a0", "b0", "a1", "b1"]
    assert told == [(item, "first", "drop_newest") for item in ("a2", "a3", "a4")]
    assert (report.taken, report.dropped, report.discarded, report.outcome) == (7, 3, 0, "completed")
    assert_adds_up(report)


def test_a_flood_does_not_slow_the_others():
    """A tenant floods a worker: in a plain queue everyone waits behind it, here a small tenant waits for one call."""

    def worst_wait(line):
        waits = []

        async def work(item):
            key, sent = item
            if key == "small":
                waits.append(trio.current_time() - sent)
            await trio.sleep(1)

        run_virtual(line.map(work).run)
        return max(waits), len(waits)

    flood = [(number / 8, ("flood", number / 8)) for number in range(800)]
    small = [(number * 10 + 0.0625, ("small", number * 10 + 0.0625)) for number in range(10)]
    arrivals = Pipeline.from_async_iterable(Script(sorted(flood + small)))

    assert worst_wait(arrivals.fair_by(first, FairShare(capacity=50), max_keys=9, overflow="drop_newest")) <= (1, 10)
    assert worst_wait(arrivals.buffer(100))[0] > 90


def test_with_block_a_flood_holds_up_the_stream():
    """The limit that the docstring names: what is behind the flood's item that has no room is not here yet."""
    script = Script([(0, f"a{number}") for number in range(6)] + [(0, "b0")])
    line = Pipeline.from_async_iterable(script).fair_by(first, FairShare(capacity=2), max_keys=2)

    assert collected(line.map(Step(nap))) == "a0 a1 a2 a3 b0 a4 a5"


# ---- diverting


def diverted(keys, tell, **rest):
    return fair(keys, capacity=1, overflow=OnError.divert(tell), **rest)


def test_what_has_no_room_is_diverted():
    """The step gets the item, with a `BufferOverflow` and the place; it counts as failed, the rest continues."""
    told = []

    async def tell(failure):
        await trio.sleep(1)
        told.append((failure.item, type(failure.error), failure.stage, failure.attempts, failure.error.__notes__))

    async def main():
        async with diverted("aabab", Step(tell).timeout(5)).open() as run:
            await trio.sleep(10)
            return [item async for item in run], run

    items, run = run_virtual(main)
    report = run.report
    (only,) = report.stages
    assert items == ["a0", "b0"]
    assert told == [
        (item, BufferOverflow, "first", 0, [f"in stage 'first', item {number}"])
        for item, number in (("a1", 1), ("a2", 3), ("b1", 4))
    ]
    assert (report.failed, report.discarded, report.error) == (3, 0, None)
    assert (only.failures, only.divert.timeouts) == ((("BufferOverflow", 3),), 0)
    assert_adds_up(report)


def test_the_error_of_the_step_ends_the_stream_behind_what_came_before():
    """It stands behind the items of all keys; nothing behind the item is asked for, and the item counts as failed."""
    error = Boom("no letter box")
    asked = []

    async def tell(failure):
        await trio.sleep(1)
        raise error

    async def main():
        line = Pipeline.from_iterable(numbered("abbaa")).tap(asked.append)
        line = line.fair_by(first, FairShare(capacity=1), max_keys=2, overflow=OnError.divert(tell))
        async with Probe(line) as probe:
            await trio.sleep(5)
            await probe.expect("a0", "b0")
            assert await probe.expect_error(Boom) is error
        return probe.run.report

    report = run_virtual(main)
    assert error.__notes__ == ["diverting a BufferOverflow", "in stage 'first', item 2"]
    assert asked == ["a0", "b0", "b1"]
    assert (report.failed, report.error) == (1, error)


def test_an_item_that_is_being_diverted_when_the_run_stops_is_discarded():
    """Its step is cancelled, and it is given up once, whatever stops the run."""

    async def tell(failure):
        await trio.sleep_forever()

    def ends():
        yield "aborted", lambda run, scope: run.abort()
        yield "cancelled", lambda run, scope: scope.cancel()
        yield "not needed", None

    for reason, end in ends():
        told = []

        async def main(told=told, end=end):
            with trio.CancelScope() as scope:
                async with diverted("abaa", tell).open(on_discard=lambda *given: told.append(given)) as run:
                    await trio.sleep(1)
                    if end is not None:
                        end(run, scope)
                        with pytest.raises((Aborted, trio.Cancelled)):
                            await run.receive()
                        await trio.lowlevel.checkpoint()
            return run.report

        report = run_virtual(main)
        assert sorted(told) == [(item, "iterable", reason) for item in ("a0", "a1", "b0")]
        assert (report.taken, report.discarded, report.failed) == (3, 3, 0)
        assert_adds_up(report)


def test_a_step_that_cannot_run_is_a_problem_of_the_plan():
    line = fair("a", overflow=OnError.divert(Step(len)))

    with pytest.raises(ValueError, match=r"^step 'len': fn must be an async function, or give something"):
        line.check()


def test_nothing_is_withheld_while_one_is_diverted():
    """Also when the stage was woken for room: its turn is over when it waits for the step."""

    async def tell(failure):
        await trio.sleep(10)

    async def main():
        async with Probe(diverted("abcb", tell, max_keys=2)) as probe:
            await trio.testing.wait_all_tasks_blocked()
            await probe.expect("a0", "b0", "c0", at=0)
            await probe.expect_end(at=10)

    run_virtual(main)


def test_a_step_that_never_waits_does_not_starve_others():
    """Everything is diverted, by a step without a checkpoint, from a source without end: others run all the same."""
    told = []

    async def tell(failure):
        told.append(failure.item)
        if len(told) > 5000:  # or it would run forever
            raise Boom("others are starved")

    async def main():
        line = Pipeline.from_iterable(count()).fair_by(
            lambda item: 0, FairShare(capacity=1), max_keys=1, overflow=OnError.divert(tell)
        )
        async with line.open():
            for _ in range(10):
                await trio.lowlevel.checkpoint()

    run_virtual(main)
    assert 0 < len(told) <= 10 * 64


def test_an_error_of_a_step_that_is_stopped_is_kept_and_its_item_discarded():
    told = []

    async def tell(failure):
        try:
            await trio.sleep_forever()
        finally:
            raise Boom("while closing")

    async def main():
        async with diverted("aa", tell).open(on_discard=lambda *given: told.append(given)) as run:
            await trio.sleep(1)
            run.abort()
        return run.report

    report = run_virtual(main)
    assert sorted(told) == [("a0", "iterable", "aborted"), ("a1", "iterable", "aborted")]
    assert [str(error) for error in report.cleanup_errors] == ["while closing"]
    assert_adds_up(report)


# ---- failures and ends


def test_an_error_of_the_key_function_stands_behind_the_items_of_all_keys():
    """The item counts as failed, with its number; those before it are delivered in their fair order."""

    def key(item):
        return {"a": 1, "b": 2}[item[0]]

    async def main():
        async with Probe(stream("aabc").fair_by(key, max_keys=3, name="tenant")) as probe:
            await probe.expect("a0", "b0", "a1")
            error = await probe.expect_error(KeyError)
        return error, probe.run.report

    error, report = run_virtual(main)
    assert error.__notes__ == ["in stage 'tenant', item 3"]
    assert (report.taken, report.delivered, report.failed) == (4, 3, 1)


def test_an_error_upstream_stands_behind_the_items_of_all_keys():
    """Also behind the one that was still outside of the queues."""

    async def main():
        line = Pipeline.from_async_iterable(Script("(" + "pqr" + ")#")).map(lambda item: f"a{item}")
        async with Probe(line.fair_by(first, FairShare(capacity=1), max_keys=1)) as probe:
            await probe.expect("ap", "aq", "ar")
            await probe.expect_error(RuntimeError)

    run_virtual(main)


def test_a_drain_delivers_what_was_taken():
    """In the queues, and outside of them."""

    async def endless():
        for number in count():
            yield f"{'ab'[number % 2]}{number}"

    async def main():
        line = Pipeline.from_async_iterable(endless).fair_by(first, FairShare(capacity=2), max_keys=2)
        async with line.open() as run:
            await trio.testing.wait_all_tasks_blocked()
            run.drain_nowait()
            items = [item async for item in run]
        return items, run.report

    items, report = run_virtual(main)
    assert items == ["a0", "b1", "a2", "b3", "a4"]
    assert (report.outcome, report.taken, report.discarded) == ("drained", 5, 0)


@pytest.mark.parametrize("overflow", ["block", "drop_newest"])
def test_a_run_that_is_left_gives_up_what_is_in_the_queues(overflow):
    told = []

    async def main():
        line = fair("aaab", capacity=2, overflow=overflow)
        async with line.open(on_discard=lambda *given: told.append(given)) as run:
            await trio.testing.wait_all_tasks_blocked()
            await run.receive()
        return run.report

    report = run_virtual(main)
    assert_adds_up(report)
    assert {reason for _, _, reason in told} <= {"not needed", "drop_newest"}
    assert len(told) == report.dropped + report.discarded == report.taken - 1


def test_a_stream_that_never_pauses_does_not_withhold_results():
    """A sync source without end, whose items mostly fall: the consumer gets items all the same, and others run."""

    async def main():
        line = Pipeline.from_iterable(lambda: (f"{'ab'[n % 2]}{n}" for n in count())).fair_by(
            first, FairShare(capacity=2), max_keys=2, overflow="drop_newest"
        )
        async with line.open() as run:
            for _ in range(50):
                await run.receive()
            return run.statistics()

    assert run_virtual(main).taken < 50 * 64 * 4


def test_results_do_not_wait_until_the_queues_are_full():
    """The first item is handed over after a turn of its sender, and not after the 1600 items that there is room for."""

    async def main():
        line = Pipeline.from_iterable(count()).fair_by(lambda item: item % 100, max_keys=100)
        async with line.open() as run:
            await run.receive()
            return run.statistics()

    assert run_virtual(main).taken <= 2 * 64


def test_items_are_opaque():
    """Only their keys are looked at."""

    class Item:
        __hash__ = None

        def __init__(self, key):
            self.key = key

        def __bool__(self):
            raise AssertionError("asked for its truth")

        def __eq__(self, other):
            raise AssertionError("compared")

        def __repr__(self):
            raise AssertionError("printed")

    async def tell(failure):
        await trio.lowlevel.checkpoint()

    for overflow in ("block", "drop_newest", OnError.divert(tell)):
        for made in (Item, lambda key: None):
            items = [made(number % 3) for number in range(9)]
            line = Pipeline.from_iterable(items).fair_by(
                lambda item: getattr(item, "key", None), FairShare(capacity=1), max_keys=3, overflow=overflow
            )
            assert run_virtual(line.count) <= 9
            line.describe()


@pytest.mark.parametrize("key", [None, float("nan"), (), 0, frozenset()], ids=repr)
def test_any_hashable_value_is_a_key(key):
    line = Pipeline.from_iterable(range(5)).fair_by(lambda item: key, FairShare(capacity=1), max_keys=1)

    assert run_virtual(line.collect) == [0, 1, 2, 3, 4]


# ---- the report


def test_the_report_says_what_each_key_got():
    """`contested` counts where weights decide: while another key had an item, too; the share is that of everything."""

    async def main():
        return await fair("aaaabb", {"a": 2}, name="tenant").run()

    report = run_virtual(main)
    rows = [(each.merge, each.key, each.weight, each.taken, each.cost, each.contested) for each in report.inputs]
    assert rows == [("tenant", "a", 2, 4, 4, 2), ("tenant", "b", 1, 2, 2, 2)]
    assert [each.share for each in report.inputs] == [4 / 6, 2 / 6]
    assert "tenant / a" in report.describe()


def test_the_report_of_many_keys_is_short():
    """Of a hundred thousand keys the hundred of the greatest cost are reported, whenever they came."""
    share = FairShare(cost=lambda item: 1 + (item % 1000 == 7))
    line = Pipeline.from_iterable(range(100_000)).fair_by(lambda item: item, share, max_keys=1000)

    report = run_virtual(line.run)
    assert report.delivered == 100_000
    assert sorted(each.key for each in report.inputs) == list(range(7, 100_000, 1000))


# ---- the plan


async def fetch(item):
    await trio.sleep(int(item[1:]) % 3)
    return item


def test_the_plan_shows_it_in_place_of_a_link():
    async def dead_letter(failure):
        await trio.lowlevel.checkpoint()

    overflow = OnError.divert(Step(dead_letter).timeout(3))
    line = (
        stream("ab")
        .map(str.strip)
        .fair_by(first, FairShare({"a": 3}, capacity=2), max_keys=100, name="tenant")
        .map(fetch, concurrency=2)
        .fair_by(first, FairShare(capacity=1, cost=len), max_keys=1, overflow=overflow)
        .buffer(3)
        .filter(bool)
        .fair_by(first, max_keys=2, overflow="drop_newest")
    )

    assert line.describe() == (
        "pipeline: 5 stages, items in flight: at most 257\n"
        "source iterable: iterable -> map strip\n"
        "  | fair by first as tenant: shares by weight ('a' 3, others 1), up to 100 keys of 2 items,"
        " a full queue blocks the stream\n"
        "stage fetch: async map fetch, 2 at a time, in order\n"
        "  | link of 16\n"
        "stage first: pass on\n"
        "  | fair by first: equal shares, an item costs len, up to 1 key of 1 item,"
        " a full queue gives it to dead_letter\n"
        "      call dead_letter\n"
        "        timeout of 3 s\n"
        "stage buffer: pass on\n"
        "  | link of 3\n"
        "stage bool: filter bool\n"
        "  | fair by first: equal shares, up to 2 keys of 16 items, a full queue drops what is new\n"
        "consumer"
    )


@pytest.mark.parametrize(
    "made",
    [
        lambda keys: stream(keys).map(fetch, concurrency=3).fair_by(first, max_keys=3),
        lambda keys: stream(keys).map(fetch, concurrency=3).fair_by(first, max_keys=3).map(fetch),
        lambda keys: stream(keys).flat_map(iterated, concurrency=3).fair_by(first, max_keys=3).batch(3).unbatch(),
        lambda keys: stream(keys).batch(4, max_delay=1).unbatch().fair_by(first, FairShare(capacity=1), max_keys=1),
        lambda keys: merge(stream(keys)).fair_by(first, max_keys=3).fair_by(first, FairShare(capacity=1), max_keys=2),
        lambda keys: fair_merge({1: fair(keys, capacity=1), 2: stream("")}).buffer(1),
        lambda keys: concat(fair(keys, capacity=2, max_keys=1), stream("")).fair_by(first, max_keys=1),
        lambda keys: fair(keys, capacity=1).take(36),
    ],
)
def test_it_stands_anywhere_in_a_plan(made):
    """Behind and before pools, batches, merges, another one: everything arrives once, each key in its order."""
    keys = "abc" * 12
    items = run_virtual(made(keys).collect)

    assert sorted(items) == sorted(numbered(keys))
    for key in "abc":
        numbers = [int(item[1:]) for item in items if item[0] == key]
        assert numbers == sorted(numbers)


async def iterated(item):
    await trio.lowlevel.checkpoint()
    yield item


def test_plans_are_values():
    share = FairShare({"a": 2})

    assert stream("").fair_by(first, share, max_keys=2) != stream("").fair_by(first, share, max_keys=2)
    line = stream("")
    assert line.fair_by(first, share, max_keys=2) == line.fair_by(first, FairShare({"a": 2}), max_keys=2)
    assert line.fair_by(first, share, max_keys=2) != line.fair_by(first, share, max_keys=3)
    assert hash(line.fair_by(first, share, max_keys=2)) == hash(line.fair_by(first, share, max_keys=2))


def test_only_items_whose_queue_was_full_are_turned_away():
    """An error of the user's own that is called as ours is none of them."""

    class BufferOverflow(Exception):
        pass

    async def refuse(item):
        raise BufferOverflow(item)

    async def main():
        line = Pipeline.from_iterable(range(9)).map(refuse, concurrency=2, on_error=OnError.skip())
        return await line.fair_by(bool, max_keys=2).run()

    report = run_virtual(main)

    assert report.failed == 9
    assert report.links
    assert {link.turned_away for link in report.links} == {0}
