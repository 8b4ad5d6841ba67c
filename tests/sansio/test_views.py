"""Some of the flows of a fair queue: the first of them is the one that the queue would serve first, were there no rest.

Compared with a search through all that are shown, after each of any row of events: flows come, go, become ready and
idle, are charged in turn or out of turn, corrected, and get other weights; several views show other flows.

Mutants that die here: a view that asks the queue though it does not show all; that forgets a change of weight, a charge
or a correction; that keeps what is hidden; a cost or a weight whose finer ticks a view does not learn of; a weight that
is remembered in coarser ticks than there are; entries of hidden flows that pile up, or are looked for too often.
"""

from fractions import Fraction
from weakref import WeakSet

from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio._sansio.fair_queue import FairQueue, View

KEYS = 5
weights = st.sampled_from((1, 2, 3, 7, Fraction(1, 3), Fraction(5, 7), 10**6))
costs = st.sampled_from((1, 1, 2, 5, Fraction(1, 2), Fraction(3, 11)))
events = st.one_of(
    st.tuples(st.just("come"), st.integers(0, KEYS - 1), st.tuples(weights, st.integers(0, 7))),
    st.tuples(st.just("come"), st.integers(0, KEYS - 1), st.tuples(weights, st.integers(1, 2))),
    st.tuples(st.just("go"), st.integers(0, KEYS - 1), st.none()),
    st.tuples(st.just("show"), st.integers(0, KEYS - 1), st.integers(0, 2)),
    st.tuples(st.just("hide"), st.integers(0, KEYS - 1), st.integers(0, 2)),
    st.tuples(st.just("serve"), st.integers(0, 2), costs),
    st.tuples(st.just("serve"), st.integers(0, 1), st.just(1)),
    st.tuples(st.just("weight"), st.integers(0, KEYS - 1), weights),
    st.tuples(st.just("adjust"), st.integers(0, KEYS - 1), costs | costs.map(lambda cost: -cost)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(events, min_size=10, max_size=40))
def test_the_first_of_a_view_is_the_first_of_those_that_it_shows(program):
    queue, flows = FairQueue(), {}
    views = [View(queue) for _ in range(3)]
    shown = [set() for _ in views]
    for what, number, how in program:
        play(queue, flows, views, shown, what, number, how)

        for view, keys in zip(views, shown, strict=True):
            first = min((flows[key] for key in keys), key=lambda flow: flow.place, default=None)
            assert view.first() is first


def play(queue, flows, views, shown, what, number, how):
    flow = flows.get(number)
    if what == "come" and flow is None:
        weight, where = how
        flows[number] = queue.add(number, weight)
        queue.ready(flows[number])
        for bit, (view, keys) in enumerate(zip(views, shown, strict=True)):
            if where >> bit & 1:
                view.show(flows[number])
                keys.add(number)
    elif what == "serve":
        first = views[number].first()
        if first is not None:
            queue.overtake(first)
            queue.charge(first, how, still_ready=True)
    elif flow is not None:
        play_one(queue, flows, views, shown, what, number, how)


def play_one(queue, flows, views, shown, what, number, how):
    flow = flows[number]
    if what == "go":
        for view, keys in zip(views, shown, strict=True):
            view.hide(flow)
            keys.discard(number)
        queue.remove(flows.pop(number))
    elif what == "show":
        views[how].show(flow)
        shown[how].add(number)
    elif what == "hide":
        views[how].hide(flow)
        shown[how].discard(number)
    elif what == "weight":
        queue.set_weight(flow, how)
    elif what == "adjust":
        queue.adjust(flow, how)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), weights, costs), min_size=1, max_size=30))
def test_a_weight_that_was_seen_counts_as_one_that_was_not(turns):
    """Flows that come, are served once and go, each with some weight: the same as in a queue that remembers none."""

    def play(forgets):
        queue, debts = FairQueue(), []
        queue.ready(queue.add("other", 1))
        queue.ready(queue.add("another", 2))
        for key, weight, cost in turns:
            if forgets:
                queue._scales.clear()
            flow = queue.add(key, weight)
            queue.ready(flow)
            queue.overtake(flow)
            queue.charge(flow, cost, still_ready=True)
            debts.append(queue.debt(flow))
            queue.remove(flow)
        return debts

    assert play(False) == play(True)


class Key:
    """A key of which one can see whether anybody has it."""


def test_a_view_keeps_few_of_those_that_it_showed():
    """Not more than it shows and sixteen, for memory; and not fewer, for dropping them looks at all that it shows."""
    queue = FairQueue()
    view, flows = View(queue), [queue.add(number, 1) for number in range(4)]
    for flow in flows:
        queue.ready(flow)
        queue.charge(queue.select(), still_ready=True)
    for flow in flows[:3]:
        view.show(flow)
    assert view.first() is flows[0]  # not the first of all, so it keeps an order of its own from now on
    known, lengths = WeakSet(), []
    for _ in range(200):
        key = Key()
        known.add(key)
        flow = queue.add(key, 1)
        queue.ready(flow)
        view.show(flow)
        view.hide(flow)
        queue.remove(flow)
        assert queue.select() is flows[0]  # so the queue itself keeps none that has gone
        del key, flow
        lengths.append(len(known))

    assert max(lengths) == 3 + 16
