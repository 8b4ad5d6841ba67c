"""P3: output order is input order wherever it is promised, under every schedule.

Mutants that die here: an ordered pool that emits on completion; a result put past those that wait; a merge that
interleaves within one input; a burst that overtakes the results before it.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ._world import DELAYS, Do, End, From, Line, World, lines

KEEPING = ("map", "async map", "filter", "async filter", "tap", "async tap", "buffer", "scan", "batch", "timed batch")
orders = settings(max_examples=120, deadline=None)


def in_order(items):
    """Whether the items of each source come in its order."""
    last = {}
    for item in items:
        source = item.name.split(".")[0]
        if item.number <= last.get(source, -1):
            return False
        last[source] = item.number
    return True


@orders
@given(line=lines(kinds=KEEPING, joins=("merge", "fair", "concat")), seed=st.integers(), slow=st.sampled_from((0, 0.3)))
def test_each_input_keeps_its_order_through_every_plan(line, seed, slow):
    """P3: ordered operations, and merges of them, keep the order of each source."""
    world = World()
    world.play(world.plan(line), End("all", slow=slow), seed)

    assert in_order(world.delivered)


@orders
@given(
    delays=st.lists(st.sampled_from(DELAYS), min_size=1, max_size=7).map(tuple),
    concurrency=st.integers(1, 8),
    capacity=st.integers(1, 8),
    seed=st.integers(),
)
def test_an_ordered_pool_gives_results_in_the_order_of_its_items(delays, concurrency, capacity, seed):
    """P3, whatever each call takes, for every concurrency and capacity."""
    world = World()
    pool = Do("async map", concurrency=concurrency, delays=delays)
    line = Line(From("iterable", 40), (pool, Do("buffer", number=capacity), pool))
    world.play(world.plan(line), End("all"), seed)

    assert [item.number for item in world.delivered] == list(range(40))


@pytest.mark.parametrize("seed", range(20))
def test_one_worker_keeps_order_even_if_it_need_not(seed):
    """P3: one worker, `ordered=False`."""
    world = World()
    line = Line(From("iterable", 30), (Do("unordered", concurrency=1, delays=(1.0, 0.0, 0.25)),))
    world.play(world.plan(line), End("all"), seed)

    assert [item.number for item in world.delivered] == list(range(30))
