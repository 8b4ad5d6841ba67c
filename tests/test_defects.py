"""The measured defects of the asyncio generators this replaces, each as a guarantee of funcpipe_trio.

The letter and number of a defect stand in the docstring of the test that keeps it away. F: the fair merge, G: the
gathering merge, B: the bounded map, H: chunking, K: closing, P: plans. Times are virtual and exact.
"""

import math
import re
from collections import Counter
from fractions import Fraction
from itertools import count, groupby

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import FairShare, Pipeline, PlanError, concat, fair_merge, merge, zip_pipelines
from tests._kit import MS, every, in_virtual_time, received


def silent_after(items):
    """A source that gives these items at once, and then neither another one nor its end."""

    async def source():
        for item in items:
            yield item
        await trio.sleep_forever()

    return Pipeline.from_async_iterable(source)


def failing_after(items, error):
    """A source that gives these items and raises."""

    def source():
        yield from items
        raise error

    return Pipeline.from_iterable(source)


async def timed(run, number=None):
    """Receive items with the times at which they came."""
    log = []
    while number is None or len(log) < number:
        try:
            item = await run.receive()
        except trio.EndOfChannel:
            break
        log.append((trio.current_time(), item))
    return log


def of_weights(*pipelines):
    """A fair merge with weights that differ."""
    return fair_merge(dict(enumerate(pipelines)), FairShare({number: number + 1 for number in range(len(pipelines))}))


def tasks():
    return trio.lowlevel.current_statistics().tasks_living


MERGES = pytest.mark.parametrize("merging", [merge, of_weights])


# ---- the fair merge


@MERGES
@in_virtual_time
async def test_a_merge_waits_for_all_of_its_inputs_at_once(merging):
    """F-1: four sources of 20 items, 10 ms an item, take as long as one of them."""
    async with merging(*(every(10 * MS, range(20)) for _ in range(4))).open() as run:
        log = await timed(run)

    assert log[0][0] == 10 * MS
    assert log[-1][0] == 200 * MS
    assert len(log) == 80


@MERGES
@pytest.mark.parametrize("heard", [0, 5])
@pytest.mark.parametrize("place", [0, 1, 2])
@in_virtual_time
async def test_a_silent_input_delays_nobody(merging, heard, place):
    """F-2: the others' items come at once, wherever the silent input stands, and also if it gave some before."""
    inputs = [Pipeline.from_iterable(range(500)), Pipeline.from_iterable(range(500))]
    inputs.insert(place, silent_after(range(heard)))

    async with merging(*inputs).open() as run:
        log = await timed(run, 1000 + heard)
        with trio.move_on_after(3600) as waited:
            await run.receive()

    assert {time for time, _item in log} == {0.0}
    assert waited.cancelled_caught


@in_virtual_time
async def test_a_slow_input_delays_nobody():
    """F-2: a fast input is never made to wait for a peer of 20 ms an item."""
    fast = every(1 * MS, [("fast", number) for number in range(100)])
    slow = every(20 * MS, [("slow", number) for number in range(5)])

    async with merge(slow, fast).open() as run:
        log = await timed(run)

    assert [time for time, (name, _) in log if name == "fast"] == [MS * number for number in range(1, 101)]
    assert [time for time, (name, _) in log if name == "slow"] == [20 * MS * number for number in range(1, 6)]


@in_virtual_time
async def test_a_merge_keeps_the_concurrency_beneath_it():
    """F-3: three tenants with four calls each have twelve calls in flight, and are done in the time of one."""
    running, most = 0, 0

    async def call(item):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(10 * MS)
        running -= 1
        return item

    tenants = {name: Pipeline.from_iterable(range(48)).map(call, concurrency=4) for name in "abc"}
    got = await fair_merge(tenants, FairShare({"a": 3})).collect()

    assert most == 12
    assert trio.current_time() == 120 * MS
    assert Counter(got) == dict.fromkeys(range(48), 3)


@pytest.mark.parametrize("idle", [0, 10])
@in_virtual_time
async def test_an_input_that_was_idle_does_not_catch_up(idle):
    """F-4: idle for 10 s and back with a burst, an input gets its share from then on, not what it did not use."""

    async def burst():
        await trio.sleep(idle)
        for _ in range(1000):
            yield "burst"

    async def steady():
        for _ in count():
            yield "steady"

    order = []
    async with merge(Pipeline.from_async_iterable(steady), Pipeline.from_async_iterable(burst)).open() as run:
        async for item in run:
            order.append(item)
            await trio.sleep(10 * MS)
            if order.count("burst") == 500:
                break

    shared = order[order.index("burst") :]
    assert max(len(list(same)) for _name, same in groupby(shared)) == 1
    assert order.index("burst") >= idle / (10 * MS) - 1


BAD_NUMBERS = [
    (TypeError, math.nan, "nan"),
    (TypeError, math.inf, "inf"),
    (TypeError, True, "True"),
    (TypeError, 1.5, "1.5"),
    (TypeError, "3", "a str of length 1"),
    (TypeError, None, "None"),
    (ValueError, 0, "0"),
    (ValueError, -1, "-1"),
]


@pytest.mark.parametrize(("kind", "value", "shown"), BAD_NUMBERS)
def test_a_weight_that_is_no_positive_exact_number_is_refused(kind, value, shown):
    """F-5, F-9: a weight of NaN cannot spin the merge: no such policy can be made."""
    hint = "\nUse Fraction(3, 2)." if value == 1.5 else ""
    message = f"FairShare: weights['a'] must be a positive int or Fraction, not {shown}{hint}"

    with pytest.raises(kind, match=rf"^{re.escape(message)}$"):
        FairShare({"a": value})


@pytest.mark.parametrize(("kind", "value", "shown"), BAD_NUMBERS)
def test_a_capacity_that_is_no_positive_int_is_refused(kind, value, shown):
    """F-9: True and 1.5 are no capacities."""
    rule = "be an int >= 1" if kind is TypeError else "be >= 1"
    message = f"FairShare: capacity must {rule}, not {shown}"

    with pytest.raises(kind, match=rf"^{re.escape(message)}$"):
        FairShare({"a": 1}, capacity=value)


def test_weights_of_inputs_that_do_not_exist_are_refused():
    """F-9: a weight that would be ignored is an error, and all of them are said at once."""
    message = (
        "fair_merge: weights[5] must name an input; the inputs are 0, 1\n"
        "fair_merge: weights['x'] must name an input; the inputs are 0, 1"
    )

    with pytest.raises(PlanError, match=rf"^{re.escape(message)}$"):
        fair_merge({0: Pipeline.from_iterable([]), 1: Pipeline.from_iterable([])}, FairShare({5: 3, "x": 1, 0: 1}))


@in_virtual_time
async def test_a_policy_does_not_hang_on_the_mapping_it_was_made_from():
    """F-9: what happens to the user's mapping afterwards changes nothing; a policy can be hashed."""
    weights = {"a": 1, "b": 1}
    inputs = {name: Pipeline.from_iterable([name] * 20) for name in "ab"}
    share = FairShare(weights)
    line = fair_merge(inputs, share)
    weights["a"] = 0
    inputs.clear()

    assert Counter(await line.collect()) == {"a": 20, "b": 20}
    assert hash(share) == hash(FairShare({"a": 1, "b": 1}))


async def no_wait(item):
    return item


async def beats_beside(work):
    """How many steps another task makes while this works."""
    beats = 0

    async def heart():
        nonlocal beats
        while True:
            await trio.lowlevel.checkpoint()
            beats += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(heart)
        await work()
        nursery.cancel_scope.cancel()
    return beats


@pytest.mark.parametrize(
    ("items", "line"),
    [
        (40_000, Pipeline.from_iterable(range(40_000))),
        (40_000, merge(*(Pipeline.from_iterable(range(10_000)) for _ in range(4)))),
        (40_000, Pipeline.from_iterable(range(40_000)).filter(lambda item: False)),
        (40_000, Pipeline.from_iterable(range(4)).flat_map(lambda item: range(10_000))),
        (10_000, Pipeline.from_iterable(range(10_000)).map(no_wait, concurrency=4)),
    ],
    ids=["plain", "merge", "filter", "flat_map", "map"],
)
@pytest.mark.parametrize("receives", [False, True])
@in_virtual_time
async def test_a_pipeline_that_never_waits_lets_others_run(items, line, receives):
    """F-6: between two steps of another task, a pipeline that is always ready moves at most 128 items a stage."""

    async def work():
        if not receives:
            await line.count()
            return
        async with line.open() as run:
            async for _item in run:
                pass

    assert await beats_beside(work) >= items // 128


@in_virtual_time
async def test_two_hundred_thousand_ready_items_do_not_starve_a_task():
    """F-6: the original measure: 200k items, and the other task gets its turn all along."""
    line = merge(*(Pipeline.from_iterable(range(100_000)) for _ in range(2)))

    assert await beats_beside(line.count) >= 200_000 // 128


class KeepsFailing:
    """An iterator, sync and async, that raises whenever it is asked, after a few items."""

    def __init__(self, items=()):
        self.items = list(items)
        self.asked = 0

    def __iter__(self):
        return self

    def __aiter__(self):
        return self

    def __next__(self):
        self.asked += 1
        if self.items:
            return self.items.pop(0)
        raise ConnectionError("the line is dead")

    async def __anext__(self):
        await trio.lowlevel.checkpoint()
        return self.__next__()


@pytest.mark.parametrize("source", [Pipeline.from_iterable, Pipeline.from_async_iterable])
@in_virtual_time
async def test_an_iterator_that_keeps_raising_ends_with_its_error_once(source):
    """F-7: the first error ends the stream; nobody asks again, and no endless stream of errors comes."""
    iterator = KeepsFailing("ab")

    items, error, report = await received(source(iterator))

    assert (items, type(error), str(error)) == (["a", "b"], ConnectionError, "the line is dead")
    assert iterator.asked == 3
    assert (report.outcome, report.error, report.cleanup_errors) == ("failed", error, ())


@MERGES
@pytest.mark.parametrize("source", [Pipeline.from_iterable, Pipeline.from_async_iterable])
@in_virtual_time
async def test_a_failing_input_does_not_flood_a_merge(merging, source):
    """F-7: in a merge, too, an input that keeps raising is asked once, and its error comes once."""
    iterator = KeepsFailing("ab")

    items, error, _report = await received(merging(Pipeline.from_iterable(range(100)), source(iterator)))

    assert type(error) is ConnectionError
    assert [item for item in items if isinstance(item, str)] == ["a", "b"]
    assert iterator.asked == 3


class Closable:
    """An endless iterator, sync and async, that notes its closing, and may fail at it."""

    def __init__(self, name, log, *, fails=False):
        self.name = name
        self.log = log
        self.fails = fails
        self.number = 0

    def __iter__(self):
        return self

    def __aiter__(self):
        return self

    def __next__(self):
        self.number += 1
        return (self.name, self.number)

    async def __anext__(self):
        return self.__next__()

    def close(self):
        self.log.append(self.name)
        if self.fails:
            raise OSError(f"{self.name} does not close")

    async def aclose(self):
        await trio.lowlevel.checkpoint()
        self.close()


@MERGES
@pytest.mark.parametrize("source", [Pipeline.from_iterable, Pipeline.from_async_iterable])
@pytest.mark.parametrize("bad", ["a", "b", "c", "abc"])
@in_virtual_time
async def test_leaving_a_merge_closes_every_source_and_loses_nothing(merging, source, bad):
    """F-8: one close that fails keeps no other from being closed; every item that was taken is accounted for."""
    closed, given_up = [], []
    iterators = [Closable(name, closed, fails=name in bad) for name in "abc"]

    async with merging(*map(source, iterators)).open(on_discard=lambda item, *why: given_up.append(item)) as run:
        delivered = [await run.receive()]
        await wait_all_tasks_blocked()

    report = run.report
    assert sorted(closed) == ["a", "b", "c"]
    assert Counter(delivered + given_up) == Counter(
        (each.name, number) for each in iterators for number in range(1, each.number + 1)
    )
    assert (report.taken, report.delivered, report.discarded) == (len(given_up) + 1, 1, len(given_up))
    assert sorted(map(str, report.cleanup_errors)) == [f"{name} does not close" for name in bad]


@in_virtual_time
async def test_shares_can_be_of_cost():
    """F-11: with a cost function, inputs of equal weight get equal cost, not equal numbers of items."""
    inputs = {name: Pipeline.from_iterable([size] * 400) for name, size in (("small", 1), ("large", 4))}
    taken = []

    async with fair_merge(inputs, FairShare(cost=lambda size: size)).open() as run:
        async for size in run:
            taken.append(size)
            if len(taken) == 500:
                break

    assert [taken.count(4), taken.count(1)] == [100, 400]
    assert max(abs(sum(s for s in taken[:n] if s == 1) - sum(s for s in taken[:n] if s == 4)) for n in range(501)) <= 5


@MERGES
@pytest.mark.parametrize("sizes", [(5, 5), (20, 20), (100, 3), (0, 7), (16, 17, 1)])
@in_virtual_time
async def test_a_merge_delivers_the_whole_of_inputs_that_end(merging, sizes):
    """F-12: what is buffered when an input ends is delivered like the rest, in the input's order."""
    inputs = [[(number, item) for item in range(size)] for number, size in enumerate(sizes)]

    got = await merging(*map(Pipeline.from_iterable, inputs)).collect()

    assert [[item for item in got if item[0] == number] for number in range(len(sizes))] == inputs


# ---- closing while everything is full


def channel_source():
    send, receive = trio.open_memory_channel(100)
    for number in range(100):
        send.send_nowait(number)
    return Pipeline.from_channel(receive)


def producer_source():
    async def produce(send_channel):
        for number in count():
            await send_channel.send(number)

    return Pipeline.from_producer(produce)


def async_source():
    async def numbers():
        for number in count():
            yield number

    return Pipeline.from_async_iterable(numbers)


SOURCES = {
    "iterable": lambda: Pipeline.from_iterable(count),
    "async_iterable": async_source,
    "channel": channel_source,
    "producer": producer_source,
    "ticks": lambda: Pipeline.ticks(50 * MS),
    "silent": lambda: silent_after([1, 2, 3]),
}

SHAPES = {
    "alone": lambda make: make(),
    "merge of 2": lambda make: merge(make(), make()),
    "merge of 4": lambda make: merge(*(make() for _ in range(4))),
    "concat": lambda make: concat(make(), make()),
    "zip": lambda make: zip_pipelines(make(), make()),
    "small links": lambda make: merge(make().buffer(1), make().map(no_wait, concurrency=2).buffer(1)),
}

FULL = pytest.mark.parametrize(
    ("source", "shape"), [(source, shape) for source in SOURCES for shape in SHAPES], ids=lambda value: value
)


@FULL
@pytest.mark.parametrize("receiving", [0, 1])
@in_virtual_time
async def test_leaving_while_every_buffer_is_full_takes_no_time(source, shape, receiving):
    """G-1: nobody waits for room that will never come: leaving returns at once, and no task stays."""
    before = tasks()
    async with SHAPES[shape](SOURCES[source]).open() as run:
        for _ in range(receiving):
            await run.receive()
        await wait_all_tasks_blocked()
        left_at = trio.current_time()

    assert trio.current_time() == left_at
    assert tasks() == before
    assert run.report.outcome == "left"


@FULL
@in_virtual_time
async def test_cancelling_while_every_buffer_is_full_takes_no_time(source, shape):
    """G-2: a consumer that is cancelled leaves no task behind, and is not kept waiting."""
    before = tasks()
    with trio.move_on_after(1) as scope:
        async with SHAPES[shape](SOURCES[source]).open() as run:
            await run.receive()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert trio.current_time() == 1
    assert tasks() == before
    assert run.report.outcome == "cancelled"


# ---- the bounded map


ORDERS = pytest.mark.parametrize("ordered", [True, False])


@ORDERS
@in_virtual_time
async def test_a_result_leaves_as_soon_as_it_is_ready(ordered):
    """B-1: with a source of one item in 50 ms, each result comes with its item, not with a later one."""
    async with every(50 * MS, range(20)).map(no_wait, concurrency=8, ordered=ordered).open() as run:
        log = await timed(run)

    assert log == [(50 * MS * (number + 1), number) for number in range(20)]


@ORDERS
@in_virtual_time
async def test_a_source_that_stalls_hides_no_result(ordered):
    """B-1: results come although the source gives neither a further item nor its end."""

    async def call(item):
        await trio.sleep(item * MS)
        return item

    async with silent_after(range(5)).map(call, concurrency=8, ordered=ordered).open() as run:
        log = await timed(run, 5)

    assert log == [(number * MS, number) for number in range(5)]


@ORDERS
@in_virtual_time
async def test_a_straggler_at_the_end_holds_nobody_before_it(ordered):
    """B-2: while the last call takes 500 ms, the results before it are there at 0 ms."""

    async def call(item):
        if item == 7:
            await trio.sleep(500 * MS)
        return item

    async with Pipeline.from_iterable(range(8)).map(call, concurrency=8, ordered=ordered).open() as run:
        log = await timed(run)

    assert log == [*((0.0, number) for number in range(7)), (500 * MS, 7)]


async def short_call(item):
    await trio.sleep(10 * MS)
    return item


@pytest.mark.parametrize(
    "operation",
    [
        lambda line: line,
        lambda line: line.map(lambda item: item),
        lambda line: line.map(no_wait),
        lambda line: line.map(short_call, concurrency=8),
        lambda line: line.map(short_call, concurrency=8, ordered=False),
        lambda line: line.batch(2).unbatch(),
        lambda line: line.batch(100, max_delay=1).unbatch(),
        lambda line: line.flat_map(lambda item: [item]),
        lambda line: line.buffer(1).tap(short_call),
        lambda line: merge(line),
        lambda line: merge(line, Pipeline.from_iterable([])).map(no_wait),
        lambda line: concat(Pipeline.from_iterable([]), line),
        lambda line: zip_pipelines(line).map(lambda pair: pair[0]),
    ],
)
@in_virtual_time
async def test_what_came_before_a_failure_of_the_source_is_delivered(operation):
    """B-3: five good items and then an error give five results and then that error, with every operation."""
    failure = ConnectionError("gone")

    items, error, report = await received(operation(failing_after(range(5), failure)))

    assert sorted(items) == [0, 1, 2, 3, 4]
    assert error is failure
    assert error.__notes__ == ["in stage 'source', item 5"]
    assert (report.taken, report.delivered, report.discarded, report.failed) == (5, 5, 0, 0)


@pytest.mark.parametrize(("concurrency", "capacity"), [(1, 1), (1, 4), (4, 1), (8, 16)])
@ORDERS
@in_virtual_time
async def test_no_more_calls_are_started_than_there_is_room_for(concurrency, capacity, ordered):
    """B-4: after one result was taken, the calls that were started are that one and those that fit behind it."""
    started = []

    async def call(item):
        started.append(item)
        return item

    line = Pipeline.from_iterable(count).map(call, concurrency=concurrency, ordered=ordered).buffer(capacity)
    async with line.open() as run:
        await wait_all_tasks_blocked()
        at_rest = len(started)
        await run.receive()
        await wait_all_tasks_blocked()
        after_one = len(started)

    assert at_rest <= concurrency + capacity
    assert after_one <= 1 + concurrency + capacity
    assert after_one > 1


@ORDERS
@in_virtual_time
async def test_calls_run_while_the_consumer_is_busy(ordered):
    """B-5: calls of 10 ms and a consumer of 10 ms an item overlap: 10 ms an item."""
    async with Pipeline.from_iterable(range(20)).map(short_call, ordered=ordered).open() as run:
        async for _item in run:
            await trio.sleep(10 * MS)

    assert trio.current_time() == 10 * MS + 20 * 10 * MS


@ORDERS
@in_virtual_time
async def test_leaving_early_ends_the_calls_and_accounts_for_their_items(ordered):
    """B-6: a break leaves no call running, and gives up both the items in calls and the finished results, once."""
    before = tasks()
    given_up, started, ended = [], [], []

    async def call(item):
        started.append(item)
        try:
            if item not in (0, 3):
                await trio.sleep(10 * MS)
            return item
        finally:
            ended.append(item)

    line = Pipeline.from_iterable(range(100)).map(call, concurrency=8, ordered=ordered)
    async with line.open(on_discard=lambda item, *why: given_up.append(item)) as run:
        async for item in run:
            first = item
            await wait_all_tasks_blocked()
            break

    report = run.report
    assert first == 0
    assert tasks() == before
    assert sorted(ended) == started
    assert sorted(given_up) == list(range(1, report.taken))
    assert (report.delivered, report.discarded) == (1, report.taken - 1)


# ---- closing


async def ident(item):
    return item


OPERATIONS = {
    "nothing": lambda line: line,
    "map": lambda line: line.map(lambda item: item),
    "async map": lambda line: line.map(ident),
    "concurrent map": lambda line: line.map(ident, concurrency=3),
    "filter": lambda line: line.filter(lambda item: True),
    "flat_map": lambda line: line.flat_map(lambda item: [item, item]),
    "concurrent flat_map": lambda line: line.flat_map(lambda item: [item, item], concurrency=2),
    "batch": lambda line: line.batch(2),
    "timed batch": lambda line: line.batch(2, max_delay=1),
    "take": lambda line: line.take(5),
    "scan": lambda line: line.scan(lambda state, item: state + item, 0),
    "buffer": lambda line: line.map(ident).buffer(1).map(ident),
    "merge": lambda line: merge(line, silent_after([])),
    "concat": lambda line: concat(line, line),
    "zip": lambda line: zip_pipelines(line, Pipeline.from_iterable(count)),
}


def sync_numbers(log):
    def numbers():
        opener = trio.lowlevel.current_task()
        try:
            yield from count()
        finally:
            log.append(trio.lowlevel.current_task() is opener)

    return Pipeline.from_iterable(numbers)


def async_numbers(log):
    async def numbers():
        opener = trio.lowlevel.current_task()
        try:
            for number in count():
                yield number
        finally:
            await trio.lowlevel.checkpoint()
            log.append(trio.lowlevel.current_task() is opener)

    return Pipeline.from_async_iterable(numbers)


def produced_numbers(log):
    async def produce(send_channel):
        opener = trio.lowlevel.current_task()
        try:
            for number in count():
                await send_channel.send(number)
        finally:
            log.append(trio.lowlevel.current_task() is opener)

    return Pipeline.from_producer(produce)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("source", [sync_numbers, async_numbers, produced_numbers])
@pytest.mark.parametrize("leaving", ["break", "raise", "cancel", "take"])
@in_virtual_time
async def test_leaving_closes_the_source_once_before_the_block_ends(source, operation, leaving):
    """K-1, K-2: with every operation, the source is closed when the block ends, once, by the task that opened it."""
    closings = []
    line = operation(source(closings))

    if leaving == "take":
        assert len(await line.take(1).collect()) == 1
    elif leaving == "break":
        async with line.open() as run:
            async for _item in run:
                break
    elif leaving == "raise":
        with pytest.raises(ZeroDivisionError, match=r"^out of here$"):
            async with line.open() as run:
                await run.receive()
                raise ZeroDivisionError("out of here")
    else:
        with trio.CancelScope() as scope:
            async with line.open() as run:
                await run.receive()
                scope.cancel()
                await trio.sleep_forever()

    assert closings == [True]


@in_virtual_time
async def test_a_channel_is_closed_when_the_block_ends():
    """K-1: the run owns the channel it was given, and its senders hear of the end."""
    send, receive = trio.open_memory_channel(1)
    send.send_nowait(1)

    async with Pipeline.from_channel(receive).map(ident).open() as run:
        assert await run.receive() == 1

    with pytest.raises(trio.BrokenResourceError):
        send.send_nowait(2)


# ---- batches


@in_virtual_time
async def test_a_full_batch_leaves_at_once():
    """H-1: four items in 200 ms are a batch at 200 ms, not when the fifth comes at 1200 ms."""

    async def source():
        for number in range(4):
            await trio.sleep(50 * MS)
            yield number
        await trio.sleep(1000 * MS)
        yield 4

    async with Pipeline.from_async_iterable(source).batch(4, max_delay=5000 * MS).open() as run:
        timed_log = await timed(run)
    async with Pipeline.from_async_iterable(source).batch(4).open() as run:
        log = await timed(run)

    assert timed_log == [(200 * MS, [0, 1, 2, 3]), (1200 * MS, [4])]
    assert log == [(1400 * MS, [0, 1, 2, 3]), (2400 * MS, [4])]


@pytest.mark.parametrize("later", [[], [1000 * MS]])
@in_virtual_time
async def test_a_partial_batch_leaves_when_its_time_is_over(later):
    """H-2: a batch leaves max_delay after its first item, whether the source stalls for a while or forever."""

    async def source():
        await trio.sleep(100 * MS)
        yield 0
        await trio.sleep(100 * MS)
        yield 1
        for pause in later:
            await trio.sleep(pause)
            yield 2
        await trio.sleep_forever()

    async with Pipeline.from_async_iterable(source).batch(4, max_delay=250 * MS).open() as run:
        log = await timed(run, 1 + len(later))

    assert log == [(350 * MS, [0, 1]), (1450 * MS, [2])][: 1 + len(later)]


@pytest.mark.parametrize("options", [{"max_items": 100}, {"max_items": 100, "max_delay": 1}, {"max_cost": 100}])
@in_virtual_time
async def test_a_failure_of_the_source_keeps_the_open_batch(options):
    """H-3, H-4: what was collected goes out as a batch, and then the error, in this order."""
    failure = ConnectionError("gone")

    items, error, report = await received(failing_after(range(5), failure).batch(**options))

    assert items == [[0, 1, 2, 3, 4]]
    assert error is failure
    assert (report.taken, report.failed, report.discarded) == (5, 0, 0)


@pytest.mark.parametrize("delay", [{}, {"max_delay": 1}])
@in_virtual_time
async def test_a_failure_of_the_cost_function_keeps_the_open_batch(delay):
    """H-3: an item whose cost cannot be told fails alone; those before it go out."""

    def cost(item):
        if item == 10:
            raise ValueError("ten has no cost")
        return 1

    items, error, report = await received(Pipeline.from_iterable(range(20)).batch(max_cost=100, cost=cost, **delay))

    assert items == [list(range(10))]
    assert (type(error), str(error)) == (ValueError, "ten has no cost")
    assert error.__notes__ == ["in stage 'batch', item 10"]
    assert report.failed == 1


# ---- plans


@in_virtual_time
async def test_the_first_failure_ends_the_work():
    """P-1: of 1000 calls, none is started after the first failed."""
    started = []

    async def call(item):
        started.append(item)
        await trio.lowlevel.checkpoint()
        raise ValueError("no")

    with pytest.raises(ValueError, match=r"^no\nin stage 'call', item 0$"):
        await Pipeline.from_iterable(range(1000)).map(call, concurrency=16).collect()

    assert len(started) <= 16


@in_virtual_time
async def test_a_long_chain_of_operations_works():
    """P-3: two thousand operations in a row do not reach the recursion limit."""
    line = Pipeline.from_iterable(range(3))
    for _ in range(2000):
        line = line.map(lambda item: item + 1)

    assert await line.collect() == [2000, 2001, 2002]


@pytest.mark.parametrize(
    "operation",
    [
        lambda line, fn, slow: line.map(fn),
        lambda line, fn, slow: line.map(slow),
        lambda line, fn, slow: line.map(slow, concurrency=4),
        lambda line, fn, slow: line.map(slow, concurrency=4, ordered=False),
        lambda line, fn, slow: line.filter(fn),
        lambda line, fn, slow: line.filter(slow),
        lambda line, fn, slow: line.tap(fn),
        lambda line, fn, slow: line.tap(slow),
        lambda line, fn, slow: line.flat_map(fn),
        lambda line, fn, slow: line.flat_map(slow),
        lambda line, fn, slow: line.flat_map(slow, concurrency=3),
        lambda line, fn, slow: line.take_while(fn),
        lambda line, fn, slow: line.take_while(slow),
        lambda line, fn, slow: line.skip_while(fn),
        lambda line, fn, slow: line.skip_while(slow),
        lambda line, fn, slow: line.scan(lambda state, item: fn(item), 0),
    ],
)
@in_virtual_time
async def test_an_error_of_a_function_is_treated_alike_everywhere(operation):
    """P-4: whichever operation calls it, the function's own error object ends the stream, with a note of where."""
    failure = ValueError("no")

    def fn(item):
        raise failure

    async def slow(item):
        raise failure

    items, error, report = await received(operation(Pipeline.from_iterable(range(5)), fn, slow))

    assert items == []
    assert error is failure
    assert len(error.__notes__) == 1
    assert re.match(r"^in stage '(fn|slow|<lambda>)', item 0$", error.__notes__[0])
    assert (report.outcome, report.failed) == ("failed", 1)


@in_virtual_time
async def test_weights_may_be_fractions():
    """F-11: shares follow exact ratios on every prefix, to one item."""
    inputs = {name: Pipeline.from_iterable([name] * 300) for name in "ab"}
    order = []

    async with fair_merge(inputs, FairShare({"a": Fraction(1, 2), "b": Fraction(3, 2)})).open() as run:
        async for name in run:
            order.append(name)
            if len(order) == 400:
                break

    assert all(abs(order[:n].count("a") - n / 4) <= 1 for n in range(401))
