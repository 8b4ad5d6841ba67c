"""`buffer(0)`: what is taken, and when? Nothing before what is behind can use it at once.

Mutants that die here: an item is taken for a worker that is busy, or that has no place for its result; one for a
consumer that works; a free worker that nobody tells; a drop although a worker was free, or none although all were busy;
a wait for room in one branch that forgets the other; an answer that depends on which of two tasks runs first.
"""

import math

import pytest
import trio

from funcpipe_trio import BufferOverflow, Pipeline, RateLimit, merge
from funcpipe_trio.testing import Probe, run_virtual

from ..stages.test_timing import under_schedules


class Leases:
    """A source of leases: when each was taken, when its call began, and how many were out at once."""

    def __init__(self, count=12, gap=0.0):
        self.count, self.gap = count, gap
        self.taken, self.begun = {}, {}
        self.out = self.most = 0

    def _take(self, number):
        self.taken[number] = trio.current_time()
        self.out += 1
        self.most = max(self.most, self.out)
        return number

    def at_once(self):
        for number in range(self.count):
            yield self._take(number)

    async def slowly(self):
        for number in range(self.count):
            await trio.sleep(self.gap)
            yield self._take(number)

    def line(self):
        return Pipeline.from_async_iterable(self.slowly) if self.gap else Pipeline.from_iterable(self.at_once)

    async def call(self, number):
        self.begun[number] = trio.current_time()
        await trio.sleep(1 + number % 3 / 2)
        self.out -= 1
        return number

    def is_fresh(self):
        return self.begun == self.taken


async def second(number):
    await trio.sleep(1)


async def slow_at_first(number):
    await trio.sleep(1 if number else 100)


async def children(leases, number):
    yield await leases.call(number)


POOLS = {
    "map": lambda line, leases, n: line.map(leases.call, concurrency=n),
    "map, as completed": lambda line, leases, n: line.map(leases.call, concurrency=n, ordered=False),
    "map, in a small link": lambda line, leases, n: line.map(leases.call, concurrency=n).buffer(1),
    "tap": lambda line, leases, n: line.tap(leases.call, concurrency=n),
    "flat_map": lambda line, leases, n: line.flat_map(lambda number: children(leases, number), concurrency=n),
    "behind a sync stage": lambda line, leases, n: line.map(abs).buffer(0).map(leases.call, concurrency=n),
}


@pytest.mark.parametrize("gap", [0, 0.25], ids=["a list", "slowly"])
@pytest.mark.parametrize("name", POOLS)
def test_a_lease_is_taken_by_a_worker_that_is_free(name, gap):
    """No second passes between lease and call, and never are more out than there are workers."""
    for concurrency in (1, 3):

        async def main(concurrency=concurrency):
            leases = Leases(gap=gap)
            got = await POOLS[name](leases.line().buffer(0), leases, concurrency).collect()
            return sorted(got), leases.is_fresh(), leases.most

        assert under_schedules(main, 8) == [([*range(12)], True, concurrency)] * 8


def test_without_it_leases_wait():
    """What the test above is about: with any buffer an item is taken while all workers are busy."""

    async def main(capacity):
        leases = Leases()
        await leases.line().buffer(capacity).map(leases.call).collect()
        return leases.is_fresh(), leases.most

    assert run_virtual(main, 1) == (False, 2)
    assert run_virtual(main, 0) == (True, 1)


def test_a_worker_without_a_place_for_its_result_waits_for_nothing():
    """In order, behind a slow call, results use up the places: no item is taken for the workers that are free."""

    async def main():
        taken = []
        line = Pipeline.from_iterable(range(9)).tap(taken.append).buffer(0)
        line = line.map(slow_at_first, concurrency=3).buffer(2)
        async with line.open() as run:
            await trio.sleep(50)
            assert taken == [0, 1, 2, 3, 4]  # 1 call, 4 results that wait: 3 + 2 places
            assert line.max_in_flight == 5
            return [await run.receive() for _ in range(9)]

    assert under_schedules(main, 8) == [[None] * 9] * 8


def test_a_consumer_gets_what_it_waits_for():
    """Nothing is taken before it receives, whether it iterates or not; what follows waits for the next time."""

    async def main(slowly):
        leases = Leases(4, gap=0.5 if slowly else 0)
        async with leases.line().buffer(0).open() as run:
            await trio.sleep(10)
            assert not leases.taken
            for number in range(3):
                assert await run.receive() == number
                await trio.sleep(10)
                assert len(leases.taken) == number + 1
            assert [item async for item in run] == [3]
        return run.report.taken

    for slowly in (False, True):
        assert under_schedules(lambda slowly=slowly: main(slowly), 8) == [4] * 8


def test_a_receive_that_is_cancelled_loses_nothing():
    """The source was asked for an item; it comes, waits as the only one, and is the next that is received."""

    async def main():
        leases = Leases(3, gap=2)
        line = leases.line().buffer(0)
        assert line.max_in_flight == 1
        async with line.open() as run:
            with trio.move_on_after(1):
                await run.receive()
            await trio.sleep(20)
            assert [*leases.taken] == [0]
            assert [item async for item in run] == [0, 1, 2]
        return run.report.discarded

    assert under_schedules(main, 8) == [0] * 8


def test_several_receivers_are_served_one_by_one():
    async def main():
        leases, got = Leases(6), []

        async def receiver(run):
            async for item in run:
                got.append(item)
                leases.out -= 1
                await trio.sleep(1)

        async with leases.line().buffer(0).open() as run, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(receiver, run)
        return sorted(got), trio.current_time()

    assert under_schedules(main, 8) == [([*range(6)], 2)] * 8


@pytest.mark.parametrize("policy", ["drop_newest", "fail"])
def test_what_comes_while_all_calls_run_is_dropped_or_fails(policy):
    async def main():
        leases = Leases(9, gap=0.5)
        line = leases.line().buffer(0, overflow=policy).map(leases.call, concurrency=2, ordered=False)
        try:
            return await line.collect(), leases.is_fresh()
        except BufferOverflow as error:
            return str(error)

    if policy == "fail":
        assert under_schedules(main, 8) == ["the buffer of 0 behind 'slowly' was full"] * 8
    else:
        # 0 at .5 until 1.5, 1 at 1 until 2.5; 2 comes as the first call ends, so that is seen, or not
        got = under_schedules(main, 8)
        assert all(fresh is False for _, fresh in got)
        assert {tuple(sorted(items))[:2] for items, _ in got} == {(0, 1)}


def test_in_one_burst_each_free_worker_gets_an_item():
    """The rest is dropped: nobody waits for it."""

    async def main():
        line = Pipeline.from_iterable(range(50)).buffer(0, overflow="drop_newest")
        dropped = []
        async with line.map(second, concurrency=3).open(on_discard=lambda item, *_: dropped.append(item)) as run:
            assert [item async for item in run] == [None] * 3
        return dropped, run.report.dropped

    assert under_schedules(main, 8) == [([*range(3, 50)], 47)] * 8


def test_more_workers_are_told():
    async def main():
        leases = Leases(20)
        async with leases.line().buffer(0).map(leases.call, name="call").open() as run:
            await trio.sleep(0.5)
            assert leases.out == 1
            run.set_concurrency("call", 4)
            await trio.sleep(0.25)
            assert leases.out == 4
            run.set_concurrency("call", 2)
            await trio.sleep(10)
            assert leases.out == 2
            run.set_concurrency("call", 5)
            await trio.testing.wait_all_tasks_blocked()
            assert leases.out == 5

    run_virtual(main)


def test_branches_in_step():
    """A broadcast gives an item when all branches wait for one; a partition looks one ahead, as it must."""

    async def main():
        leases = Leases(8)
        line = (
            leases.line()
            .buffer(0)
            .broadcast(
                {
                    "a": lambda branch: branch.buffer(0).map(second),
                    "b": lambda branch: branch.buffer(0).map(leases.call),
                }
            )
        )
        await line.run()
        assert leases.most <= 2
        routed = Leases(8)
        line = routed.line().partition(
            lambda number: "ab"[number % 2],
            {key: lambda branch: branch.buffer(0).map(routed.call) for key in "ab"},
        )
        assert sorted(await line.collect()) == [*range(8)]
        assert routed.most == 3
        async with line.open(), trio.open_nursery() as nursery:
            await trio.sleep(3)
            nursery.cancel_scope.cancel()

    under_schedules(main, 8)


def test_while_it_is_paused_nothing_is_taken():
    async def main():
        leases = Leases(5)
        async with leases.line().buffer(0).map(leases.call, concurrency=2).open() as run:
            run.pause()
            await trio.sleep(5)
            run.resume()
            assert [item async for item in run] == [*range(5)]
        assert leases.is_fresh()

    run_virtual(main)


def test_stages_that_wait_for_the_clock_take_what_they_can_keep():
    numbers = Pipeline.from_iterable(range(6)).buffer(0)

    async def main():
        assert await numbers.throttle(RateLimit(2)).buffer(0).collect() == [*range(6)]
        assert await numbers.delay(3, max_items=2).buffer(0).collect() == [*range(6)]
        assert await numbers.debounce(1).buffer(0).collect() == [5]
        assert await numbers.batch(4, max_delay=2).buffer(0).collect() == [[0, 1, 2, 3], [4, 5]]
        async with Probe(numbers.throttle(RateLimit(1)).buffer(0)) as probe:
            await probe.expect(0)
            await trio.sleep(5)
            assert probe.run.statistics().taken == 1

    run_virtual(main)


def test_a_long_row_is_no_deep_recursion():
    line = Pipeline.from_iterable(range(3))
    for number in range(400):
        line = line.buffer(0).map(abs, name=f"{number}")

    async def main():
        async with line.buffer(0).open() as run:
            return [item async for item in run]

    assert run_virtual(main) == [0, 1, 2]


def test_what_the_plan_says():
    """It adds nothing to the bound, except where what it hands over to has no place for it."""
    numbers = Pipeline.from_iterable(range(9))
    bounds = {
        0 + 3 + 1: numbers.buffer(0).map(trio.sleep, concurrency=3).buffer(1),
        2 + 0 + 4: numbers.map(trio.sleep, concurrency=2).buffer(0).map(trio.sleep, concurrency=4).buffer(0).first,
        0 + 7: numbers.buffer(0).map(abs).buffer(7),
        0 + 1: numbers.buffer(0),
        0 + 3: numbers.batch(3).buffer(0),
        1 + 5: numbers.buffer(0).map(abs).buffer(5, overflow="drop_oldest"),
    }
    for bound, line in bounds.items():
        if isinstance(line, Pipeline):
            assert line.max_in_flight == bound, line.describe()

    merged = merge(numbers, numbers.map(abs).buffer(0)).buffer(0).map(abs)
    assert "stage buffer" not in merged.describe()
    assert "link of 1\n" in merged.describe()
    assert "  | link of 0, hands over what is waited for\n" in numbers.buffer(0).map(trio.sleep).describe()
    assert merged.with_settings({"buffer": {"capacity": 3}}).max_in_flight == merged.max_in_flight + 3
    assert merge(numbers, numbers).fair_by(abs, max_keys=3).buffer(0).max_in_flight < math.inf
    with pytest.raises(ValueError, match="overflow must not be 'drop_oldest' with capacity 0"):
        numbers.buffer(0, overflow="drop_oldest")
