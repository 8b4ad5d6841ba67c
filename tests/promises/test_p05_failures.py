"""P5: a failure is an event of the stream, behind what came before it, and it is the original exception.

Mutants that die here: an error that overtakes items; an error copied, wrapped or put in a group; an end that user code
raised and that ends the stream quietly; a stage above that starts one more item; an earlier call cut short; a later
failure that wins; a failure nobody read that is lost; notes written once per receiver; a limit of `OnError.skip` asked
in the order in which calls end; a limit crossed that lets the source go on.
"""

from itertools import product

import pytest
import trio

from funcpipe_trio import FairShare, OnError, Pipeline, RateLimit, concat, fair_merge, merge, zip_pipelines
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom

NUMBERS = Pipeline.from_iterable(range(20))


def failing(*at, error=None, delay=0, delays=None):
    """Make an async function that fails at some items."""
    errors = {item: error or Boom(item) for item in at}

    async def call(item):
        await trio.sleep((delays or {}).get(item, delay))
        if item in errors:
            raise errors[item]
        return item

    call.errors = errors
    call.__name__ = "failing"
    return call


async def outcome_of(pipeline):
    """Receive to the end; answer the items, the error, and the report."""
    items, told = [], []
    try:
        async with pipeline.open(on_discard=lambda *what: told.append(what)) as run:
            async for item in run:
                items.append(item)
    except Exception as met:
        return items, met, run.report, told
    return items, None, run.report, told


# ---- the original object, everywhere


def sync_failing(call):
    def fn(item):
        if item in call.errors:
            raise call.errors[item]
        return item

    fn.__name__ = "failing"
    return fn


def source_failing(call):
    def items():
        yield from range(3)
        raise call.errors[3]

    return items


def async_source_failing(call):
    async def items():
        for number in range(3):
            yield number
        raise call.errors[3]

    return items


def producer_failing(call):
    async def produce(send):
        for number in range(3):
            await send.send(number)
        raise call.errors[3]

    return produce


def channel_failing(call):
    class Channel(trio.abc.ReceiveChannel):
        number = -1

        async def receive(self):
            self.number += 1
            if self.number == 3:
                raise call.errors[3]
            return self.number

        async def aclose(self):
            pass

    return Channel()


def async_flat(call):
    async def children(item):
        yield await call(item)

    children.__name__ = "failing"
    return children


def async_scan(call):
    async def later(_state, item):
        return await call(item)

    return later


def sync_flat(call):
    fn = sync_failing(call)

    def children(item):
        yield fn(item)

    children.__name__ = "failing"
    return children


PLACES = {
    "a sync map": lambda call: NUMBERS.map(sync_failing(call)),
    "an async map": lambda call: NUMBERS.map(call),
    "an ordered pool": lambda call: NUMBERS.map(call, concurrency=5),
    "an unordered pool": lambda call: NUMBERS.map(call, ordered=False),
    "a filter": lambda call: NUMBERS.filter(lambda item: sync_failing(call)(item) is not None, name="failing"),
    "an async tap": lambda call: NUMBERS.tap(call),
    "a scan": lambda call: NUMBERS.scan(lambda _state, item: sync_failing(call)(item), None, name="failing"),
    "an async scan": lambda call: NUMBERS.scan(async_scan(call), None, name="failing"),
    "a flat_map": lambda call: NUMBERS.flat_map(sync_flat(call)),
    "an async flat_map": lambda call: NUMBERS.flat_map(async_flat(call)),
    "a cost": lambda call: NUMBERS.batch(
        max_cost=1, cost=lambda x: (sync_failing(call)(x) and 1) or 1, name="failing"
    ).unbatch(),
    "a merged input": lambda call: merge(NUMBERS.map(call)),
    "a concat": lambda call: concat(NUMBERS.take(0), NUMBERS.map(call)),
    "behind a buffer": lambda call: NUMBERS.map(sync_failing(call)).buffer(1).map(lambda item: item),
    "above a pool": lambda call: NUMBERS.map(sync_failing(call)).map(failing(), concurrency=4),
    "above a fused batch": lambda call: NUMBERS.map(sync_failing(call)).batch(7).unbatch(),
    "above a timed batch": lambda call: NUMBERS.map(call).batch(7, max_delay=9).unbatch(),
    "in the stage of a timed batch": lambda call: NUMBERS.map(sync_failing(call)).batch(7, max_delay=9).unbatch(),
    "behind a throttle": lambda call: NUMBERS.throttle(RateLimit(9, burst=4)).map(sync_failing(call)),
}
SOURCE_PLACES = {
    "an iterable": lambda call: Pipeline.from_iterable(source_failing(call), name="failing"),
    "an async iterable": lambda call: Pipeline.from_async_iterable(async_source_failing(call), name="failing"),
    "a producer": lambda call: Pipeline.from_producer(producer_failing(call), name="failing"),
    "a channel": lambda call: Pipeline.from_channel(channel_failing(call), name="failing"),
}
EVERYWHERE = PLACES | SOURCE_PLACES


@pytest.mark.parametrize("place", EVERYWHERE)
def test_items_before_it_then_the_original_error_at_every_later_receive(place):
    """The same object each time, with one note of each kind, and nothing of trio or of ours around it."""
    call = failing(3)
    error = call.errors[3]

    async def main():
        items, met = [], []
        with pytest.raises(Boom) as left:
            async with EVERYWHERE[place](call).open() as run:
                with pytest.raises(Boom) as first:
                    while True:
                        items.append(await run.receive())
                met.append(first.value)
                for _ in range(2):
                    with pytest.raises(Boom) as again:
                        await run.receive()
                    met.append(again.value)
                with pytest.raises(Boom) as iterated:
                    async for _ in run:
                        pass
                met.append(iterated.value)
                raise error
        return items, [*met, left.value], run.report

    items, met, report = run_virtual(main)
    where = "in stage 'failing', item 3"

    assert items == [0, 1, 2]
    assert all(each is error for each in met)
    assert error.__notes__ == [where]
    assert (error.__cause__, error.__context__) == (None, None)
    assert (report.outcome, report.error) == ("failed", error)
    assert report.failed == (place not in SOURCE_PLACES)


@pytest.mark.parametrize("place", EVERYWHERE)
@pytest.mark.parametrize("ending", ["run", "collect", "count", "fold"])
def test_the_original_error_from_every_ending(place, ending):
    """`run`, `collect` and the others raise the object itself, not a group of it."""
    call = failing(3)
    pipeline = EVERYWHERE[place](call)
    drive = {
        "run": pipeline.run,
        "collect": pipeline.collect,
        "count": pipeline.count,
        "fold": lambda: pipeline.fold(lambda state, item: item, None),
    }[ending]

    async def main():
        with pytest.raises(Boom) as caught:
            await drive()
        return caught.value

    assert run_virtual(main) is call.errors[3]


ENDS = [StopIteration(3), StopAsyncIteration(), trio.EndOfChannel()]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: type(end).__name__)
@pytest.mark.parametrize(
    "place", ["a sync map", "a filter", "a scan", "a flat_map", "a cost", "an async map", "an async flat_map"]
)
def test_an_end_that_user_code_raises_is_an_error(place, end):
    """It arrives as a RuntimeError whose cause is the original object; the stream does not quietly end."""
    items, error, report, _ = run_virtual(outcome_of, PLACES[place](failing(3, error=end)))
    while isinstance(error, RuntimeError) and error.__cause__ is not end and error.__cause__ is not None:
        error = error.__cause__  # Python's own: a generator or a coroutine may not raise these

    assert items == [0, 1, 2]
    assert isinstance(error, RuntimeError)
    assert error.__cause__ is end
    assert report.outcome == "failed"


def test_an_end_that_a_channel_wrapper_raises_by_mistake_is_an_error():
    """`StopIteration` and `StopAsyncIteration` out of a source that has another way to end."""

    class Channel(trio.abc.ReceiveChannel):
        async def receive(self):
            raise StopAsyncIteration

        async def aclose(self):
            pass

    _items, error, _report, _ = run_virtual(outcome_of, Pipeline.from_channel(Channel()))

    assert isinstance(error, RuntimeError)
    assert isinstance(error.__cause__, StopAsyncIteration)


# ---- above it nothing starts, before it everything ends, behind it all is given up


def test_above_a_failure_nothing_starts_and_earlier_calls_are_finished():
    """Item 3 of 20 fails at t = 1; the calls of 1 and 2 end at 5 and are delivered, those of 4 and 5 are cancelled."""
    started, ended, pulled = [], [], []

    def source():
        for number in range(20):
            pulled.append((number, trio.current_time()))
            yield number

    async def call(item):
        started.append((item, trio.current_time()))
        await trio.sleep({3: 1}.get(item, 5))
        if item == 3:
            raise Boom
        ended.append(item)
        return item

    pipeline = Pipeline.from_iterable(source).buffer(2).map(call, concurrency=5)
    items, error, report, told = run_virtual(outcome_of, pipeline)

    assert items == sorted(ended) == [0, 1, 2]
    assert isinstance(error, Boom)
    assert started == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]
    assert all(time <= 0 for _number, time in pulled)
    assert [(item, reason) for item, _stage, reason in told if item <= 4] == [(4, "behind a failure")]
    assert {reason for _item, _stage, reason in told} == {"behind a failure"}
    assert (report.failed, report.taken) == (1, 3 + 1 + len(told))
    assert 3 not in [item for item, _stage, _reason in told]


def test_the_source_is_closed_at_the_instant_of_the_failure():
    """Not when the error is read: the consumer here comes 100 s later."""
    closed = []

    async def source():
        try:
            for number in range(100):
                yield number
                await trio.sleep(1)
        finally:
            closed.append(trio.current_time())

    async def main():
        async with Pipeline.from_async_iterable(source).map(failing(3)).open() as run:
            await trio.sleep(100)
            items = []
            with pytest.raises(Boom):
                async for item in run:
                    items.append(item)
            return items

    assert run_virtual(main) == [0, 1, 2]
    assert closed == [3]


def test_the_source_is_closed_although_an_earlier_call_goes_on():
    """Item 1 fails at t = 2; the call of item 0 continues until 50; the source is asked no more from 2 on."""
    closed = []

    async def source():
        try:
            for number in range(100):
                await trio.sleep(1)
                yield number
        finally:
            closed.append(trio.current_time())

    call = failing(1, delays={0: 49})
    pipeline = Pipeline.from_async_iterable(source).map(call, concurrency=5)
    items, error, report, _told = run_virtual(outcome_of, pipeline)

    assert (items, error, closed, report.elapsed) == ([0], call.errors[1], [2], 50)


def test_stages_below_still_process_what_came_before():
    """The slow stage behind the failure is not cut short: it has four items to go when stage `failing` fails."""
    pipeline = NUMBERS.map(failing(4)).map(failing(delay=10), name="slow")
    items, error, report, told = run_virtual(outcome_of, pipeline)

    assert items == [0, 1, 2, 3]
    assert isinstance(error, Boom)
    assert report.elapsed == 40
    assert {stage for _item, stage, _reason in told} <= {"iterable", "failing"}


# ---- two failures


SECOND = {
    "the same stage": lambda a, b: NUMBERS.map(merged(a, b), concurrency=10),
    "a later stage": lambda a, b: NUMBERS.map(b, concurrency=10).map(a, concurrency=2),
    "a later fused one": lambda a, b: NUMBERS.map(b, concurrency=10).map(sync_failing(a)),
    "behind a flat_map": lambda a, b: NUMBERS.map(b, concurrency=10).flat_map(sync_flat(a)),
    "behind a batch": lambda a, b: NUMBERS.map(b, concurrency=10).batch(2).unbatch().map(sync_failing(a)),
    "behind a merge": lambda a, b: merge(NUMBERS.map(b, concurrency=10)).map(a),
    "behind a concat": lambda a, b: concat(NUMBERS.map(b, concurrency=10), NUMBERS).map(a),
    "behind a zip": lambda a, b: zip_pipelines(NUMBERS.map(b, concurrency=10)).unbatch().map(a),
    "a timed batch between": lambda a, b: NUMBERS.map(b, concurrency=10).batch(3, max_delay=2).unbatch().map(a),
}


def merged(a, b):
    async def call(item):
        return await (a if item in a.errors else b)(item)

    return call


@pytest.mark.parametrize("where", SECOND)
@pytest.mark.parametrize("seed", range(20))
def test_the_earlier_of_two_failures_is_the_error(where, seed):
    """Item 5 fails at once, item 2 at least 3 s later, in the same or a later stage: 2 is the error, in any order."""
    early, late = failing(2, delays={2: 3}), failing(5, delays={2: 3})
    with scheduled(Schedule(seed)):
        items, error, report, told = run_virtual(outcome_of, SECOND[where](early, late))

    assert items == [0, 1]
    assert error is early.errors[2]
    assert report.error is error
    assert late.errors[5] in report.cleanup_errors
    assert report.failed == 1
    assert {reason for _item, _stage, reason in told} == {"behind a failure"}
    assert sorted(item for item, _stage, _reason in told).count(5) == 1
    assert 2 not in [item for item, _stage, _reason in told]


def test_a_failure_nobody_read_is_kept_and_not_raised():
    """The consumer leaves before it: no error is raised, `report.error` has it."""
    call = failing(3)

    async def main():
        async with NUMBERS.map(call).open() as run:
            await run.receive()
            await trio.sleep(1)
        return run.report

    report = run_virtual(main)
    assert report.outcome == "left"
    assert report.error is call.errors[3]


def test_a_failure_whose_items_a_take_does_not_need_is_kept_and_not_raised():
    """As above where `take` is the one who leaves."""
    call = failing(3)
    pipeline = NUMBERS.map(call, concurrency=5).map(failing(delay=1)).take(2)
    items, error, report, _told = run_virtual(outcome_of, pipeline)

    assert (items, error, report.outcome) == ([0, 1], None, "completed")
    assert report.error is call.errors[3]


# ---- merges


def test_in_a_merge_the_failure_stands_where_the_next_item_of_its_input_would():
    """What the merge handed over before is delivered; the failure of one input takes its turn among the others."""
    call = failing(2)
    pipeline = merge(NUMBERS.map(sync_failing(call)), Pipeline.from_iterable(range(100, 120)))
    items, error, _report, told = run_virtual(outcome_of, pipeline)

    assert error is call.errors[2]
    assert [item for item in items if item < 100] == [0, 1]
    assert [item for item in items if item >= 100] in ([100, 101], [100, 101, 102])
    assert {reason for _item, _stage, reason in told} == {"behind a failure"}


def test_the_other_inputs_go_on_until_the_merge_reaches_the_failure():
    """By weight 1:9 the failure of the light input, there from the start, comes after items of the heavy one."""
    call = failing(1)
    share = FairShare({"light": 1, "heavy": 9})
    pipeline = fair_merge(
        {"light": NUMBERS.map(sync_failing(call)), "heavy": Pipeline.from_iterable(range(100, 200))}, share
    )
    items, error, _report, _told = run_virtual(outcome_of, pipeline)

    assert error is call.errors[1]
    assert [item for item in items if item < 100] == [0]
    assert 8 <= len([item for item in items if item >= 100]) <= 10


@pytest.mark.parametrize("fan_in", [merge, concat, zip_pipelines])
def test_a_strict_zip_says_its_error_in_every_place(fan_in):
    """The shorter input is known to have ended 5 s before the longer one is known to have an item."""

    async def later():
        yield 1
        await trio.sleep(5)
        yield 2

    zipped = zip_pipelines(Pipeline.from_iterable([1]), Pipeline.from_async_iterable(later), strict=True, name="strict")
    items, error, report, _told = run_virtual(outcome_of, fan_in(zipped))

    assert items == [((1, 1),)] if fan_in is zip_pipelines else [(1, 1)]
    assert str(error) == "zip 'strict': input 0 ended after 1 items, others did not"
    assert report.elapsed == 5


# ---- the same result under every schedule


DELAYS = [{}, {5: 4, 3: 1}, {2: 3, 4: 0.5, 7: 2}]


@pytest.mark.parametrize("delays", DELAYS)
@pytest.mark.parametrize("capacity", [1, 2, 16])
def test_items_and_error_do_not_depend_on_the_schedule(delays, capacity):
    """200 random orders of tasks: the same items, the same error, though three stages fail at different items."""
    results = set()
    for seed, concurrency in product(range(22), (1, 3, 8)):
        first, second = failing(9, 5, delays=delays), failing(7, delays=delays)
        pipeline = (
            NUMBERS.map(first, concurrency=concurrency)
            .buffer(capacity)
            .map(second, concurrency=2)
            .batch(2)
            .unbatch()
            .filter(lambda item: item % 3 != 1)
            .map(failing(8, delay=0.25), concurrency=2)
        )
        with scheduled(Schedule(seed)):
            items, error, report, _told = run_virtual(outcome_of, pipeline)
        results.add((tuple(items), error.args, report.outcome))

    assert results == {((0, 2, 3), (5,), "failed")}


# ---- with policies

LIMITED = OnError.skip(max_failures=1)
LIMIT = "2 of {} items failed, more than max_failures=1"
CROSSING = {
    "a sync map": lambda call: NUMBERS.map(sync_failing(call), on_error=LIMITED),
    "an async map": lambda call: NUMBERS.map(call, on_error=LIMITED),
    "an ordered pool": lambda call: NUMBERS.map(call, concurrency=5, on_error=LIMITED),
    "keys": lambda call: NUMBERS.map(call, concurrency=5, key=lambda item: item % 3, on_error=LIMITED),
    "a flat_map": lambda call: NUMBERS.flat_map(sync_flat(call), on_error=LIMITED),
    "an async flat_map": lambda call: NUMBERS.flat_map(async_flat(call), on_error=LIMITED),
    "above a batch": lambda call: NUMBERS.map(call, concurrency=3, on_error=LIMITED).batch(4).unbatch(),
    "above a pool": lambda call: NUMBERS.map(call, concurrency=3, on_error=LIMITED).map(failing(), concurrency=4),
    "in a merge": lambda call: merge(NUMBERS.map(call, concurrency=3, on_error=LIMITED)),
}


@pytest.mark.parametrize("place", CROSSING)
@pytest.mark.parametrize("seed", range(3))
def test_the_failure_that_crosses_a_limit_is_an_event_as_any_other(place, seed):
    """All but the skipped item before it, then the object itself, again at each later receive; the note says why."""
    call = failing(2, 5, 6, delays={2: 3})
    error = call.errors[5]

    async def main():
        items, met = [], []
        with pytest.raises(Boom):
            async with CROSSING[place](call).open() as run:
                for _ in range(2):
                    with pytest.raises(Boom) as caught:
                        while True:
                            items.append(await run.receive())
                    met.append(caught.value)
                raise caught.value
        return items, met, run.report

    with scheduled(Schedule(seed)):
        items, met, report = run_virtual(main)

    assert items == [0, 1, 3, 4]
    assert met == [error, error]
    assert error.__notes__ == ["in stage 'failing', item 5", LIMIT.format(6)]
    assert (error.__cause__, error.__context__) == (None, None)
    assert (report.outcome, report.error, report.failed) == ("failed", error, 2)


def test_the_source_is_closed_at_the_instant_at_which_a_limit_is_crossed():
    """Item 3 is one too many when its turn comes, at t = 4, not when it failed; the consumer here comes 100 s later."""
    closed = []

    async def source():
        try:
            for number in range(100):
                yield number
                await trio.sleep(0.25)
        finally:
            closed.append(trio.current_time())

    async def main():
        call = failing(1, 3, delays={1: 1, 2: 3.5, 3: 2, 4: 50})
        async with Pipeline.from_async_iterable(source).map(call, concurrency=5, on_error=LIMITED).open() as run:
            await trio.sleep(100)
            items = []
            with pytest.raises(Boom):
                async for item in run:
                    items.append(item)
            return items, run.statistics().failed

    assert run_virtual(main) == ([0, 2], 2)
    assert closed == [4]


def test_of_two_failures_the_earlier_is_the_error_whatever_policies_there_are():
    """A stage below whose divert fails at item 2, at t = 9, wins over one above whose limit item 5 crossed at t = 0."""

    async def divert(failure):
        await trio.sleep(9)
        raise KeyError(failure.item)

    early, late = failing(2), failing(0, 5)
    pipeline = NUMBERS.map(late, concurrency=10, on_error=LIMITED).map(
        early, concurrency=2, on_error=OnError.divert(divert)
    )
    for seed in range(20):
        with scheduled(Schedule(seed)):
            items, error, report, told = run_virtual(outcome_of, pipeline)

        assert (items, error.args, error.__context__) == ([1], (2,), early.errors[2])
        assert report.error is error
        assert late.errors[5] in report.cleanup_errors
        assert report.failed == 2
        assert sorted(item for item, _stage, _reason in told).count(5) == 1


@pytest.mark.parametrize("delays", DELAYS)
def test_with_policies_items_and_error_do_not_depend_on_the_schedule(delays):
    """Three stages that skip, divert and emit, and a fourth that is stopped by a limit: one result for all orders."""
    results = set()

    async def divert(failure):
        await trio.sleep((delays or {}).get(failure.item, 0))

    for seed, concurrency in product(range(12), (1, 3, 8)):
        pipeline = (
            NUMBERS.map(failing(1, 4, delays=delays), concurrency=concurrency, on_error=OnError.skip())
            .buffer(2)
            .map(failing(2, 7, delays=delays), concurrency=concurrency, on_error=OnError.divert(divert))
            .map(failing(3, delays=delays), concurrency=2, on_error=OnError.emit())
            .filter(lambda value: isinstance(value, int))
            .buffer(1)
            .map(failing(0, 9, 12, delays=delays), concurrency=concurrency, key=id, on_error=LIMITED)
        )
        with scheduled(Schedule(seed)):
            items, error, report, _told = run_virtual(outcome_of, pipeline)
        results.add((tuple(items), error.args, tuple(error.__notes__), report.outcome))

    notes = ("in stage 'failing#4', item 4", LIMIT.format(5))
    assert results == {((5, 6, 8), (9,), notes, "failed")}


def test_one_error_given_to_several_receivers_has_its_notes_once():
    """Three tasks receive; each gets the same object, whose notes say the place once."""
    call = failing(3)
    met = []

    async def receiver(run):
        try:
            while True:
                await run.receive()
        except Boom as error:
            met.append(error)

    async def main():
        async with NUMBERS.map(call).open() as run, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(receiver, run)

    run_virtual(main)
    assert met == [call.errors[3]] * 3
    assert met[0].__notes__ == ["in stage 'failing', item 3"]


def test_the_users_own_group_passes_unchanged():
    """P5, P18: an ExceptionGroup that user code raises is the error, not taken apart."""
    group = ExceptionGroup("mine", [Boom(1), Boom(2)])
    items, error, _report, _told = run_virtual(outcome_of, NUMBERS.map(failing(3, error=group)))

    assert items == [0, 1, 2]
    assert error is group


def test_a_function_that_raises_an_error_it_made_before_keeps_its_cause():
    """The cause and context of the original object are the user's."""

    def fn(item):
        try:
            {}[item]
        except KeyError as error:
            raise Boom(item) from error

    _items, error, _report, _told = run_virtual(outcome_of, NUMBERS.map(fn))

    assert isinstance(error, Boom)
    assert isinstance(error.__cause__, KeyError)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda line: line.take(3), [0, 1, 2]),
        (lambda line: line.take_while(lambda item: item < 2), [0, 1]),
        (lambda line: line.map(str).take(3).enumerate(), [(0, "0"), (1, "1"), (2, "2")]),
    ],
    ids=["take", "take_while", "further down"],
)
@pytest.mark.parametrize("capacity", [None, 1], ids=["fused", "behind a link"])
def test_a_stream_that_ends_with_what_was_let_out_ahead_of_a_failure_has_ended_well(is_async, end, expected, capacity):
    """The batch goes out before the failure; a consumer that needs no more of it gets no failure, fused or not."""
    call = failing(3)

    def fn(item):
        return item + 0 // (3 - item)

    batches = NUMBERS.map(call if is_async else fn).batch(9)
    line = batches if capacity is None else batches.buffer(capacity)
    items, error, report, _told = run_virtual(outcome_of, end(line.unbatch()))

    assert items == expected
    assert error is None
    assert report.outcome == "completed"
    assert isinstance(report.error, Boom if is_async else ZeroDivisionError)
    assert report.failed == 1


LET_OUT = {
    "batch": lambda line: line.batch(9),
    "timed batch": lambda line: line.batch(9, max_delay=1.0),
    "timed batch behind a link": lambda line: line.buffer(2).batch(9, max_delay=1.0),
    "batch behind a pool": lambda line: line.map(failing()).batch(9),
}


@pytest.mark.parametrize("gather", LET_OUT.values(), ids=LET_OUT)
def test_what_fails_at_the_batch_that_goes_out_at_the_end_is_no_good_end(gather):
    """Catches a chain that counts as ended ahead of its own failure: the run would complete, and say nothing."""
    error = Boom("batch")

    def fail(batch):
        raise error

    items, met, report, _told = run_virtual(outcome_of, gather(Pipeline.from_iterable(range(3))).map(fail, name="late"))

    assert (items, report.outcome, report.failed) == ([], "failed", 1)
    assert met is error
    assert met.__notes__ == ["in stage 'late', item 0"]


def test_of_two_failures_in_one_stage_that_of_the_earlier_item_counts():
    """The batch goes out before the later failure, and fails itself; the later one is kept, its item discarded."""
    early, late = Boom("early"), Boom("late")

    def fail_late(item):
        if item == 2:
            raise late
        return item

    def fail(batch):
        raise early

    line = Pipeline.from_iterable(range(9), name="feed").map(fail_late).batch(9).map(fail)
    items, met, report, told = run_virtual(outcome_of, line)

    assert items == []
    assert met is early
    assert report.cleanup_errors == (late,)
    assert (report.taken, report.failed, told) == (3, 1, [(2, "feed", "behind a failure")])


@pytest.mark.parametrize("late", [0, 2])
def test_a_batch_whose_time_is_over_goes_out_before_a_cost_that_fails(late):
    """It came before, whether the clock has already closed it or not."""

    def numbers():
        yield from (1, 2)
        trio.lowlevel.current_clock().jump(late)  # a sync iterable that takes its time
        yield 3

    def cost(item):
        if item == 3:
            raise OSError
        return 1

    async def main():
        got = []
        with pytest.raises(OSError):
            async with Pipeline.from_iterable(numbers).batch(max_cost=9, cost=cost, max_delay=1).open() as run:
                async for batch in run:
                    got.append(batch)
        return got, run.report.discarded

    assert run_virtual(main) == ([[1, 2]], 0)
