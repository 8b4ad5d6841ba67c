"""P9: cleanup that awaits is shielded, for at most `cleanup_timeout`; its error never takes the place of the first.

Mutants that die here: cleanup without a shield (it is cancelled at its first await); a shield without a deadline (it
hangs forever); an error of cleanup that is raised, that hides the first one, or that is lost.
"""

import pytest
import trio

from funcpipe_trio import Pipeline
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom

from ._world import Mine


class Source:
    """An async iterator whose `aclose` does something of its own."""

    def __init__(self, close):
        self.close = close
        self.number = -1
        self.closings = []

    def __aiter__(self):
        return self

    async def __anext__(self):
        await trio.sleep(1)
        self.number += 1
        return self.number

    async def aclose(self):
        self.closings.append(("begun", trio.current_time()))
        await self.close()
        self.closings.append(("done", trio.current_time()))


async def raises():
    await trio.sleep(1)
    raise Boom("cleanup")


def takes(seconds):
    async def close():
        await trio.sleep(seconds)

    return close


async def leave_at_3(source, way, timeout=5.0):
    """Leave by a break, an exception, a cancellation or a failure at t = 3; answer the report and the time."""
    error = None

    def same(item):
        if way == "failure" and item == 2:
            raise KeyError("first")
        return item

    pipeline = Pipeline.from_async_iterable(source, name="source").map(same)
    with trio.CancelScope() as scope:
        try:
            async with pipeline.open(cleanup_timeout=timeout) as run:
                if way == "cancel":
                    scope.deadline = 3
                if way == "failure":
                    async for _ in run:
                        pass
                await trio.sleep(3)
                if way == "raise":
                    raise Mine
        except (Mine, KeyError) as met:
            error = met
    return run.report, trio.current_time(), error


WAYS = ["leave", "raise", "cancel", "failure"]


@pytest.mark.parametrize("way", WAYS)
def test_cleanup_that_takes_its_time_is_not_cut_short(way):
    """Four seconds of a limit of five: it is done, once, before the block ends."""
    source = Source(takes(4))
    report, now, _error = run_virtual(leave_at_3, source, way)

    assert source.closings == [("begun", 3), ("done", 7)]
    assert now == 7
    assert report.cleanup_errors == ()


@pytest.mark.parametrize("way", WAYS)
def test_cleanup_that_hangs_is_given_up_at_the_limit(way):
    """At 3 + 2 s the block ends; the report keeps a TooSlowError."""
    source = Source(trio.sleep_forever)
    report, now, _error = run_virtual(leave_at_3, source, way, 2.0)

    assert source.closings == [("begun", 3)]
    assert now == 5
    assert [type(error) for error in report.cleanup_errors] == [trio.TooSlowError]
    assert str(report.cleanup_errors[0]) == "cleanup in stage 'source' took more than 2 s"


@pytest.mark.parametrize("way", WAYS)
def test_cleanup_that_raises_takes_nobodys_place(way):
    """The body's error, the cancellation or the failure is what leaves; the report keeps the other."""
    report, now, error = run_virtual(leave_at_3, Source(raises), way)

    assert [str(met) for met in report.cleanup_errors] == ["cleanup"]
    assert now == 4
    assert type(error) is {"raise": Mine, "failure": KeyError}.get(way, type(None))
    assert report.outcome == {"leave": "left", "raise": "left", "cancel": "cancelled", "failure": "failed"}[way]


def test_an_error_of_cleanup_is_noted_on_the_first_error_of_its_stage():
    """P9: the source fails, and then its cleanup does."""

    async def source():
        try:
            yield 1
            raise KeyError("first")
        finally:
            raise Boom("cleanup")

    class Iterator(Source):
        async def __anext__(self):
            raise KeyError("first")

    async def main():
        with pytest.raises(KeyError) as caught:
            await Pipeline.from_async_iterable(Iterator(raises), name="source").collect()
        return caught.value

    error = run_virtual(main)
    assert error.__notes__ == ["in stage 'source', item 0", "then cleanup in stage 'source' raised Boom: cleanup"]


def test_children_of_a_flat_map_are_closed_under_the_same_rule():
    """An async generator that is being expanded is closed by its worker, shielded, with the deadline."""
    closings = []

    async def children(item):
        try:
            while True:
                yield item
                await trio.lowlevel.checkpoint()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            closings.append((item, trio.current_time()))

    async def main():
        async with Pipeline.from_iterable(range(2)).flat_map(children, concurrency=2).open() as run:
            await run.receive()
            await trio.sleep(1)

    run_virtual(main)
    assert sorted(closings) == [(0, 2), (1, 2)]


def test_a_sync_iterator_whose_close_raises_is_kept_in_the_report():
    """The same for `close` of a sync iterable."""

    class Iterator:
        def __iter__(self):
            return self

        def __next__(self):
            return 1

        def close(self):
            raise Boom("cleanup")

    async def main():
        async with Pipeline.from_iterable(Iterator()).open() as run:
            await run.receive()
        return run.report

    report = run_virtual(main)
    assert [str(error) for error in report.cleanup_errors] == ["cleanup"]
    assert report.outcome == "left"


def test_an_on_discard_that_raises_changes_nothing_but_the_report():
    """P1, P9: every item is still reported once."""
    told = []

    def on_discard(item, stage, reason):
        told.append(item)
        raise Boom(item)

    async def main():
        async with Pipeline.from_iterable(range(100)).open(on_discard=on_discard) as run:
            await run.receive()
        return run.report

    report = run_virtual(main)
    assert len(told) == report.discarded == len(report.cleanup_errors) == report.taken - 1
    assert report.outcome == "left"
