"""`Hub`: who gets an item, who waits for whom, and what a cancelled send has done.

Mutants that die here: an item that reached some subscriptions and not others; a sender that overtakes; a sender not let
go on when the slow subscription is closed, read or cancelled; an item sent to one that came later; an end before what
waits; a lagging subscription that holds up, or ends, the others; an async function without a checkpoint.
"""

from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import BufferOverflow, Hub, Pipeline
from funcpipe_trio.testing import Scenario, cancel_everywhere, drain_everywhere, explore_schedules, run_virtual
from tests._kit import Boom, in_virtual_time

LAGS = ("block", "drop_oldest", "drop_newest", "fail")
every_lag = pytest.mark.parametrize("lag", LAGS)


async def all_of(channel):
    return [item async for item in channel]


# ---- who gets what


@every_lag
async def test_everybody_gets_every_item_from_its_subscription_on(lag):
    hub = Hub(9, lag)
    await hub.send(0)
    one = hub.subscribe()
    await hub.send(1)
    with hub.subscribe() as other:
        hub.send_nowait(2)
        await hub.aclose()
        assert await all_of(one) == [1, 2]
        assert await all_of(other) == [2]
    found = hub.statistics()
    assert (found.sent, found.unheard, found.dropped) == (3, 1, 0)


async def test_without_a_subscription_an_item_is_dropped_and_counted():
    hub = Hub(1)
    for _ in range(5):
        with trio.testing.assert_checkpoints():
            await hub.send(1)
    assert hub.statistics().unheard == hub.statistics().sent == 5


async def test_several_tasks_share_a_subscription_in_the_order_in_which_they_came():
    hub, got = Hub(4), []

    async def take(number):
        got.append((number, await items.receive()))

    with hub.subscribe() as items:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(take, number)
                await trio.testing.wait_all_tasks_blocked()
            assert items.statistics().tasks_waiting_receive == 3
            for item in "abc":
                hub.send_nowait(item)
    assert sorted(got) == [(0, "a"), (1, "b"), (2, "c")]


# ---- one that has no room


async def test_block_waits_for_room_in_every_queue_and_senders_keep_their_order():
    hub, sent = Hub(1), []
    fast, slow = hub.subscribe(), hub.subscribe()

    async def send(item):
        await hub.send(item)
        sent.append(item)

    async with trio.open_nursery() as nursery:
        for item in range(4):
            nursery.start_soon(send, item)
            await trio.testing.wait_all_tasks_blocked()
        assert sent == [0]
        assert [fast.receive_nowait(), *_rest(fast)] == [0]  # 1 waits for the slow one, so nobody has it
        with pytest.raises(trio.WouldBlock):
            hub.send_nowait(9)
        assert hub.statistics().tasks_waiting_send == 3
        for item in range(4):
            assert await slow.receive() == item
            await trio.testing.wait_all_tasks_blocked()
            assert _rest(fast) == [item + 1] if item < 3 else not _rest(fast)
    assert sent == [0, 1, 2, 3]


def _rest(channel):
    items = []
    while True:
        try:
            items.append(channel.receive_nowait())
        except trio.WouldBlock:
            return items


@pytest.mark.parametrize("how", ["close", "aclose", "read"])
async def test_a_slow_subscriber_that_goes_lets_the_others_go_on(how):
    hub = Hub(1)
    with hub.subscribe() as other, hub.subscribe() as slow:
        await hub.send(0)
        assert await other.receive() == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.send, 1)
            await trio.testing.wait_all_tasks_blocked()
            if how == "read":
                slow.receive_nowait()
            elif how == "close":
                slow.close()
            else:
                await slow.aclose()
        assert await other.receive() == 1


async def test_a_cancelled_send_has_reached_nobody():
    hub = Hub(1)
    with hub.subscribe() as one, hub.subscribe() as two:
        await hub.send(0)
        assert await one.receive() == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.send, 1)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(hub.send, 2)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert _rest(one) == []
        assert _rest(two) == [0]
        assert hub.statistics().sent == 1
        hub.send_nowait(3)
        assert _rest(one) == _rest(two) == [3]


async def test_a_cancelled_receive_has_taken_nothing():
    hub = Hub(1)
    with hub.subscribe() as one:
        with trio.move_on_after(0):
            await one.receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.receive)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        hub.send_nowait(0)
        assert await one.receive() == 0


@pytest.mark.parametrize(("lag", "kept"), [("drop_oldest", [3, 4]), ("drop_newest", [0, 1])])
async def test_those_that_drop_make_nobody_wait(lag, kept):
    hub = Hub(2, lag)
    with hub.subscribe() as slow, hub.subscribe() as fast:
        for item in range(5):
            await hub.send(item)
            assert await fast.receive() == item
        assert _rest(slow) == kept
        assert slow.statistics().dropped == hub.statistics().dropped == 3


async def test_fail_ends_the_lagging_one_behind_what_it_has_and_the_others_go_on():
    hub = Hub(2, "fail")
    with hub.subscribe() as slow, hub.subscribe() as fast:
        for item in range(5):
            await hub.send(item)
            assert await fast.receive() == item
        assert len(hub.statistics().subscriptions) == 1
        hub.close()
        assert [await slow.receive(), await slow.receive()] == [0, 1]
        for _ in range(2):
            with pytest.raises(BufferOverflow, match="was given up: its queue of 2 was full"):
                await slow.receive()
        with pytest.raises(trio.EndOfChannel):
            await fast.receive()


# ---- ending


@every_lag
async def test_close_ends_each_subscription_behind_what_waits_in_it(lag):
    hub = Hub(3, lag)
    one = hub.subscribe()
    waiting = hub.subscribe()
    hub.send_nowait("a")
    assert await waiting.receive() == "a"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ends, waiting)
        await trio.testing.wait_all_tasks_blocked()
        hub.close()
    assert await all_of(one) == ["a"]
    for send in (hub.send, hub.aclose):  # again
        if send == hub.aclose:
            await send()
        else:
            with pytest.raises(trio.ClosedResourceError):
                await send(1)
    with pytest.raises(trio.ClosedResourceError):
        hub.send_nowait(1)
    with pytest.raises(trio.ClosedResourceError):
        hub.subscribe()


async def _ends(channel):
    with pytest.raises(trio.EndOfChannel):
        await channel.receive()


async def test_close_refuses_those_that_wait_to_send():
    hub = Hub(1)
    one = hub.subscribe()
    await hub.send(0)

    async def refused():
        with pytest.raises(trio.ClosedResourceError):
            await hub.send(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused)
        await trio.testing.wait_all_tasks_blocked()
        hub.close()
    assert await all_of(one) == [0]


async def test_a_closed_subscription_receives_nothing():
    hub = Hub(1)
    one = hub.subscribe()

    async def refused():
        with pytest.raises(trio.ClosedResourceError):
            await one.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused)
        await trio.testing.wait_all_tasks_blocked()
        one.close()
    one.close()
    await refused()
    assert hub.statistics().subscriptions == ()
    with Hub(1) as other:
        gone = other.subscribe()
    await _ends(gone)


async def test_every_async_function_is_a_checkpoint():
    hub = Hub(2)
    one, two = hub.subscribe(), hub.subscribe()
    with trio.testing.assert_checkpoints():
        await hub.send(0)
    with trio.testing.assert_checkpoints():
        await one.receive()
    with trio.testing.assert_checkpoints():
        await two.aclose()
    with trio.testing.assert_checkpoints():
        await hub.aclose()
    for refused, kind in ((partial(hub.send, 1), trio.ClosedResourceError), (one.receive, trio.EndOfChannel)):
        with trio.testing.assert_checkpoints(), pytest.raises(kind):
            await refused()
    with trio.CancelScope() as scope:
        scope.cancel()
        await hub.aclose()
    assert scope.cancelled_caught


@pytest.mark.parametrize("bad", [0, -1])
def test_a_capacity_below_one_is_refused(bad):
    with pytest.raises(ValueError, match=rf"^Hub: capacity must be >= 1, not {bad}$"):
        Hub(bad)


def test_a_wrong_argument_is_refused():
    with pytest.raises(TypeError, match=r"^Hub: capacity must be an int >= 1, not True$"):
        Hub(True)
    with pytest.raises(
        ValueError, match=r"^Hub: lag must be 'block', 'drop_oldest', 'drop_newest' or 'fail', not 'x'$"
    ):
        Hub(1, "x")
    with pytest.raises(TypeError, match=r"^Hub: lag must be"):
        Hub(1, None)


# ---- the law


@settings(max_examples=150, deadline=None)
@given(
    capacity=st.integers(1, 3),
    lag=st.sampled_from(LAGS),
    senders=st.lists(st.lists(st.integers(0, 2), max_size=5), min_size=1, max_size=3),
    readers=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(1, 9)), max_size=3),
    stop=st.integers(0, 12),
)
def test_each_subscription_gets_what_was_sent_while_it_was_there_in_one_order(  # noqa: C901
    capacity, lag, senders, readers, stop
):
    """All see the same order; with ``block`` nothing is missing in it; a cancelled send is nowhere."""

    async def main():
        hub, log, done, got = Hub(capacity, lag), [], [], []

        async def send(number, pauses):
            for at, pause in enumerate(pauses):
                await trio.sleep(pause)
                await hub.send((number, at))
                done.append((number, at))

        async def listen(items):
            with suppress(BufferOverflow):
                async for item in items:
                    log.append(item)

        async def read(begin, pause, most):
            await trio.sleep(begin)
            try:
                subscription = hub.subscribe()
            except trio.ClosedResourceError:
                return
            with subscription as items:
                mine = []
                got.append((len(log), mine))
                try:
                    while len(mine) < most:
                        mine.append(await items.receive())
                        await trio.sleep(pause)
                except (trio.EndOfChannel, BufferOverflow):
                    pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, hub.subscribe())
            for reader in readers:
                nursery.start_soon(read, *reader)
            with trio.move_on_after(stop + 0.5):
                async with trio.open_nursery() as sending:
                    for number, pauses in enumerate(senders):
                        sending.start_soon(send, number, pauses)
            hub.close()
        return hub.statistics(), log, done, got

    found, log, done, got = run_virtual(main)
    if lag == "block":
        assert sorted(log) == sorted(done)
        assert found.sent == len(done)
    for number in range(len(senders)):
        assert [at for each, at in log if each == number] == sorted(at for each, at in log if each == number)
    for _since, mine in got:
        places = [log.index(item) for item in mine if item in log]
        assert places == sorted(set(places))
        if lag == "block" and places:
            assert places == [*range(places[0], places[0] + len(mine))]


# ---- with pipelines


async def one_step(item):
    await trio.sleep(item % 2)
    return item


@in_virtual_time
async def test_results_of_one_pipeline_into_several():
    hub, got = Hub(2), {}

    async def listen(name, count, task_status):
        subscription = hub.subscribe()
        task_status.started()
        line = Pipeline.from_channel(subscription).map(one_step, concurrency=2)
        got[name] = await (line.take(count) if count else line).collect()

    async with trio.open_nursery() as nursery:
        await nursery.start(listen, "all", 0)
        await nursery.start(listen, "three", 3)
        report = await Pipeline.from_iterable(range(20)).run_into(hub)
        assert report.delivered == 20
        assert report.outcome == "completed"
        hub.send_nowait(20)  # it is not closed
        hub.close()
    assert got == {"all": [*range(21)], "three": [0, 1, 2]}


async def test_run_into_any_channel_and_what_it_says_of_a_closed_one():
    send, receive = trio.open_memory_channel(9)
    with receive:
        await Pipeline.from_iterable(range(3)).run_into(send)
        assert [receive.receive_nowait() for _ in range(3)] == [0, 1, 2]
    hub = Hub(1)
    hub.close()
    with pytest.raises(trio.ClosedResourceError) as caught:
        await Pipeline.from_iterable(range(3)).run_into(hub)
    assert caught.value.__notes__ == ["in stage 'send', item 0"]
    with pytest.raises(TypeError, match=r"^Pipeline.run_into: channel must be a channel with a method send, not 5$"):
        await Pipeline.from_iterable(range(3)).run_into(5)


@in_virtual_time
async def test_run_into_can_be_started_and_drained():
    hub = Hub(1)
    with hub.subscribe() as items:
        async with trio.open_nursery() as nursery:
            run = await nursery.start(Pipeline.from_iterable(range(100)).run_into, hub)
            assert await items.receive() == 0
            run.drain_nowait()
            rest = 1
            while run.report is None or not rest > 99:
                with trio.move_on_after(1):
                    assert await items.receive() == rest
                    rest += 1
                    continue
                break
    assert run.report.outcome == "drained"
    assert run.report.delivered == rest


@in_virtual_time
async def test_a_failure_passes_and_the_hub_stays_open():
    def fails():
        yield 1
        raise Boom

    hub = Hub(5)
    with hub.subscribe() as items:
        with pytest.raises(Boom):
            await Pipeline.from_iterable(fails).run_into(hub)
        hub.send_nowait(2)
        assert [items.receive_nowait(), items.receive_nowait()] == [1, 2]


def subscribed():
    """A pipeline on a hub that was filled and closed."""
    hub = Hub(9)
    subscription = hub.subscribe()
    for item in range(6):
        hub.send_nowait(item)
    hub.close()
    return Pipeline.from_channel(subscription).map(one_step, concurrency=2)


@pytest.mark.parametrize("campaign", [cancel_everywhere, drain_everywhere, explore_schedules])
def test_campaigns(campaign):
    campaign(Scenario(subscribed))


@every_lag
async def test_what_a_subscription_still_has_is_drained(lag):
    hub, told = Hub(50, lag), []
    plan = Pipeline.from_channel(hub.subscribe())
    async with plan.open(on_discard=lambda *given: told.append(given)) as run:
        for item in range(50):
            hub.send_nowait(item)
        assert await run.receive() == 0
        run.drain_nowait()
        assert [item async for item in run] == [*range(1, 50)]
    assert told == []
    assert hub.statistics().subscriptions == ()
