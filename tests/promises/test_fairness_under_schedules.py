"""P13 under schedules: the bounds of fairness hold at the instant of hand-over, in whatever order the tasks run.

What was served is logged where it changes hands, with the inputs that held an item at that instant. So a bound is
checked over every interval there was, also of inputs that flap, sleep, die, come late or change their weight.

Mutants that die here: first come first served instead of the queue; credit for time away; the debt forgotten of an
input that was idle, or closed, for a moment; a merge that charges 1 whatever an item costs, or does not wait for an
input whose producer was woken (REFILLING); a debt rescaled the wrong way at a change of weight; ticks that do not get
finer with the weights; the part of a tick that a division leaves over dropped; float tags.
"""

from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, combinations, cycle, pairwise, repeat

import pytest
import trio
from hypothesis import given, settings, target
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import FairChannel, FairShare, Pipeline, concat, fair_merge
from funcpipe_trio._sansio.fair_queue import FairQueue
from funcpipe_trio.testing import assert_fair, run_virtual, service_lag
from funcpipe_trio.testing._schedule import Schedule, scheduled

many = settings(max_examples=40, deadline=None, print_blob=True)
schedules = st.integers(0, 2**32)
weights = st.sampled_from((1, 1, 2, 3, Fraction(1, 3), 10**9, 10**15 + 1, 7 * 10**15))
capacities = st.sampled_from((1, 1, 2, 3, 16))
EXTREMES = [
    (1, 10**9),
    (Fraction(1, 3), 1, 10**9),
    (10**15 + 1, 7 * 10**15),
    (1, 1, 1, 1),
    (Fraction(1, 3), 2, Fraction(22, 7), 5),
]
MOST = 160
"""Items that a consumer takes before it leaves."""


class Death(Exception):
    """How an input ends that does not end well."""


@dataclass
class Log:
    """What was handed over, and which inputs held an item then."""

    keys: list = field(default_factory=list)
    backlogs: list = field(default_factory=list)
    costs: list = field(default_factory=list)
    weights: list = field(default_factory=list)
    """The weight that each entry was charged by."""

    def add(self, key, backlog, cost, weight):
        self.keys.append(key)
        self.backlogs.append({*backlog, key})
        self.costs.append(cost)
        self.weights.append(weight)

    def worst(self, weights_):
        """Return the greatest lag of two inputs there was, in parts of its bound: fair is <= 1."""
        dearest = dict.fromkeys(weights_, 0)
        for key, cost in zip(self.keys, self.costs, strict=True):
            if key in dearest:
                dearest[key] = max(dearest[key], cost)
        bounds = {key: Fraction(cost) / weights_[key] for key, cost in dearest.items()}
        lags = service_lag(self.keys, weights_, self.backlogs, self.costs)
        return max((lag / (bounds[f] + bounds[m]) for (f, m), lag in lags.items() if lag), default=Fraction(0))


def run_scheduled(seed, async_fn, *args):
    with scheduled(Schedule(seed)):
        return run_virtual(async_fn, *args)


# ---- how inputs behave, and consumers


@dataclass(frozen=True)
class Feed:
    """One input."""

    kind: str
    weight: int | Fraction
    costs: tuple[int, ...] = (1,)
    late: float = 0

    def items(self, key):
        """Items that carry their key and cost, in no end."""
        number = 0
        while True:
            yield key, self.costs[number % len(self.costs)]
            number += 1


def death():
    """Raise instead of the next pause."""
    raise Death
    yield


PAUSES = {
    "greedy": lambda: repeat(None),
    "flaps": lambda: repeat(0),
    "trickles": lambda: repeat(0.03),
    "sleeps": lambda: chain(repeat(None, 40), [1000], repeat(None)),
    "bursts": lambda: cycle((None, None, None, 0, 0.1)),
    "ends": lambda: repeat(None, 20),
    "dies": lambda: chain(repeat(None, 20), death()),
}
"""Seconds before each item; None: not even a checkpoint. They end where the input ends."""

costs = st.sampled_from(((1,), (1,), (1, 5, 20), (7,)))
feeds = st.builds(Feed, st.sampled_from(("greedy", *PAUSES)), weights, costs, late=st.sampled_from((0, 0, 0.2, 5)))


@dataclass(frozen=True)
class Pace:
    """How a consumer takes: so many at once, then a pause."""

    burst: int
    pause: float


paces = st.builds(Pace, st.sampled_from((1, 1, 2, 7)), st.sampled_from((0, 0, 0.01, 1)))


# ---- a fair channel


@dataclass(frozen=True)
class Change:
    """A weight that is changed."""

    at: float
    feed: int
    weight: int | Fraction


async def send_all(channel, key, feed, capacity):
    """Send as a feed does; one that leaves comes back under its key."""
    await trio.sleep(feed.late)
    try:
        with channel.open_input(key, weight=feed.weight, capacity=capacity) as source:
            for item, pause in zip(feed.items(key), PAUSES[feed.kind](), strict=False):
                if pause is not None:
                    await trio.sleep(pause)
                await source.send(item)
    except (Death, trio.BrokenResourceError):
        pass


async def leave_and_return(channel, key, feed):
    """Flap by closing: each item through an input of its own."""
    for item, _ in zip(feed.items(key), range(150), strict=False):
        try:
            with channel.open_input(key, weight=feed.weight, capacity=1) as source:
                source.send_nowait(item)
        except ValueError:  # not drained yet
            pass
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            return
        await trio.sleep(0.02)


async def log_channel(channel, pace):
    """Take items, and note who had one at each hand-over."""
    log = Log()
    while len(log.keys) < MOST:
        for number in range(pace.burst):
            seen = {each.key: each for each in channel.statistics().inputs if each.buffered}
            try:
                # Without a checkpoint before it takes: what was seen is what is chosen from.
                key, cost = channel.receive_nowait() if number else await channel.receive()
            except trio.WouldBlock:
                break
            except trio.EndOfChannel:
                return log
            # Where nothing was seen it waited, and the first item to come was alone.
            log.add(key, seen, cost, seen[key].weight if seen else 1)
        await trio.sleep(pace.pause)
    return log


async def play_channel(feeds_, capacity, pace, changes=()):
    channel = FairChannel(FairShare(cost=lambda item: item[1]))

    async def change_weights():
        for change in sorted(changes, key=lambda change: change.at):
            await trio.sleep_until(change.at)
            with suppress(KeyError, ValueError):  # it has not come, or has gone
                channel.set_weight(change.feed, change.weight)

    async with trio.open_nursery() as nursery:
        keeper = channel.open_input("keeper")

        async def feed_all():
            with keeper:
                async with trio.open_nursery() as feeding:
                    for key, feed in enumerate(feeds_):
                        if feed.kind == "leaves":
                            feeding.start_soon(leave_and_return, channel, key, feed)
                        else:
                            feeding.start_soon(send_all, channel, key, feed, capacity)
                    feeding.start_soon(change_weights)

        nursery.start_soon(feed_all)
        log = await log_channel(channel, pace)
        channel.close()
        nursery.cancel_scope.cancel()
    return log


leavers = st.builds(Feed, st.just("leaves"), weights, costs)


@many
@given(
    inputs=st.lists(st.one_of(feeds, feeds, leavers), min_size=2, max_size=5),
    capacity=capacities,
    pace=paces,
    seed=schedules,
)
def test_a_channel_keeps_the_bound_whatever_its_inputs_do(inputs, capacity, pace, seed):
    """P2 at each hand-over of a channel: inputs flap, sleep, die, join late, leave and return; any schedule."""
    log = run_scheduled(seed, play_channel, inputs, capacity, pace)

    worst = log.worst({key: feed.weight for key, feed in enumerate(inputs)})
    target(float(worst))
    assert worst <= 1


changes = st.lists(st.builds(Change, st.sampled_from((0, 0.05, 0.5, 3)), st.integers(0, 2), weights), max_size=4)


@many
@given(inputs=st.lists(feeds, min_size=3, max_size=3), capacity=capacities, pace=paces, changed=changes, seed=schedules)
def test_a_change_of_weight_costs_one_item_at_most(inputs, capacity, pace, changed, seed):
    """T4: the bound with the least weights, and ``cost_max * |1/new - 1/old|`` more for each change."""
    log = run_scheduled(seed, play_channel, inputs, capacity, pace, changed)

    normalised = [Fraction(cost) / weight for cost, weight in zip(log.costs, log.weights, strict=True)]
    lags = service_lag(log.keys, dict.fromkeys(range(3), 1), log.backlogs, normalised)
    allowed = [_one_item_and_changes(key, feed, changed) for key, feed in enumerate(inputs)]
    for f, m in combinations(range(3), 2):
        assert lags[f, m] <= allowed[f] + allowed[m]


def _one_item_and_changes(key, feed, changed):
    """The bound of one input: its dearest item at its least weight, and what its changes add."""
    steps = [feed.weight, *(change.weight for change in sorted(changed, key=lambda c: c.at) if change.feed == key)]
    added = sum(abs(Fraction(1) / new - Fraction(1) / old) for old, new in pairwise(steps))
    return max(feed.costs) * (Fraction(1) / min(steps) + added)


@pytest.mark.parametrize("of", EXTREMES, ids=str)
@pytest.mark.parametrize("capacity", [1, 2, 16])
def test_greedy_inputs_of_a_channel_share_exactly(of, capacity):
    """Each gets its share of every count of items, to one item and its part of the others'; under 6 schedules."""

    async def take():
        channel = FairChannel()
        async with trio.open_nursery() as nursery:
            for key, weight in enumerate(of):
                nursery.start_soon(send_all, channel, key, Feed("greedy", weight), capacity)
            await wait_all_tasks_blocked()
            log = await log_channel(channel, Pace(1, 0))
            channel.close()
        return log

    for seed in range(6):
        log = run_scheduled(seed, take)

        assert all(len(backlog) == len(of) for backlog in log.backlogs)
        assert_exact_shares(log.keys, of)
        assert_fair(log.keys, dict(enumerate(of)), log.backlogs)


def assert_exact_shares(keys, of):
    """At each count of items, each input has its share; the slack follows from the bound of each two."""
    total = sum(of)
    slack = [1 + (len(of) - 2) * Fraction(weight) / total for weight in of]
    served = [0] * len(of)
    for number, key in enumerate(keys, 1):
        served[key] += 1
        assert all(
            abs(served[key] - number * Fraction(weight) / total) <= slack[key] for key, weight in enumerate(of)
        ), f"after {number}: {served}"


# ---- a merge of pipelines


def source_of(key, feed, how, name):
    """A source that behaves as a feed does."""
    items = feed.items(key)

    async def generate():
        await trio.sleep(feed.late)
        for pause in PAUSES[feed.kind]():
            if pause is not None:
                await trio.sleep(pause)
            yield next(items)

    async def produce(send):
        async with send, aclosing(generate()) as generated:
            async for item in generated:
                await send.send(item)

    async def same(item):
        return item

    if how == "iterable":
        return Pipeline.from_iterable(lambda: feed.items(key), name=name)
    if how == "producer":
        return Pipeline.from_producer(produce, name=name)
    if how == "pool":
        source = Pipeline.from_async_iterable(generate, name=f"source of {name}")
        return source.map(same, concurrency=3, name=name)
    if how == "concat":
        few = [Pipeline.from_iterable(few_of(key, feed), name=name) for _ in range(2)]
        return concat(*few, Pipeline.from_async_iterable(generate, name=name), name=f"concat of {name}")
    return Pipeline.from_async_iterable(generate, name=name)


def few_of(key, feed):
    return [item for item, _ in zip(feed.items(key), range(7), strict=False)]


async def play_merge(feeds_, ways, capacity, behind, pace):
    """Merge the inputs, and log each hand-over: the merge asks for an item's cost at that instant."""
    log, runs = Log(), []

    def cost(item):
        key, price = item
        counts = runs[0].statistics().links
        held = {
            int(link.behind.split("#")[0]) for link in counts if link.behind.split("#")[0].isdigit() and holds(link)
        }
        log.add(key, held, price, feeds_[key].weight)
        return price

    inputs = {key: source_of(key, *pair, str(key)) for key, pair in enumerate(zip(feeds_, ways, strict=True))}
    share = FairShare({key: feed.weight for key, feed in enumerate(feeds_)}, capacity=capacity, cost=cost)
    merged = behind(fair_merge(inputs, share))
    try:
        async with merged.open() as run:
            runs.append(run)
            await consume(run, pace)
    except Death:
        pass
    return log


def holds(link):
    return link.passed - link.taken - link.discarded > 0


async def consume(run, pace):
    taken = 0
    async for _item in run:
        taken += 1
        if taken == MOST:
            return
        if taken % pace.burst == 0:
            await trio.sleep(pace.pause)


async def wait(item):
    await trio.sleep(0.001)
    return item


BEHIND = {
    "nothing": lambda pipeline: pipeline,
    "a stage": lambda pipeline: pipeline.map(wait),
    "a pool": lambda pipeline: pipeline.map(wait, concurrency=3),
    "a link": lambda pipeline: pipeline.buffer(4),
}
ways = st.sampled_from(("async iterable", "producer", "pool", "concat"))


@many
@given(
    inputs=st.lists(st.tuples(feeds, ways), min_size=2, max_size=4),
    capacity=capacities,
    behind=st.sampled_from(sorted(BEHIND)),
    pace=paces,
    seed=schedules,
)
def test_a_merge_keeps_the_bound_whatever_its_inputs_do(inputs, capacity, behind, pace, seed):
    """P2 at each hand-over of a merge, whatever takes from it; inputs flap, sleep, die, begin late; any schedule."""
    feeds_, ways_ = zip(*inputs, strict=True)

    log = run_scheduled(seed, play_merge, feeds_, ways_, capacity, BEHIND[behind], pace)

    worst = log.worst({key: feed.weight for key, feed in enumerate(feeds_)})
    target(float(worst))
    assert worst <= 1


@pytest.mark.parametrize("of", EXTREMES, ids=str)
@pytest.mark.parametrize("capacity", [1, 2, 16])
def test_greedy_inputs_of_a_merge_share_exactly(of, capacity):
    """Inputs that refill in one turn get their shares of every count of items, under 6 schedules and two consumers."""
    feeds_ = [Feed("greedy", weight) for weight in of]

    for seed in range(6):
        pace = Pace(1, 0) if seed % 2 else Pace(5, 0.01)
        log = run_scheduled(seed, play_merge, feeds_, ["iterable"] * len(of), capacity, BEHIND["nothing"], pace)

        assert_exact_shares(log.keys, of)
        assert_fair(log.keys, dict(enumerate(of)), log.backlogs)


# ---- forever


@pytest.mark.parametrize("of", [(3, 7), (10**15 + 1, 7 * 10**15), (Fraction(1, 3), 1, Fraction(22, 7))], ids=str)
def test_shares_do_not_drift(of):
    """A million items: exact shares, to one item and its part of the others', at every thousandth."""
    queue = FairQueue()
    flows = [queue.add(key, weight) for key, weight in enumerate(of)]
    for flow in flows:
        queue.ready(flow)
    total = sum(of)
    for number in range(1000, 1_001_000, 1000):
        for _ in range(1000):
            queue.charge(queue.select(), still_ready=True)
        for flow, weight in zip(flows, of, strict=True):
            slack = 1 + (len(of) - 2) * Fraction(weight) / total

            assert abs(flow.served - number * Fraction(weight) / total) <= slack

    # What one flow is ahead of another is what it was served more, by weight: to the last fraction.
    starts = [
        queue.debt(flow) / weight - Fraction(flow.served) / weight for flow, weight in zip(flows, of, strict=True)
    ]
    assert len(set(starts)) == 1
