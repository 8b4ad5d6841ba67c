"""P8a: what is in a channel that the run owns is the run's: sent = delivered + failed + dropped + discarded, always.

Nobody else can have it once the run has closed the channel. An item counts as taken when it is handed on or given up.

Mutants that die here: a channel that is closed with items in it; a drain that a sender can keep up forever; a sender
that is told that an item was accepted which nobody will have; an item counted twice.
"""

from __future__ import annotations

import math

import pytest
import trio

from funcpipe_trio import Aborted, FairChannel, Pipeline, Step, concat, merge
from funcpipe_trio.testing import Scenario, cancel_everywhere, drain_everywhere, fail_everywhere, run_virtual
from tests._kit import Boom

SENT = 50


def fails(item):
    if item == 5:
        raise Boom
    return item


SHAPES = {
    "alone": lambda line: line,
    "a map": lambda line: line.map(lambda item: item),
    "a pool": lambda line: line.map(Step.pure(lambda item: item), concurrency=3),
    "a small buffer": lambda line: line.buffer(1),
    "a merge": lambda line: merge(line, Pipeline.from_iterable([])),
    "the first of a concat": lambda line: concat(line, Pipeline.from_iterable([])),
    "the second of a concat": lambda line: concat(Pipeline.from_iterable([]), line),
    "a batch": lambda line: line.batch(7, max_delay=1).unbatch(),
    "branches": lambda line: line.partition(lambda item: "ab"[item % 2], {"a": lambda p: p, "b": lambda p: p}),
}
ENDINGS = {
    "drain": lambda plan: plan,
    "abort": lambda plan: plan,
    "leave": lambda plan: plan,
    "raise": lambda plan: plan,
    "cancel": lambda plan: plan,
    "take": lambda plan: plan.take(5),
    "failure": lambda plan: plan.map(fails),
}


async def open_memory(capacity):
    return trio.open_memory_channel(capacity)


async def use(run, how, scope, got):
    async for item in run:
        got.append(item)
        if len(got) == 5:
            if how == "drain":
                run.drain_nowait()
            elif how == "abort":
                run.abort()
            elif how == "leave":
                return
            elif how == "raise":
                raise Boom
            elif how == "cancel":
                scope.cancel()


@pytest.mark.parametrize("capacity", [SENT, math.inf, 20, 0])
@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sent_is_delivered_or_told(shape, how, capacity):
    """What was accepted is somewhere; a task that waited to send learns that it was not, or it was."""
    gone, got, accepted = [], [], []

    async def send(channel, item):
        try:
            await channel.send(item)
        except trio.BrokenResourceError:
            return
        accepted.append(item)

    async def main():
        sender, receiver = trio.open_memory_channel(capacity)
        plan = ENDINGS[how](SHAPES[shape](Pipeline.from_channel(receiver)))
        async with trio.open_nursery() as nursery:
            for number in range(SENT):
                nursery.start_soon(send, sender, number)
                await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                try:
                    async with plan.open(on_discard=lambda item, *_: gone.append(item)) as run:
                        await use(run, how, scope, got)
                except (Boom, Aborted):
                    pass
            with pytest.raises(trio.BrokenResourceError):
                sender.send_nowait("late")
        return run.report

    report = run_virtual(main)

    assert len(accepted) == len(got) + len(gone) + report.failed
    assert sorted(got + gone + [5] * report.failed) == sorted(accepted)
    assert report.taken == len(accepted)
    assert report.discarded == len(gone)
    if how == "drain":
        assert (len(accepted), gone, report.outcome) == (SENT, [], "drained")
        if shape != "branches":
            assert got == sorted(got)


def test_a_sender_cannot_keep_a_drain_up():
    """A task that sends again at once learns that the channel is closed."""

    async def flood(channel):
        sent = 0
        try:
            while True:
                await channel.send(sent)
                sent += 1
        except trio.BrokenResourceError:
            return sent

    async def main():
        sender, receiver = trio.open_memory_channel(3)
        got, sent = [], []
        async with trio.open_nursery() as nursery:

            async def flooding():
                sent.append(await flood(sender))

            nursery.start_soon(flooding)
            async with Pipeline.from_channel(receiver).open() as run:
                async for item in run:
                    got.append(item)
                    if len(got) == 10:
                        run.drain_nowait()
        return got, sent

    got, sent = run_virtual(main)

    assert got == list(range(*sent))


def test_a_drain_holds_no_more_than_the_bound():
    """What is in the channel is not taken until there is room for it."""

    async def main():
        sender, receiver = trio.open_memory_channel(1000)
        for number in range(1000):
            sender.send_nowait(number)
        plan = Pipeline.from_channel(receiver).buffer(2)
        held = []
        async with plan.open() as run:
            await run.receive()
            run.drain_nowait()
            async for _item in run:
                await trio.sleep(1)
                counts = run.statistics()
                held.append(counts.taken - counts.delivered)
        return max(held), plan.max_in_flight

    most, bound = run_virtual(main)

    assert most <= bound


def test_what_another_receiver_can_have_is_left_to_it():
    """Several runs share one channel by clones: one that is left takes nothing away from the others."""

    async def main():
        sender, receiver = trio.open_memory_channel(SENT)
        other = receiver.clone()
        for number in range(SENT):
            sender.send_nowait(number)
        sender.close()
        gone = []
        async with Pipeline.from_channel(receiver).buffer(1).open(on_discard=lambda item, *_: gone.append(item)) as run:
            got = [await run.receive() for _ in range(3)]
        rest = [item async for item in other]
        return got + gone + rest

    assert run_virtual(main) == list(range(SENT))


def test_a_fair_channel_is_emptied_too():
    """In the order of its shares."""

    async def main():
        channel = FairChannel()
        gone, got = [], []
        with channel.open_input("a", capacity=20) as a, channel.open_input("b", capacity=20) as b:
            for number in range(20):
                a.send_nowait(("a", number))
                b.send_nowait(("b", number))
            async with Pipeline.from_channel(channel).open(on_discard=lambda item, *_: gone.append(item)) as run:
                got = [await run.receive() for _ in range(3)]
                run.drain_nowait()
                got += [item async for item in run]
        return got, gone

    got, gone = run_virtual(main)

    assert (len(got), gone) == (40, [])
    assert [item for item in got if item[0] == "a"] == [("a", number) for number in range(20)]


def test_at_whatever_moment():
    """The campaigns, over a channel with senders at work."""

    def make():
        sender, receiver = trio.open_memory_channel(4)
        for number in range(4):
            sender.send_nowait(number)
        sender.close()
        return Pipeline.from_channel(receiver).map(Step.pure(lambda item: item)).buffer(1)

    async def consume(run, lab):
        async for _item in run:
            lab.delivered += 1
            await trio.sleep(1)

    for campaign in (cancel_everywhere, drain_everywhere, fail_everywhere):
        assert campaign(Scenario(make, consume)).runs > 1


class Sensor(trio.abc.ReceiveChannel):
    """A channel of somebody's own: it has a value whenever it is asked, and methods that trio's have, too."""

    def __init__(self):
        self.number, self.is_closed = 0, False

    def receive_nowait(self):
        self.number += 1
        return self.number

    async def receive(self):
        await trio.lowlevel.checkpoint()
        return self.receive_nowait()

    async def close(self):
        raise AssertionError("it is nobody's business to call this")

    async def aclose(self):
        self.is_closed = True

    def statistics(self):
        raise OSError("not connected")


@pytest.mark.parametrize("how", ["first", "drain", "leave"])
def test_a_channel_of_somebodys_own_ends_no_worse(how):
    """What it says of itself is not trusted to end, and it is closed."""

    async def main():
        channel = Sensor()
        if how == "first":
            got = await Pipeline.from_channel(channel).first()
        else:
            async with Pipeline.from_channel(channel).buffer(1).open() as run:
                got = await run.receive()
                if how == "drain":
                    run.drain_nowait()
                    async for _item in run:
                        pass
        return got, channel.is_closed, channel.number

    got, is_closed, asked = run_virtual(main)

    assert (got, is_closed) == (1, True)
    assert asked <= (64 if how == "first" else 4)  # what fetches when it is asked is not asked for more at the end


class Wrapped(trio.abc.ReceiveChannel):
    """A channel of somebody's own that says what is in its buffer."""

    def __init__(self, channel):
        self.channel = channel

    def receive_nowait(self):
        return self.channel.receive_nowait()

    async def receive(self):
        return await self.channel.receive()

    async def aclose(self):
        await self.channel.aclose()

    def statistics(self):
        return self.channel.statistics()


@pytest.mark.parametrize("how", ["drain", "leave"])
def test_a_channel_of_somebodys_own_that_says_what_it_holds_is_emptied(how):
    async def main():
        sender, receiver = trio.open_memory_channel(10)
        for number in range(8):
            sender.send_nowait(number)
        heard, got = [], []
        plan = Pipeline.from_channel(Wrapped(receiver)).buffer(1)
        async with plan.open(on_discard=lambda item, *_rest: heard.append(item)) as run:
            got.append(await run.receive())
            if how == "drain":
                run.drain_nowait()
                async for item in run:
                    got.append(item)
        return got, heard

    got, heard = run_virtual(main)

    assert (got + heard, bool(heard)) == (list(range(8)), how == "leave")
