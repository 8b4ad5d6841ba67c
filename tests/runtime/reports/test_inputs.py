"""What is said of each input of a merge and each key of a `fair_by`: what waits there, since when, how far behind.

Mutants that die here: a wait that goes on although an item was taken; one that began before there was an item; the wait
of now left out; a lag with the sign turned, or of inputs that have nothing; a key whose only item is outside forgotten.
"""

import trio
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio import FairShare, Pipeline, fair_merge
from funcpipe_trio._sansio.fair_queue import FairQueue
from tests._kit import in_virtual_time


def of(run, key):
    return next(each for each in run.statistics().inputs if each.key == key)


@in_virtual_time
async def test_the_longest_wait_of_an_input_is_the_one_between_two_of_its_turns():
    """With weights 3 and 1 and a consumer that takes one a second, the light one has its turn in every fourth."""
    share = FairShare({"heavy": 3, "light": 1}, capacity=4)
    inputs = {"heavy": Pipeline.from_iterable(range(90)), "light": Pipeline.from_iterable(range(90))}

    async with fair_merge(inputs, share).open() as run:
        for _ in range(40):
            await run.receive()
            await trio.sleep(1)

        assert of(run, "light").longest_wait == 4
        assert of(run, "heavy").longest_wait == 2
        assert 0 < of(run, "light").backlog <= 4
        await trio.sleep(60)
        assert of(run, "light").longest_wait > 60 < of(run, "heavy").longest_wait


@in_virtual_time
async def test_an_input_that_has_nothing_does_not_wait():
    async def late():
        await trio.sleep(10)
        yield "late"
        await trio.sleep(10)

    inputs = {"late": Pipeline.from_async_iterable(late), "other": Pipeline.ticks(1)}

    async with fair_merge(inputs).open() as run:
        async for item in run:
            if item == "late":
                break
            if not of(run, "late").backlog:
                assert of(run, "late").longest_wait == of(run, "late").lag == 0
        assert of(run, "late").longest_wait <= 1
        await trio.sleep(5)
        assert of(run, "late").longest_wait <= 1
        assert of(run, "other").longest_wait >= 4


@in_virtual_time
async def test_keys_are_told_apart_with_the_one_whose_item_is_outside():
    """Two places for keys: the item of the third waits outside, behind it the stream."""
    line = Pipeline.from_iterable(["a", "a", "b", "c", "c"]).fair_by(str, FairShare(capacity=3), max_keys=2)

    async with line.open() as run:
        await trio.sleep(7)
        assert {each.key: each.backlog for each in run.statistics().inputs} == {"a": 2, "b": 1, "c": 1}
        assert {each.longest_wait for each in run.statistics().inputs} == {7}
        await run.receive()
        await trio.sleep(2)
        assert of(run, "a").longest_wait == 7
        assert of(run, "c").longest_wait == 9
        assert of(run, "b").lag > 0 > of(run, "a").lag
        before = run.statistics()
        await run.receive()
        assert {each.longest_wait for each in run.statistics().since(before).inputs} == {7, 9}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.lists(st.integers(1, 7), max_size=30), st.data())
def test_lags_are_zero_in_all_and_bounded(weights, costs, data):
    queue = FairQueue()
    flows = [queue.add(number, weight) for number, weight in enumerate(weights)]
    for flow in flows:
        queue.ready(flow)
    for cost in costs:
        flow = queue.select()
        before = queue.lags()
        queue.charge(flow, cost, still_ready=True)
        after = queue.lags()
        assert sum(after.values()) == 0
        share = cost * flow.weight / sum(weights)
        assert abs(float(after[flow.key] - before[flow.key]) - (share - cost)) < 1e-6
    lags = queue.lags()
    assert all(abs(lag) <= max(costs, default=1) * (1 + sum(weights) / min(weights)) for lag in lags.values())
    if data.draw(st.booleans()):
        queue.idle(flows[0])
        assert flows[0].key not in queue.lags()
