"""`loop`: what goes round, in which order, and when is it over?

Mutants that die here: the end put while something is on its way in the body (in a call, a link, a branch, a lane, a
pacer, a loop within) or not at all; work lost at room + 1; work that is begun after a drain; one of old and new work
starved; a body that waits for room to go round; what an operation behind the loop holds taken for a part of the body.
"""

from collections import Counter
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import (
    BufferOverflow,
    FuncpipeError,
    OnError,
    Pipeline,
    PlanError,
    RateLimit,
    Recorder,
    Step,
    merge,
    simulate,
)
from funcpipe_trio.testing import (
    Scenario,
    cancel_everywhere,
    drain_everywhere,
    explore_schedules,
    fail_everywhere,
    run_virtual,
)
from tests._kit import Boom, assert_links_balance, assert_stages_balance


def same(items):
    return items


def tree(depth, width=2):
    """Return what gives the children of a node, which is the path to it."""

    def children(path):
        return [(*path, each) for each in range(width)] if len(path) < depth else []

    return children


def nodes(depth, width=2, root=()):
    """Return all nodes of that tree below a root."""
    children = tree(depth, width)
    found, left = [], [root]
    while left:
        found.append(left.pop())
        left += children(found[-1])
    return found


async def nap(item):
    await trio.sleep(len(item) % 3)
    return item


def seeds(*roots):
    return Pipeline.from_iterable([(root,) for root in roots])


async def take(plan, told=None, slow=0.0):
    """Return what a consumer got, its error, and the report."""
    got, error = [], None
    try:
        async with plan.open(on_discard=None if told is None else lambda *given: told.append(given)) as run:
            async for item in run:
                got.append(item)
                await trio.sleep(slow)
    except Exception as met:
        error = met
    return got, error, run.report


def outcome_of(plan, **how):
    return run_virtual(partial(take, plan, **how))


# ---- the law: a loop is the closure of its source


BODIES = {
    "nothing": (same, lambda item: [item]),
    "sync": (lambda p: p.map(same), lambda item: [item]),
    "a pool": (lambda p: p.map(nap, concurrency=3), lambda item: [item]),
    "a pool as completed": (lambda p: p.map(nap, concurrency=3, ordered=False), lambda item: [item]),
    "a pool of one": (lambda p: p.buffer(1).map(nap), lambda item: [item]),
    "keys": (lambda p: p.map(nap, concurrency=3, key=len), lambda item: [item]),
    "a filter": (lambda p: p.filter(lambda item: item[-1] != 1), lambda item: [item] if item[-1] != 1 else []),
    "an async filter": (
        lambda p: p.filter(lambda item: kept(item), concurrency=2),
        lambda item: [item] if item[-1] != 1 else [],
    ),
    "skipped failures": (
        lambda p: p.map(broken, concurrency=2, on_error=OnError.skip()),
        lambda item: [item] if item[-1] != 1 else [],
    ),
    "children": (lambda p: p.flat_map(twice, concurrency=2), lambda item: [item, item][: 2 - len(item) % 2]),
    "sync children": (
        lambda p: p.flat_map(lambda item: [item] * (len(item) % 3)),
        lambda item: [item] * (len(item) % 3),
    ),
    "a batch in time": (lambda p: p.batch(3, max_delay=1.5).map(same).unbatch(), lambda item: [item]),
    "a window in time": (lambda p: p.window(period=2).unbatch(), lambda item: [item]),
    "a throttle": (lambda p: p.throttle(RateLimit(2)), lambda item: [item]),
    "a delay": (lambda p: p.delay(0.5, max_items=2), lambda item: [item]),
    "branches": (
        lambda p: p.broadcast({"a": lambda p: p.map(nap).filter(lambda item: False), "b": lambda p: p.buffer(1)}),
        lambda item: [item],
    ),
    "a partition": (
        lambda p: p.partition(lambda item: "ab"[item[-1] % 2], {"a": lambda p: p.buffer(1).map(nap), "b": same}),
        lambda item: [item],
    ),
    "a branch that ends": (
        lambda p: p.broadcast({"a": lambda p: p.map(nap).take(1).filter(lambda item: False), "b": same}),
        lambda item: [item],
    ),
    "fair_by": (lambda p: p.fair_by(lambda item: item[-1], max_keys=2).map(nap, concurrency=2), lambda item: [item]),
    "a small buffer": (lambda p: p.map(nap, concurrency=2).buffer(1).map(nap, concurrency=2), lambda item: [item]),
}


async def kept(item):
    await trio.sleep(len(item) % 2)
    return item[-1] != 1


async def broken(item):
    await trio.sleep(len(item) % 2)
    if item[-1] == 1:
        raise Boom
    return item


async def twice(item):
    for _ in range(2 - len(item) % 2):
        await trio.sleep(1)
        yield item


def closure(of, children, roots):
    """Return what a loop gives, as a model: `of` says what the body makes of an item."""
    found, left = [], list(roots)
    while left:
        for result in of(left.pop()):
            found.append(result)
            left += children(result)
    return found


def plan_of(bodies, children, roots, capacity):
    def body(p):
        for each in bodies:
            p = BODIES[each][0](p)
        return p

    source = Pipeline.from_iterable(roots)
    return source.buffer(capacity).loop(body, again=children, room=10_000).buffer(capacity)


@pytest.mark.parametrize("body", BODIES)
def test_it_gives_the_closure_of_its_source_under_every_schedule(body):
    children, roots = tree(4), [(0,), (1,), (2,)]
    expected = Counter(closure(BODIES[body][1], children, roots))

    def once(seed):
        got = []

        async def consume(run, lab):
            async for item in run:
                got.append(item)
                lab.delivered += 1
                await trio.sleep(len(got) % 3 == 2)

        explore_schedules(Scenario(lambda: plan_of([body], children, roots, 1), consume), seeds=[seed])
        return Counter(got)

    for seed in range(8):
        assert once(seed) == expected


@settings(max_examples=60, deadline=None)
@given(
    bodies=st.lists(st.sampled_from([*BODIES]), max_size=3),
    widths=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    roots=st.integers(0, 5),
    capacity=st.integers(1, 20),
    seed=st.integers(0, 10**6),
)
def test_any_tree_any_body_any_schedule(bodies, widths, roots, capacity, seed):
    def children(item):
        if len(item) > 3:
            return []
        width = widths[sum(item) % len(widths)]
        return ((*item, each) for each in range(width))

    first = [(root,) for root in range(roots)]

    def of(item):
        items = [item]
        for each in bodies:
            items = [made for one in items for made in BODIES[each][1](one)]
        return items

    got = []

    async def consume(run, lab):
        async for item in run:
            got.append(item)
            lab.delivered += 1

    explore_schedules(Scenario(lambda: plan_of(bodies, children, first, capacity), consume), seeds=[seed])
    assert Counter(got) == Counter(closure(of, children, first))


def test_loops_within_a_loop():
    def inner(p):
        return p.loop(
            lambda p: p.map(lambda item: nap(item), concurrency=2),
            again=lambda item: [(*item, "x")] if "x" not in item else [],
            room=10,
            name="inner",
        )

    def outer(item):
        return [(*item, each) for each in range(2)] if len(item) < 4 and "x" not in item else []

    plan = Pipeline.from_iterable([(0,)]).loop(lambda p: inner(p.map(same)).map(nap), again=outer, room=100)
    expected = closure(lambda item: [item, (*item, "x")], outer, [(0,)])
    got, error, report = outcome_of(plan)
    assert error is None
    assert Counter(got) == Counter(expected)
    assert_stages_balance(report)
    assert_links_balance(report)
    explore_schedules(lambda: plan, seeds=range(20))


def test_what_waits_to_go_round_in_a_loop_within_counts():
    """When a stage finds nothing left, the work may be there alone: the stage that takes it has not had its turn."""

    def inner(p):
        body = lambda p: p.map(same).buffer(1).map(same).buffer(1)  # noqa: E731
        again = lambda item: [(*item, "x")] if "x" not in item else []  # noqa: E731
        return p.loop(body, again=again, room=10, name="inner").filter(lambda item: "x" in item)

    plan = Pipeline.from_iterable([(0,)]).loop(inner, again=lambda item: [(1,)] if item[0] == 0 else [], room=9)
    for seed in range(30):
        got = []

        async def consume(run, lab, got=got):
            async for item in run:
                got.append(item)
                lab.delivered += 1

        explore_schedules(Scenario(lambda: plan, consume), seeds=[seed])
        assert got == [(0, "x"), (1, "x")]


def test_a_batch_whose_last_item_is_dropped_behind_it_is_not_there_any_more():
    """All in one stage, which finds out that the batch is used up only when it goes on."""
    body = lambda p: p.batch(3, max_delay=1).unbatch().filter(lambda item: len(item) < 3)  # noqa: E731
    got, error, report = outcome_of(seeds(0).loop(body, again=tree(4, 1), room=9))
    assert error is None
    assert got == [(0,), (0, 0)]
    assert report.elapsed == 3


def test_a_result_leaves_when_all_its_work_is_in_line_though_none_of_that_comes_to_anything():
    body = lambda p: p.filter(lambda item: len(item) < 2).buffer(1).map(same)  # noqa: E731
    got, error, report = outcome_of(seeds(0).loop(body, again=lambda item: [(*item, n) for n in range(500)], room=999))
    assert error is None
    assert got == [(0,)]
    assert report.dropped == 500


def test_what_is_behind_the_loop_may_keep_items():
    plan = seeds(0).loop(same, again=tree(5), room=100).map(len).filter(lambda length: length > 1).batch(1000)
    got, error, _report = outcome_of(plan)
    assert error is None
    assert len(got[0]) == len(nodes(5, root=(0,))) - 1


def test_two_runs_of_one_plan_at_once():
    plan = seeds(0, 1).loop(lambda p: p.map(nap, concurrency=2), again=tree(4), room=100)

    async def main():
        counts = []
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(counted, counts)
        return counts

    async def counted(counts):
        counts.append(await plan.count())

    assert run_virtual(main) == [30, 30]


def test_a_loop_in_a_branch_in_an_input_and_in_a_flat_map():
    def looped(p):
        return p.loop(lambda p: p.map(nap, concurrency=2), again=tree(3), room=100)

    branched = seeds(0).broadcast({"a": looped, "b": looped})
    joined = merge(looped(seeds(0)), looped(seeds(1)))
    nested = Pipeline.from_iterable([0, 1]).flat_map(lambda root: looped(seeds(root)), concurrency=2)
    for plan in (branched, joined, nested):
        got, error, _ = outcome_of(plan)
        assert error is None
        assert len(got) == 14


# ---- order, and how long it takes


def test_one_of_each_in_turn():
    plan = Pipeline.from_iterable([("new", n) for n in range(6)]).loop(
        same, again=lambda item: [("old", item[1])] * 2 if item[0] == "new" else [], room=100
    )
    got, *_ = outcome_of(plan)
    assert [kind for kind, _ in got[:12]] == ["new", "old"] * 6
    assert [kind for kind, _ in got[12:]] == ["old"] * 6


def test_it_ends_at_the_instant_at_which_nothing_is_left():
    async def work(item):
        await trio.sleep(1)
        return item

    async def main():
        await (
            seeds(0).loop(lambda p: p.map(work), again=lambda item: [(*item, 0)] if len(item) < 4 else [], room=1).run()
        )
        return trio.current_time()

    assert run_virtual(main) == 4


def test_it_waits_for_a_source_that_is_silent():
    async def late():
        yield (0, 0, 0)
        await trio.sleep(100)
        yield (1, 1, 1)

    async def main():
        got = await Pipeline.from_async_iterable(late).loop(same, again=tree(4, 1), room=9).collect()
        return got, trio.current_time()

    assert run_virtual(main) == ([(0, 0, 0), (0, 0, 0, 0), (1, 1, 1), (1, 1, 1, 0)], 100)


@pytest.mark.parametrize("room", [1, 2, 5])
def test_results_leave_before_the_loop_is_over(room):
    """A consumer that never comes back does not block what is in the loop, nor is blocked by it."""

    async def main():
        plan = seeds(0).loop(lambda p: p.map(nap), again=lambda item: [(*item, 0)], room=room)
        async with plan.open() as run:
            got = [await run.receive() for _ in range(5)]
            await trio.sleep(1000)
            held = run.statistics()
            assert held.taken + sum(each.made for each in held.remade) - held.delivered <= plan.max_in_flight
        return got

    assert [len(item) for item in run_virtual(main)] == [1, 2, 3, 4, 5]


# ---- room


def test_full_is_a_failure_with_the_counts():
    plan = seeds(0, 1).loop(lambda p: p.map(nap, concurrency=2), again=tree(3, 4), room=3)
    told = []
    got, error, report = outcome_of(plan, told=told)
    assert isinstance(error, BufferOverflow)
    assert isinstance(error, FuncpipeError)
    assert "3 items wait to go round" in str(error)
    assert "in stage 'children', item 0" in error.__notes__[0]
    assert got == []
    assert report.failed == 1
    made = sum(each.made for each in report.remade)
    assert made == 4  # one too many is told, as all that waits
    assert len(told) == report.discarded == report.taken + made - 1
    assert_stages_balance(report)


@pytest.mark.parametrize("room", [1, 2, 7])
def test_divert_gets_what_has_no_room(room):
    spilled = []

    async def spill(failure):
        await trio.sleep(1)
        assert isinstance(failure.error, BufferOverflow)
        spilled.append(failure.item)

    plan = seeds(0).loop(same, again=tree(4, 3), room=room, full=OnError.divert(Step(spill).timeout(10)))
    got, error, report = outcome_of(plan)
    assert error is None
    below = [each for item in spilled for each in nodes(4, 3, item)]
    assert Counter(got + below) == Counter(nodes(4, 3, (0,)))
    assert report.failed == len(spilled) > 0
    assert_stages_balance(report)
    assert_links_balance(report)


def test_an_error_of_the_step_of_a_divert_ends_the_stream():
    async def spill(failure):
        raise Boom("disk full")

    told = []
    plan = seeds(0).loop(same, again=tree(4, 3), room=2, full=OnError.divert(spill))
    got, error, report = outcome_of(plan, told=told)
    assert isinstance(error, Boom)
    assert "diverting a BufferOverflow" in error.__notes__
    assert got == []
    assert {reason for _, _, reason in told} == {"behind a failure"}
    assert report.failed == 1
    assert len(told) == 3  # two wait, and the one that was with the step
    assert_stages_balance(report)


@pytest.mark.parametrize("bad", [5, None, nap(())], ids=["a number", "None", "a coroutine"])
def test_again_must_give_an_iterable(bad):
    _got, error, _ = outcome_of(seeds(0).loop(same, again=lambda item: bad, room=2))
    assert "must give an iterable" in str(error) or "returned something to await" in str(error)


# ---- endings


def test_a_failure_in_again_stands_at_its_result():
    def again(item):
        yield (*item, 0)
        if len(item) == 3:
            raise Boom
        yield from ()

    told = []
    got, error, report = outcome_of(seeds(0).loop(same, again=again, room=9), told=told)
    assert isinstance(error, Boom)
    assert got == [(0,), (0, 0)]
    assert report.failed == 1
    assert told == [((0, 0, 0, 0), "same", "behind a failure")]
    assert_stages_balance(report)


@pytest.mark.parametrize("body", BODIES)
def test_a_failure_of_the_source_stands_behind_all_that_comes_of_what_came_before(body):
    def source():
        yield from [(0,), (2,)]
        raise Boom

    plan = Pipeline.from_iterable(source).loop(BODIES[body][0], again=tree(4), room=99)
    got, error, report = outcome_of(plan)
    assert isinstance(error, Boom)
    assert report.outcome == "failed"
    assert Counter(got) == Counter(closure(BODIES[body][1], tree(4), [(0,), (2,)]))
    if body != "a branch that ends":
        assert report.discarded == 0


def test_a_drain_after_the_source_failed():
    def source():
        yield (0,)
        raise Boom

    async def main():
        got = []
        plan = Pipeline.from_iterable(source).loop(lambda p: p.map(nap), again=lambda item: [(*item, 0)], room=99)
        with pytest.raises(Boom):
            async with plan.open() as run:
                async for item in run:
                    got.append(item)
                    if len(got) == 3:
                        run.drain_nowait()
        return got

    assert [len(item) for item in run_virtual(main)] in ([1, 2, 3], [1, 2, 3, 4])  # one more had been begun


@pytest.mark.parametrize("after", [0, 1, 4])
def test_drain_begins_nothing_new_and_tells_what_is_left(after):
    begun = []

    async def work(item):
        begun.append(item)
        await trio.sleep(1)
        return item

    async def main():
        told, got = [], []
        plan = seeds(0, 1).loop(lambda p: p.map(work, concurrency=2), again=tree(50), room=10_000, name="walk")
        async with plan.open(on_discard=lambda *given: told.append(given)) as run:
            await trio.sleep(after + 0.5)
            before = len(begun)
            run.drain_nowait()
            async for item in run:
                got.append(item)
        assert run.report.outcome == "drained"
        return got, told, before, run.report

    got, told, before, report = run_virtual(main)
    assert Counter(got) == Counter(begun)  # all that was begun, and what the source had given
    assert len(begun) - before <= 2
    assert {(stage, reason) for _, stage, reason in told} == {("walk", "drained")}
    waiting = Counter(item for item, *_ in told)
    assert waiting == Counter(child for item in got for child in tree(50)(item) if child not in begun)
    assert report.taken + sum(each.made for each in report.remade) == len(got) + len(told)


def test_what_is_drained_can_be_gone_on_with():
    left = []

    async def main():
        plan = seeds(0).loop(lambda p: p.map(nap, concurrency=2), again=tree(6), room=10_000)
        got = []
        async with plan.open(on_discard=lambda item, stage, reason: left.append(item)) as run:
            await trio.sleep(3.5)
            run.drain_nowait()
            got += [item async for item in run]
        rest = Pipeline.from_iterable(left).loop(same, again=tree(6), room=10_000)
        return got + await rest.collect()

    assert Counter(run_virtual(main)) == Counter(nodes(6, root=(0,)))


def test_pause_lets_nothing_go_round():
    begun = []

    async def work(item):
        begun.append(trio.current_time())
        await trio.sleep(1)
        return item

    async def main():
        plan = seeds(0).loop(lambda p: p.map(work), again=lambda item: [(*item, 0)] if len(item) < 6 else [], room=5)
        async with plan.open() as run:
            await trio.sleep(1.5)
            run.pause()
            await trio.sleep(100)
            run.resume()
            return [len(item) async for item in run]

    assert run_virtual(main) == [1, 2, 3, 4, 5, 6]
    assert [at for at in begun if 3 < at < 101.5] == []


@pytest.mark.parametrize("how", ["leave", "abort", "take", "cancel"])
def test_an_early_end_closes_all(how):
    closed = []

    def source():
        try:
            while True:
                yield (0,)
        finally:
            closed.append(True)

    async def main():
        told = []
        plan = Pipeline.from_iterable(source).loop(lambda p: p.map(nap, concurrency=2), again=tree(9), room=10**6)
        if how == "take":
            plan = plan.take(20)
        run = None
        with trio.move_on_after(20 if how == "cancel" else 1000):
            async with plan.open(on_discard=lambda *given: told.append(given)) as run:
                for _ in range(20):
                    await run.receive()
                if how == "abort":
                    run.abort()
                while how in ("cancel", "take"):
                    try:
                        await run.receive()
                    except trio.EndOfChannel:
                        break
        report = run.report
        made = sum(each.made for each in report.remade)
        assert report.taken + made == report.delivered + report.discarded
        assert len(told) == report.discarded
        assert_stages_balance(report)
        assert_links_balance(report)
        return report.outcome

    ends = {"leave": "left", "abort": "aborted", "take": "completed", "cancel": "cancelled"}
    assert run_virtual(main) == ends[how]
    assert closed == [True]


def test_a_take_in_the_body_ends_it():
    got, error, report = outcome_of(seeds(0).loop(lambda p: p.map(nap).take(5), again=tree(9), room=10**6))
    assert error is None
    assert len(got) == 5
    assert report.outcome == "completed"


def campaigned(full="fail"):
    def make():
        return seeds(0, 1).loop(
            lambda p: p.map(nap, concurrency=2).filter(lambda item: item[-1] < 2),
            again=tree(3, 3),
            room=3 if full != "fail" else 100,
            full=full,
        )

    return make


async def bury(failure):
    await trio.sleep(0.5)


@pytest.mark.parametrize("make", [campaigned(), campaigned(OnError.divert(bury))], ids=["fail", "divert"])
def test_campaigns(make):
    explore_schedules(make, seeds=range(30))
    cancel_everywhere(make)
    fail_everywhere(make)
    drain_everywhere(make)


# ---- the plan


def test_the_plan_reads_well():
    plan = seeds(0).loop(lambda p: p.map(nap, concurrency=2), again=tree(3), room=7, name="walk")
    assert plan.describe().splitlines()[1:6] == [
        "input 'source':",
        "  source iterable: iterable",
        "    | link of 16",
        "walk: what comes and what goes round, one of each in turn",
        "stage nap: async map nap, 2 at a time, in order -> again children: goes round in walk, up to 7 wait, one more "
        "fails",
    ]
    assert plan.max_in_flight == 16 + 2 + 16 + 7
    assert plan.with_settings({"children": {"room": 9}}).max_in_flight == 16 + 2 + 16 + 9
    start, again = seeds(0), tree(3)
    assert start.loop(same, again=again, room=1) == start.loop(same, again=again, room=1)
    assert start.loop(same, again=again, room=1) != start.loop(same, again=again, room=2)
    assert '-->|"again"| n1' in plan.describe("mermaid")
    assert "walk" in plan.describe("json")


class LastOf:
    """Give all items, and what it says at the end, if anything."""

    at_end = ()

    def push(self, item):
        return [item]

    def flush(self):
        return self.at_end


class OneMore(LastOf):
    at_end = ((0,),)


async def passing(items):
    async for item in items:
        yield item


def test_a_prediction_supposes_that_nothing_goes_round_and_a_simulation_knows_what_did():
    plan = seeds(0).loop(lambda p: p.map(nap, concurrency=2), again=tree(4), room=99)
    assert plan.predict({"nap": 1}).throughput == pytest.approx(2, rel=0.01)

    async def recorded():
        recorder = Recorder()
        report = await plan.run(record=recorder)
        return report, recorder.recording

    report, recording = run_virtual(recorded)
    played = simulate(plan, recording)
    assert (played.delivered, played.elapsed) == (report.delivered, report.elapsed)
    assert simulate(plan, recording, changes={"nap": {"concurrency": 1}}).elapsed > report.elapsed


KEEPERS = {
    "batch": lambda p: p.batch(3),
    "window": lambda p: p.window(3),
    "sliding": lambda p: p.sliding(2),
    "stateful": lambda p: p.stateful(LastOf, holds=1),
    "through": lambda p: p.through(passing, holds=1),
    "in a branch": lambda p: p.broadcast({"a": lambda p: p.batch(max_cost=3)}),
    "before a loop within": lambda p: p.batch(2).loop(same, again=same, room=1),
}


SOURCES = {
    "keep_alive": lambda p: p.keep_alive(1, int).map(nap),
    "keep_alive, in a branch": lambda p: p.broadcast({"a": lambda p: p.keep_alive(1, int)}),
    "or_else": lambda p: p.or_else(lambda: seeds(0)),
}


@pytest.mark.parametrize("name", SOURCES)
def test_what_gives_items_of_its_own_is_refused_in_a_body(name):
    """With `keep_alive` something would be in the body at all times, so the loop would not end."""
    with pytest.raises(PlanError, match="its body must take all items from the pipeline that it is given"):
        seeds(0).loop(SOURCES[name], again=same, room=1).check()


@pytest.mark.parametrize("name", KEEPERS)
def test_what_keeps_items_is_refused_in_a_body(name):
    with pytest.raises(PlanError, match="keeps items until others come"):
        seeds(0).loop(KEEPERS[name], again=same, room=1).check()


def test_operations_of_ones_own_may_be_in_a_body():
    for body in (lambda p: p.stateful(LastOf), lambda p: p.through(passing).map(nap)):
        got, error, report = outcome_of(seeds(0, 1).loop(body, again=tree(4), room=99))
        assert error is None
        assert Counter(got) == Counter([*nodes(4, root=(0,)), *nodes(4, root=(1,))])
        assert_stages_balance(report)


@pytest.mark.parametrize("full", ["fail", OnError.divert(nap)])
def test_what_an_operation_gives_at_its_end_cannot_go_round(full):
    """It kept more than it said; nothing is lost without a word."""
    told = []
    plan = seeds(0).loop(lambda p: p.stateful(OneMore), again=tree(2, 1), room=99, full=full)
    got, error, report = outcome_of(plan, told=told)
    assert "which cannot go round" in str(error)
    assert got == [(0,), (0, 0)]
    assert [item for item, *_ in told] == [(0, 0)]
    assert_stages_balance(report)


def test_other_items_are_refused_in_a_body():
    for body in (
        lambda p: merge(p, seeds(1)),
        lambda p: seeds(1),
        lambda p: p.broadcast({"a": lambda p: merge(p, seeds(1))}),
    ):
        with pytest.raises(PlanError, match="must take all items from the pipeline"):
            seeds(0).loop(body, again=same, room=1).check()


def test_the_pipeline_of_a_body_must_not_be_used_elsewhere():
    kept_back = []

    def body(p):
        kept_back.append(p)
        return p

    plan = seeds(0).loop(body, again=same, room=1)
    plan.check()
    with pytest.raises(PlanError, match="must not be used outside"):
        kept_back[0].map(same).check()
    with pytest.raises(PlanError, match="must not be used outside"):
        merge(plan, kept_back[0]).check()


def test_a_batch_before_or_behind_the_loop_is_fine():
    plan = seeds(0, 1).batch(2).unbatch().loop(same, again=tree(3), room=99).batch(3)
    assert sum(map(len, outcome_of(plan)[0])) == 14


def test_one_more_run_where_the_consumer_is_slow():
    got, error, _ = outcome_of(seeds(0).loop(same, again=tree(5), room=99), slow=1)
    assert error is None
    assert len(got) == 31
