"""`on_end`: with which outcome is the function called, when, and what if it fails, hangs or waits?

Mutants that die here: a function that is called twice, not at all, or without a shield; an end that overtakes the call;
upstream that goes on while the function runs; a stage that counts as backlogged meanwhile; the outcome of the run
instead of that of the stream here; an error that ends the run, or is lost.
"""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import OnError, Pipeline, concat, fair_merge, merge, zip_pipelines
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, assert_run_balances, assert_stages_balance, endless, every, outcome_of


class Ends:
    """Notes how a stream ended at several places."""

    def __init__(self):
        self.told = []

    def at(self, place):
        return lambda outcome: self.told.append((place, outcome))

    def later(self, place, seconds=1.0):
        async def tell(outcome):
            await trio.sleep(seconds)
            self.told.append((place, outcome, trio.current_time()))

        return tell


@pytest.fixture
def ends():
    return Ends()


def fails_at_two(item):
    if item == 2:
        raise Boom(item)
    return item


async def hang(_outcome):
    await trio.sleep_forever()


def numbers(count=5):
    return Pipeline.from_iterable(range(count))


# ---- with which outcome


def test_completed(ends):
    seen = outcome_of(numbers().on_end(ends.at("a")).filter(lambda item: item % 2).on_end(ends.at("b")))

    assert seen.items == [1, 3]
    assert ends.told == [("a", "completed"), ("b", "completed")]
    assert_run_balances(seen.report)
    assert_stages_balance(seen.report)


def test_of_an_empty_stream(ends):
    outcome_of(numbers(0).on_end(ends.at("a")))

    assert ends.told == [("a", "completed")]


def test_a_failure_is_failed_behind_it_and_stopped_before_it(ends):
    plan = numbers().on_end(ends.at("before")).map(fails_at_two).buffer(1).on_end(ends.at("behind")).batch(2)
    seen = outcome_of(plan.on_end(ends.at("last")))

    assert (seen.items, type(seen.error)) == ([[0, 1]], Boom)
    assert sorted(ends.told) == [("before", "stopped"), ("behind", "failed"), ("last", "failed")]


def test_a_failure_with_which_a_policy_deals_is_none(ends):
    outcome_of(numbers().map(fails_at_two, on_error=OnError.skip()).on_end(ends.at("a")))

    assert ends.told == [("a", "completed")]


def test_a_failing_source_is_failed(ends):
    def broken():
        yield 1
        raise Boom

    outcome_of(Pipeline.from_iterable(broken).on_end(ends.at("a")))

    assert ends.told == [("a", "failed")]


def test_a_take_completes_what_is_behind_it_and_stops_what_is_before_it(ends):
    plan = Pipeline.from_async_iterable(endless).on_end(ends.at("before")).take(2).on_end(ends.at("behind"))

    assert outcome_of(plan).items == [0, 1]
    assert sorted(ends.told) == [("before", "stopped"), ("behind", "completed")]


@pytest.mark.parametrize("how", ["left", "raised", "aborted", "cancelled"])
def test_stopped_from_outside(ends, how):
    async def main():
        with trio.CancelScope() as scope:
            async with every(1, range(99)).on_end(ends.at("a")).map(fails_at_two).on_end(ends.later("b")).open() as run:
                await run.receive()
                if how == "raised":
                    raise Boom
                if how == "aborted":
                    run.abort()
                elif how == "cancelled":
                    scope.cancel()
                    await trio.lowlevel.checkpoint()

    try:
        run_virtual(main)
    except Boom:
        assert how == "raised"

    assert sorted(ends.told) == [("a", "stopped"), ("b", "stopped", 2.0)]


def test_drained(ends):
    async def main():
        async with every(1, range(99)).on_end(ends.at("a")).map(fails_at_two).on_end(ends.at("b")).open() as run:
            await run.receive()
            run.drain_nowait()
            return [item async for item in run]

    assert run_virtual(main) == []
    assert ends.told == [("a", "drained"), ("b", "drained")]


def test_in_the_inputs_of_fan_ins(ends):
    """A later input of a concat that never had its turn has nothing to end."""
    inputs = [numbers(2).on_end(ends.at(place)) for place in range(3)]

    assert outcome_of(concat(*inputs).take(3)).items == [0, 1, 0]
    assert sorted(ends.told) == [(0, "completed"), (1, "completed")]

    ends.told.clear()
    outcome_of(merge(*inputs))
    assert sorted(ends.told) == [(0, "completed"), (1, "completed"), (2, "completed")]

    ends.told.clear()
    outcome_of(
        zip_pipelines(
            numbers(1).on_end(ends.at("short")), Pipeline.from_async_iterable(endless).on_end(ends.at("long"))
        )
    )
    assert sorted(ends.told) == [("long", "stopped"), ("short", "completed")]

    ends.told.clear()
    outcome_of(
        merge(
            numbers().map(fails_at_two).on_end(ends.at("bad")),
            numbers(1).on_end(ends.at("good")),
            on_error=OnError.skip(),
        )
    )
    assert sorted(ends.told) == [("bad", "failed"), ("good", "completed")]


def test_in_branches(ends):
    plan = Pipeline.from_async_iterable(endless).broadcast(
        {
            "few": lambda line: line.on_end(ends.at("few")).take(1),
            "more": lambda line: line.take(2).on_end(ends.at("more")),
        }
    )
    outcome_of(plan.on_end(ends.at("joined")))

    assert sorted(ends.told) == [("few", "stopped"), ("joined", "completed"), ("more", "completed")]


def test_in_a_pipeline_of_an_item_and_of_an_empty_stream(ends):
    outcome_of(numbers(2).flat_map(lambda item: numbers(1).on_end(ends.at(item)), concurrency=1))
    outcome_of(numbers(0).or_else(lambda: numbers(1).on_end(ends.at("or else"))))

    assert ends.told == [(0, "completed"), (1, "completed"), ("or else", "completed")]


def test_it_is_called_once_in_each_run(ends):
    plan = numbers().on_end(ends.at("a"))

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plan.run)
            nursery.start_soon(plan.collect)

    run_virtual(main)

    assert ends.told == [("a", "completed")] * 2


# ---- when


@pytest.mark.parametrize("kind", ["async", "awaited"])
def test_whoever_sees_the_end_knows_that_it_was_called(ends, kind):
    later = ends.later("a", 2.0)

    async def main():
        seen = []
        plan = numbers(2).on_end(later if kind == "async" else lambda outcome: later(outcome))
        async with plan.open() as run:
            async for item in run:
                seen.append((item, trio.current_time()))
            return seen, list(ends.told), trio.current_time()

    assert run_virtual(main) == ([(0, 0), (1, 0)], [("a", "completed", 2.0)], 2.0)


def test_a_failure_waits_for_it_too(ends):
    seen = outcome_of(numbers().map(fails_at_two).on_end(ends.later("a", 2.0)))

    assert (seen.items, type(seen.error), seen.report.elapsed) == ([0, 1], Boom, 2)


def test_upstream_is_stopped_before_it_is_called():
    closed = []

    def feed():
        try:
            yield from range(99)
        finally:
            closed.append("feed")

    async def tell(_outcome):
        await wait_all_tasks_blocked()
        closed.append("told")

    outcome_of(Pipeline.from_iterable(feed).buffer(1).on_end(tell).take(1))

    assert closed == ["feed", "told"]


def test_it_holds_up_no_other_input(ends):
    inputs = {"a": numbers(1).on_end(ends.later("a", 4.0)), "b": every(1, "xyz")}
    seen = outcome_of(fair_merge(inputs))

    assert seen.times == [0, 1, 2, 3]
    assert seen.report.elapsed == 4


# ---- what may go wrong


@pytest.mark.parametrize("is_async", [False, True])
def test_its_error_is_one_of_cleanup(is_async):
    def refuse(outcome):
        raise Boom(outcome)

    async def refuse_later(outcome):
        raise Boom(outcome)

    seen = outcome_of(numbers(2).on_end(refuse_later if is_async else refuse))

    assert (seen.items, seen.error, seen.report.outcome) == ([0, 1], None, "completed")
    assert [error.args for error in seen.report.cleanup_errors] == [("completed",)]


def test_its_error_is_a_note_on_that_of_the_run():
    def refuse(outcome):
        raise OSError(outcome)

    seen = outcome_of(numbers().map(fails_at_two).on_end(refuse))

    assert type(seen.error) is Boom
    assert "then cleanup in stage 'refuse' raised OSError: failed" in seen.error.__notes__


@pytest.mark.parametrize("how", ["completed", "cancelled"])
def test_one_that_hangs_is_ended_by_the_limit_of_cleanup(how):
    async def main():
        plan = numbers(2).on_end(hang)
        with trio.move_on_after(1 if how == "cancelled" else 100):
            async with plan.open(cleanup_timeout=3) as run:
                async for _ in run:
                    pass
        return run.report, trio.current_time()

    report, at = run_virtual(main)

    assert (report.outcome, at) == (how, 3.0)
    (error,) = report.cleanup_errors
    assert (type(error), str(error)) == (trio.TooSlowError, "cleanup in stage 'hang' took more than 3 s")


def test_ctrl_c_in_it_ends_the_program():
    def interrupted(_outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_virtual(numbers().on_end(interrupted).collect)


def test_a_run_that_is_told_to_drain_by_it_ends_as_it_did(ends):
    """It is called from within the run: what it does there finds the stream ended."""

    async def main():
        def drain(outcome):
            ends.told.append(outcome)
            run.drain_nowait()

        async with numbers(2).on_end(drain).open() as run:
            items = [item async for item in run]
        return items, run.report.outcome

    assert run_virtual(main) == ([0, 1], "drained")
    assert ends.told == ["completed"]
