"""The laws of the fair queue, each with the mutant of `fair_queue.py` that it kills.

| law | mutant |
|---|---|
| pairwise lag | a tag in floats; `_now` set to the tag after the charge; the rest of the division dropped |
| pairwise lag, slack 0 | ticks of a fixed 2**-32 of a unit |
| every ready tag within one item of V | `ready` without `max(tag, V)` |
| work conservation | `select` that stops at a dead entry |
| gap; equal weights rotate | ties served last come first |
| wake latency | a flow that joins starts behind the latest tag, not at V |
| no credit for sleeping | `ready` keeps an old tag |
| no gain from flapping | `ready` forgets a debt; `add` forgets the debt of a removed key |
| all start level after an empty queue | `_level` leaves V where it was |
| determinism, unit of weights | ticks counted from the weights, not from their ratios |
| exactness | the rest dropped, or dropped when ticks, or the units of costs, become finer |
| costs of ever new denominators | sums of Fractions as they come |
| a debt left behind | departed flows not shifted when ticks become finer |
| weight change | no rescaling of the debt |
| memory | no `_compact`, no `_forget` |
| a crowd of new keys | `_past` that looks for the key only |
| lags | of those that are not ready; shares that are not by weight; ahead for behind |
"""

import re
from collections import Counter
from fractions import Fraction
from itertools import combinations, count, groupby

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from funcpipe_trio._base.errors import StateError
from funcpipe_trio._sansio.fair_queue import FairQueue

HUGE = [3 * 10**15, 7 * 10**15, 10**15 + 1, 10**15 - 1]
weights = st.one_of(
    st.integers(1, 1000),
    st.fractions(Fraction(1, 50), 50, max_denominator=50),
    st.sampled_from(HUGE),
)
flow_weights = st.lists(weights, min_size=2, max_size=6)
int_costs = st.integers(1, 20)
fraction_costs = st.fractions(Fraction(1, 10**12), 20)
PUSH, WITHDRAW, SERVE = "push", "withdraw", "serve"


def traces(costs):
    """Lists of (event, flow, cost); the queue is served more often than it is fed, and bursts are likely."""
    event = st.sampled_from([PUSH, PUSH, SERVE, SERVE, SERVE, WITHDRAW])
    return st.lists(st.tuples(event, st.integers(0, 5), costs), min_size=1, max_size=150)


class Bench:
    """A fair queue with items, and the record of what was served."""

    def __init__(self, flow_weights):
        self.queue = FairQueue()
        self.flows = [self.queue.add(index, weight) for index, weight in enumerate(flow_weights)]
        self.items = [[] for _ in self.flows]
        self.log = []
        self.lags = Lags(flow_weights)

    def push(self, index, cost=1, count=1):
        if not self.items[index]:
            self.queue.ready(self.flows[index])
            self.lags.joined(index)
        self.items[index] += [cost] * count

    def withdraw(self, index):
        if self.items[index]:
            self.items[index] = []
            self.queue.idle(self.flows[index])
            self.lags.left(index)

    def serve(self):
        flow = self.queue.select()
        if flow is None:
            assert not any(self.items)
            return None
        cost = self.items[flow.key].pop(0)
        self.queue.charge(flow, cost, still_ready=bool(self.items[flow.key]))
        self.lags.served(flow.key, cost)
        if not self.items[flow.key]:
            self.lags.left(flow.key)
        self.log.append(flow.key)
        return flow.key

    def serve_all(self, count):
        return [self.serve() for _ in range(count)]

    def play(self, trace):
        for event, number, cost in trace:
            index = number % len(self.flows)
            if event == PUSH:
                self.push(index, cost)
            elif event == WITHDRAW:
                self.withdraw(index)
            else:
                self.serve()


class Lags:
    """The range of D = T_f - T_m over each stretch in which both f and m were backlogged."""

    def __init__(self, flow_weights):
        self.weights = [Fraction(weight) for weight in flow_weights]
        self.normalized = [Fraction(0) for _ in flow_weights]
        self.greatest = [Fraction(0) for _ in flow_weights]
        self.backlogged = set()
        self.open = {}
        self.ranges = []

    def joined(self, index):
        for other in self.backlogged:
            pair = tuple(sorted((index, other)))
            self.open[pair] = (self.lag(*pair),) * 2
        self.backlogged.add(index)

    def left(self, index):
        self.backlogged.discard(index)
        for pair in [pair for pair in self.open if index in pair]:
            self.ranges.append((pair, self.open.pop(pair)))

    def served(self, index, cost):
        self.normalized[index] += cost / self.weights[index]
        self.greatest[index] = max(self.greatest[index], Fraction(cost))
        for pair, (low, high) in self.open.items():
            if index in pair:
                self.open[pair] = (min(low, self.lag(*pair)), max(high, self.lag(*pair)))

    def lag(self, one, other):
        return self.normalized[one] - self.normalized[other]

    def excess(self):
        """The most by which a range is above its bound; <= 0 if the bound holds."""
        ends = self.ranges + list(self.open.items())
        return max((high - low - self.bound(*pair) for pair, (low, high) in ends), default=Fraction(0))

    def bound(self, *pair):
        return sum(self.greatest[index] / self.weights[index] for index in pair)


def backlogged_bench(flow_weights):
    """All flows backlogged from the start, for as long as any test lasts."""
    bench = Bench(flow_weights)
    bench.items = [Endless() for _ in flow_weights]
    for index, flow in enumerate(bench.flows):
        bench.queue.ready(flow)
        bench.lags.joined(index)
    return bench


class Endless:
    """Items of cost 1, as many as are asked for."""

    def pop(self, _):
        return 1


@settings(max_examples=300, deadline=None)
@given(flow_weights=flow_weights, trace=traces(int_costs))
def test_two_backlogged_flows_differ_by_at_most_one_item_of_each(flow_weights, trace):
    """P2, without any slack, for int costs and any weights; P1 on the way: `serve` finds an item iff there is one."""
    bench = Bench(flow_weights)

    bench.play(trace)

    assert bench.lags.excess() <= 0


@settings(max_examples=60, deadline=None)
@given(flow_weights=flow_weights, trace=traces(fraction_costs))
def test_fraction_costs_keep_the_bound_too(flow_weights, trace):
    """P2 with costs of any denominator: the slack is below 2**-31 of a cost of 1."""
    bench = Bench(flow_weights)

    bench.play(trace)

    assert bench.lags.excess() <= Fraction(1, 2**31) / max(map(Fraction, flow_weights))


@settings(max_examples=60, deadline=None)
@given(flow_weights=flow_weights, trace=traces(int_costs))
def test_the_unit_of_costs_does_not_loosen_the_bound(flow_weights, trace):
    """P2 without slack, for costs that are all counted in 10**-12."""
    bench = Bench(flow_weights)

    bench.play([(event, index, Fraction(cost, 10**12)) for event, index, cost in trace])

    assert bench.lags.excess() <= 0


@settings(max_examples=40, deadline=None)
@given(flow_weights=flow_weights, trace=traces(int_costs), unit=st.sampled_from([10**300, 2**1000, 3**600]))
def test_nor_does_a_unit_of_a_thousand_bits(flow_weights, trace, unit):
    """P2 without slack, for costs whose common denominator is as large as is counted exactly."""
    bench = Bench(flow_weights)

    bench.play([(event, index, Fraction(cost, unit)) for event, index, cost in trace])

    assert bench.lags.excess() <= 0


def primes():
    """2, 3, 5, 7, ..."""
    found = []
    for number in count(2):
        if all(number % prime for prime in found):
            found.append(number)
            yield number


def sizes(queue):
    """The bits of every number that a queue counts with."""
    numbers = [queue._now, queue._latest]
    for flow in queue._known():
        service = Fraction(flow.service)
        numbers += [flow._tag, flow._rest, flow._numerator, flow._denominator, service.numerator, service.denominator]
    return max(number.bit_length() for number in numbers)


def test_costs_of_ever_new_denominators_do_not_make_ever_longer_numbers():
    """Each item takes as long as the one before: from 400 items on, no number grows.

    And the bound holds, except for what was rounded.
    """
    bench, denominators, found = Bench([1, 3]), primes(), []
    for number in range(1000):
        if number % 200 == 0:
            found.append(sizes(bench.queue))
        for index in (0, 1):
            bench.push(index, Fraction(1, next(denominators)))
        if number:
            bench.serve_all(2)

    assert max(found[2:]) - min(found[2:]) <= 2
    assert max(found) < 4 * 1024 + 100
    assert bench.lags.excess() <= 2000 * Fraction(2, 2**1023)


@settings(max_examples=200, deadline=None)
@given(flow_weights=flow_weights, trace=traces(int_costs))
def test_every_ready_tag_is_within_one_item_of_virtual_time(flow_weights, trace):
    """The invariant from which the bound follows, after every event."""
    bench = Bench(flow_weights)
    for step in trace:
        bench.play([step])
        for index, flow in enumerate(bench.flows):
            if bench.items[index]:
                assert flow._tag >= bench.queue._now
                item = bench.lags.greatest[index] * flow._numerator / flow._denominator
                assert flow._tag < bench.queue._now + item + 1


@settings(max_examples=40, deadline=None)
@given(flow_weights=flow_weights)
def test_the_gap_of_a_backlogged_flow_is_bounded(flow_weights):
    """P3: between two items of i there are at most sum(floor(w_j/w_i) + 1) items of others."""
    flow_weights = [weight for weight in flow_weights if weight < 10**6] or [1, 1]
    served = backlogged_bench(flow_weights).serve_all(600)

    for index, weight in enumerate(flow_weights):
        others = [other for key, other in enumerate(flow_weights) if key != index]
        assert longest_gap(served, index) <= sum(other // weight + 1 for other in others)


def longest_gap(served, index):
    return max((len(list(run)) for mine, run in groupby(served, lambda key: key == index) if not mine), default=0)


def test_gaps_of_known_weights():
    assert longest_gap(backlogged_bench([1000, 1]).serve_all(5000), 1) == 1000
    assert longest_gap(backlogged_bench([2, 3, 5, 7, 11, 13]).serve_all(5000), 0) <= 22


def test_equal_weights_rotate_in_the_order_of_joining():
    """P11: ties are served first come first served."""
    assert backlogged_bench([3] * 5).serve_all(50) == [0, 1, 2, 3, 4] * 10


def test_every_window_has_the_exact_shares():
    served = backlogged_bench([5, 1, 1]).serve_all(7000)

    for end in range(7, 7001, 7):
        got = Counter(served[:end])
        assert [abs(got[key] - end // 7 * weight) <= 1 for key, weight in enumerate((5, 1, 1))] == [True] * 3


@settings(max_examples=60, deadline=None)
@given(flow_weights=flow_weights, served=st.integers(1, 500))
def test_tags_are_exact_however_old_the_queue_is(flow_weights, served):
    """P12: a tag is the floor of what a Fraction would be; nothing adds up, though ticks become finer on the way."""
    bench = backlogged_bench(flow_weights)
    bench.serve_all(served)
    bench.queue.add("fine", 10**20 + 39)
    bench.serve_all(served)

    for flow in bench.flows:
        assert flow._tag == flow.served * flow._numerator // flow._denominator
        assert flow.service == flow.served


def test_fifty_thousand_items_do_not_loosen_the_bound():
    """P12, at length, with weights whose ratio no power of two divides."""
    bench = backlogged_bench([3, 7])
    bench.serve_all(50_000)

    assert bench.lags.excess() <= 0
    assert [flow.served for flow in bench.flows] == [15_000, 35_000]


@settings(max_examples=150, deadline=None)
@given(
    flow_weights=flow_weights,
    trace=traces(int_costs),
    unit=st.sampled_from([10**15, 7, Fraction(1, 10**9), Fraction(355, 113)]),
)
def test_only_the_ratios_of_weights_count(flow_weights, trace, unit):
    """P13: 3:7 is 3*10**15 : 7*10**15, choice by choice, tick by tick; the same events give the same choices (P11)."""
    plain, scaled = Bench(flow_weights), Bench([weight * unit for weight in flow_weights])

    plain.play(trace)
    scaled.play(trace)

    assert plain.log == scaled.log
    assert [plain.queue.debt(flow) for flow in plain.flows] == [scaled.queue.debt(flow) for flow in scaled.flows]
    assert [flow._tag for flow in plain.flows] == [flow._tag for flow in scaled.flows]


@settings(max_examples=60, deadline=None)
@given(flow_weights=flow_weights, length=st.integers(1, 300))
def test_the_choices_are_those_of_exact_arithmetic(flow_weights, length):
    """With int costs and flows that start together, integer tags choose as Fractions do."""
    tags = [(Fraction(0), index, index) for index in range(len(flow_weights))]
    expected = []
    for serial in range(length):
        tag, _, index = lowest = min(tags)
        tags[tags.index(lowest)] = (tag + Fraction(1) / flow_weights[index], len(tags) + serial, index)
        expected.append(index)

    assert backlogged_bench(flow_weights).serve_all(length) == expected


@settings(max_examples=150, deadline=None)
@given(flow_weights=flow_weights, served=st.integers(0, 200), weight=weights)
def test_a_flow_without_debt_waits_for_at_most_one_item_of_each_other(flow_weights, served, weight):
    """P4: however light it is."""
    bench = backlogged_bench(flow_weights)
    bench.serve_all(served)
    light = bench.queue.add("light", weight)
    bench.queue.ready(light)

    before = []
    while (flow := bench.queue.select()) is not light:
        bench.queue.charge(flow, still_ready=True)
        before.append(flow.key)

    assert len(before) == len(set(before))


def test_a_light_flow_among_heavy_ones_wakes_within_one_round():
    """The number of the design: 19 items among 20 flows, where other rules need 2000."""
    bench = backlogged_bench([100] * 19)
    bench.serve_all(500)
    light = bench.queue.add("light", 1)
    bench.queue.ready(light)

    waited = 0
    while (flow := bench.queue.select()) is not light:
        bench.queue.charge(flow, still_ready=True)
        waited += 1

    assert waited <= 19


def test_a_flow_that_slept_gets_no_credit():
    """P5: after 10 000 items asleep the longest run is 1, and the share is a half from then on."""
    bench = Bench([1, 1])
    bench.push(0, count=20_000)
    bench.push(1)
    bench.serve_all(10_000)

    bench.push(1, count=2000)
    after = bench.serve_all(1000)

    assert max(len(list(run)) for _, run in groupby(after)) == 1
    assert abs(after.count(1) - 500) <= 1


@settings(max_examples=60, deadline=None)
@given(flow_weights=flow_weights, away=st.sampled_from(["idle", "removed"]), length=st.integers(1, 200))
def test_going_away_between_two_choices_gains_nothing(flow_weights, away, length):
    """P6: the flow that leaves after each item, and is back before the next choice, is served as if it had stayed."""
    bench = backlogged_bench(flow_weights)
    queue, flapper, other = bench.queue, bench.flows[0], bench.flows[1]
    normalized = [Fraction(0), Fraction(0)]
    for _ in range(length):
        flow = queue.select()
        queue.charge(flow, still_ready=flow is not flapper)
        if flow is flapper:
            normalized[0] += Fraction(1) / flow.weight
            if away == "removed":
                queue.remove(flapper)
                flapper = queue.add(0, flow.weight)
            queue.ready(flapper)
        elif flow is other:
            normalized[1] += Fraction(1) / flow.weight

    bound = Fraction(1) / flow_weights[0] + Fraction(1) / flow_weights[1]
    assert abs(normalized[0] - normalized[1]) <= bound


def test_a_flapper_gets_half():
    queue = FairQueue()
    flapper, steady = queue.add("flapper", 1), queue.add("steady", 1)
    queue.ready(steady)
    for _ in range(1000):
        queue.ready(flapper)
        flow = queue.select()
        queue.charge(flow, still_ready=flow is steady)

    assert (flapper.served, steady.served) == (500, 500)


@settings(max_examples=60, deadline=None)
@given(flow_weights=flow_weights, served=st.integers(1, 50), cost=int_costs, charged=st.booleans())
def test_an_empty_queue_starts_all_level(flow_weights, served, cost, charged):
    """P10: the end of a busy period ends all debts, whether the last item was served or withdrawn."""
    bench = Bench(flow_weights)
    for _ in range(served):
        bench.push(1, cost)
    bench.serve_all(served if charged else served - 1)
    bench.withdraw(1)

    assert [bench.queue.debt(flow) for flow in bench.flows] == [0] * len(flow_weights)
    for index in reversed(range(len(flow_weights))):
        bench.push(index)
    assert bench.serve_all(len(flow_weights)) == list(reversed(range(len(flow_weights))))


@pytest.mark.parametrize("weight", [1, 7])
def test_an_empty_queue_starts_all_level_though_ticks_became_finer(weight):
    """Finer ticks make whole ones of what was left over; they are part of the debts that end."""
    bench = Bench([1, weight])
    bench.push(1, count=2)
    bench.serve()
    bench.queue.add("fine", 10**20 + 39)
    assert bench.queue.debt(bench.flows[1]) == 1

    bench.withdraw(1)

    assert bench.queue.debt(bench.flows[1]) == 0


def test_a_raised_weight_does_not_wait_out_the_old_debt():
    """A weight of 1/1000 raised to 10 while queued: at most one item of the other comes first."""
    queue = FairQueue()
    steady, raised = queue.add("steady", 1), queue.add("raised", Fraction(1, 1000))
    queue.ready(raised)
    queue.ready(steady)
    queue.charge(queue.select(), still_ready=True)
    queue.charge(queue.select(), still_ready=True)
    assert raised.served == 1

    queue.set_weight(raised, 10)

    before = 0
    while queue.select() is steady:
        queue.charge(steady, still_ready=True)
        before += 1
    assert before <= 1


def test_a_lowered_weight_costs_the_others_at_most_one_item():
    queue = FairQueue()
    steady, lowered = queue.add("steady", 1), queue.add("lowered", 10)
    queue.ready(lowered)
    queue.ready(steady)
    queue.charge(queue.select(), still_ready=True)

    queue.set_weight(lowered, Fraction(1, 1000))

    served = []
    for _ in range(1500):
        served.append(queue.select())
        queue.charge(served[-1], still_ready=True)
    assert served.count(lowered) <= 2


@settings(max_examples=150, deadline=None)
@given(
    first=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    changes=st.lists(st.tuples(st.integers(1, 10), st.integers(0, 1), st.integers(1, 20)), max_size=30),
)
def test_weight_changes_loosen_the_bound_by_their_size_only(first, changes):
    """T4: lag <= bound of the smallest weights + sum of cost_max * |1/new - 1/old|."""
    bench = backlogged_bench(first)
    now, least, moved = list(first), list(first), Fraction(0)
    normalized, lags = [Fraction(0), Fraction(0)], [Fraction(0)]
    for services, index, weight in changes:
        for _ in range(services):
            key = bench.queue.select().key
            bench.queue.charge(bench.flows[key], still_ready=True)
            normalized[key] += Fraction(1, now[key])
            lags.append(normalized[0] - normalized[1])
        moved += abs(Fraction(1, weight) - Fraction(1, now[index]))
        now[index], least[index] = weight, min(least[index], weight)
        bench.queue.set_weight(bench.flows[index], weight)

    ticks = Fraction(len(changes), 2**20)  # each change drops less than a tick of debt
    assert max(lags) - min(lags) <= Fraction(1, least[0]) + Fraction(1, least[1]) + moved + ticks


def test_costs_known_only_after_the_choice_are_shared_fairly():
    """Input A costs 1, or 50 every fourth time; B costs 1: their service never differs by more than 51."""
    queue = FairQueue()
    a, b = queue.add("a", 1), queue.add("b", 1)
    queue.ready(a)
    queue.ready(b)
    lags = [0]
    for _ in range(20_000):
        flow = queue.select()
        queue.charge(flow, 50 if flow is a and a.served % 4 == 3 else 1, still_ready=True)
        lags.append(a.service - b.service)

    assert max(lags) - min(lags) <= 51


@pytest.mark.parametrize(
    ("flow_weights", "cost", "bits"),
    [
        ([1, 1], 1, 32),
        ([1, 2], 1, 32 + 2 * 1),
        ([1, 3], 1, 32 + 2 * 2),
        ([2, 3, Fraction(1, 2)], 1, 32 + 2 * 2),
        ([1, 9], 1, 32 + 2 * 4),
        ([1, 1], Fraction(1, 3), 32 + 2 * 2),
        ([1, 1], Fraction(3), 32),
        ([1, 3], Fraction(1, 3), 32 + 2 * 4),
    ],
)
def test_ticks_are_as_fine_as_weights_and_costs_ask_and_no_finer(flow_weights, cost, bits):
    """Finer ones would be right too, but every charge would count with longer integers."""
    bench = Bench(flow_weights)
    bench.push(0, cost)
    bench.serve()

    assert bench.queue._bits == bits


def test_the_part_of_a_tick_counts_as_debt():
    """A cost of 1 at a weight of 3 is not a whole number of ticks; the debt is 1 all the same."""
    bench = Bench([1, 3])
    bench.push(0)
    bench.push(1, count=2)
    bench.serve_all(2)

    assert bench.flows[1].served == 1
    assert bench.queue.debt(bench.flows[1]) == 1


@pytest.mark.parametrize("part", [Fraction(1, 5), Fraction(1, 2**80 + 13)])
def test_the_part_of_a_tick_is_the_same_in_finer_units_of_cost(part):
    """A cost with a denominator that none had before changes the debt of nobody."""
    bench = Bench([1, 3, 7])
    for index, cost in ((1, 1), (2, 1), (0, part)):
        bench.push(index, cost, count=2)

    assert bench.serve_all(3) == [1, 2, 0]
    assert [bench.queue.debt(flow) for flow in bench.flows] == [part, 1, 1]


def test_who_is_back_on_time_loses_no_part_of_a_tick():
    """The flow that is away until virtual time has reached its tag, and no longer, is charged exactly all the same."""
    queue = FairQueue()
    queue.add("unit", 1)
    flapper, steady = queue.add("flapper", 7), queue.add("steady", 7)
    queue.ready(flapper)
    queue.ready(steady)
    queue.charge(flapper, still_ready=False)
    queue.charge(steady, still_ready=True)
    for _ in range(50):
        queue.charge(steady, still_ready=True)
        queue.ready(flapper)
        queue.charge(flapper, still_ready=False)

    for flow in (flapper, steady):
        assert flow._tag * flow._denominator + flow._rest == flow.served * flow._numerator


def test_the_same_weight_again_changes_no_debt():
    """Not even by the part of a tick: a caller may set all weights at every turn."""
    bench = Bench([1, 7])
    bench.push(0)
    bench.push(1, count=2)
    bench.serve_all(2)

    for _ in range(3):
        bench.queue.set_weight(bench.flows[1], 7)

    assert bench.queue.debt(bench.flows[1]) == 1


@pytest.mark.parametrize("cost", [Fraction(1, 2), Fraction(1, 3), Fraction(5, 6)])
def test_the_same_weight_again_changes_no_debt_of_a_fraction(cost):
    """Catches parts of a tick that are counted in units which became finer for a cost."""
    queue = FairQueue()
    queue.add("light", 1)
    flow = queue.add("heavy", 7)
    queue.ready(flow)
    queue.charge(flow, cost, still_ready=True)

    assert queue.debt(flow) == cost
    queue.set_weight(flow, 7)
    assert queue.debt(flow) == cost


@pytest.mark.parametrize("weight", [2, Fraction(1, 2), 4])
def test_a_debt_is_kept_as_cost_when_the_weight_changes(weight):
    """Exactly so, where the new weight divides it into whole ticks."""
    bench = Bench([1, 1])
    bench.push(0)
    bench.push(1, cost=8, count=2)
    bench.serve_all(2)

    bench.queue.set_weight(bench.flows[1], weight)

    assert bench.queue.debt(bench.flows[1]) == 8


def test_a_part_of_a_tick_is_gone_with_the_weight_that_it_was_counted_in():
    """A flow without any whole tick of debt gets no debt from a new weight, whose parts of a tick are larger."""
    queue = FairQueue()
    queue.add("unit", 1)
    changed, steady = queue.add("changed", Fraction(7, 5)), queue.add("steady", Fraction(7, 5))
    queue.ready(changed)
    queue.ready(steady)
    queue.charge(changed, still_ready=False)
    queue.charge(steady, still_ready=True)
    queue.charge(steady, still_ready=True)  # virtual time is at the tag of both, not at what is left over
    before = queue.debt(changed)

    queue.set_weight(changed, 7)

    assert queue.debt(changed) <= before


def test_dead_entries_do_not_pile_up():
    """Flapping and new weights, with nothing served that would clear them away: memory follows what is ready."""
    bench = backlogged_bench([1, 1])
    for number in range(1000):
        bench.queue.idle(bench.flows[1])
        bench.queue.ready(bench.flows[1])
        bench.queue.set_weight(bench.flows[1], 1 + number % 7)

    assert len(bench.queue._heap) < 50


def test_dead_entries_are_dropped_when_they_are_the_most():
    """No later, for memory, and no sooner, for dropping them looks at every entry."""
    bench = backlogged_bench([1] * 100)
    lengths = []
    for _ in range(5):
        for flow in bench.flows:
            bench.queue.set_weight(flow, 2)
            lengths.append(len(bench.queue._heap))

    assert max(lengths) == 2 * 100 + 16


def test_debts_of_departed_keys_are_forgotten():
    """A thousand leave with a debt; once virtual time has passed it, the next that leaves sweeps them out."""
    queue = FairQueue()
    *crowd, steady = (queue.add(number, 1) for number in range(1002))
    for flow in (*crowd, steady):
        queue.ready(flow)
    for _ in range(1001):
        queue.charge(queue.select(), still_ready=False)
    for flow in crowd[:-1]:
        queue.remove(flow)
    assert len(queue._departed) == 1000

    queue.charge(steady, 5, still_ready=True)
    queue.charge(steady, 5, still_ready=True)
    queue.remove(crowd[-1])

    assert len(queue._departed) == 0


def indebted(count):
    """A queue that so many flows have left with debts of 1, 2, ... while another one is present and ready."""
    queue = FairQueue()
    crowd = [queue.add(number, 1) for number in range(1, count + 1)]
    steady = queue.add("steady", 1)
    for flow in (*crowd, steady):
        queue.ready(flow)
    for flow in crowd:
        queue.charge(flow, flow.key, still_ready=False)
        queue.remove(flow)
    return queue, steady


def test_a_debt_is_forgotten_at_the_instant_when_virtual_time_reaches_it():
    queue, steady = indebted(2)
    for _ in range(2):
        queue.charge(steady, still_ready=True)

    queue.remove(queue.add("passer-by", 1))

    assert list(queue._departed) == [2]


def test_a_key_without_debt_leaves_nothing_behind():
    queue, _ = indebted(1)

    queue.remove(queue.add("guest", 1))

    assert list(queue._departed) == [1]


def test_where_few_have_left_a_new_key_starts_level():
    """Up to as many debts as flows are present, and 16 more, no newcomer takes one over."""
    queue, _ = indebted(1 + 16)

    assert queue.debt(queue.add("new", 1)) == 0


def test_where_many_have_left_a_new_key_takes_over_the_oldest_debt():
    queue, _ = indebted(1 + 16 + 1)

    assert queue.debt(queue.add("new", 1)) == 1
    assert queue.debt(queue.add("next", 1)) == 0


def test_a_crowd_of_ever_new_keys_does_not_starve_the_others():
    """Each newcomer has one item and is gone; the steady flow still gets its turn within a bounded number of them."""
    bench = backlogged_bench([1, 1])
    served = []
    for number in range(2000):
        guest = bench.queue.add(f"guest {number}", 1)
        bench.queue.ready(guest)
        while (flow := bench.queue.select()) is not guest:
            bench.queue.charge(flow, still_ready=True)
            served.append(flow.key)
        bench.queue.charge(guest, still_ready=False)
        bench.queue.remove(guest)
        served.append("guest")

    for key in (0, 1):
        assert longest_gap(served, key) <= 2 * (2 + 16)


def left_in_debt(cost, *, gone, steady):
    """Make a queue that "gone" has left in debt, of these weights; give "steady", too, which is ready."""
    queue = FairQueue()
    goes, stays = queue.add("gone", gone), queue.add("steady", steady)
    queue.ready(goes)
    queue.ready(stays)
    queue.charge(goes, cost, still_ready=False)
    queue.remove(goes)
    return queue, stays


def test_a_removed_key_keeps_its_debt_until_virtual_time_has_passed_it():
    queue, steady = left_in_debt(3, gone=1, steady=2)

    back = queue.add("gone", 1)
    assert (queue.debt(back), back.served) == (3, 0)
    queue.remove(back)
    for _ in range(8):
        queue.charge(steady, still_ready=True)
    assert queue.debt(queue.add("gone", 1)) == 0


def test_a_debt_left_behind_is_the_same_when_ticks_become_finer():
    queue, _steady = left_in_debt(3, gone=3, steady=2)

    queue.add("fine", 10**20 + 39)

    assert queue.debt(queue.add("gone", 3)) == 3


def test_a_debt_is_paid_off_at_the_weight_with_which_the_key_returns():
    queue, steady = left_in_debt(6, gone=1, steady=1)

    back = queue.add("gone", 3)
    queue.ready(back)

    before = 0
    while queue.select() is steady:
        queue.charge(steady, still_ready=True)
        before += 1
    assert before == 2  # the others' tags 0 and 1; at 2 both are level, and the one that came back waits longer


def test_ready_and_idle_twice_are_once():
    queue = FairQueue()
    flow = queue.add("a", 1)
    queue.ready(flow)
    queue.ready(flow)
    assert queue.backlogged == 1

    queue.idle(flow)
    queue.idle(flow)

    assert (queue.backlogged, queue.select()) == (0, None)


def test_asking_does_not_change_the_answer():
    bench = backlogged_bench([2, 3, 5])
    for _ in range(50):
        assert bench.queue.select() is bench.queue.select()
        bench.serve()


def test_misuse_is_refused_and_changes_nothing():
    queue = FairQueue()
    a, b = queue.add("a", 1), queue.add("b", 1)
    queue.ready(a)
    queue.ready(b)

    with pytest.raises(ValueError, match=r"^FairQueue: key must be new, not 'a'$"):
        queue.add("a", 1)
    with pytest.raises(ValueError, match=r"^FairQueue: weight must be a positive int or Fraction, not 0$"):
        queue.add("c", 0)
    with pytest.raises(ValueError, match=r"^FairQueue: weight must be a positive int or Fraction, not -1$"):
        queue.set_weight(a, -1)
    with pytest.raises(StateError, match=r"^cannot charge flow 'b' while it is not selected$"):
        queue.charge(b, still_ready=True)
    with pytest.raises(ValueError, match=r"^FairQueue: cost must be a positive int or Fraction, not 0$"):
        queue.charge(a, 0, still_ready=True)
    for cost, use in ((0.5, "Fraction(1, 2)"), (1.5, "Fraction(3, 2)")):
        message = re.escape(f"FairQueue: cost must be a positive int or Fraction, not {cost}\nUse {use}.")
        with pytest.raises(TypeError, match=rf"^{message}$"):
            queue.charge(a, cost, still_ready=True)
    assert (queue.backlogged, queue.select(), a.served, a.service) == (2, a, 0, 0)


@pytest.mark.parametrize("weight", [True, 1.0, 0.5])
def test_a_weight_that_only_equals_one_that_was_seen_is_refused(weight):
    queue = FairQueue()
    flow = queue.add("one", 1)
    queue.add("half", Fraction(1, 2))
    with pytest.raises(TypeError, match=r"weight must be a positive int or Fraction"):
        queue.add("other", weight)
    with pytest.raises(TypeError, match=r"weight must be a positive int or Fraction"):
        queue.set_weight(flow, weight)


def test_a_refused_key_is_still_free():
    """Nor has its weight become what others are measured by."""
    queue = FairQueue()
    for weight in (0, -1):
        with pytest.raises(ValueError, match=rf"^FairQueue: weight must be a positive int or Fraction, not {weight}$"):
            queue.add("a", weight)

    a, b = queue.add("a", 1), queue.add("b", 3)
    queue.ready(a)
    queue.ready(b)
    for _ in range(400):
        queue.charge(queue.select(), still_ready=True)

    assert (a.served, b.served) == (100, 300)


def test_an_empty_queue_has_nothing_to_charge():
    queue = FairQueue()
    idle = queue.add("idle", 1)

    with pytest.raises(StateError, match=r"^cannot charge flow 'idle' while it is not selected$"):
        queue.charge(idle, still_ready=False)
    assert (queue.backlogged, idle.served) == (0, 0)


def test_a_removed_flow_takes_no_more_part():
    queue = FairQueue()
    gone = queue.add("gone", 1)
    queue.ready(gone)
    queue.remove(gone)
    queue.remove(gone)

    with pytest.raises(StateError, match=r"^cannot make flow 'gone' ready while it is removed$"):
        queue.ready(gone)
    with pytest.raises(StateError, match=r"^cannot charge flow 'gone' while it is not selected$"):
        queue.charge(gone, still_ready=True)
    with pytest.raises(StateError, match=r"^cannot change the weight of flow 'gone' while it is removed$"):
        queue.set_weight(gone, 2)
    queue.idle(gone)
    assert (queue.backlogged, queue.select()) == (0, None)


class AgainstExactModel(RuleBasedStateMachine):
    """Any sequence of events, beside a model with Fraction tags that is told the same choices.

    The model joins at the exact V, the queue at the whole tick below: they may break ties differently, and are never
    further apart than the ticks dropped so far.
    """

    NEAR = Fraction(1, 2**20)

    def __init__(self):
        super().__init__()
        self.queue = FairQueue()
        self.flows, self.ready_keys = {}, set()
        self.tags, self.now, self.latest = {}, Fraction(0), Fraction(0)

    keys = st.integers(0, 4)

    @rule(key=keys, weight=weights)
    def add(self, key, weight):
        if key in self.flows:
            with pytest.raises(ValueError, match=rf"^FairQueue: key must be new, not {key}$"):
                self.queue.add(key, weight)
            return
        self.flows[key] = self.queue.add(key, weight)
        ahead, old = self.tags.get(key, (self.now, 1))
        self.tags[key] = (self.rescaled(ahead, old, weight), weight)

    @rule(key=keys)
    def remove(self, key):
        if key in self.flows:
            self.queue.remove(self.flows.pop(key))
            self.leave(key)

    @rule(key=keys)
    def ready(self, key):
        if key in self.flows:
            self.queue.ready(self.flows[key])
            if key not in self.ready_keys:
                self.ready_keys.add(key)
                tag, weight = self.tags[key]
                self.tags[key] = (max(tag, self.now), weight)

    @rule(key=keys)
    def idle(self, key):
        if key in self.flows:
            self.queue.idle(self.flows[key])
            self.leave(key)

    @rule(key=keys, weight=weights)
    def set_weight(self, key, weight):
        if key in self.flows:
            self.queue.set_weight(self.flows[key], weight)
            tag, old = self.tags[key]
            self.tags[key] = (self.rescaled(tag, old, weight), weight)

    @precondition(lambda self: self.ready_keys)
    @rule(cost=int_costs | fraction_costs, times=st.integers(1, 10), stays=st.booleans())
    def serve(self, cost, times, stays):
        for left in reversed(range(times)):
            flow = self.queue.select()
            assert flow.key in self.ready_keys
            tag, weight = self.tags[flow.key]
            assert tag <= min(self.tags[key][0] for key in self.ready_keys) + self.NEAR
            still_ready = stays or left > 0
            self.queue.charge(flow, cost, still_ready=still_ready)
            self.now = max(self.now, tag)
            self.tags[flow.key] = (tag + Fraction(cost) / weight, weight)
            self.latest = max(self.latest, self.tags[flow.key][0])
            if not still_ready:
                self.leave(flow.key)

    def leave(self, key):
        if key in self.ready_keys:
            self.ready_keys.remove(key)
            if not self.ready_keys:
                self.now = self.latest = max([self.latest, *(tag for tag, _ in self.tags.values())])

    def rescaled(self, tag, old, new):
        return self.now + Fraction(max(tag - self.now, 0)) * old / new  # of a plain 0 it would make a float

    @invariant()
    def select_finds_a_flow_iff_one_is_ready(self):
        assert self.queue.backlogged == len(self.ready_keys)
        assert (self.queue.select() is None) == (not self.ready_keys)

    @invariant()
    def debts_are_those_of_the_model(self):
        for key, flow in self.flows.items():
            tag, weight = self.tags[key]
            assert abs(self.queue.debt(flow) / weight - max(tag - self.now, 0)) <= self.NEAR


AgainstExactModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_any_sequence_of_events_agrees_with_exact_arithmetic = AgainstExactModel.TestCase


def test_pairs_are_compared_once():
    """The recorder of lags sees every pair: guards the other tests against checking nothing."""
    bench = backlogged_bench([1, 2, 3])
    bench.serve_all(30)

    assert sorted(bench.lags.open) == list(combinations(range(3), 2))
    assert all(high > low for low, high in bench.lags.open.values())


def test_only_a_flow_that_is_ready_is_served_out_of_turn():
    queue = FairQueue()
    flow = queue.add("late", 1)
    with pytest.raises(StateError, match=r"^cannot serve flow 'late' while it is not ready$"):
        queue.overtake(flow)
    queue.ready(flow)
    queue.overtake(flow)
    queue.remove(flow)
    with pytest.raises(StateError, match="not ready"):
        queue.overtake(flow)


@example(3, [1, 1, 1, 1, -2, 1, -9, 1, 1])
@given(st.integers(1, 10**6), st.lists(st.integers(-5, 9), min_size=1, max_size=20))
def test_a_correction_is_counted_with_all_that_divisions_leave_over(weight, costs):
    """The debt of a flow is what it was charged and corrected by, to the last part, and never below 0."""
    queue = FairQueue()
    one, other = queue.add("one", 1), queue.add("other", weight)
    queue.ready(one)
    queue.ready(other)
    debt = Fraction(0)
    for cost in costs:
        queue.adjust(other, cost)
        debt = max(Fraction(0), debt + cost)
        assert queue.debt(other) == debt
        assert queue.debt(one) == 0


def test_what_is_corrected_there_and_back_changes_nothing():
    """Not even by the part of a tick, for a flow that virtual time has reached except for that."""
    queue = FairQueue()
    queue.add("unit", 1)
    corrected, steady = queue.add("corrected", 7), queue.add("steady", 7)
    for flow in (corrected, steady):
        queue.ready(flow)
        queue.charge(flow, still_ready=True)
    queue.charge(corrected, still_ready=True)
    before = queue.debt(steady)
    assert 0 < before < Fraction(1, 2**31)

    for cost in (0, 3, -3):
        queue.adjust(steady, cost)

    assert queue.debt(steady) == before


def test_who_is_served_is_ahead_and_the_others_lag_by_their_weights():
    """Three flows, to the last part of what each cost is by their weights; who is not ready does not take part."""
    queue = FairQueue()
    assert queue.lags() == {}
    flows = {key: queue.add(key, weight) for key, weight in (("a", 1), ("b", 2), ("c", Fraction(1, 2)), ("away", 5))}
    for key in "abc":
        queue.ready(flows[key])
    assert queue.lags() == {"a": 0, "b": 0, "c": 0}

    queue.charge(flows["a"], 7, still_ready=True)
    assert queue.lags() == {"a": -5, "b": 4, "c": 1}
    queue.charge(flows["b"], Fraction(1, 3), still_ready=True)
    assert queue.lags() == {
        "a": -5 + Fraction(2, 21),
        "b": 4 - Fraction(1, 3) + Fraction(4, 21),
        "c": 1 + Fraction(1, 21),
    }
    queue.idle(flows["a"])
    assert queue.lags() == {"b": -Fraction(1, 3) + Fraction(4, 15), "c": Fraction(1, 15)}
    queue.idle(flows["b"])
    queue.remove(flows["c"])
    assert queue.lags() == {}


@given(flow_weights, st.lists(st.one_of(int_costs, fraction_costs), max_size=30))
def test_lags_are_what_each_got_less_than_its_share(flow_weights, costs):
    """Among flows that are ready throughout: exactly, whatever divisions leave over. So they are 0 in all."""
    bench, got, whole = backlogged_bench(flow_weights), [Fraction(0)] * len(flow_weights), sum(flow_weights)
    for cost in costs:
        flow = bench.queue.select()
        got[flow.key] += bench.queue.charge(flow, cost, still_ready=True)

        assert bench.queue.lags() == {
            index: Fraction(sum(got) * weight) / whole - got[index] for index, weight in enumerate(flow_weights)
        }
