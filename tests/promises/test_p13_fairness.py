"""P13: shares by weight at the instant of hand-over, under every schedule.

The lag is measured at the consumer, over every interval in which two inputs are backlogged: both have sources that
never wait, so each is backlogged from its first item to its last. Mutants that die here: tags in fixed point or float;
a choice made ahead of the hand-over; a merge that does not wait for a producer it has just woken, or that breathes;
credit for what was not sent.
"""

from fractions import Fraction

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import FairChannel, FairShare, Pipeline, RateLimit, RateLimiter, fair_merge
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled

weights_of = st.lists(
    st.one_of(
        st.integers(1, 100),
        st.sampled_from((10**9, 10**15, Fraction(1, 3), Fraction(7, 10**6))),
        st.fractions(min_value=Fraction(1, 50), max_value=50),
    ),
    min_size=2,
    max_size=6,
)
COUNT = 150


def worst_lag(order, weights):
    """The greatest difference of normalised service between two inputs, over the bound for them; exact."""
    worst = Fraction(0)
    left = [order.count(key) for key in range(len(weights))]
    totals = list(left)
    for f in range(len(weights)):
        for m in range(f):
            seen = {f: 0, m: 0}
            low = high = difference = Fraction(0)
            for key in order:
                if key in (f, m):
                    difference += Fraction(1, 1) / weights[key] * (1 if key == f else -1)
                    seen[key] += 1
                    if seen[key] == totals[key]:
                        break  # from here on it may have nothing more
                    low, high = min(low, difference), max(high, difference)
            bound = Fraction(1) / weights[f] + Fraction(1) / weights[m]
            worst = max(worst, (high - low) / bound)
    return worst


async def never_waiting(key):
    for _ in range(COUNT):
        yield key


SOURCES = {
    "sync": lambda key: Pipeline.from_iterable([key] * COUNT),
    "async": lambda key: Pipeline.from_async_iterable(lambda: never_waiting(key)),
    "fused": lambda key: Pipeline.from_iterable(range(COUNT)).map(lambda _: key).filter(lambda _: True),
}
CONSUMERS = ("fast", "slow", "bursty", "a stage", "a pool")


async def consume(pipeline, consumer):
    """Take everything in the manner of a consumer; answer the keys in the order of hand-over."""
    order = []

    async def call(item):
        order.append(item)
        await trio.sleep(0.25 if item else 0)

    if consumer == "a stage":
        await pipeline.tap(order.append).run()
    elif consumer == "a pool":
        await pipeline.tap(call).run()
    else:
        async with pipeline.open() as run:
            async for item in run:
                order.append(item)
                if consumer == "slow" or (consumer == "bursty" and len(order) % 23 == 0):
                    await trio.sleep(1)
    return order


@settings(max_examples=80, deadline=None)
@given(
    weights=weights_of,
    capacity=st.sampled_from((1, 2, 3, 16, 64)),
    kinds=st.lists(st.sampled_from(sorted(SOURCES)), min_size=6, max_size=6),
    consumer=st.sampled_from(CONSUMERS),
    seed=st.integers(),
)
def test_two_backlogged_inputs_never_drift_further_apart_than_the_bound(weights, capacity, kinds, consumer, seed):
    """P13: pairwise lag <= 1/w + 1/w', exactly, for any weights, capacities, sources, consumers and schedules."""
    inputs = {key: SOURCES[kinds[key]](key) for key in range(len(weights))}
    share = FairShare(dict(enumerate(weights)), capacity=capacity)
    with scheduled(Schedule(seed)):
        order = run_virtual(consume, fair_merge(inputs, share), consumer)

    assert sorted(order) == sorted(list(range(len(weights))) * COUNT)
    assert worst_lag(order, weights) <= 1


@settings(max_examples=30, deadline=None)
@given(weights=weights_of, seed=st.integers(), unit=st.sampled_from((10**15, Fraction(1, 10**12), Fraction(7, 3))))
def test_the_unit_of_the_weights_does_not_matter(weights, seed, unit):
    """P13: all weights times anything give the very same order."""
    inputs = {key: SOURCES["sync"](key) for key in range(len(weights))}
    orders = []
    for scaled in (weights, [weight * unit for weight in weights]):
        with scheduled(Schedule(seed)):
            orders.append(run_virtual(consume, fair_merge(inputs, FairShare(dict(enumerate(scaled)))), "fast"))

    assert orders[0] == orders[1]


@settings(max_examples=30, deadline=None)
@given(outer=st.tuples(*[st.integers(1, 20)] * 2), inner=st.tuples(*[st.integers(1, 20)] * 3), seed=st.integers())
def test_merges_in_merges_are_fair_at_every_level(outer, inner, seed):
    """P13: a group of three streams against one: the bound holds between the groups and inside of the group."""
    group = fair_merge({key: SOURCES["sync"](key) for key in range(3)}, FairShare(dict(enumerate(inner))))
    both = fair_merge({"group": group, "other": SOURCES["sync"](3)}, FairShare({"group": outer[0], "other": outer[1]}))
    with scheduled(Schedule(seed)):
        order = run_virtual(consume, both, "fast")

    together = [int(key == 3) for key in order]
    assert worst_lag(together, outer) <= 1
    assert worst_lag([key for key in order if key != 3], inner) <= 1


def test_exact_shares_while_all_are_backlogged():
    """P13: weights 5, 1, 1: every window of seven has 5, 1, 1."""
    inputs = {key: Pipeline.from_iterable([key] * 700) for key in range(3)}
    order = run_virtual(consume, fair_merge(inputs, FairShare({0: 5}, default_weight=1)), "fast")[:700]

    windows = {tuple(order[at : at + 7].count(key) for key in range(3)) for at in range(0, 700, 7)}
    assert windows == {(5, 1, 1)}


def test_no_credit_for_having_been_away():
    """P13: an input that was silent for 1000 s shares from its return on; it does not catch up."""

    async def returning():
        await trio.sleep(1000)
        for _ in range(200):
            yield "returning"

    async def busy():
        for _ in range(1200):
            yield "busy"

    inputs = {"returning": Pipeline.from_async_iterable(returning), "busy": Pipeline.from_async_iterable(busy)}
    order = run_virtual(consume, fair_merge(inputs), "slow")
    back = order.index("returning")

    assert order[:back] == ["busy"] * back
    assert 990 <= back <= 1020
    assert {order[at : at + 2].count("returning") for at in range(back, back + 300, 2)} == {1}


# ---- costs of ever new denominators

PRIMES = [number for number in range(2, 3000) if all(number % divisor for divisor in range(2, 55) if divisor < number)]


async def merged(cost):
    lines = {key: Pipeline.from_iterable(range(len(PRIMES))) for key in "ab"}
    report = await fair_merge(lines, FairShare({"a": 2}, cost=cost)).run()
    return [(each.cost, each.contested) for each in report.inputs], report.describe()


async def by_key(cost):
    line = Pipeline.from_iterable(range(len(PRIMES))).fair_by(lambda item: item % 3, FairShare(cost=cost), max_keys=3)
    report = await line.run()
    return [(each.cost, each.contested) for each in report.inputs], report.describe()


async def channelled(cost):
    channel = FairChannel(FairShare(capacity=len(PRIMES), cost=cost))
    group = channel.group("group")
    inputs = [channel.open_input("alone"), group.open_input("one"), group.open_input("other")]
    for item in range(len(PRIMES)):
        inputs[item % 3].send_nowait(item)
    for _ in range(len(PRIMES)):
        await channel.receive()
    found = channel.statistics()
    return [*((each.service, each.debt) for each in found.inputs), (found.service, 0)], ""


async def limited(cost):
    limiter = RateLimiter(RateLimit(1, burst=10**6))
    for item in range(len(PRIMES)):
        limiter.acquire_nowait(cost(item))
    return [(limiter.statistics().acquired_cost, 0)], ""


@pytest.mark.parametrize("run", [merged, by_key, channelled, limited], ids=lambda run: run.__name__)
def test_sums_of_costs_of_ever_new_denominators_stay_short(run):
    """430 primes have a common denominator of 4000 bits: no sum has one above 1024, and no report shows its digits."""
    sums, shown = run_virtual(run, lambda item: Fraction(1, PRIMES[item]))
    bits = [Fraction(each).denominator.bit_length() for pair in sums for each in pair]

    assert 1000 < max(bits) <= 1024
    assert len(max(shown.splitlines(), key=len, default="")) < 120


@pytest.mark.parametrize("run", [merged, by_key, channelled, limited], ids=lambda run: run.__name__)
def test_sums_of_costs_of_a_common_denominator_are_exact(run):
    """However fine it is."""
    sums, _ = run_virtual(run, lambda item: Fraction(item + 1, 10**300))
    items = sum(range(1, len(PRIMES) + 1)) * (
        2 if run in (merged, channelled) else 1
    )  # of two inputs; or with the sum of all

    assert sum(cost for cost, _ in sums) == Fraction(items, 10**300)
