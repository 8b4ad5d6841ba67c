"""What many test files share: the failure, items, functions and sources of most tests, how to run them, and their sums.

A helper stands here if two files need the same one; what only one file needs stands in that file. Fixtures that are
used everywhere are in `tests/conftest.py`.
"""

import os
from contextlib import asynccontextmanager
from functools import partial, wraps
from itertools import count

import trio

from funcpipe_trio import Pipeline
from funcpipe_trio.testing import run_virtual

MS = 2.0**-10
"""A millisecond whose multiples add up exactly."""


STRIDE = int(os.environ.get("FUNCPIPE_STRIDE", "1"))
"""Of what the longest tests go through (steps, moments, places), they take every n-th: all of it, unless in CI."""


def pairs(cases, others):
    """Return each case with each of the others; in CI with a part of them, in turn, so that none is left out."""
    step = min(STRIDE, len(others))
    return [(case, other) for number, case in enumerate(cases) for other in others[number % step :: step]]


# ---- what user code raises


class Boom(Exception):
    """A failure of user code."""


async def stray_cancelled():
    """Give a `Cancelled` that belongs to a scope which is long left."""
    kept = None
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            kept = error
            raise
    return kept


# ---- items


class Opaque:
    """An item that refuses every look."""

    __slots__ = ()

    def _refuse(self, *_args):
        raise AssertionError("an item was looked at")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __bool__ = __len__ = __iter__ = _refuse
    __repr__ = __str__ = __format__ = __contains__ = __getitem__ = __call__ = __enter__ = _refuse


# ---- functions for a stage


async def one_step(item):
    """Give the item back after a checkpoint."""
    await trio.lowlevel.checkpoint()
    return item


async def nap(item):
    """Give the item back a second later."""
    await trio.sleep(1)
    return item


async def in_place(fn, *args):
    """Be a runner for `Step.on` that calls the function where it is."""
    await trio.lowlevel.checkpoint()
    return fn(*args)


# ---- sources


async def endless():
    """Give 0, 1, 2, ... and never wait."""
    for number in count():
        yield number


def every(period, items):
    """Make a source called "arrivals" that gives each item after a period."""

    async def arrivals():
        for item in items:
            await trio.sleep(period)
            yield item

    return Pipeline.from_async_iterable(arrivals)


@asynccontextmanager
async def connection():
    """Hold a nursery with a task open and raise no group, as libraries that open connections do."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


# ---- how to run


def in_virtual_time(test):
    """Make a sync test of an async one: it runs on a clock of its own."""

    @wraps(test)
    def run(**arguments):
        run_virtual(partial(test, **arguments))

    return run


def run_real(main, *args):
    """Run on the real clock, with a watchdog: for what needs threads or processes."""

    async def watched():
        with trio.fail_after(60):
            return await main(*args)

    return trio.run(watched)


async def received(pipeline, on_discard=None):
    """Receive to the end, whatever it is: the items, the error or None, and the report."""
    items = []
    error = None
    async with pipeline.open(on_discard=on_discard) as run:
        try:
            async for item in run:
                items.append(item)
        except Exception as met:
            error = met
    return items, error, run.report


class Outcome:
    """What a consumer who took everything it could has seen."""

    def __init__(self):
        self.items = []
        self.times = []
        self.told = []
        self.error = None
        self.report = None

    def tell(self, item, stage, reason):
        """Note what is discarded, and why."""
        self.told.append((item, reason))


async def take(pipeline, *, slow=0.0, after=None, then=None):
    """Receive to the end, or until `after` items, then do `then(run)` or leave; answer with an `Outcome`."""
    seen = Outcome()
    try:
        async with pipeline.open(on_discard=seen.tell) as run:
            async for item in run:
                seen.items.append(item)
                seen.times.append(trio.current_time())
                if len(seen.items) == after:
                    if then is None:
                        break
                    then(run)
                if slow:
                    await trio.sleep(slow)
    except Exception as error:
        seen.error = error
    seen.report = run.report
    return seen


def outcome_of(pipeline, **how):
    """Do what `take` does, in virtual time."""
    return run_virtual(partial(take, pipeline, **how))


# ---- what a report adds up to


def assert_stages_balance(report):
    """Check that all that came into each stage, or was made there, is what went out of it, in one way or another."""
    for stage in report.stages:
        out = stage.emitted + stage.absorbed + stage.failed + stage.dropped + stage.discarded
        assert stage.received + stage.created == out, stage


def assert_links_balance(report):
    """Check that all that was put into each link was taken out of it, dropped or discarded."""
    for link in report.links:
        assert link.passed == link.taken + link.discarded + link.dropped, link


def assert_run_balances(report):
    """Check that each item taken from the sources, and each value made, came to one end, or was used for others."""
    ends = report.delivered + report.failed + report.dropped + report.discarded
    assert report.taken + sum(each.made - each.used for each in report.remade) == ends, report.describe()


def play(pipeline, stop=None):
    """Return what came out when, the report and what was discarded; `stop` is told the run after each item."""

    async def main():
        log, discarded = [], []
        async with pipeline.open(on_discard=lambda *told: discarded.append(told)) as run:
            try:
                async for item in run:
                    log.append((trio.current_time(), item))
                    if stop is not None:
                        stop(run)
            except Exception as error:
                log.append((trio.current_time(), error))
        return log, run.report, discarded

    return run_virtual(main)


async def read_ahead(items):
    """A generator over a stream that takes its items in a task of its own."""
    send, receive = trio.open_memory_channel(2)

    async def read():
        async with send:
            async for item in items:
                await send.send(item)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        async for item in receive:
            await trio.sleep(0.25)
            yield item
