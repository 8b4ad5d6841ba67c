"""Whom each part waits for in the end: a line against a model that walks it, and shapes with known answers.

Mutants of `blame.py` that die here: a walk that stops one part early or late, or turns round; a pool passed by while it
is at work, or not although its results have no room; parts of a wait that are not 1 in all; a pause or the clock taken
for a part; two that wait for each other walked for ever.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.blame import CLOCK, COUNT, GONE, NO_INPUT, NO_ROOM, PAUSE, Feed, Graph, Node, Out, PoolField
from funcpipe_trio._sansio.blame import waits_in as blame


def line(states: list[int]) -> tuple[Graph, int]:
    """Return a line of parts, each with its state; the last is the consumer."""
    last = len(states) - 1
    nodes = [
        Node(
            str(each),
            1 + 2 * each,
            is_pool=False,
            waits_outside=each == 0,
            feed=Feed("link", each - 1) if each else None,
            outs=() if each == last else (Out(each + 1),),
        )
        for each in range(len(states))
    ]
    return Graph(tuple(nodes), 0), sum(state << 1 + 2 * each for each, state in enumerate(states))


def walked(states: list[int], waiter: int) -> int | None:
    """Return whom a part of a line waits for: where a walk ends that turns as the waits do; None: round and round."""
    step, at = (-1 if states[waiter] == NO_INPUT else 1), waiter
    for _ in range(2 * len(states)):
        if at == 0 and states[0] == NO_INPUT:
            return PAUSE
        at += step
        if states[at] == GONE:
            return CLOCK if step < 0 else at
        if states[at] == 0:
            return at
        step = -1 if states[at] == NO_INPUT else 1
    return None


@given(st.lists(st.sampled_from([0, NO_INPUT, NO_ROOM, GONE]), min_size=2, max_size=9))
def test_a_line_is_walked_as_the_waits_turn(states):
    states[-1] = NO_INPUT if states[-1] == NO_ROOM else states[-1]
    graph, state = line(states)
    found: dict[int, dict[int, float]] = {}
    for (waiter, whom), share in blame(graph, state):
        found.setdefault(waiter, {})[whom] = share

    waiting = {each for each, said in enumerate(states) if said in (NO_INPUT, NO_ROOM)}
    assert set(found) == waiting
    for waiter in waiting:
        assert sum(found[waiter].values()) == pytest.approx(1)
        expected = walked(states, waiter)
        if expected is not None:
            assert set(found[waiter]) == {expected}


def test_a_paused_source_waits_for_the_pause_as_do_all_behind_it():
    graph, state = line([0, NO_INPUT, NO_INPUT])

    assert {whom for (_, whom), _ in blame(graph, state)} == {0}
    assert dict(blame(graph, state | 1)) == {(0, PAUSE): 1, (1, PAUSE): 1, (2, PAUSE): 1}


def pool(**counts: int) -> int:
    return sum(value << getattr(PoolField, name.upper()) for name, value in counts.items())


@pytest.mark.parametrize(
    ("field", "own", "before", "behind"),
    [
        (pool(in_use=1), {}, 1, 1),
        (pool(starved=2), {0: 2}, 0, 0),
        (pool(starved=2, in_use=1), {0: 2}, 1, 1),
        (pool(blocked=3, in_use=1), {2: 3}, 2, 1),
        (pool(blocked=3), {2: 3}, 2, 1),  # one of the two was woken
        (pool(blocked=3, in_use=1) | PoolField.STALLED, {1: 3}, 1, 1),
        (pool(in_line=1, blocked=1) | PoolField.STALLED, {1: 1, 2: 1}, 2, 1),
        (pool(starved=1) | PoolField.STALLED, {1: 1}, 1, 1),
        (PoolField.GONE, {}, 1, CLOCK),
        (pool(), {}, 1, 1),
    ],
)
def test_a_pool_is_passed_by_when_it_is_not_at_work(field, own, before, behind):
    """Between a source and a consumer; asked for its own waits, and for those of either neighbour that waits."""

    def graph(first: int, last: int) -> tuple[Graph, int]:
        nodes = (
            Node("source", 1, is_pool=False, waits_outside=True, feed=None, outs=(Out(1),)),
            Node("pool", 5, is_pool=True, waits_outside=False, feed=Feed("link", 0), outs=(Out(2),)),
            Node("consumer", 3, is_pool=False, waits_outside=False, feed=Feed("link", 1), outs=()),
        )
        return Graph(nodes, 0), first << 1 | last << 3 | field << 5

    assert {whom: count for (waiter, whom), count in blame(*graph(0, 0)) if waiter == 1} == own
    assert {whom for (waiter, whom), _ in blame(*graph(NO_ROOM, 0)) if waiter == 0} == {before}
    assert {whom for (waiter, whom), _ in blame(*graph(0, NO_INPUT)) if waiter == 2} == {behind}


def node(name: str, shift: int, feed: Feed | None, *outs: Out, is_pool: bool = False) -> Node:
    return Node(name, shift, is_pool=is_pool, waits_outside=feed is None, feed=feed, outs=outs)


@pytest.mark.parametrize(("in_use", "whom"), [(1, 0), (0, 2)])
def test_a_branch_waits_for_the_trunk_at_work_else_for_the_branch_that_is_full(in_use, whom):
    """Of a pool that fills two branches, a worker waits for room in the second."""
    trunk = node("trunk", 5, None, Out(1, 1), Out(2, 2), is_pool=True)
    graph = Graph((trunk, node("a", 200, Feed("link", 0)), node("b", 202, Feed("link", 0))), 0)
    state = pool(blocked=1, in_use=in_use) << 5 | NO_INPUT << 200 | 1 << 2

    assert {found for (waiter, found), _ in blame(graph, state) if waiter == 1} == {whom}


@pytest.mark.parametrize(
    ("how", "gone", "expected"),
    [
        ("merge", [], {0: 0.5, 1: 0.5}),
        ("merge", [0], {1: 1.0}),
        ("concat", [], {0: 1.0}),
        ("concat", [0], {1: 1.0}),
        ("zip", [], {1: 1.0}),
        ("merge", [0, 1], {CLOCK: 1.0}),
    ],
)
def test_a_fan_in_waits_for(how, gone, expected):
    """Two sources at work, or gone; of a zip the second has nothing."""
    feed = Feed(how, feeds=(Feed("link", 0), Feed("link", 1)), shift=10)
    graph = Graph((node("a", 1, None, Out(2)), node("b", 3, None, Out(2)), node("taker", 5, feed)), 0)
    state = NO_INPUT << 5 | 1 << 11 | sum(GONE << 1 + 2 * each for each in gone)

    assert {whom: share for (waiter, whom), share in blame(graph, state)} == expected


def test_counts_have_room():
    field = pool(in_use=(1 << COUNT) - 1, starved=0, blocked=5)

    assert field < 1 << PoolField.WIDTH


@pytest.mark.parametrize("at_work", [0, 1, 2, 3])
@pytest.mark.parametrize("source_is_gone", [False, True])
def test_in_a_loop_all_wait_for_who_is_at_work_and_none_for_itself(at_work, source_is_gone):
    """0 is the source, 1 to 3 the body; what 3 gives goes to 1 and to the consumer."""
    graph, state = line([GONE if source_is_gone else NO_INPUT, NO_INPUT, NO_INPUT, NO_INPUT, NO_INPUT])
    nodes = list(graph.nodes)
    nodes[1] = nodes[1]._replace(feed=Feed("merge", feeds=(Feed("link", 0), Feed("link", 3))))
    state &= ~(3 << 1 + 2 * at_work) if at_work or not source_is_gone else -1
    if at_work:
        state |= GONE << 1

    found: dict[int, dict[int, float]] = {}
    for (waiter, whom), share in blame(Graph(tuple(nodes), 0, has_loop=True), state):
        found.setdefault(waiter, {})[whom] = share

    expected = CLOCK if source_is_gone and not at_work else at_work
    waiting = {1, 2, 3, 4} - {at_work}
    assert found == {waiter: {expected: pytest.approx(1)} for waiter in waiting}
