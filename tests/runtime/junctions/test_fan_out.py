"""`broadcast` and `partition`: who gets an item, who holds up whom, and how the whole ends.

Mutants that die here: a branch that has ended still holds up the others; an item that waits for its branch counted
nowhere, or overtaken; the end put before an item that waits; the failure of the trunk delivered by the first branch
that comes to it; the trunk started by each branch; the trunk not stopped when no branch is left.
"""

from collections import Counter
from functools import partial

import pytest
import trio

from funcpipe_trio import BufferOverflow, Pipeline, PlanError, merge
from funcpipe_trio.testing import Scenario, explore_schedules, run_virtual
from tests._kit import Boom, assert_links_balance, assert_stages_balance, nap


def same(items):
    return items


async def take(pipeline, slow=0.0, told=None):
    """Return what a consumer got, its error, and the report."""
    got, error = [], None
    try:
        async with pipeline.open(on_discard=None if told is None else lambda *given: told.append(given)) as run:
            async for item in run:
                got.append(item)
                await trio.sleep(slow)
    except Exception as met:
        error = met
    return got, error, run.report


def outcome_of(pipeline, **how):
    return run_virtual(partial(take, pipeline, **how))


# ---- broadcast


def test_every_branch_gets_every_item_in_order():
    got, error, report = outcome_of(
        Pipeline.from_iterable(range(100)).broadcast(
            {
                "plus": lambda items: items.map(lambda x: ("plus", x)),
                "raw": lambda items: items.map(lambda x: ("raw", x)),
            }
        )
    )
    assert error is None
    for branch in ("plus", "raw"):
        assert [x for name, x in got if name == branch] == list(range(100))
    assert report.taken == 100
    assert report.delivered == 200
    assert_stages_balance(report)
    assert_links_balance(report)


def test_a_branch_may_be_nothing_but_its_link():
    got, _, _ = outcome_of(Pipeline.from_iterable(range(5)).broadcast({"a": same, "b": same}))
    assert Counter(got) == Counter([*range(5), *range(5)])


@pytest.mark.parametrize("consume", ["collect", "run", "count"])
def test_without_a_consumer(consume):
    pipeline = Pipeline.from_iterable(range(20)).broadcast(
        {"a": same, "b": lambda items: items.filter(lambda x: x % 2)}
    )
    result = run_virtual(getattr(pipeline, consume))
    if consume == "collect":
        assert Counter(result) == Counter([*range(20), *range(1, 20, 2)])
    else:
        assert (result if consume == "count" else result.delivered) == 30


def test_a_slow_branch_holds_up_the_others():
    """The source is never further ahead than the slow branch can hold."""
    ahead = []
    done = 0

    async def slow(item):
        nonlocal done
        await trio.sleep(1)
        done += 1
        return item

    def source():
        for number in range(20):
            ahead.append(number - done)
            yield number

    got, _, _ = outcome_of(
        Pipeline.from_iterable(source).broadcast({"slow": lambda items: items.buffer(2).map(slow), "fast": same})
    )
    assert len(got) == 40
    assert max(ahead) <= 2 + 1 + 16 + 1  # its link, its call, its results, and the one at hand


def test_a_branch_that_has_ended_holds_up_nobody_and_gets_no_more():
    told = []
    got, error, report = outcome_of(
        Pipeline.from_iterable(range(200)).broadcast({"few": lambda items: items.take(3), "all": same}), told=told
    )
    assert error is None
    assert Counter(got) == Counter([*range(200), 0, 1, 2])
    assert {reason for _, _, reason in told} <= {"not needed"}
    assert len(told) == report.discarded <= 16
    assert_stages_balance(report)
    assert_links_balance(report)


def test_when_no_branch_is_left_the_source_is_closed():
    closed = []

    def source():
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    got, _, report = outcome_of(
        Pipeline.from_iterable(source).broadcast({"a": lambda i: i.take(2), "b": lambda i: i.take(5)})
    )
    assert Counter(got) == Counter([0, 1, 0, 1, 2, 3, 4])
    assert closed == [True]
    assert report.outcome == "completed"


def test_what_one_branch_gives_does_not_wait_for_the_other():
    """P15: an item that is ready in one branch leaves while the other one's call continues."""

    async def probe():
        seen = []
        async with (
            Pipeline.from_iterable([1, 2])
            .broadcast({"slow": lambda items: items.map(nap), "fast": lambda items: items.map(lambda x: -x)})
            .open() as run
        ):
            async for item in run:
                seen.append((trio.current_time(), item))
        return seen

    assert run_virtual(probe) == [(0, -1), (0, -2), (1, 1), (2, 2)]


# ---- partition


def test_each_item_goes_to_its_branch():
    got, error, report = outcome_of(
        Pipeline.from_iterable(range(50)).partition(
            lambda x: "odd" if x % 2 else "even",
            {
                "odd": lambda items: items.map(lambda x: ("odd", x)),
                "even": lambda items: items.map(lambda x: ("even", x)),
            },
        )
    )
    assert error is None
    assert [x for name, x in got if name == "odd"] == list(range(1, 50, 2))
    assert [x for name, x in got if name == "even"] == list(range(0, 50, 2))
    assert report.taken == report.delivered == 50
    assert_stages_balance(report)
    assert_links_balance(report)


def test_an_unknown_route_is_an_error_that_names_the_known_ones():
    """P5: at that item, behind what came before it in every branch."""
    got, error, report = outcome_of(
        Pipeline.from_iterable(range(9)).partition(
            lambda x: "ab"[x % 2] if x < 5 else "nowhere", {"a": lambda items: items.map(nap), "b": same}, name="split"
        )
    )
    assert sorted(got) == [0, 1, 2, 3, 4]
    assert isinstance(error, KeyError)
    assert "'nowhere'" in str(error)
    assert "'a', 'b'" in str(error)
    assert error.__notes__ == ["in stage 'split', item 5"]
    assert report.failed == 1
    assert report.error is error


def test_a_full_branch_holds_up_only_what_comes_behind_an_item_of_its_own():
    """Items for the others pass as long as the full branch is asked for nothing."""

    async def main():
        seen = []
        items = ["slow"] * 3 + ["fast"] * 50 + ["slow"] + ["fast"] * 5
        pipeline = Pipeline.from_iterable(items).partition(
            str, {"slow": lambda line: line.buffer(2).map(nap).buffer(1), "fast": same}
        )
        async with pipeline.open() as run:
            async for item in run:
                seen.append((trio.current_time(), item))
        return Counter(at for at, item in seen if item == "fast"), len(seen)

    times, count = run_virtual(main)
    # The first slow item is in its call at once, so two wait in the link and it is full, with 50 fast ones behind.
    assert times[0] >= 50
    assert count == 59


def test_the_order_within_a_branch_holds_while_an_item_waits():
    items = [("a", n) if n % 5 else ("b", n) for n in range(60)]
    got, _, report = outcome_of(
        Pipeline.from_iterable(items).partition(
            lambda pair: pair[0],
            {"a": lambda line: line.buffer(1), "b": lambda line: line.buffer(1).map(nap).buffer(1)},
        ),
        slow=0.1,
    )
    for branch in "ab":
        assert [n for name, n in got if name == branch] == [n for name, n in items if name == branch]
    assert report.discarded == 0


def test_the_end_stands_behind_the_item_that_waits():
    """The source ends while its last item still waits for room."""
    got, error, report = outcome_of(
        Pipeline.from_iterable(range(4)).partition(lambda _: "only", {"only": lambda line: line.buffer(1).map(nap)}),
        slow=3,
    )
    assert error is None
    assert got == [0, 1, 2, 3]
    assert report.discarded == 0


def test_an_item_for_a_branch_that_has_ended_is_not_needed():
    told = []
    got, _, report = outcome_of(
        Pipeline.from_iterable(range(40)).partition(
            lambda x: "few" if x % 2 else "all", {"few": lambda line: line.take(2), "all": same}
        ),
        told=told,
    )
    assert Counter(got) == Counter([1, 3, *range(0, 40, 2)])
    assert sorted(item for item, _, _ in told) == list(range(5, 40, 2))
    assert {reason for _, _, reason in told} == {"not needed"}
    assert report.taken == report.delivered + report.discarded


def test_an_item_that_waits_for_a_branch_that_ends_goes_with_it():
    told = []

    async def main():
        pipeline = Pipeline.from_iterable(range(30)).partition(
            lambda x: "few" if x < 8 else "all",
            {"few": lambda line: line.buffer(1).map(nap).buffer(1).take(2), "all": same},
        )
        return await take(pipeline, told=told)

    got, error, report = run_virtual(main)
    assert error is None
    assert sorted(got) == [0, 1, *range(8, 30)]
    assert sorted(item for item, _, _ in told) == list(range(2, 8))
    assert_stages_balance(report)
    assert_links_balance(report)


# ---- failures


def split(kind, line, branches, route):
    """Give the items to branches, in one of the ways."""
    return line.partition(route, branches) if kind == "partition" else getattr(line, kind)(branches)


@pytest.mark.parametrize("kind", ["broadcast", "partition", "balance"])
def test_a_failure_of_the_trunk_comes_when_every_branch_gave_what_came_before_it(kind):
    def source():
        yield from range(6)
        raise Boom

    branches = {"slow": lambda line: line.map(nap), "fast": same, "batched": lambda line: line.batch(100).unbatch()}
    line = Pipeline.from_iterable(source)
    whole = split(kind, line, branches, lambda x: list(branches)[x % 3])
    got, error, report = outcome_of(whole)
    assert isinstance(error, Boom)
    assert Counter(got) == Counter(list(range(6)) * (3 if kind == "broadcast" else 1))
    assert report.outcome == "failed"
    assert report.error is error
    assert report.cleanup_errors == ()
    assert report.failed == 0
    assert_stages_balance(report)
    assert_links_balance(report)


def test_a_failing_branch_ends_the_run_at_its_place():
    def fail(x):
        if x == 3:
            raise Boom
        return x

    told = []
    got, error, report = outcome_of(
        Pipeline.from_iterable(range(1000)).broadcast({"good": lambda i: i.map(str), "bad": lambda i: i.map(fail)}),
        told=told,
    )
    assert isinstance(error, Boom)
    assert [x for x in got if isinstance(x, int)] == [0, 1, 2]
    assert [x for x in got if isinstance(x, str)] == [str(n) for n in range(len(got) - 3)]
    assert report.failed == 1
    assert {reason for _, _, reason in told} == {"behind a failure"}
    assert len(told) == report.discarded
    assert_stages_balance(report)
    assert_links_balance(report)


def test_of_a_failing_branch_and_a_failing_trunk_the_earlier_is_the_error():
    def source():
        yield from range(6)
        raise Boom("trunk")

    async def fail(x):
        await trio.sleep(1)
        if x == 4:
            raise Boom("branch")
        return x

    got, error, report = outcome_of(
        Pipeline.from_iterable(source).broadcast({"good": same, "bad": lambda line: line.map(fail)})
    )
    assert error.args == ("branch",)
    assert Counter(got) == Counter([*range(6), *range(4)])
    assert [met.args for met in report.cleanup_errors] == [("trunk",)]
    assert report.failed == 1


def test_a_failure_nobody_read_as_far_as_is_kept():
    def source():
        yield from range(3)
        raise Boom

    async def main():
        async with Pipeline.from_iterable(source).broadcast({"a": same, "b": same}).open() as run:
            await run.receive()
            await trio.testing.wait_all_tasks_blocked()
        return run.report

    report = run_virtual(main)
    assert isinstance(report.error, Boom)
    assert report.outcome == "left"
    assert report.cleanup_errors == ()


@pytest.mark.parametrize("kind", ["broadcast", "partition", "balance"])
def test_aborted_drained_and_left_in_the_middle(kind):
    branches = {"a": lambda line: line.map(nap, concurrency=2), "b": lambda line: line.buffer(1).batch(4).unbatch()}

    def make():
        line = Pipeline.from_iterable(range(100)).map(nap, concurrency=3)
        return split(kind, line, branches, lambda x: "ab"[x % 2])

    async def main(how):
        told = []
        async with make().open(on_discard=lambda *given: told.append(given)) as run:
            for _ in range(5):
                await run.receive()
            if how == "abort":
                run.abort()
            elif how == "drain":
                run.drain_nowait()
                async for _ in run:
                    pass
        return run.report, told

    for how, outcome in (("abort", "aborted"), ("drain", "drained"), ("leave", "left")):
        report, told = run_virtual(partial(main, how))
        assert report.outcome == outcome
        assert len(told) == report.discarded
        assert (how == "drain") == (report.discarded == 0)
        assert_stages_balance(report)
        assert_links_balance(report)
        if kind != "broadcast":
            assert report.taken == report.delivered + report.discarded


# ---- branches that relieve themselves


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_a_branch_with_a_buffer_that_drops_holds_up_nobody(policy):
    told = []
    got, error, report = outcome_of(
        Pipeline.from_iterable(range(100)).broadcast(
            {
                "all": lambda line: line.map(lambda x: ("all", x)),
                "some": lambda line: line.buffer(2, overflow=policy).map(nap).map(lambda x: ("some", x)),
            }
        ),
        told=told,
    )
    assert error is None
    assert [x for name, x in got if name == "all"] == list(range(100))
    some = [x for name, x in got if name == "some"]
    assert some == sorted(some)
    assert some[-1] == 99 or policy == "drop_newest"
    assert sorted([*some, *(item for item, _, _ in told)]) == list(range(100))
    assert {(stage, reason) for _, stage, reason in told} == {("broadcast.some", policy)}
    assert report.dropped == len(told)
    assert report.discarded == 0


@pytest.mark.parametrize("kind", ["broadcast", "partition"])
def test_a_branch_with_a_buffer_that_fails_fails_alone(kind):
    """Behind what its link holds; the other branch gives what it has until the merge comes to the failure."""
    told = []
    branches = {"strict": lambda line: line.buffer(2, overflow="fail").map(nap), "easy": lambda line: line.map(str)}
    line = Pipeline.from_iterable(range(100))
    whole = line.broadcast(branches) if kind == "broadcast" else line.partition(lambda x: "strict", branches)
    got, error, report = outcome_of(whole, told=told)
    assert isinstance(error, BufferOverflow)
    assert [x for x in got if isinstance(x, int)] == list(range(len([x for x in got if isinstance(x, int)])))
    assert len([x for x in got if isinstance(x, int)]) in (2, 3)
    assert report.failed == 1
    assert {reason for _, _, reason in told} <= {"behind a failure"}
    assert_stages_balance(report)
    assert_links_balance(report)
    if kind == "partition":
        assert report.taken == report.delivered + report.failed + report.discarded


@pytest.mark.parametrize("concurrency", [None, 4])
@pytest.mark.parametrize("names", ["a", "ab"])
@pytest.mark.parametrize("kind", ["broadcast", "partition", "balance"])
def test_when_the_last_branch_failed_by_its_buffer_the_trunk_is_stopped(kind, names, concurrency):
    """It has nobody left to wait for: it waited forever, for the failed branches were read to their ends already."""

    async def endless():
        number = 0
        try:
            while True:
                await trio.sleep(0.25)
                yield number
                number += 1
        finally:
            closed.append(number)

    def strict(line):
        return line.buffer(1, overflow="fail").map(nap)

    closed, told = [], []
    line = Pipeline.from_async_iterable(endless)
    if concurrency is not None:
        line = line.map(nap, concurrency=concurrency)
    branches = dict.fromkeys(names, strict)
    whole = split(kind, line, branches, lambda x: names[x % len(names)])
    got, error, report = outcome_of(whole, told=told)

    assert isinstance(error, BufferOverflow)
    assert got
    assert len(closed) == 1
    assert {reason for _, _, reason in told} <= {"behind a failure"}
    assert_stages_balance(report)
    assert_links_balance(report)


@pytest.mark.parametrize("kind", ["broadcast", "partition"])
def test_what_a_failing_buffer_did_not_let_in_has_not_passed(kind):
    """Else the sync stage behind that link is said to have taken items that it never saw."""
    branches = {
        "strict": lambda line: line.buffer(2, overflow="fail").map(abs).buffer(1),
        "easy": lambda line: line.buffer(3).map(nap),
    }
    line = Pipeline.from_iterable(range(100))
    whole = line.broadcast(branches) if kind == "broadcast" else line.partition(lambda x: "strict", branches)
    got, error, report = outcome_of(whole, slow=1)
    strict = next(link for link in report.links if link.behind == f"{kind}.strict")
    behind = next(stage for stage in report.stages if stage.name == "abs")
    assert isinstance(error, BufferOverflow)
    assert_stages_balance(report)
    assert_links_balance(report)
    assert strict.passed == strict.taken + strict.discarded
    assert behind.received == behind.emitted + behind.discarded
    assert behind.emitted <= len(got) + 1


# ---- plans


def test_a_plan_with_branches_reads_and_compares():
    def make():
        return Pipeline.from_iterable(range, name="numbers").partition(
            str, {"a": lambda line: line.buffer(2).map(nap), "b": same}
        )

    assert make() == make()
    assert hash(make()) == hash(make())
    assert make() != Pipeline.from_iterable(range, name="numbers").broadcast({"a": same, "b": same})
    assert make().describe() == (
        "pipeline: 2 stages, items in flight: at most 36\n"
        "source numbers: iterable range -> route str as partition\n"
        "partition: each item to one branch, as its route says\n"
        "branch 'a':\n"
        "    | link of 2\n"
        "  stage nap: async map nap, 1 at a time, in order\n"
        "    | link of 16\n"
        "branch 'b':\n"
        "    | link of 16\n"
        "partition joined: equal shares of what is handed over (start-time fair queueing)\n"
        "consumer"
    )


def test_bad_plans_are_refused_all_at_once():
    kept = []

    def keep(line):
        kept.append(line)
        return line

    good = Pipeline.from_iterable([1])
    plan = merge(
        good.broadcast({}),
        good.broadcast({"ignores": lambda line: good}),
        good.broadcast({"twice": lambda line: merge(line, line)}),
        good.broadcast({"keeps": keep}),
        kept[0],
    )
    with pytest.raises(PlanError) as caught:
        plan.check()
    said = str(caught.value)
    for part in (
        "at least one branch must be given",
        "branch 'ignores' must use the pipeline",
        "not 2 times",
        "branch 'keeps' of 'broadcast': the pipeline that a branch function is given must not be used outside",
    ):
        assert part in said
    with pytest.raises(
        PlanError, match=r"^branch 'keeps' of 'broadcast': the pipeline that a branch function is given must not"
    ):
        run_virtual(kept[0].collect)
    assert repr(kept[0]) == "<Pipeline >"  # it can be looked at from within its function


def test_the_capacity_behind_ticks_is_one():
    """A tick is emitted when the one before was taken, by every branch."""
    assert "link of 1\n" in Pipeline.ticks(1).broadcast({"a": same}).describe()


def test_the_scenarios_hold_under_many_schedules():
    def nested():
        return Pipeline.from_iterable(range(12)).broadcast(
            {
                "a": lambda line: line.buffer(1).map(nap).buffer(1),
                "b": lambda line: line.partition(
                    lambda x: "xy"[x % 2], {"x": same, "y": lambda i: i.buffer(1).map(nap)}
                ),
            }
        )

    explore_schedules(Scenario(nested), seeds=range(100))
