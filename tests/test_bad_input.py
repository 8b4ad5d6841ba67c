"""What is wrong is refused before anything starts: with the value, the rule, and where; all problems of a plan at once.

Every public function and argument has its rows in `REFUSED`; those of a plan's nodes hold for the nodes themselves,
however they are made. Mutants that die here: a check that is left out, or stands in the face alone; a bool taken for an
int; NaN that passes a comparison; an error that comes when the source is already open; a `PlanError` that stops at the
first problem; a one-shot source that gives nothing the second time, or is used up by a run that was refused.
"""

import inspect
import itertools
import math
import re
from dataclasses import fields, replace
from fractions import Fraction
from functools import partial
from itertools import count

import pytest
import trio

import funcpipe_trio
from funcpipe_trio import (
    Adaptive,
    Backoff,
    CircuitBreaker,
    FairShare,
    FuncpipeError,
    MisuseError,
    OnError,
    Pipeline,
    PlaceLimiter,
    PlanError,
    RateLimit,
    RateLimiter,
    Retry,
    RollingLimit,
    Step,
    concat,
    fair_merge,
    merge,
    processes,
    threads,
    zip_pipelines,
)
from funcpipe_trio._base.shown import option, shown
from funcpipe_trio._plan import failures, fair_by, loops, nodes, operations, own, resources, restarts, timing, windows
from funcpipe_trio._plan.nodes import Branch, FanIn, FanOut, Plan, Source, plan_of
from funcpipe_trio._plan.operations import Opaque
from funcpipe_trio.testing import run_virtual


class Named:
    """Something that must not be looked into for a message."""

    def __repr__(self):
        raise AssertionError("asked for its repr")


class Sync(Named):
    def __call__(self, item):
        return item


class Async(Named):
    async def __call__(self, item):
        return item


class AsyncGenerator(Named):
    async def __call__(self, item=None):
        yield item


LINE = Pipeline.from_iterable([1, 2, 3])
NO_CALLABLE, SYNC, ASYNC, ASYNC_GENERATOR = Named(), Sync(), Async(), AsyncGenerator()


async def async_call(item):
    return item


HASHABLE = "must be hashable, not a list of length 0\nUse a tuple, or another value that can be a key."


def same(item):
    return item


def made_by_a_generator():
    yield 1


def wrong_ints(where, name, call, *, at_least):
    """The rows of an argument that must be an int of at least so much."""
    for value in (True, 1.5, 2.0, math.nan, math.inf, "1", Fraction(3), Named()):
        yield TypeError, partial(call, value), f"{where}: {name} must be an int >= {at_least}, not {shown(value)}"
    for value in (at_least - 1, -7):
        yield ValueError, partial(call, value), f"{where}: {name} must be >= {at_least}, not {shown(value)}"
    for value in (2**63, 10**5000):
        rule = f"{where}: {name} must be <= sys.maxsize, {2**63 - 1}"
        yield ValueError, partial(call, value), f"{rule}, not {shown(value)}"


def wrong_seconds(where, name, call, *, positive=True):
    """The rows of an argument that must be a time > 0 (or >= 0)."""
    rule = f"{where}: {name} must be a number of seconds {'> 0' if positive else '>= 0'}"
    for value in (True, "1", Fraction(3), Named()):
        yield TypeError, partial(call, value), f"{rule}, not {shown(value)}"
    for value in (*((0, 0.0) if positive else ()), -1, math.nan, math.inf, -math.inf, 10**400):
        yield ValueError, partial(call, value), f"{rule}, finite, not {shown(value)}"


def wrong_numbers(where, name, call, bounds, values):
    """The rows of an argument that must be a finite number within bounds, which these values are not."""
    rule = f"{where}: {name} must be a finite number {bounds}"
    for value in (True, False, "1", Fraction(1, 2), 1j, Named()):
        yield TypeError, partial(call, value), f"{rule}, not {shown(value)}"
    for value in (math.nan, math.inf, -math.inf, 10**400, *values):
        yield ValueError, partial(call, value), f"{rule}, not {shown(value)}"


def wrong_filters(where, name, call):
    """The rows of an argument that says which errors are meant."""
    rule = f"{where}: {name} must be an exception type, a tuple of them, or a sync predicate"
    for value in (None, True, 3, "OSError", int, (), (OSError, 3), (OSError, int), ((OSError,),), OSError(), [OSError]):
        yield TypeError, partial(call, value), f"{rule}, not {shown(value)}"
    for value in (ASYNC, ASYNC_GENERATOR, async_call, partial(async_call)):
        yield TypeError, partial(call, value), f"{where}: {name} must be a sync function, not {shown(value)}"
    rule = f"{where}: {name} must name Exception or subclasses of it: policies never handle what ends a task"
    for value in (BaseException, KeyboardInterrupt, trio.Cancelled, (OSError, SystemExit), (GeneratorExit, OSError)):
        yield ValueError, partial(call, value), f"{rule}, not {shown(value)}"


def wrong_names(where, call):
    """The rows of `name`."""
    for value in (1, True, b"name", Named()):
        yield TypeError, partial(call, name=value), f"{where}: name must be a str, not {shown(value)}"
    yield ValueError, partial(call, name=""), f"{where}: name must not be empty, not ''"


def wrong_functions(where, call):
    """The rows of a function that may be sync or async."""
    for value in (None, 1, "name", NO_CALLABLE):
        yield TypeError, partial(call, value), f"{where}: fn must be callable, not {shown(value)}"
    if not where.endswith("flat_map"):
        hint = "\nUse flat_map to put many values in an item's place."
        yield (
            TypeError,
            partial(call, ASYNC_GENERATOR),
            f"{where}: fn must be no async generator function, not {shown(ASYNC_GENERATOR)}{hint}",
        )


def wrong_sync_functions(where, name, call):
    """The rows of a function that must be sync."""
    for value in (1, "name", NO_CALLABLE):
        yield TypeError, partial(call, value), f"{where}: {name} must be callable, not {shown(value)}"
    for value in (ASYNC, ASYNC_GENERATOR, async_call, partial(async_call)):
        yield TypeError, partial(call, value), f"{where}: {name} must be a sync function, not {shown(value)}"


def driven(method, **arguments):
    """A call of an async method of a pipeline, as a sync function of one argument."""

    def call(value):
        (name,) = (name for name, given in arguments.items() if given is ...)
        return run_virtual(partial(method, **{**arguments, name: value}))

    return call


def source_rows(face=Pipeline):
    def wrong(where, call, kind, values):
        for value in values:
            yield (
                TypeError,
                partial(call, value),
                f"{where}: items must be an {kind}, or a callable that makes one, not {shown(value)}",
            )

    where = "Pipeline.from_iterable"
    yield from wrong(where, face.from_iterable, "iterable", (None, 5, NO_CALLABLE))
    for value, other, use in (
        (ASYNC, "", ""),
        (ASYNC_GENERATOR, " (from_async_iterable takes an async one)", "\nUse Pipeline.from_async_iterable(items)."),
    ):
        yield (
            TypeError,
            partial(face.from_iterable, value),
            f"{where}: items must give an iterable, without being awaited{other}, not {shown(value)}{use}",
        )
    yield from wrong_names(where, partial(face.from_iterable, []))

    where = "Pipeline.from_async_iterable"
    yield from wrong(where, face.from_async_iterable, "async iterable", (None, 5, [1], NO_CALLABLE))
    for value in (ASYNC, made_by_a_generator):
        yield (
            TypeError,
            partial(face.from_async_iterable, value),
            f"{where}: items must give an async iterable, without being awaited, not {shown(value)}",
        )
    yield from wrong_names(where, partial(face.from_async_iterable, ASYNC_GENERATOR))

    where = "Pipeline.from_channel"
    yield from wrong_names(where, partial(face.from_channel, trio.open_memory_channel(1)[1]))

    where = "Pipeline.from_producer"
    for value in (None, 1, NO_CALLABLE):
        yield (
            TypeError,
            partial(face.from_producer, value),
            f"{where}: async_fn must be callable, not {shown(value)}",
        )
    for value in (SYNC, ASYNC_GENERATOR):
        yield (
            TypeError,
            partial(face.from_producer, value),
            f"{where}: async_fn must be an async function, not {shown(value)}",
        )
    yield from wrong_names(where, partial(face.from_producer, ASYNC))

    yield from wrong_seconds("Pipeline.ticks", "period", face.ticks)
    yield from wrong_names("Pipeline.ticks", partial(face.ticks, 1))

    where = "Pipeline.restarting"
    restarting = partial(face.restarting, reset_after=1)
    for value in (None, 1, NO_CALLABLE):
        yield (
            TypeError,
            partial(restarting, value, Retry()),
            f"{where}: source_factory must be callable, not {shown(value)}",
        )
    yield (
        TypeError,
        partial(restarting, ASYNC, Retry()),
        f"{where}: source_factory must give an iterable or async iterable, without being awaited, not {shown(ASYNC)}",
    )
    for value in (None, 3, Backoff(), Retry):
        yield TypeError, partial(restarting, SYNC, value), f"{where}: retry must be a Retry, not {shown(value)}"
    for value in (True, "1", None):
        call = partial(face.restarting, SYNC, Retry(), reset_after=value)
        yield TypeError, call, f"{where}: reset_after must be a number of seconds > 0, not {shown(value)}"
    for value in (0, -1, math.nan):
        call = partial(face.restarting, SYNC, Retry(), reset_after=value)
        yield ValueError, call, f"{where}: reset_after must be a number of seconds > 0, not {shown(value)}"
    yield from wrong_names(where, partial(restarting, SYNC, Retry()))


def resource_rows(face=Pipeline):
    where = "Pipeline.from_iterable"
    for value in (1, "threads", threads, NO_CALLABLE, processes(1), SYNC):
        call = partial(face.from_iterable, [1], on=value)
        yield TypeError, call, f"{where}: on must be threads(1), not {shown(value)}"
    rule = "be threads(1), because an iterator is advanced by one thread at a time"
    call = partial(face.from_iterable, [1], on=threads(2))
    yield ValueError, call, f"{where}: on must {rule}, not {shown(threads(2))}"

    where = "Pipeline.using"
    for value in (None, 1, NO_CALLABLE):
        yield TypeError, partial(face.using, value, SYNC), f"{where}: open must be callable, not {shown(value)}"
        yield TypeError, partial(face.using, SYNC, value), f"{where}: fn must be callable, not {shown(value)}"
    hint = "\nUse it with @asynccontextmanager."
    yield (
        TypeError,
        partial(face.using, ASYNC_GENERATOR, SYNC),
        f"{where}: open must give a context manager, not {shown(ASYNC_GENERATOR)}{hint}",
    )
    yield (
        TypeError,
        partial(face.using, made_by_a_generator, SYNC),
        f"{where}: open must give a context manager, not {shown(made_by_a_generator)}\nUse it with @contextmanager.",
    )
    rule = "give an iterable, async iterable or pipeline, without being awaited"
    yield TypeError, partial(face.using, SYNC, ASYNC), f"{where}: fn must {rule}, not {shown(ASYNC)}"
    yield from wrong_names(where, partial(face.using, SYNC, SYNC))


def operation_rows(line=LINE):
    for name in ("map", "on_ok", "recover", "filter", "flat_map", "tap", "take_while", "take_until", "skip_while"):
        operation = getattr(line, name)
        yield from wrong_functions(f"Pipeline.{name}", operation)
        yield from wrong_names(f"Pipeline.{name}", partial(operation, SYNC))
    yield from wrong_functions("Pipeline.scan", lambda value: line.scan(value, 0))
    yield from wrong_names("Pipeline.scan", partial(line.scan, SYNC, 0))

    for name in ("map", "on_ok", "recover", "flat_map", "filter", "tap"):
        operation = partial(getattr(line, name), ASYNC)
        yield from wrong_ints(
            f"Pipeline.{name}",
            "concurrency",
            lambda value, operation=operation: operation(concurrency=value),
            at_least=1,
        )
    for name in ("map", "on_ok", "recover"):
        method = getattr(line, name)
        for value in (None, 1, 0, "no", Named()):
            wrong = partial(method, ASYNC, ordered=value)
            yield TypeError, wrong, f"Pipeline.{name}: ordered must be a bool, not {shown(value)}"
        for value in (1, "skip", OnError.skip, Named()):
            rule = f"Pipeline.{name}: on_error must be an OnError, not {shown(value)}\nUse OnError.skip(), say."
            yield TypeError, partial(method, ASYNC, on_error=value), rule

    for name, value in itertools.product(("map", "flat_map"), (None, 1, 0, "no", Named())):
        message = f"Pipeline.{name}: latest must be a bool, not {shown(value)}"
        yield TypeError, partial(getattr(line, name), ASYNC, latest=value), message

    for value in (None, True, 1.0, math.nan, "0", Named()):
        yield TypeError, partial(line.enumerate, value), f"Pipeline.enumerate: start must be an int, not {shown(value)}"
    yield from wrong_names("Pipeline.enumerate", line.enumerate)

    yield from wrong_functions("Pipeline.on_end", line.on_end)
    yield from wrong_names("Pipeline.on_end", partial(line.on_end, SYNC))
    for value in (Step(async_call), Step(async_call).timeout(1)):
        rule = "Pipeline.on_end: fn must be a function of an outcome, not of an item"
        use = "Use an async function that awaits it."
        yield TypeError, partial(line.on_end, value), f"{rule}, not {shown(value)}\n{use}"
    yield from wrong_sync_functions("Pipeline.or_else", "make_pipeline", line.or_else)
    yield from wrong_names("Pipeline.or_else", partial(line.or_else, SYNC))

    for name in ("take", "skip"):
        yield from wrong_ints(f"Pipeline.{name}", "n", getattr(line, name), at_least=0)
        yield from wrong_names(f"Pipeline.{name}", partial(getattr(line, name), 1))
    yield from wrong_ints("Pipeline.buffer", "capacity", line.buffer, at_least=0)
    yield from wrong_names("Pipeline.buffer", partial(line.buffer, 1))
    yield from wrong_names("Pipeline.unbatch", line.unbatch)


def branch_rows(line=LINE):
    for name, call in (
        ("broadcast", line.broadcast),
        ("balance", line.balance),
        ("partition", partial(line.partition, SYNC)),
    ):
        where = f"Pipeline.{name}"
        yield TypeError, partial(call, {1: same}), f"{where}: a branch's name must be a str, not 1"
        yield ValueError, partial(call, {"": same}), f"{where}: a branch's name must not be empty, not ''"
        for value in (None, [1], Named()):
            made = f"{where}: what branches['a'] gives must be a Pipeline, not {shown(value)}"
            yield TypeError, partial(call, {"a": lambda line, value=value: value}), made
        yield from wrong_names(where, partial(call, {"a": same}))
    for kind, value in ((ValueError, "zipped"), (ValueError, ""), (TypeError, None), (TypeError, 1)):
        said = repr(value) if isinstance(value, str) else shown(value)
        rule = f"Pipeline.broadcast: join must be 'merge' or 'zip', not {said}"
        yield kind, partial(line.broadcast, {"a": same}, join=value), rule
    yield from wrong_sync_functions("Pipeline.partition", "route", lambda value: line.partition(value, {"a": same}))


def batch_rows(line=LINE):
    where = "Pipeline.batch"
    yield ValueError, line.batch, f"{where}: one of max_items, max_delay, max_cost must be given"
    yield from wrong_ints(where, "max_items", line.batch, at_least=1)
    yield from wrong_seconds(where, "max_delay", lambda value: line.batch(max_delay=value), positive=False)
    for value in (True, "1", Fraction(3), Named()):
        yield (
            TypeError,
            partial(line.batch, max_cost=value),
            f"{where}: max_cost must be a number > 0, not {shown(value)}",
        )
    for value in (0, 0.0, -1, math.nan, math.inf):
        yield (
            ValueError,
            partial(line.batch, max_cost=value),
            f"{where}: max_cost must be > 0 and finite, not {shown(value)}",
        )
    yield from wrong_sync_functions(where, "cost", lambda value: line.batch(max_cost=1, cost=value))
    yield TypeError, partial(line.batch, 1, cost=SYNC), f"{where}: cost must come with max_cost"
    yield from key_rows(where, partial(line.batch, 1))
    yield from wrong_names(where, partial(line.batch, 1))


def keyed_map_rows(line=LINE):
    where, call = "Pipeline.map", partial(line.map, ASYNC)
    for name, least, given in (("per_key", 1, 2), ("waiting", 0, 1)):
        for value in (None, True, 1.0, "1", Named()):
            message = f"{where}: {name} must be an int >= {least}, not {shown(value)}"
            yield TypeError, partial(call, key=SYNC, **{name: value}), message
        message = f"{where}: {name} must be >= {least}, not {least - 1}"
        yield ValueError, partial(call, key=SYNC, **{name: least - 1}), message
        yield TypeError, partial(call, **{name: given}), f"{where}: {name} must come with key"
    for value in (5, "5/s", RateLimit, RollingLimit, Named()):
        message = f"{where}: key_rate must be a RateLimit or a RollingLimit, not {shown(value)}\nUse RateLimit(5), say."
        yield TypeError, partial(call, key=SYNC, key_rate=value), message
    yield TypeError, partial(call, key_rate=RateLimit(5)), f"{where}: key_rate must come with key"
    yield from wrong_ints(where, "retries_elsewhere", lambda value: call(retries_elsewhere=value), at_least=0)


def key_rows(where, call):
    """Of what is kept for each key: at most so many, or what is idle leaves."""
    yield from wrong_sync_functions(where, "key", lambda value: call(key=value, max_keys=1))
    yield from wrong_ints(where, "max_keys", lambda value: call(key=SYNC, max_keys=value), at_least=1)
    yield TypeError, partial(call, max_keys=3), f"{where}: max_keys must come with key"
    yield TypeError, partial(call, full="fail"), f"{where}: full must come with key"
    message = f"{where}: key must come with max_keys, the most keys that it remembers at once"
    yield TypeError, partial(call, key=SYNC), message
    rule = f"{where}: full must be 'oldest' or 'fail'"
    for kind, values in ((TypeError, (None, 1, SYNC)), (ValueError, ("", "Oldest", "drop_oldest"))):
        for value in values:
            yield kind, partial(call, key=SYNC, max_keys=1, full=value), f"{rule}, not {option(value)}"


def fair_by_rows(line=LINE):
    where = "Pipeline.fair_by"
    yield from wrong_sync_functions(where, "key", lambda value: line.fair_by(value, max_keys=1))
    for value in (1, "a", {"a": 1}, Named()):
        message = f'{where}: share must be a FairShare, not {shown(value)}\nUse FairShare({{"a": 3}}), say.'
        yield TypeError, partial(line.fair_by, SYNC, value, max_keys=1), message
    yield from wrong_ints(where, "max_keys", lambda value: line.fair_by(SYNC, max_keys=value), at_least=1)
    rule = "overflow must be 'block', 'drop_newest' or OnError.divert(step)"
    for kind, values in ((TypeError, (None, 1, OnError.skip(), SYNC)), (ValueError, ("", "Block", "drop_oldest"))):
        for value in values:
            yield kind, partial(line.fair_by, SYNC, max_keys=1, overflow=value), f"{where}: {rule}, not {option(value)}"
    yield from wrong_names(where, partial(line.fair_by, SYNC, max_keys=1))


def loop_rows(line=LINE):
    where = "Pipeline.loop"
    yield from wrong_sync_functions(where, "again", lambda value: line.loop(same, again=value, room=1))
    yield from wrong_ints(where, "room", lambda value: line.loop(same, again=SYNC, room=value), at_least=1)
    rule = "full must be 'fail' or OnError.divert(step)"
    for kind, values in ((TypeError, (None, 1, OnError.skip(), SYNC)), (ValueError, ("", "Fail", "block"))):
        for value in values:
            yield (
                kind,
                partial(line.loop, same, again=SYNC, room=1, full=value),
                f"{where}: {rule}, not {option(value)}",
            )
    yield from wrong_names(where, partial(line.loop, same, again=SYNC, room=1))


def loop_body_rows():
    where = "Pipeline.loop"
    yield from wrong_sync_functions(where, "body", lambda value: LINE.loop(value, again=SYNC, room=1))
    for value in (1, None, [LINE]):
        message = f"{where}: what body gives must be a Pipeline, not {shown(value)}"
        yield TypeError, partial(LINE.loop, lambda p, value=value: value, again=SYNC, room=1), message


def window_rows(line=LINE):
    where = "Pipeline.window"
    yield ValueError, line.window, f"{where}: one of max_items, period must be given"
    yield from wrong_ints(where, "max_items", line.window, at_least=1)
    yield from wrong_seconds(where, "period", lambda value: line.window(period=value))
    yield from wrong_names(where, partial(line.window, 1))
    yield from wrong_ints("Pipeline.sliding", "n", line.sliding, at_least=1)
    yield from wrong_ints("Pipeline.sliding", "step", partial(line.sliding, 2), at_least=1)
    yield from wrong_names("Pipeline.sliding", partial(line.sliding, 2))
    where = "Pipeline.distinct"
    yield from wrong_sync_functions(where, "key", lambda value: line.distinct(value, remember=1))
    yield from wrong_ints(where, "remember", lambda value: line.distinct(remember=value), at_least=1)
    yield from wrong_names(where, partial(line.distinct, remember=1))


class Pushed:
    def push(self, item):
        return [item]


class AsyncPushed:
    async def push(self, item):
        return [item]


class WithoutTick(Pushed):
    def due(self):
        return None


class WithoutFlush(Pushed):
    flush = [1, 2]  # noqa: RUF012  # no method


def sync_generator(items):
    yield from items


async def passed_on(items):
    async for item in items:
        yield item


def own_rows(line=LINE):
    where = "Pipeline.stateful"
    use = "Use a class with a method push(item), or a callable without arguments that returns such an object."
    for value in (None, 1, "push", Named(), Pushed()):
        yield TypeError, partial(line.stateful, value), f"{where}: make must be callable, not {shown(value)}\n{use}"
    for value in (ASYNC, ASYNC_GENERATOR, async_call):
        yield TypeError, partial(line.stateful, value), f"{where}: make must be sync, not {shown(value)}\n{use}"
    for value in (Named, int, partial(Named)):
        rule = f"{where}: make must make an object with a method push(item), not {shown(value)}"
        yield TypeError, partial(line.stateful, value), f"{rule}\n{use}"
    rule = f"{where}: push of AsyncPushed must be sync\nUse .through(fn) for what waits."
    yield TypeError, partial(line.stateful, AsyncPushed), rule
    rule = f"{where}: flush of WithoutFlush must be a method, not a list of length 2"
    yield TypeError, partial(line.stateful, WithoutFlush), rule
    rule = f"{where}: WithoutTick must have both due and tick, or none of them"
    yield TypeError, partial(line.stateful, WithoutTick), rule
    yield from wrong_ints(where, "holds", lambda value: line.stateful(Pushed, holds=value), at_least=0)
    yield from wrong_names(where, partial(line.stateful, Pushed))
    yield from key_rows(where, partial(line.stateful, Pushed))
    where = "Pipeline.through"
    for value in (None, 1, "fn", NO_CALLABLE):
        yield TypeError, partial(line.through, value), f"{where}: fn must be callable, not {shown(value)}"
    use = "Use yield in it; map and flat_map take an async function."
    for value in (ASYNC, async_call):
        rule = f"{where}: fn must be an async generator function, not {shown(value)}\n{use}"
        yield TypeError, partial(line.through, value), rule
    for value in (sync_generator, partial(sync_generator)):
        rule = f"{where}: fn must be an async generator function, not {shown(value)}\nUse `async def`."
        yield TypeError, partial(line.through, value), rule
    yield from wrong_ints(where, "holds", lambda value: line.through(passed_on, holds=value), at_least=0)
    yield from wrong_names(where, partial(line.through, passed_on))


def overload_rows(line=LINE):
    where = "Pipeline.buffer"
    together = f"{where}: max_cost and cost must come together"
    yield TypeError, partial(line.buffer, 9, cost=len), together
    yield TypeError, partial(line.buffer, max_cost=9), together
    yield from wrong_sync_functions(where, "cost", lambda value: line.buffer(max_cost=9, cost=value))
    yield from wrong_ints(where, "capacity", lambda value: line.buffer(value, max_cost=9, cost=len), at_least=1)
    for value in (0, -1, math.nan, math.inf):
        message = f"{where}: max_cost must be > 0 and finite, not {shown(value)}"
        yield ValueError, partial(line.buffer, max_cost=value, cost=len), message
    message = f"{where}: overflow must not merge with max_cost: what is merged has no cost"
    yield ValueError, lambda: line.buffer(max_cost=9, cost=len, overflow=funcpipe_trio.OnFull.merge(max)), message
    message = f"{where}: overflow must not merge with capacity 0, which holds nothing"
    yield ValueError, lambda: line.buffer(0, overflow=funcpipe_trio.OnFull.merge(max)), message
    message = f"{where}: overflow must not be 'drop_oldest' with capacity 0, which holds nothing"
    yield ValueError, lambda: line.buffer(0, overflow="drop_oldest"), message
    rule = f"{where}: overflow must be 'block', 'drop_oldest', 'drop_newest' or 'fail'"
    for value in ("drop", "", "Block", "drop_oldest "):
        yield ValueError, partial(line.buffer, 1, overflow=value), f"{rule}, not {option(value)}"
    for value in (None, True, 1, b"block", Named()):
        yield TypeError, partial(line.buffer, 1, overflow=value), f"{rule}, not {shown(value)}"

    where = "Pipeline.throttle"
    for value in (None, 5, 0.5, "5/s", RateLimit, RollingLimit, Named()):
        yield (
            TypeError,
            partial(line.throttle, value),
            f"{where}: rate_limit must be a RateLimit or a RollingLimit, not {shown(value)}\nUse RateLimit(8), say.",
        )
    yield from wrong_sync_functions(where, "cost", lambda value: line.throttle(RateLimit(1), cost=value))
    yield from wrong_names(where, partial(line.throttle, RateLimit(1)))


def time_rows(line=LINE):
    arguments = {"debounce": "delay", "sample": "period", "delay": "seconds"}
    arguments |= dict.fromkeys(("idle_timeout", "take_for"), "seconds")
    for name, argument in arguments.items():
        operation = getattr(line, name)
        yield from wrong_seconds(f"Pipeline.{name}", argument, operation)
        yield from wrong_names(f"Pipeline.{name}", partial(operation, 1))
    yield from wrong_ints("Pipeline.delay", "max_items", lambda value: line.delay(1, max_items=value), at_least=1)

    yield from wrong_seconds("Pipeline.debounce", "max_wait", lambda value: line.debounce(1, max_wait=value))
    message = "Pipeline.debounce: max_wait must be >= the delay of 2 s, not 1.5"
    yield ValueError, lambda: line.debounce(2, max_wait=1.5), message

    where = "Pipeline.keep_alive"
    yield from wrong_seconds(where, "seconds", lambda value: line.keep_alive(value, dict))
    yield from wrong_sync_functions(where, "make_item", lambda value: line.keep_alive(1, value))
    yield from wrong_names(where, partial(line.keep_alive, 1, dict))
    message = f"{where}: make_item must take 0 arguments: missing a required argument: 'item'"
    yield TypeError, lambda: line.keep_alive(1, lambda item: item), message

    where = "Pipeline.stop_when"
    for value in (None, 1, "event", trio.Event, SYNC, ASYNC_GENERATOR, funcpipe_trio.Step(ASYNC), Named()):
        message = f"{where}: event must be a trio.Event or an async function without arguments, not {shown(value)}"
        yield TypeError, partial(line.stop_when, value), message
    message = f"{where}: event must take 0 arguments: missing a required argument: 'item'"
    yield TypeError, partial(line.stop_when, ASYNC), message
    yield from wrong_names(where, partial(line.stop_when, trio.sleep_forever))

    where = "Pipeline.timeout"
    yield ValueError, line.timeout, f"{where}: one of seconds, first must be given"
    yield from wrong_seconds(where, "first", lambda value: line.timeout(first=value))
    yield from wrong_seconds(where, "seconds", line.timeout)
    yield from wrong_names(where, partial(line.timeout, 1))


def fan_in_rows(face=funcpipe_trio):
    for name in ("merge", "concat", "zip_pipelines", "merge_sorted", "zip_latest"):
        function = getattr(face, name)
        for value in (None, 1, [LINE], "ab"):
            yield TypeError, partial(function, value), f"{name}: input 0 must be a Pipeline, not {shown(value)}"
            yield TypeError, partial(function, LINE, value), f"{name}: input 1 must be a Pipeline, not {shown(value)}"
        yield from wrong_names(name, partial(function, LINE))
    for value in (None, 1, 0, "yes"):
        message = f"zip_pipelines: strict must be a bool, not {shown(value)}"
        yield TypeError, partial(face.zip_pipelines, LINE, strict=value), message

    for name, call in (("merge", partial(face.merge, LINE)), ("fair_merge", partial(face.fair_merge, {"a": LINE}))):
        for value in (None, 1, "skip", OnError.skip, Named()):
            rule = f"{name}: on_error must be an OnError, not {shown(value)}\nUse OnError.skip(), say."
            yield TypeError, partial(call, on_error=value), rule
        use = "Use OnError.emit(), and recover(step) behind it."
        rule = f"{name}: on_error must not divert: a merge has no task to wait in, not a Divert\n{use}"
        yield ValueError, partial(call, on_error=OnError.divert(ASYNC)), rule
        use = "Use OnError.skip(max_failures), which counts inputs."
        rule = f"{name}: on_error must have no max_ratio: inputs fail, not items, not a Skip\n{use}"
        yield ValueError, partial(call, on_error=OnError.skip(max_ratio=0.5)), rule
    for value in (None, 1, 0, "yes"):
        message = f"merge_sorted: reverse must be a bool, not {shown(value)}"
        yield TypeError, partial(face.merge_sorted, LINE, reverse=value), message
    for value in (None, 1, [LINE], "ab"):
        call = partial(face.prefer, value, LINE, at_least=3)
        yield TypeError, call, f"prefer: input 0 must be a Pipeline, not {shown(value)}"
        call = partial(face.prefer, LINE, value, at_least=3)
        yield TypeError, call, f"prefer: input 1 must be a Pipeline, not {shown(value)}"
    yield from wrong_names("prefer", partial(face.prefer, LINE, at_least=3))
    yield from wrong_ints("prefer", "at_least", lambda value: face.prefer(LINE, LINE, at_least=value), at_least=2)
    for value in (3, "key", [SYNC]):
        message = f"merge_sorted: key must be callable, not {shown(value)}"
        yield TypeError, partial(face.merge_sorted, LINE, key=value), message
    message = f"merge_sorted: key must be a sync function, not {shown(ASYNC)}"
    yield TypeError, partial(face.merge_sorted, LINE, key=ASYNC), message

    for value in (None, [1], 1):
        message = f"fair_merge: inputs['b'] must be a Pipeline, not {shown(value)}"
        yield TypeError, partial(face.fair_merge, {"a": LINE, "b": value}), message
    for value in ({"a": 1}, 1, FairShare):
        message = f'fair_merge: share must be a FairShare, not {shown(value)}\nUse FairShare({{"a": 3}}), say.'
        yield TypeError, partial(face.fair_merge, {"a": LINE}, value), message
    yield from wrong_names("fair_merge", partial(face.fair_merge, {}))
    yield (
        PlanError,
        partial(face.fair_merge, {"a": LINE, 1: LINE}, FairShare({"a": 1, "A": 2, "1": 3})),
        "fair_merge: weights['A'] must name an input; the inputs are 'a', 1\n"
        "fair_merge: weights['1'] must name an input; the inputs are 'a', 1",
    )
    message = "fair_merge: weights['a'] must name an input; the inputs are none"
    yield PlanError, partial(face.fair_merge, {}, FairShare({"a": 1})), message


def face_rows():
    """Arguments that no node can check: not fields of a node, or refused in the name of a second method."""
    where = "Pipeline.from_channel"
    for value in (None, [1], SYNC, LINE):
        yield (
            TypeError,
            partial(Pipeline.from_channel, value),
            f"{where}: receive_channel must be a trio ReceiveChannel, not {shown(value)}",
        )
    for value in (None, 1, NO_CALLABLE):
        yield TypeError, partial(LINE.pipe, value), f"Pipeline.pipe: fn must be callable, not {shown(value)}"
    for call, kind in ((Pipeline.from_iterable, "iterable"), (Pipeline.from_async_iterable, "async iterable")):
        message = f"Pipeline.{call.__name__}: items must be an {kind}, or a callable that makes one, not a Pipeline"
        yield TypeError, partial(call, LINE), message
    yield from wrong_names("Pipeline.pairwise", LINE.pairwise)
    for value in (None, [LINE], (("a", LINE),), LINE, 1):
        message = f"fair_merge: inputs must be a mapping of keys to pipelines, not {shown(value)}"
        yield TypeError, partial(fair_merge, value), message
    for name, call in (
        ("broadcast", LINE.broadcast),
        ("balance", LINE.balance),
        ("partition", partial(LINE.partition, SYNC)),
    ):
        where = f"Pipeline.{name}"
        for value in (None, [("a", same)], same, Named()):
            rule = f"{where}: branches must be a mapping of names to functions, not {shown(value)}"
            yield TypeError, partial(call, value), rule
        yield from wrong_sync_functions(where, "branches['a']", lambda value, call=call: call({"a": value}))


def policy_rows():
    where = "FairShare"
    for value in (1, [("a", 1)], "ab"):
        yield (
            TypeError,
            partial(FairShare, value),
            f"{where}: weights must be a mapping of keys to weights, not {shown(value)}",
        )
    for name, call in (
        ("weights['a']", lambda value: FairShare({"a": value})),
        ("default_weight", lambda value: FairShare(default_weight=value)),
    ):
        rule = f"{where}: {name} must be a positive int or Fraction, not "
        for value in (None, True, math.nan, math.inf, -0.5, "1", 1j, Named()):
            yield TypeError, partial(call, value), f"{rule}{shown(value)}"
        yield TypeError, partial(call, 0.25), f"{rule}0.25\nUse Fraction(1, 4)."
        for value in (0, -1, Fraction(0), Fraction(-1, 2)):
            yield ValueError, partial(call, value), f"{rule}{shown(value)}"
    yield from wrong_ints(where, "capacity", lambda value: FairShare(capacity=value), at_least=1)
    yield from wrong_sync_functions(where, "cost", lambda value: FairShare(cost=value))


def rate_limit_rows():
    where = "RateLimit"
    yield from wrong_numbers(where, "rate", RateLimit, "> 0", (0, 0.0, -1, -5e-324))
    yield from wrong_seconds(where, "per", lambda value: RateLimit(1, per=value))
    yield from wrong_ints(where, "burst", lambda value: RateLimit(1, burst=value), at_least=1)
    where = "RollingLimit"
    yield from wrong_ints(where, "n", RollingLimit, at_least=1)
    yield from wrong_seconds(where, "per", lambda value: RollingLimit(1, per=value))


def limiter_rows():
    """Limiters with shares, and the steps that use them; the cost of an acquisition has its rows elsewhere."""
    limit, weights = RateLimit(5, burst=5), FairShare({"a": 3})
    for where, call in (("RateLimiter", partial(RateLimiter, limit)), ("PlaceLimiter", partial(PlaceLimiter, 3))):
        for value in (3, "a", {"a": 3}, FairShare, Named()):
            message = f"{where}: share must be a FairShare, not {shown(value)}\nUse FairShare({{key: weight}})."
            yield TypeError, partial(call, value), message
        rule = f"{where}: share must have no cost: what a call costs is said when it is acquired"
        yield ValueError, partial(call, FairShare(cost=len)), f"{rule}\nUse acquire(cost=) or Step.rate_limit(cost=)."
        for name, change in (
            ("set_weight", lambda limiter, weight: limiter.set_weight("a", weight)),
            ("group", lambda limiter, weight: limiter.group("a", weight)),
        ):
            method = f"{where}.{name}"
            rule = f"{method}: must be called on a limiter with shares\nUse share=FairShare() to make it."
            yield ValueError, partial(change, call(), 3), rule
            rule = f"{method}: weight must be a positive int or Fraction, not "
            for value in (True, math.nan, math.inf, "1", Named()):
                yield TypeError, partial(change, call(weights), value), f"{rule}{shown(value)}"
            yield TypeError, partial(change, call(weights), 0.25), f"{rule}0.25\nUse Fraction(1, 4)."
            for value in (0, -1, Fraction(-1, 2)):
                yield ValueError, partial(change, call(weights), value), f"{rule}{shown(value)}"
        yield (
            ValueError,
            partial(call().group, "a"),
            f"{where}.group: must be called on a limiter with shares\nUse share=FairShare() to make it.",
        )
        for name, ask in (("group", call(weights).group), ("set_weight", partial(call(weights).set_weight, weight=1))):
            yield TypeError, partial(ask, []), f"{where}.{name}: key {HASHABLE}"
    yield from wrong_ints("PlaceLimiter", "places", PlaceLimiter, at_least=1)
    yield from wrong_ints("PlaceLimiter.set_places", "places", PlaceLimiter(2).set_places, at_least=1)
    yield TypeError, partial(PlaceLimiter(1, weights).hold, []), f"PlaceLimiter.hold: key {HASHABLE}"


def limited_step_rows():
    step, tokens, places = Step(async_call), RateLimiter(RateLimit(5), FairShare()), PlaceLimiter(3, FairShare())
    where = "Step.rate_limit"
    for name in ("key", "settle", "cost"):
        for value in (1, NO_CALLABLE, {SYNC}, *(("name",) if name == "key" else ())):
            message = f"{where}: {name} must be callable, not {shown(value)}"
            yield TypeError, partial(step.rate_limit, tokens, **{name: value}), message
        for value in (ASYNC, ASYNC_GENERATOR, async_call, partial(async_call)):
            message = f"{where}: {name} must be a sync function, not {shown(value)}"
            yield TypeError, partial(step.rate_limit, tokens, **{name: value}), message
    for name in ("settle", "cost"):
        for value in ([3], {tokens: 3}):
            call = partial(step.rate_limit, tokens, **{name: value})
            yield TypeError, call, f"{where}: {name} must be callable, not 3"
        rule = f"{where}: {name} must have a function (or None) for each of the 1 limits, not "
        for value in ([], [SYNC, SYNC], "ab"):
            yield ValueError, partial(step.rate_limit, tokens, **{name: value}), f"{rule}{len(value)}"
        rule = f"{where}: {name} must name limits that are given, not a RateLimiter"
        yield ValueError, partial(step.rate_limit, tokens, **{name: {RateLimiter(RateLimit(5)): SYNC}}), rule
    rule = f"{where}: key must be given with a RateLimiter, whose shares it names"
    use = "Use RateLimiter(limit, share=FairShare(...)), made once and shared."
    yield ValueError, partial(step.rate_limit, RateLimit(5), RollingLimit(5), key=SYNC), f"{rule}\n{use}"
    rule = f"{where}: limit must be a RateLimit, a RollingLimit or a RateLimiter"
    message = f"{rule}, not a PlaceLimiter\nUse .places(limiter)."
    yield TypeError, partial(step.rate_limit, tokens, places), message
    message = f"{where}: a limiter must be met once by a call, not twice\nUse cost= to let it take more."
    for given in (
        (tokens, tokens),
        (tokens, tokens.group("a")),
        (tokens.group("a"), RateLimit(9), tokens.group("b").group("c")),
    ):
        yield ValueError, partial(step.rate_limit, *given), message
    yield ValueError, partial(step.rate_limit(tokens).places(places).rate_limit, tokens), message

    where = "Step.places"
    for value in (None, 3, True, PlaceLimiter, tokens, Named()):
        message = f"{where}: limiter must be a PlaceLimiter, not {shown(value)}"
        yield TypeError, partial(step.places, value), f"{message}\nUse PlaceLimiter(10), made once and shared."
    yield from wrong_sync_functions(where, "key", lambda value: step.places(places, key=value))
    rule = f"{where}: a call must not wait for a second place of a limiter while it holds one"
    inner = step.places(places)
    for held in (
        inner,
        inner.timeout(3).retry(Retry(2)).rate_limit(tokens),
        step.then(inner).then(step),
        Step(inner.start()),
        Step(Step(inner.timeout(3).start()).start()).circuit_breaker(funcpipe_trio.CircuitBreaker()),
    ):
        for outer in (places, places.group("a")):
            yield ValueError, partial(held.places, outer), f"{rule}\nUse .places(limiter) once."


def retry_rows():
    where = "Backoff"
    yield from wrong_seconds(where, "initial", Backoff, positive=False)
    yield from wrong_numbers(where, "factor", partial(Backoff, 1), ">= 1", (0, 0.999, -2))
    yield from wrong_seconds(where, "maximum", lambda value: Backoff(maximum=value), positive=False)
    yield from wrong_numbers(where, "jitter", lambda value: Backoff(jitter=value), ">= 0 and <= 1", (-0.1, 1.1, 2))
    for value in (True, 1.0, math.nan, "0", Named()):
        yield TypeError, partial(Backoff, seed=value), f"{where}: seed must be an int, not {shown(value)}"

    where = "Retry"
    yield from wrong_ints(where, "attempts", Retry, at_least=1)
    yield from wrong_filters(where, "on", partial(Retry, 2))
    for value in (None, 0.1, True, Backoff, Named()):
        yield TypeError, partial(Retry, backoff=value), f"{where}: backoff must be a Backoff, not {shown(value)}"
    yield from wrong_sync_functions(where, "retry_after", lambda value: Retry(retry_after=value))
    for value in (None, 1, "yes", Named()):
        message = f"{where}: pauses_limit must be a bool, not {shown(value)}"
        yield TypeError, partial(Retry, retry_after=SYNC, pauses_limit=value), message
    message = (
        f"{where}: pauses_limit must come with retry_after, which names the wait\n"
        "Use Retry(retry_after=fn, pauses_limit=True)."
    )
    yield ValueError, partial(Retry, pauses_limit=True), message


def adaptive_rows():
    where = "Adaptive"
    yield from wrong_ints(where, "minimum", lambda value: Adaptive(value, 9), at_least=1)
    yield from wrong_ints(where, "maximum", lambda value: Adaptive(1, value), at_least=1)
    message = f"{where}: maximum must be >= minimum, 3, not 2\nUse Adaptive(1, 64), say."
    yield ValueError, partial(Adaptive, 3, 2), message
    yield from wrong_numbers(where, "target", lambda value: Adaptive(1, 2, target=value), "> 1", (1, 1.0, 0.5, -2))
    yield from wrong_filters(where, "on", lambda value: Adaptive(1, 2, on=value))


def circuit_breaker_rows():
    where = "CircuitBreaker"
    yield from wrong_ints(where, "failures", CircuitBreaker, at_least=1)
    yield from wrong_seconds(where, "reset_after", partial(CircuitBreaker, 5))
    outside = (0, 0.0, -0.5, 1.0001, 2)
    yield from wrong_numbers(
        where, "ratio", lambda value: CircuitBreaker(ratio=value, window=9), "> 0 and <= 1", outside
    )
    yield from wrong_ints(where, "window", lambda value: CircuitBreaker(ratio=0.5, window=value), at_least=1)
    yield from wrong_filters(where, "on", lambda value: CircuitBreaker(on=value))
    for value in (None, 1, 0, "yes", Named()):
        yield TypeError, partial(CircuitBreaker, wait=value), f"{where}: wait must be a bool, not {shown(value)}"
    message = f"{where}: ratio and window must be given together"
    for arguments in ({"ratio": 0.5}, {"window": 10}, {"failures": None, "window": 10}):
        yield TypeError, partial(CircuitBreaker, **arguments), message
    message = f"{where}: failures or ratio must be given: nothing would open it"
    yield ValueError, partial(CircuitBreaker, None), message


def on_error_rows():
    where = "OnError.skip"
    yield from wrong_ints(where, "max_failures", OnError.skip, at_least=0)
    yield from wrong_numbers(where, "max_ratio", partial(OnError.skip, None), ">= 0 and <= 1", (-0.1, 1.1, 2))
    yield from wrong_ints(where, "min_items", partial(OnError.skip, None, None), at_least=1)
    for value in (None, 1, "step", NO_CALLABLE, SYNC, ASYNC_GENERATOR, same, partial(same), Async):
        message = f"OnError.divert: step must be a Step or an async function, not {shown(value)}"
        yield TypeError, partial(OnError.divert, value), message


def running_rows():
    for value in ("svg", "", 3, None):
        yield ValueError, partial(LINE.describe, value), described_wrongly(value)
    for method in (LINE.run, LINE.collect):
        yield from wrong_sync_functions("Pipeline", "on_discard", driven(method, on_discard=...))
        yield from wrong_seconds("Pipeline", "cleanup_timeout", driven(method, cleanup_timeout=...))
    yield from wrong_sync_functions("Pipeline", "on_discard", lambda value: LINE.open(on_discard=value))
    yield from wrong_seconds("Pipeline", "cleanup_timeout", lambda value: LINE.open(cleanup_timeout=value))
    yield from wrong_functions("Pipeline.fold", driven(LINE.fold, fn=..., initial=0))
    yield (
        TypeError,
        partial(Pipeline, 3),
        "Pipeline: make one with Pipeline.from_iterable() or another of its from_ methods",
    )
    yield AttributeError, partial(setattr, LINE, "name", 1), "Pipeline: name cannot be set, a pipeline never changes"
    yield AttributeError, partial(setattr, LINE, "_plan", 1), "Pipeline: _plan cannot be set, a pipeline never changes"
    message = "Pipeline: _plan cannot be deleted, a pipeline never changes"
    yield AttributeError, partial(delattr, LINE, "_plan"), message


def service_rows():
    serve = funcpipe_trio.run_service
    for value in (3, [1], Named()):
        yield (
            TypeError,
            partial(driven(serve, plan=...), value),
            f"run_service: plan must be a Pipeline, not {shown(value)}",
        )
    wrong = driven(serve, plan=LINE, grace=...)
    rule = "run_service: grace must be a number of seconds >= 0, not "
    for value in (-1, -math.inf, math.nan):
        yield ValueError, partial(wrong, value), f"{rule}{value}"
    for value in ("3", True, None, Named()):
        yield TypeError, partial(wrong, value), f"{rule}{shown(value)}"
    yield from wrong_sync_functions("Pipeline", "on_discard", driven(serve, plan=LINE, on_discard=...))
    yield from wrong_seconds("Pipeline", "cleanup_timeout", driven(serve, plan=LINE, cleanup_timeout=...))
    calls = (
        (lambda value: LINE.open(observer=value)),
        driven(LINE.run, observer=...),
        driven(serve, plan=LINE, observer=...),
    )
    for call in calls:
        for value in (3, NO_CALLABLE):
            message = f"Pipeline: observer must be an Observer, with a method begin, not {shown(value)}"
            yield TypeError, partial(call, value), message


def described_wrongly(value):
    """The message of a format that is not known; which ones are, the message itself says."""
    with pytest.raises(ValueError, match=r"^Pipeline\.describe: format must be .*, not 'unknown'$") as caught:
        LINE.describe("unknown")
    return str(caught.value).replace("'unknown'", option(value))


REFUSED = [
    *source_rows(),
    *resource_rows(),
    *operation_rows(),
    *branch_rows(),
    *keyed_map_rows(),
    *batch_rows(),
    *fair_by_rows(),
    *loop_rows(),
    *loop_body_rows(),
    *window_rows(),
    *own_rows(),
    *overload_rows(),
    *time_rows(),
    *fan_in_rows(),
    *face_rows(),
    *policy_rows(),
    *rate_limit_rows(),
    *limiter_rows(),
    *limited_step_rows(),
    *retry_rows(),
    *adaptive_rows(),
    *circuit_breaker_rows(),
    *on_error_rows(),
    *running_rows(),
    *service_rows(),
]


@pytest.mark.parametrize(
    ("kind", "call", "message"), REFUSED, ids=[message.partition("\n")[0] for *_, message in REFUSED]
)
def test_a_wrong_argument_is_refused_with_the_value_and_the_rule(kind, call, message):
    """A wrong argument raises at the call: a `TypeError` for its type, a `ValueError` for its range, no other error."""
    with pytest.raises(kind, match=rf"^{re.escape(message)}$") as caught:
        call()

    assert type(caught.value) is kind


# ---- nodes of a plan, made without the face

PLAN = LINE._plan
BRANCH = Branch("broadcast", "split", "a")
NODES = {
    "from_iterable": Source("iterable", "s", Opaque([1])),
    "from_iterable on": resources.IterableInThread("iterable", "s", Opaque([1]), on=threads(1)),
    "from_async_iterable": Source("async iterable", "s", Opaque(ASYNC_GENERATOR)),
    "from_channel": Source("channel", "s", Opaque(trio.open_memory_channel(1)[1])),
    "from_producer": Source("producer", "s", Opaque(ASYNC)),
    "ticks": Source("ticks", "s", Opaque(None), 1),
    "restarting": restarts.RestartingSource("restarting", "s", Opaque(SYNC), retry=Retry(), reset_after=1),
    "using": resources.UsingSource("using", "s", Opaque(SYNC), open=SYNC),
    "map": operations.Map("o", ASYNC),
    "on_ok": failures.OnOk("o", ASYNC),
    "recover": failures.Recover("o", ASYNC),
    "or_else": failures.OrElse("o", SYNC),
    "on_end": failures.OnEnd("o", SYNC),
    "filter": operations.Filter("o", ASYNC),
    "flat_map": operations.FlatMap("o", ASYNC),
    "scan": operations.Scan("o", SYNC),
    "tap": operations.Tap("o", ASYNC),
    "enumerate": operations.Enumerate("o"),
    "take": operations.Take("o", 1),
    "skip": operations.Skip("o", 1),
    "take_while": operations.TakeWhile("o", SYNC),
    "take_until": operations.TakeUntil("o", SYNC),
    "skip_while": operations.SkipWhile("o", SYNC),
    "batch": operations.Batch("o", 1),
    "unbatch": operations.Unbatch("o"),
    "buffer": operations.Buffer("o", 1),
    "window": windows.Window("o", 1),
    "sliding": windows.Sliding("o", 2),
    "distinct": windows.Distinct("o", remember=1),
    "stateful": own.WithState("o", Pushed, 0),
    "through": own.Through("o", passed_on, 0),
    "throttle": timing.Throttle("o", RateLimit(1)),
    "debounce": timing.Debounce("o", 1),
    "sample": timing.Sample("o", 1),
    "delay": timing.Delay("o", 1, 1),
    "idle_timeout": timing.IdleTimeout("o", 1),
    "timeout": timing.Timeout("o", 1, None),
    "keep_alive": timing.KeepAlive("o", 1, dict),
    "take_for": timing.TakeFor("o", 1),
    "stop_when": timing.StopWhen("o", trio.sleep_forever),
    "fair_by": fair_by.FairBy("o", SYNC, FairShare(), 1),
    "loop": loops.Again("o", SYNC, "l", 1),
    "route": operations.Route("o", SYNC, ("a",)),
    "branch": BRANCH,
    "broadcast": FanOut("broadcast", "split", PLAN, ((BRANCH, Plan(BRANCH)),)),
    "balance": FanOut("balance", "split", PLAN, ()),
    "partition": FanOut("partition", "split", PLAN, (), operations.Route("o", SYNC)),
    "fair_merge": FanIn("fair_merge", "j", (("a", PLAN),), FairShare()),
    "merge": FanIn("merge", "j", ((0, PLAN),), FairShare()),
    "concat": FanIn("concat", "j", ((0, PLAN),)),
    "zip_pipelines": FanIn("zip", "j", ((0, PLAN),)),
    "prefer": FanIn("prefer", "j", ((0, PLAN),), at_least=3),
    "zip_latest": FanIn("zip_latest", "j", ((0, PLAN),)),
    "merge_sorted": FanIn("merge_sorted", "j", ((0, PLAN),), key=SYNC),
}
"""A sound node of each method, and one of each part of a fan-out."""

NOT_GIVEN = (("name", None), ("share", None), ("on", None))
FIELDS = {
    **dict.fromkeys(("items", "receive_channel", "async_fn", "source_factory"), "origin"),
    **dict.fromkeys(("take.n", "skip.n"), "count"),
    "sliding.n": "size",
    **dict.fromkeys(("stop_when.event", "keep_alive.make_item"), "fn"),
    "using.fn": "origin",
    "or_else.make_pipeline": "fn",
    "route.route": "fn",
    "loop.again": "fn",
}
"""The fields of nodes that have another name than the argument."""


def built(node, changes):
    return type(node)(**{each.name: getattr(node, each.name) for each in fields(node) if each.init} | changes)


class Nodes:
    """Has the methods and functions that make plans; each makes the node itself, without the face."""

    def __init__(self, change):
        self.change = change

    def __getattr__(self, method):
        return partial(self.made, method)

    def made(self, method, *args, **kwargs):
        face = getattr(Pipeline, method, None) or getattr(funcpipe_trio, method)
        parameters = inspect.signature(face).parameters
        bound = inspect.signature(face).bind(*([None] if "self" in parameters else []), *args, **kwargs)
        bound.apply_defaults()
        given = {name: value for name, value in bound.arguments.items() if name != "self"}
        given = {name: value for name, value in given.items() if (name, value) not in NOT_GIVEN}
        given.pop("body", None)  # it is no field: it is called
        if "branches" in given:
            return self.fan_out(method, **given)
        if "others" in given:
            given["pipelines"] = (given.pop("first"), *given.pop("others"))
        if "pipelines" in given:
            given["inputs"] = dict(enumerate(given.pop("pipelines")))
        if "inputs" in given:
            given["inputs"] = tuple((key, plan_of(line) or line) for key, line in given["inputs"].items())
        return self.node(method, given)

    def node(self, method, given):
        node, changes = NODES[f"{method} on" if "on" in given else method], {}
        for name, value in given.items():
            field = FIELDS.get(f"{method}.{name}", FIELDS.get(name, name))
            changes[field] = Opaque(value) if isinstance(getattr(node, field), Opaque) else value
        return self.change(node, changes)

    def fan_out(self, kind, branches, name="split", route=None, **how):
        """Make the branches and the route, call the functions of the branches, then make the fan-out."""
        parts = {key: self.node("branch", {"kind": kind, "fan_out": name, "key": key}) for key in branches}
        routing = {} if route is None else {"route": self.node("route", {"name": name, "route": route})}
        lines = tuple((parts[key], fn(Plan(parts[key]))) for key, fn in branches.items())
        return self.node(kind, {"name": name, "branches": lines, **routing, **how})


def node_rows(face):
    for rows in (
        *(
            source_rows,
            resource_rows,
            operation_rows,
            branch_rows,
            keyed_map_rows,
            batch_rows,
            fair_by_rows,
            loop_rows,
            window_rows,
        ),
        *(own_rows, overload_rows, time_rows, fan_in_rows),
    ):
        yield from rows(face)


@pytest.mark.parametrize("change", [built, lambda node, changes: replace(node, **changes)], ids=["built", "replaced"])
def test_a_node_refuses_what_its_method_refuses(change):
    """Made directly, or changed by `replace`: the same error with the same words."""
    wrong = []
    for kind, call, message in node_rows(Nodes(change)):
        try:
            call()
        except Exception as error:
            if (type(error), str(error)) != (kind, message):
                wrong.append((message, repr(error)))
        else:
            wrong.append((message, "nothing"))

    assert wrong == []


def test_every_kind_of_node_is_made_wrong():
    """Except abstract operations, which have no verb; the parts of steps have their rows in `test_step.py`."""
    modules = (operations, timing, windows, own, fair_by, loops, nodes, restarts, resources, failures)
    classes = {each for module in modules for each in vars(module).values() if isinstance(each, type)}
    roots = (operations.Operation, nodes.Source, nodes.FanIn, nodes.FanOut, nodes.Branch)
    kinds = {each for each in classes if issubclass(each, roots)}

    abstract = {each for each in kinds if issubclass(each, operations.Operation) and not each.verb}
    assert kinds - abstract == {type(node) for node in NODES.values()}


def test_a_node_normalises_what_it_is_given():
    """Times become floats; a one-shot source has a claim, and keeps it when it is changed."""
    once = Source("iterable", "s", Opaque(iter([1])))

    times = [timing.Delay("o", 1, 1).seconds, windows.Window("o", period=1).period, NODES["ticks"].period]

    assert [type(each) for each in times] == [float] * 3
    assert once.claim is not None
    assert replace(once, name="t").claim is once.claim
    assert (NODES["from_iterable"].claim, NODES["from_async_iterable"].claim) == (None, None)


@pytest.mark.parametrize("value", [1, 1.5, 10**9])
def test_a_time_may_be_an_int_or_a_float(value):
    """What is a number of seconds is taken as one."""
    Pipeline.ticks(value)
    LINE.batch(max_delay=value)
    LINE.open(cleanup_timeout=value)


@pytest.mark.parametrize("value", ["-1", True, None])
def test_the_grace_of_a_drain_is_a_time(value):
    """A drain refuses a grace that is not a number, and the run continues."""
    message = f"Run.drain: grace must be a number of seconds >= 0, not {shown(value)}"
    refused_in_a_run(TypeError, message, lambda run: run.drain(grace=value))


@pytest.mark.parametrize("value", [-1, math.nan, -math.inf])
def test_the_grace_of_a_drain_is_not_negative(value):
    """A drain refuses a grace below zero, and the run continues."""
    message = f"Run.drain: grace must be a number of seconds >= 0, not {shown(value)}"
    refused_in_a_run(ValueError, message, lambda run: run.drain(value))


def refused_in_a_run(kind, message, call):
    """Check that a call is refused in the middle of a run, and that the run does not mind."""

    async def main():
        items = []
        async with LINE.open() as run:
            items.append(await run.receive())
            with pytest.raises(kind, match=rf"^{re.escape(message)}$"):
                await call(run)
            async for item in run:
                items.append(item)
        assert (items, run.report.outcome) == ([1, 2, 3], "completed")

    run_virtual(main)


# ---- plans that cannot work


def concurrency_problem(name, fn):
    return (
        f"map {name!r}: with concurrency, fn must be an async function, or give something to await; {fn} never does.\n"
        "Use Step(fn).on(threads(4)), or leave out concurrency."
    )


def used_problem(name, kind):
    return (
        f"source {name!r}: a one-shot {kind} was already used by a run. Use a callable that makes a new one each time."
    )


def twice_problem(name, kind):
    return (
        f"source {name!r}: a one-shot {kind} appears twice in the plan. Use a callable that makes a new one each time."
    )


async def opened(line):
    async with line.open():
        raise AssertionError("a plan that cannot work was opened")


async def started(line):
    async with trio.open_nursery() as nursery:
        await nursery.start(line.run)


async def checked(line):
    line.check()


DRIVERS = {
    "check": checked,
    "open": opened,
    "run": lambda line: line.run(),
    "collect": lambda line: line.collect(),
    "first": lambda line: line.first(),
    "first with a default": lambda line: line.first(default=None),
    "fold": lambda line: line.fold(lambda state, item: state, 0),
    "count": lambda line: line.count(),
}
every_driver = pytest.mark.parametrize("driver", DRIVERS.values(), ids=DRIVERS)


class Watched:
    """An iterable that notes whether anybody asked it for anything."""

    def __init__(self):
        self.touched = 0

    def __iter__(self):
        self.touched += 1
        return iter([1, 2, 3])


def refused(driver, line, *problems):
    """Check that a driver raises exactly these problems, in one error."""
    message = "\n".join(problems)
    with pytest.raises(PlanError, match=rf"^{re.escape(message)}$") as caught:
        run_virtual(driver, line)
    assert caught.value.problems == problems
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, FuncpipeError)


@every_driver
def test_concurrency_of_a_sync_function_is_refused(driver):
    """What it gives would be awaited, so one that never gives something to await is refused; no source is opened."""
    items = Watched()

    refused(driver, Pipeline.from_iterable(items).map(str, concurrency=2), concurrency_problem("str", "str"))

    assert items.touched == 0


@every_driver
def test_all_problems_of_a_plan_are_told_at_once(driver):
    """One error lists every problem, input by input; none of the sources is opened, none of them is used up."""
    items, iterator = Watched(), iter([1, 2, 3])
    once = Pipeline.from_iterable(iterator, name="once")
    line = merge(
        Pipeline.from_iterable(items).map(str, concurrency=2).map(abs, concurrency=1, name="also"),
        fair_merge({"x": once.map(print, concurrency=4), "y": once}),
        zip_pipelines(concat(Pipeline.from_iterable(items))).map(partial(int, base=2), concurrency=5),
    )

    refused(
        driver,
        line,
        concurrency_problem("str", "str"),
        concurrency_problem("also", "abs"),
        concurrency_problem("print", "print"),
        concurrency_problem("int", "int"),
        twice_problem("once", "iterable"),
    )

    assert items.touched == 0
    assert run_virtual(once.collect) == [1, 2, 3]


def test_a_plan_that_cannot_work_is_not_described():
    """`describe` raises what a run would raise, except for sources that were used."""
    message = concurrency_problem("str", "str")

    with pytest.raises(PlanError, match=rf"^{re.escape(message)}$"):
        LINE.map(str, concurrency=2).describe()


def one_shot_iterator():
    return Pipeline.from_iterable(iter([1, 2, 3]), name="feed"), "iterable"


def one_shot_generator():
    return Pipeline.from_iterable((number for number in (1, 2, 3)), name="feed"), "iterable"


def one_shot_async_iterator():
    async def numbers():
        for number in (1, 2, 3):
            yield number

    return Pipeline.from_async_iterable(numbers(), name="feed"), "async iterable"


def one_shot_channel():
    send, receive = trio.open_memory_channel(3)
    for number in (1, 2, 3):
        send.send_nowait(number)
    send.close()
    return Pipeline.from_channel(receive, name="feed"), "channel"


one_shots = pytest.mark.parametrize(
    "make", [one_shot_iterator, one_shot_generator, one_shot_async_iterator, one_shot_channel]
)


@one_shots
@every_driver
def test_a_one_shot_source_is_refused_the_second_time(make, driver):
    """A source that works once never yields nothing silently: the error names it."""
    line, kind = make()

    async def use():
        assert await line.collect() == [1, 2, 3]

    run_virtual(use)

    refused(driver, line, used_problem("feed", kind))
    refused(driver, merge(LINE, line.map(same)), used_problem("feed", kind))


@one_shots
def test_a_one_shot_source_is_used_up_by_a_run_that_was_left(make):
    """Also a run that took little, or was cancelled, has had the source."""
    line, kind = make()

    async def use():
        async with line.open() as run:
            assert await run.receive() == 1

    run_virtual(use)

    refused(DRIVERS["collect"], line, used_problem("feed", kind))


@one_shots
def test_a_one_shot_source_cannot_be_used_by_two_runs_at_once(make):
    """The second of two runs is refused while the first works, and the first gets everything."""
    line, kind = make()

    async def use():
        async with line.open() as run:
            message = used_problem("feed", kind)
            with pytest.raises(PlanError, match=rf"^{re.escape(message)}$"):
                await line.collect()
            assert [item async for item in run] == [1, 2, 3]

    run_virtual(use)


@one_shots
def test_a_one_shot_source_that_appears_twice_is_refused_and_not_used_up(make):
    """Two places of one plan cannot share a one-shot source; the refusal leaves it as it was."""
    line, kind = make()

    refused(DRIVERS["collect"], concat(line, line), twice_problem("feed", kind))

    assert run_virtual(line.collect) == [1, 2, 3]


@one_shots
def test_a_used_one_shot_plan_can_still_be_described(make):
    """The description of a plan does not depend on whether it was run."""
    line, kind = make()
    before = line.map(same).describe()

    run_virtual(line.map(same).collect)

    assert line.map(same).describe() == before
    assert f"{kind}, for one run" in before


@pytest.mark.parametrize(
    "source",
    [
        Pipeline.from_iterable([1, 2, 3]),
        Pipeline.from_iterable(range(1, 4)),
        Pipeline.from_iterable((1, 2, 3)),
        Pipeline.from_iterable({1: "a", 2: "b", 3: "c"}),
        Pipeline.from_iterable(lambda: iter([1, 2, 3])),
        Pipeline.from_iterable(partial(range, 1, 4)),
        Pipeline.ticks(1).skip(1).take(3),
    ],
)
def test_a_replayable_source_works_again_and_again(source):
    """What can be iterated again gives the same each time, also in two places of one plan."""
    assert run_virtual(source.collect) == run_virtual(source.collect) == [1, 2, 3]
    assert run_virtual(concat(source, source).collect) == [1, 2, 3, 1, 2, 3]


def test_building_checking_and_describing_touch_nothing():
    """Only a run opens a source: not the building of a plan, its check, its text, its bound, its repr or its hash."""
    items = Watched()
    iterator = count()
    line = merge(Pipeline.from_iterable(items), Pipeline.from_iterable(iterator)).map(async_call, concurrency=3)

    line.check()
    line.describe()
    assert line.max_in_flight > 0
    assert repr(line) and hash(line) == hash(line) and line == line
    line.open()

    assert items.touched == 0
    assert next(iterator) == 0


# ---- answers that cannot be used: these can be seen only when they come


def stream_error(line):
    """Run, and give the error that ends the stream, as type and text."""

    async def main():
        try:
            await line.collect()
        except Exception as error:
            return type(error), str(error)
        raise AssertionError("nothing was raised")

    return run_virtual(main)


def gives_a_coroutine(*_args):
    return async_call(1)


@pytest.mark.parametrize(
    "operation",
    [
        LINE.map(gives_a_coroutine),
        LINE.filter(gives_a_coroutine),
        LINE.tap(gives_a_coroutine),
        LINE.flat_map(gives_a_coroutine),
        LINE.scan(gives_a_coroutine, 0),
        LINE.take_while(gives_a_coroutine),
        LINE.skip_while(gives_a_coroutine),
    ],
    ids=repr,
)
def test_a_sync_function_that_gives_something_to_await_is_an_error(operation):
    """Nothing to await is ever taken for a value, or for a yes; the error says what to do."""
    has_concurrency = any(verb in operation.describe() for verb in (" map ", " filter ", " tap ", " flat_map "))
    use = (
        "concurrency=1, which awaits it, or an `async def` function." if has_concurrency else "an `async def` function."
    )
    message = f"'gives_a_coroutine' is not async, but returned something to await\nUse {use}"

    assert stream_error(operation) == (MisuseError, message)


@pytest.mark.parametrize(
    ("kind", "value", "hint"),
    [
        (ValueError, 0, ""),
        (ValueError, -1, ""),
        (TypeError, 0.5, "\nUse Fraction(1, 2)."),
        (TypeError, math.nan, ""),
        (TypeError, True, ""),
        (TypeError, None, ""),
        (TypeError, "1", ""),
    ],
)
def test_a_cost_in_a_merge_must_be_exact_and_positive(kind, value, hint):
    """A cost that would spoil the shares ends the stream, at the item that has it."""
    line = fair_merge({"a": LINE}, FairShare(cost=lambda item: value), name="feeds")
    message = f"merge 'feeds': cost must be a positive int or Fraction, not {shown(value)}{hint}"

    assert stream_error(line) == (kind, message)


def test_a_key_and_a_cost_of_a_fair_by_must_be_fit():
    """What cannot tell items apart, or would spoil the shares, ends the stream, at the item that has it."""
    costly = LINE.fair_by(same, FairShare(cost=lambda item: 0.5), max_keys=2, name="feeds")

    assert stream_error(LINE.fair_by(lambda item: [item], max_keys=2))[0] is TypeError
    assert stream_error(costly) == (
        TypeError,
        "fair_by 'feeds': cost must be a positive int or Fraction, not 0.5\nUse Fraction(1, 2).",
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [(ValueError, -1), (ValueError, math.nan), (TypeError, True), (TypeError, None), (TypeError, "1")],
)
def test_a_cost_in_a_batch_must_be_a_number(kind, value):
    """A cost that cannot be added up ends the stream, at the item that has it."""
    line = LINE.batch(max_cost=3, cost=lambda item: value, name="page")

    assert stream_error(line) == (kind, f"batch 'page': cost must be a number >= 0, not {shown(value)}")


@pytest.mark.parametrize(
    "line",
    [
        LINE.flat_map(same),
        LINE.flat_map(same, concurrency=1),
        LINE.unbatch(),
        Pipeline.from_iterable(lambda: 3),
        Pipeline.from_async_iterable(lambda: [3]),
    ],
)
def test_what_cannot_be_iterated_is_an_error_of_the_stream(line):
    """What a function gives is looked at when it comes; the words are those of Python, which differ."""
    assert stream_error(line)[0] is TypeError


def test_what_would_have_to_be_awaited_says_what_to_use():
    message = "'expand' returned an async iterable\nUse concurrency=1 to give it a stage of its own."

    assert stream_error(LINE.flat_map(lambda item: ASYNC_GENERATOR(item), name="expand")) == (TypeError, message)
