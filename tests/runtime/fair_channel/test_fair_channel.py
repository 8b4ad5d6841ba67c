"""The fair channel in virtual time; mutants of `fair_channel.py`, `fair_input.py`, `fair_group.py` that the tests kill:

- the charge after a checkpoint, or a cancellable checkpoint after the removal: the cancel storm;
- an abort function that leaves the item in place: the cancel storm, cancelled senders;
- `_pop` that does not refill from a waiting sender: shares of greedy producers;
- a receiver not woken at the last close: the close matrix (a deadlock ends the test);
- the end before the first input, or while items are buffered: the close matrix;
- an item charged as 1 whatever it costs: costs count;
- waiting senders or receivers woken last come first served: order;
- a closed input, or a group without members, that stays: a group leaves with its last input.
"""

import re
from collections import Counter
from fractions import Fraction
from itertools import groupby

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from funcpipe_trio._runtime.fair_channel.fair_channel import FairChannel
from funcpipe_trio.policies.fair_share import FairShare
from funcpipe_trio.testing import run_virtual


async def feed(source, items):
    """Send all items, then close."""
    with source:
        for item in items:
            await source.send(item)


async def greedy(source, item):
    """Send the item forever."""
    with source:
        while True:
            await source.send(item)


async def take(channel, count):
    return [await channel.receive() for _ in range(count)]


def full(weights, *, count=10, **options):
    """A channel whose inputs hold `count` items each, their own keys."""
    channel = FairChannel(FairShare(weights, capacity=count, **options))
    for key in weights:
        source = channel.open_input(key)
        for _ in range(count):
            source.send_nowait(key)
    return channel


# Sharing


@pytest.mark.parametrize("capacity", [1, 2, 16])
def test_greedy_producers_get_their_exact_shares(capacity):
    """Weights 10:1 give 10/11 = .9091, whatever the capacity: a waiting sender refills its input at once."""

    async def main():
        channel = FairChannel(FairShare({"heavy": 10}, capacity=capacity))
        async with trio.open_nursery() as nursery:
            for key in ("heavy", "light"):
                nursery.start_soon(greedy, channel.open_input(key), key)
            await wait_all_tasks_blocked()
            got = Counter(await take(channel, 5500))
            nursery.cancel_scope.cancel()
        return got

    assert run_virtual(main) == {"heavy": 5000, "light": 500}


@settings(max_examples=50, deadline=None)
@given(
    weights=st.lists(st.integers(1, 100), min_size=2, max_size=5),
    capacity=st.integers(1, 4),
    burst=st.integers(1, 4),
)
def test_backlogged_inputs_keep_the_bound(weights, capacity, burst):
    """P2 at the instant of hand-over: lag <= 1/w_f + 1/w_m, if no more than the capacity is taken at once."""
    got = []

    async def main():
        channel = FairChannel(FairShare(dict(enumerate(weights)), capacity=capacity))
        async with trio.open_nursery() as nursery:
            for key in range(len(weights)):
                nursery.start_soon(greedy, channel.open_input(key), key)
            await wait_all_tasks_blocked()
            while len(got) < 300:
                for _ in range(min(burst, capacity)):
                    got.append(channel.receive_nowait())
                await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    run_virtual(main)

    counts = [0] * len(weights)
    spans = {}
    for key in got:
        counts[key] += 1
        for one in range(len(weights)):
            for other in range(one):
                lag = Fraction(counts[one], weights[one]) - Fraction(counts[other], weights[other])
                low, high = spans.get((one, other), (0, 0))
                spans[one, other] = (min(low, lag), max(high, lag))
    for (one, other), (low, high) in spans.items():
        assert high - low <= Fraction(1, weights[one]) + Fraction(1, weights[other])


def test_costs_count_instead_of_items():
    """The cost of an item is the argument, else the share's cost function, else 1."""

    async def main():
        channel = FairChannel(FairShare(cost=len, capacity=100))
        long, short, fixed = (channel.open_input(key) for key in ("long", "short", "fixed"))
        for _ in range(100):
            long.send_nowait("xxxx")
            short.send_nowait("x")
            await fixed.send("any", cost=2)
        return Counter(await take(channel, 70))

    assert run_virtual(main) == {"xxxx": 10, "x": 40, "any": 20}


def test_an_input_without_items_delays_nobody():
    """No head-of-line blocking: one item per 1000 s on one input, a thousand at once on the other, by time 1."""

    async def main():
        channel = FairChannel(FairShare({"slow": 1000}))
        times = []

        async def slowly(source):
            with source:
                while True:
                    await trio.sleep(1000)
                    await source.send("slow")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(slowly, channel.open_input("slow"))
            nursery.start_soon(feed, channel.open_input("fast"), range(1000))
            for _ in range(1000):
                await channel.receive()
                times.append(trio.current_time())
            assert await channel.receive() == "slow"
            times.append(trio.current_time())
            nursery.cancel_scope.cancel()
        return times

    assert run_virtual(main) == [0.0] * 1000 + [1000.0]


def test_a_waiting_channel_leaves_virtual_time_alone():
    """Nothing polls: an hour without items is one jump of the clock, and takes no scheduler ticks of its own."""

    class Ticks(trio.abc.Instrument):
        count = 0

        def before_task_step(self, task):
            self.count += 1

    async def main():
        channel = FairChannel()
        ticks = Ticks()

        async def late(source):
            with source:
                await trio.sleep(3600)
                trio.lowlevel.add_instrument(ticks)
                await source.send("late")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(late, channel.open_input("late"))
            assert await channel.receive() == "late"
            trio.lowlevel.remove_instrument(ticks)
        return trio.current_time(), ticks.count

    now, steps = run_virtual(main)
    assert now == 3600
    assert steps <= 2  # the sender continues, the receiver wakes


def test_one_item_costs_one_step_of_each_side():
    """Weights cost nothing in scheduling: two task steps per item, as with a memory channel."""

    class Steps(trio.abc.Instrument):
        count = 0

        def before_task_step(self, task):
            self.count += 1

    async def main():
        channel = FairChannel(FairShare({0: 3}))
        async with trio.open_nursery() as nursery:
            for key in range(10):
                nursery.start_soon(greedy, channel.open_input(key), key)
            await wait_all_tasks_blocked()
            steps = Steps()
            trio.lowlevel.add_instrument(steps)
            await take(channel, 1000)
            trio.lowlevel.remove_instrument(steps)
            nursery.cancel_scope.cancel()
        return steps.count

    assert run_virtual(main) <= 2050


def test_a_sleeper_gets_no_credit():
    async def main():
        channel = FairChannel(FairShare(capacity=1000))
        busy, sleeper = channel.open_input("busy"), channel.open_input("sleeper")
        for _ in range(1000):
            busy.send_nowait("busy")
        await take(channel, 500)
        for _ in range(500):
            sleeper.send_nowait("sleeper")
        return await take(channel, 200)

    assert max(len(list(run)) for _, run in groupby(run_virtual(main))) == 1


def test_receiving_is_in_order_within_an_input():
    async def main():
        channel = FairChannel(FairShare({"a": 3}, capacity=2))
        async with trio.open_nursery() as nursery:
            for key in "abc":
                nursery.start_soon(feed, channel.open_input(key), [(key, number) for number in range(50)])
            return [item async for item in channel]

    got = run_virtual(main)
    for key in "abc":
        assert [number for name, number in got if name == key] == list(range(50))


def test_items_are_opaque():
    """Nothing is hashed, compared or truth-tested: None, NaN, exceptions and worse are items."""

    class Untouchable:
        __hash__ = None

        def __eq__(self, other):
            raise AssertionError

        def __bool__(self):
            raise AssertionError

    items = [None, float("nan"), ValueError("an item"), Untouchable(), trio.EndOfChannel()]

    async def main():
        channel = FairChannel(FairShare(capacity=2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed, channel.open_input("a"), items)
            return [item async for item in channel]

    assert [one is other for one, other in zip(run_virtual(main), items, strict=True)] == [True] * 5


# Groups and weights


def test_a_group_shares_one_weight_among_its_inputs():
    """Tenant a with ten streams against tenant b with one: half each."""

    async def main():
        channel = FairChannel(FairShare(capacity=1))
        tenants = {key: channel.group(key, 1) for key in "ab"}
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(greedy, tenants["a"].open_input(number), "a")
            nursery.start_soon(greedy, tenants["b"].open_input("only"), "b")
            await wait_all_tasks_blocked()
            got = Counter(await take(channel, 1000))
            nursery.cancel_scope.cancel()
        return got

    assert run_virtual(main) == {"a": 500, "b": 500}


def test_weights_of_the_share_name_the_way_to_an_input():
    """A key names an input of the channel, a tuple of keys one in a group; statistics and drain say the same names."""

    async def main():
        share = FairShare({"a": 2, ("t", "x"): 5, ("t", "u", "y"): 7, "misspelt": 9}, default_weight=3, capacity=1)
        channel = FairChannel(share)
        tenant = channel.group("t", 4)
        deep = tenant.group("u")
        for source in (
            channel.open_input("a"),
            tenant.open_input("x"),
            deep.open_input("y"),
            tenant.open_input("z", weight=Fraction(1, 2)),
        ):
            source.send_nowait("item")
        statistics = channel.statistics()
        return {one.key: one.weight for one in statistics.inputs}, statistics.unused_weights, channel.drain_nowait()

    weights, unused, drained = run_virtual(main)
    assert weights == {"a": 2, ("t", "x"): 5, ("t", "u", "y"): 7, ("t", "z"): Fraction(1, 2)}
    assert unused == {"misspelt"}
    assert {key for key, _ in drained} == set(weights)


def test_weights_can_be_changed_while_it_runs():
    async def main():
        channel = full({"a": 1, "b": 1}, count=300)
        before = Counter(await take(channel, 100))
        channel.set_weight("a", 3)
        after = Counter(await take(channel, 200))
        return before, after

    before, after = run_virtual(main)
    assert before == {"a": 50, "b": 50}
    assert abs(after["a"] - 150) <= 1


def test_a_weight_of_a_group_and_in_a_group_can_be_changed():
    async def main():
        channel = FairChannel(FairShare(capacity=500))
        tenant = channel.group("t", 1)
        for source in (tenant.open_input("x"), tenant.open_input("y"), channel.open_input("alone")):
            for _ in range(500):
                source.send_nowait(source._name)
        channel.set_weight("t", 3)
        tenant.set_weight("x", 2)
        return Counter(await take(channel, 400))

    got = run_virtual(main)
    assert abs(got["alone"] - 100) <= 1
    assert abs(got["t", "x"] - 200) <= 1


def test_a_group_leaves_with_its_last_input_and_comes_back():
    async def main():
        channel = FairChannel()
        tenant = channel.group("t", 3)
        channel.set_weight("t", 5)
        inner = tenant.group("u", 1)
        source = inner.open_input("x")
        source.send_nowait(1)
        source.close()
        assert await channel.receive() == 1
        with pytest.raises(ValueError, match=r"^FairChannel: key must name an open input or group, not 't'$"):
            channel.set_weight("t", 1)
        inner.open_input("x").send_nowait(2)
        assert channel._exchange.tree.root.child("t").flow.weight == 5
        assert await channel.receive() == 2

    run_virtual(main)


def test_a_key_that_is_opened_again_keeps_its_debt():
    """Closing and opening between two items gains nothing."""

    async def main():
        channel = FairChannel(FairShare(capacity=100))
        steady = channel.open_input("steady")
        for _ in range(100):
            steady.send_nowait("steady")
        got = Counter()
        while len(got) < 2 or got.total() < 100:
            with channel.open_input("again") as again:
                again.send_nowait("again")
            while "again" in {one.key for one in channel.statistics().inputs}:
                got[await channel.receive()] += 1
        return got

    got = run_virtual(main)
    assert abs(got["again"] - got["steady"]) <= 1


# Custody


lives = st.one_of(
    st.none(),
    st.tuples(st.just("seconds"), st.integers(0, 12)),
    st.tuples(st.just("ticks"), st.integers(0, 12)),
)


async def cancel_after(scope, life):
    """Cancel at a time, when all tasks wait; or in a tick of the scheduler, between the steps of the others."""
    kind, length = life
    if kind == "seconds":
        await trio.sleep(length)
    for _ in range(length if kind == "ticks" else 0):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def send_some(source, name, count, pause, accepted):
    """Send numbered items, and write down those that were accepted."""
    for number in range(count):
        await source.send((name, number))
        accepted.append((name, number))
        if pause:
            await trio.sleep(pause)


async def receive_all(channel, pause, received):
    async for item in channel:
        received.append(item)
        if pause:
            await trio.sleep(pause)


async def live(life, async_fn, *args):
    """Run an async function until it is done, or its life is over."""
    async with trio.open_nursery() as nursery:
        if life is not None:
            nursery.start_soon(cancel_after, nursery.cancel_scope, life)
        await async_fn(*args)
        nursery.cancel_scope.cancel()


@settings(max_examples=150, deadline=None)
@given(
    capacity=st.integers(1, 3),
    senders=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 12), st.integers(0, 2), lives), max_size=5),
    receivers=st.lists(st.tuples(st.integers(0, 2), lives), min_size=1, max_size=3),
)
def test_no_cancellation_loses_or_doubles_an_item(capacity, senders, receivers):
    """Senders and receivers cancelled at any time: what was accepted is received or still inside; orders hold."""
    accepted, received = [], []

    async def main():
        channel = FairChannel(FairShare({1: 5}, capacity=capacity))
        sources = [channel.open_input(key) for key in range(3)]
        async with trio.open_nursery() as receiving:
            for pause, life in receivers:
                receiving.start_soon(live, life, receive_all, channel, pause, received)
            async with trio.open_nursery() as sending:
                for name, (key, count, pause, life) in enumerate(senders):
                    # Receivers may all be gone: nobody sends forever.
                    until = life or ("seconds", 100)
                    sending.start_soon(live, until, send_some, sources[key], name, count, pause, accepted)
            for source in sources:
                source.close()
        return [item for _, item in channel.drain_nowait()]

    left = run_virtual(main)
    assert sorted(received + left) == sorted(accepted)
    if len(receivers) == 1:
        for name in range(len(senders)):
            mine = [number for sender, number in received + left if sender == name]
            assert mine == sorted(mine)


def test_a_receiver_that_was_handed_an_item_returns_it_though_cancelled():
    async def main():
        channel = FairChannel()
        source = channel.open_input("a")
        got = []

        async def receive(scope):
            with scope:
                got.append(await channel.receive())

        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(receive, scope)
            await wait_all_tasks_blocked()
            source.send_nowait("item")
            scope.cancel()
        return got

    assert run_virtual(main) == ["item"]


def test_a_cancelled_receiver_takes_nothing_and_charges_nothing():
    async def main():
        channel = full({"a": 1}, count=1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.receive()
        assert scope.cancelled_caught
        return channel.statistics()

    statistics = run_virtual(main)
    assert (statistics.buffered, statistics.served) == (1, 0)


def test_a_cancelled_sender_has_sent_nothing():
    """Neither before it waits, nor while it waits."""

    async def main():
        channel = full({"a": 1}, count=1)
        source = next(iter(channel._exchange.inputs.values()))
        with trio.move_on_after(1):
            await source.send("waited in vain")
        with trio.CancelScope() as scope:
            scope.cancel()
            await source.send("cancelled before")
        return channel.drain_nowait()

    assert run_virtual(main) == [("a", "a")]


def test_waiting_senders_and_receivers_are_served_in_order():
    async def main():
        channel = FairChannel(FairShare(capacity=1))
        source = channel.open_input("a")
        got = []

        async def receive(name):
            got.append((name, await channel.receive()))

        async with trio.open_nursery() as nursery:
            for name in range(3):
                nursery.start_soon(receive, name)
                await wait_all_tasks_blocked()
            for item in "xyz":
                source.send_nowait(item)
        async with trio.open_nursery() as nursery:
            for item in range(4):
                nursery.start_soon(source.send, item)
                await wait_all_tasks_blocked()
            got += await take(channel, 4)
        return sorted(got[:3]), got[3:]

    assert run_virtual(main) == ([(0, "x"), (1, "y"), (2, "z")], [0, 1, 2, 3])


def test_a_full_input_would_block_and_holds_no_more_than_its_capacity():
    async def main():
        channel = FairChannel(FairShare(capacity=2))
        source, other = channel.open_input("a"), channel.open_input("b", capacity=1)
        source.send_nowait(1)
        source.send_nowait(2)
        other.send_nowait(3)
        for one in (source, other):
            with pytest.raises(trio.WouldBlock, match=r"^$"):
                one.send_nowait("too much")
        return channel.statistics().buffered

    assert run_virtual(main) == 3


def test_a_cost_that_is_refused_is_not_sent():
    """The item is the sender's, whether the cost function fails or returns nonsense; the call is a checkpoint."""

    def cost(item):
        if item is None:
            raise LookupError("no cost")
        return item

    async def main():
        channel = FairChannel(FairShare(cost=cost))
        source = channel.open_input("a")
        negative = r"^FairChannel: cost must be a positive int or Fraction, not -1$"
        inexact = re.escape("FairChannel: cost must be a positive int or Fraction, not 0.25\nUse Fraction(1, 4).")
        for error, message, arguments in (
            (ValueError, negative, (-1,)),
            (ValueError, negative, (5, -1)),
            (TypeError, rf"^{inexact}$", (0.25,)),
            (LookupError, r"^no cost$", (None,)),
        ):
            with pytest.raises(error, match=message):
                source.send_nowait(*arguments)
            with assert_checkpoints(), pytest.raises(error, match=message):
                await source.send(*arguments)
        return channel.statistics().buffered

    assert run_virtual(main) == 0


# The end


def test_it_waits_before_the_first_input_and_ends_after_the_last():
    async def main():
        channel = FairChannel()
        with pytest.raises(trio.WouldBlock, match=r"^$"):
            channel.receive_nowait()
        ends = []

        async def receive():
            with pytest.raises(trio.EndOfChannel, match=r"^$"):
                await channel.receive()
            ends.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(receive)
            await trio.sleep(5)
            first, second = channel.open_input("a"), channel.open_input("b")
            first.close()
            first.close()
            await trio.sleep(5)
            assert ends == []
            second.close()
        with pytest.raises(trio.EndOfChannel, match=r"^$"):
            channel.receive_nowait()
        with assert_checkpoints(), pytest.raises(trio.EndOfChannel, match=r"^$"):
            await channel.receive()
        return ends

    assert run_virtual(main) == [10.0] * 3


def test_a_closed_input_still_gives_what_it_holds():
    async def main():
        channel = full({"a": 1, "b": 2}, count=3)
        for source in list(channel._exchange.inputs.values()):
            await source.aclose()
        statistics = channel.statistics()
        got = [item async for item in channel]
        return statistics.open_inputs, [one.closed for one in statistics.inputs], Counter(got), channel.statistics()

    open_inputs, closed, got, after = run_virtual(main)
    assert (open_inputs, closed, got) == (0, [True, True], {"a": 3, "b": 3})
    assert (after.inputs, after.served) == ((), 6)


def test_closing_an_input_refuses_its_waiting_and_later_senders():
    async def main():
        channel = full({"a": 1}, count=1)
        source = next(iter(channel._exchange.inputs.values()))
        refused = []

        async def send(item):
            with pytest.raises(trio.ClosedResourceError, match=r"^$"):
                await source.send(item)
            refused.append(item)

        async with trio.open_nursery() as nursery:
            for item in range(3):
                nursery.start_soon(send, item)
            await wait_all_tasks_blocked()
            source.close()
        with pytest.raises(trio.ClosedResourceError, match=r"^$"):
            source.send_nowait("later")
        with assert_checkpoints():
            await send("later")
        return sorted(refused[:3]), channel.drain_nowait()

    assert run_virtual(main) == ([0, 1, 2], [("a", "a")])


def test_closing_the_channel_wakes_everybody_and_keeps_the_items():
    """Senders get BrokenResourceError, receivers ClosedResourceError; `drain_nowait` still gives what was accepted."""

    async def main():
        channel = full({"a": 1, "b": 1}, count=1)
        refused = []

        async def send(source, item):
            with pytest.raises(trio.BrokenResourceError, match=r"^$"):
                await source.send(item)
            refused.append(item)

        sources = list(channel._exchange.inputs.values())
        async with trio.open_nursery() as nursery:
            for number, source in enumerate(sources):
                nursery.start_soon(send, source, number)
            await wait_all_tasks_blocked()
            channel.close()
            channel.close()
        for source in sources:
            with pytest.raises(trio.BrokenResourceError, match=r"^$"):
                source.send_nowait("later")
            with assert_checkpoints():
                await send(source, "later")
            source.close()
        with pytest.raises(trio.ClosedResourceError, match=r"^$"):
            channel.receive_nowait()
        with assert_checkpoints(), pytest.raises(trio.ClosedResourceError, match=r"^$"):
            await channel.receive()
        for opening in (channel.open_input, channel.group):
            with pytest.raises(trio.ClosedResourceError, match=r"^$"):
                opening("new")
        return sorted(refused[:2]), channel.drain_nowait(), channel.drain_nowait()

    assert run_virtual(main) == ([0, 1], [("a", "a"), ("b", "b")], [])


def test_closing_the_channel_wakes_its_receivers():
    async def main():
        channel = FairChannel()
        channel.open_input("a")

        async def receive():
            with pytest.raises(trio.ClosedResourceError, match=r"^$"):
                await channel.receive()

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            with channel:
                pass

    run_virtual(main)


def test_draining_an_open_channel_takes_waiting_items_too():
    async def main():
        channel = FairChannel(FairShare({"a": 2}, capacity=1))
        async with trio.open_nursery() as nursery:
            for key in "ab":
                nursery.start_soon(feed, channel.open_input(key), [1, 2])
            await wait_all_tasks_blocked()
            return channel.drain_nowait()

    assert sorted(run_virtual(main)) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_a_failing_producer_closes_its_input_and_takes_nobody_along():
    async def main():
        channel = FairChannel()

        async def fail(source):
            with source:
                await source.send("before")
                raise KeyError("broken")

        async def guarded(source):
            with pytest.raises(KeyError, match=r"^'broken'$"):
                await fail(source)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(guarded, channel.open_input("a"))
            nursery.start_soon(feed, channel.open_input("b"), ["b"] * 3)
            return Counter([item async for item in channel])

    assert run_virtual(main) == {"before": 1, "b": 3}


def test_every_async_method_is_a_checkpoint():
    async def main():
        channel = FairChannel()
        source = channel.open_input("a")
        with assert_checkpoints():
            await source.send(1)
        with assert_checkpoints():
            await channel.receive()
        with assert_checkpoints():
            await source.aclose()
        with assert_checkpoints():
            await channel.aclose()

    run_virtual(main)


@pytest.mark.parametrize("which", ["input", "channel"])
def test_aclose_closes_though_cancelled(which):
    async def main():
        channel = FairChannel()
        source = channel.open_input("a")
        with trio.CancelScope() as scope:
            scope.cancel()
            await (source if which == "input" else channel).aclose()
        assert scope.cancelled_caught
        return source._closed if which == "input" else channel._exchange.closed

    assert run_virtual(main)


def test_misuse_is_refused():
    channel = FairChannel(FairShare({"bad": 1}))
    source = channel.open_input("a")
    tenant = channel.group("t", 1)

    for opening in (channel.open_input, channel.group):
        with pytest.raises(ValueError, match=r"^FairChannel: key must not be open already, not 'a'$"):
            opening("a")
        with pytest.raises(ValueError, match=r"^FairChannel: weight must be a positive int or Fraction, not 0$"):
            opening("b", weight=0)
    with pytest.raises(ValueError, match=r"^FairChannel: capacity must be >= 1, not 0$"):
        channel.open_input("b", capacity=0)
    with pytest.raises(ValueError, match=r"^FairChannel: key must name an open input or group, not 'b'$"):
        channel.set_weight("b", 1)
    with pytest.raises(ValueError, match=r"^FairChannel: key must name an open input or group, not 'a'$"):
        tenant.set_weight("a", 1)
    with pytest.raises(ValueError, match=r"^FairChannel: weight must be a positive int or Fraction, not -1$"):
        channel.set_weight("a", -1)
    with pytest.raises(TypeError, match=r"^FairChannel: share must be a FairShare, not a dict of length 1$"):
        FairChannel({"a": 1})
    assert [one.key for one in channel.statistics().inputs] == ["a"]
    source.close()


def test_statistics_tell_who_got_what():
    async def main():
        channel = FairChannel(FairShare({"a": 3}, capacity=2))
        sources = [channel.open_input(key) for key in "ab"]
        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(feed, source, [1, 2, 3])
            await wait_all_tasks_blocked()
            got = [channel.receive_nowait(), channel.receive_nowait()]
            statistics = channel.statistics()
            channel.drain_nowait()
        return got, statistics

    got, statistics = run_virtual(main)
    a, b = sorted(statistics.inputs, key=lambda one: one.key)
    assert got == [1, 1]
    assert (a.weight, b.weight, a.capacity, a.buffered, a.parked, a.closed) == (3, 1, 2, 2, 0, False)
    assert (a.served, a.service, a.share, b.share, a.debt, b.debt) == (1, 1, 0.5, 0.5, 1, 1)
    assert (statistics.open_inputs, statistics.backlogged, statistics.buffered) == (2, 2, 4)
    assert (statistics.served, statistics.service, statistics.tasks_waiting_receive) == (2, 2, 0)


def test_the_longest_wait_is_counted_in_items_of_others():
    async def main():
        channel = full({"heavy": 10, "light": 1}, count=50)
        await take(channel, 40)
        return {one.key: one.longest_wait for one in channel.statistics().inputs}

    waits = run_virtual(main)
    assert waits["heavy"] == 1
    assert waits["light"] in (10, 11)


def test_a_direct_hand_over_is_counted_and_ends_a_busy_period():
    async def main():
        channel = FairChannel()
        source = channel.open_input("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.receive)
            await wait_all_tasks_blocked()
            assert channel.statistics().tasks_waiting_receive == 1
            await source.send("x", cost=7)
        (one,) = channel.statistics().inputs
        return one.served, one.service, one.debt, one.buffered

    assert run_virtual(main) == (1, 7, 0, 0)
