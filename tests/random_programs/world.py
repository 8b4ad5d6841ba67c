"""What a program is made of while it runs: opaque items, user functions that fail and meddle, sources that tell.

A `World` is made for each run. It records everything that user code sees; the oracle judges that.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import trio

from funcpipe_trio import Aborted, Failure, Run

from .program import INF, Fn, Program, Source

# ---- items


class Looked(Exception):
    """An item was hashed, compared, printed, iterated or tested for truth."""


LOOKED: list[str] = []


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(self: Any, *_: Any) -> Any:
        caller = sys._getframe(1)
        LOOKED.append(f"{name} by {caller.f_code.co_filename.rsplit('/', 1)[-1]}:{caller.f_code.co_name}")
        raise Looked(name)

    return refuse


class Opaque:
    """It refuses to be looked at."""

    __slots__ = ()
    for _name in ("eq", "ne", "lt", "gt", "bool", "len", "iter", "repr", "str", "contains", "hash", "format", "call"):
        locals()[f"__{_name}__"] = _refusal(_name)
    del _name


class Item(Opaque):
    """What comes from a source; its id says from where, its number decides what functions do with it."""

    __slots__ = ("id", "num")

    def __init__(self, id: Any, num: int) -> None:
        self.id, self.num = id, num


class HashableItem(Item):
    """One for `distinct` without a key."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class ItemError(trio.EndOfChannel):
    """An item that is an exception, of the worst kind."""

    def __init__(self, id: Any, num: int) -> None:
        super().__init__()
        self.id, self.num = id, num


class Wrap(Opaque):
    """What a function gives for a value."""

    __slots__ = ("inner", "op")

    def __init__(self, op: Any, inner: Any) -> None:
        self.op, self.inner = op, inner


ITEMS = (Item, HashableItem, ItemError)


def leaves(value: Any) -> Iterator[Any]:
    """All items in a value."""
    kind = type(value)
    while kind is Wrap:
        value = value.inner
        kind = type(value)
    if kind in ITEMS:
        yield value
    elif kind is list or kind is tuple:
        for each in value:
            yield from leaves(each)
    elif kind is Failure:
        yield from leaves(value.item)


def first_leaf(value: Any) -> Any:
    return next(leaves(value), None)


def num(value: Any) -> int:
    leaf = first_leaf(value)
    return 0 if leaf is None else leaf.num


def root_of(id: Any) -> Any:
    while type(id[0]) is tuple:
        id = id[0]
    return id


def num_of(id: Any) -> int:
    root = root_of(id)
    return 100 * root[0] + root[1]


# ---- errors


class Boom(Exception):
    pass


class Falsy(Exception):
    def __bool__(self) -> bool:
        return False


class BadStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot be shown")

    __repr__ = __str__


class NoNotes(Exception):
    __notes__ = None


class NoEq(Exception):
    __hash__ = None

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("cannot be compared")


class FalsyBase(BaseException):
    def __bool__(self) -> bool:
        return False


ERRORS: dict[str, Callable[[], BaseException]] = {
    "error": Boom,
    "aborted": lambda: Aborted("mine"),
    "falsy": Falsy,
    "badstr": BadStr,
    "nonotes": NoNotes,
    "noeq": NoEq,
    "stopiter": StopIteration,
    "stopasync": StopAsyncIteration,
    "endofchannel": trio.EndOfChannel,
    "group": lambda: ExceptionGroup("mine", [Boom()]),
    "tooslow": trio.TooSlowError,
    "closed": trio.ClosedResourceError,
    "broken": trio.BrokenResourceError,
    "wouldblock": trio.WouldBlock,
    "busy": trio.BusyResourceError,
    "keyboard": KeyboardInterrupt,
    "falsybase": FalsyBase,
}
STOPS = ("stopiter", "stopasync", "endofchannel")  # user code that raises these: a RuntimeError with it as cause
FATAL = ("keyboard", "falsybase")


async def stray_cancelled() -> trio.Cancelled:
    """A `Cancelled` that belongs to no scope any more."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            kept = error
            raise
    return kept


@dataclass
class Raised:
    """One error that user code raised."""

    site: int
    role: str
    kind: str
    error: BaseException
    ids: tuple[Any, ...]
    time: float

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.site, self.role, num_of(self.ids[0]) if self.ids else None)


SEEN: ContextVar[Any] = ContextVar("seen", default=None)


@dataclass
class World:
    """One run of a program: what user code saw and did."""

    program: Program
    run: Run[Any] | None = None
    report: Any = None
    nursery: trio.Nursery | None = None
    outside: trio.CancelScope | None = None
    bound: float | None = None  # to hold own counts of items in flight against; None: do not
    waiting: int = 0  # readers that ask for an item
    told_bound: float | None = None  # the same for what `statistics()` says
    strays: list[BaseException] = field(default_factory=list)
    violations: list[tuple[str, str]] = field(default_factory=list)
    trace: list[Any] = field(default_factory=list)
    count: dict[Any, int] = field(default_factory=dict)
    families: dict[Any, list[Any]] = field(default_factory=dict)  # what is in a value that is expanded, by its first
    tries: Counter[Any] = field(default_factory=Counter)
    taken: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    children: list[Any] = field(default_factory=list)
    due: dict[Any, float] = field(default_factory=dict)
    given: dict[Any, float] = field(default_factory=dict)  # when an item was handed over
    replaced: set[int] = field(default_factory=set)  # sites whose error a cancellation of their own code replaced
    touched: dict[Any, float] = field(default_factory=dict)  # when user code last had an item in hand
    alive: set[Any] = field(default_factory=set)
    known: set[Any] = field(default_factory=set)  # items whose fate needs not be told: failed, refused, expanded
    raised: list[Raised] = field(default_factory=list)
    calls: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    running: Counter[int] = field(default_factory=Counter)
    open_sources: dict[int, tuple[int, Any]] = field(default_factory=dict)
    opened_sites: set[int] = field(default_factory=set)
    channels: list[tuple[Source, Any]] = field(default_factory=list)
    stops: list[tuple[float, str, bool]] = field(default_factory=list)
    paused: Counter[int] | None = None
    drained: Counter[int] | None = None
    delivered: list[tuple[float, Any]] = field(default_factory=list)
    discards: list[tuple[Any, str, str]] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    consuming: list[str] = field(default_factory=list)  # how each reader ended
    caller_error: BaseException | None = None
    escaped: BaseException | None = None
    result: Any = None
    has_result: bool = False
    finished: bool = False
    cancelled_at: float | None = None
    stop_read: float = 0.0
    exited: float | None = None
    drains: list[tuple[float, float, float | None]] = field(default_factory=list)
    resorted: bool = False
    hang: str | None = None
    concurrency: dict[int, int] = field(default_factory=dict)
    pools: dict[int, int] = field(default_factory=dict)  # of an operation: the site of its function
    steps: int = 0

    def violate(self, rule: str, detail: str) -> None:
        self.violations.append((rule, detail))

    # ---- what happens

    def at(self, site: int, role: str) -> None:
        """A user function is called: note it, and meddle with the run if the program says so."""
        key = (site, role)
        n = self.count[key] = self.count.get(key, 0) + 1
        self.trace.append((trio.current_time(), site, role))
        if self.program.inside and (what := self.program.inside.get((site, role, n))):
            self.act(*what)

    def act(self, what: str, *args: Any) -> None:
        if what == "burn":
            time.sleep(0.011)
            return
        if what == "cancel":
            if self.cancelled_at is None:
                self.cancelled_at = trio.current_time()
            assert self.outside is not None
            self.outside.cancel()
            return
        if self.run is None:
            return
        self.stops.append((trio.current_time(), what, self.finished))
        self.trace.append((trio.current_time(), what))
        try:
            self._call(what, *args)
        except (KeyError, ValueError):
            if not what.startswith("set_"):
                raise
        except Exception as error:
            self.violate("method raises", f"{what}: {type(error).__name__}")

    def _call(self, what: str, *args: Any) -> None:
        run = self.run
        assert run is not None
        if what == "pause":
            self.paused = Counter() if self.paused is None else self.paused
        elif what == "resume":
            self.paused = None
        elif what == "drain_nowait" and self.drained is None:
            self.drained = Counter()
        if what == "report":
            run.report.describe()
        elif what == "set_concurrency" and args[0] in self.pools:
            site = self.pools[args[0]]
            self.concurrency[site] = max(args[1], self.concurrency[site])
            run.set_concurrency(f"op{args[0]}", args[1])
        elif what == "set_weight":
            run.set_weight(*args)
        elif what in ("abort", "drain_nowait", "pause", "resume", "statistics"):
            getattr(run, what)()

    def handed(self, site: int, item: Any, *, counted: bool = True, sent: bool = False) -> None:
        """A source hands an item over."""
        now = trio.current_time()
        self.taken[site].append(item.id)
        self.touched[item.id] = self.given[item.id] = now
        self.trace.append((now, site, "item", item.id[1]))
        if counted and not sent:
            for counter, what in ((self.paused, "paused"), (self.drained, "drained")):
                if counter is not None:
                    counter[site] += 1
                    if counter[site] > 1:
                        self.violate(f"takes while {what}", f"{counter[site]} items of source {site}")
        if self.bound is not None and counted and not sent:
            self.alive.add(item.id)
            if len(self.alive) > self.bound + self.waiting:  # what a reader was woken with is not in the run any more
                self.violate("P4 bound", f"{len(self.alive)} in flight, {self.bound} allowed")

    def fate(self, value: Any) -> None:
        if self.bound is not None:
            for leaf in leaves(value):
                self.alive.discard(root_of(leaf.id))

    def gone(self, value: Any) -> None:
        """A value has a fate of which nobody is told (and so have those that it is a child of)."""
        for leaf in leaves(value):
            self.known.add(leaf.id)
            self.gone_family(leaf.id)
        self.fate(value)

    def gone_family(self, id: Any) -> None:
        while type(id[0]) is tuple:
            id = id[0]
            self.known.update(self.families.get(id, ()))

    def deliver(self, value: Any) -> None:
        self.delivered.append((trio.current_time(), value))
        self.trace.append((trio.current_time(), "got", num(value)))
        self.fate(value)

    def on_discard(self, item: Any, stage: str, reason: str) -> None:
        self.discards.append((item, stage, reason))
        self.fate(item)
        self.at(0, "discard")
        if kind := self.program.faults.get(self.count[(0, "discard")]):
            self.fail(kind, 0, "discard", None)

    def fail(self, kind: str, site: int, role: str, value: Any) -> None:
        """Raise an error of a kind, and remember it."""
        if kind == "cancelled":
            error = self.strays.pop() if self.strays else Boom("no stray Cancelled left")
        else:
            error = ERRORS[kind]()
        ids = tuple(leaf.id for leaf in leaves(value))
        self.touched.update(dict.fromkeys(ids, trio.current_time()))
        self.raised.append(Raised(site, role, kind, error, ids, trio.current_time()))
        self.gone(value)
        self.trace.append((trio.current_time(), site, role, kind))
        raise error

    def fault(self, fn: Fn, role: str, value: Any) -> None:
        """Raise what a user function raises at this value, if it does."""
        if not fn.faults or (leaf := first_leaf(value)) is None or (fault := fn.faults.get(leaf.num)) is None:
            return
        key = (fn.site, role, leaf.id)
        self.tries[key] += 1
        if self.tries[key] <= fault.times:
            self.fail(fault.kind, fn.site, role, value)
        self.known.difference_update(leaf.id for leaf in leaves(value))

    # ---- user functions

    def sync(self, fn: Fn, role: str, body: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self.at(fn.site, role)
            self.fault(fn, role, args[-1])
            return body(*args)

        call.__name__ = f"{role}{fn.site}"
        return call

    def asynchronous(self, fn: Fn, role: str, body: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any) -> Any:
            with self.inside_call(fn, role, args[-1]):
                await self.rest(fn, args[-1])
                self.fault(fn, role, args[-1])
                self.touch(args[-1])
                return body(*args)

        call.__name__ = f"{role}{fn.site}"
        return call

    def function(self, fn: Fn, role: str, body: Callable[..., Any]) -> Callable[..., Any]:
        return (self.sync if fn.sleeps is None else self.asynchronous)(fn, role, body)

    def inside_call(self, fn: Fn, role: str, value: Any) -> Any:
        return _Call(self, fn, role, value)

    def touch(self, value: Any) -> None:
        now = trio.current_time()
        for leaf in leaves(value):
            self.touched[leaf.id] = now

    async def rest(self, fn: Fn, value: Any) -> None:
        assert fn.sleeps is not None
        seconds = fn.sleeps[num(value) % len(fn.sleeps)]
        try:
            if seconds == INF:
                await trio.sleep_forever()
            elif seconds >= 0:
                await trio.sleep(seconds)
        except trio.Cancelled:
            if fn.stubborn:
                with trio.CancelScope(shield=True):
                    await trio.sleep(fn.stubborn)
            raise


class _Call:
    """One call of an async user function: counted, and in a context of its own."""

    __slots__ = ("fn", "role", "value", "world")

    def __init__(self, world: World, fn: Fn, role: str, value: Any) -> None:
        self.world, self.fn, self.role, self.value = world, fn, role, value

    def __enter__(self) -> None:
        world, site = self.world, self.fn.site
        leaf = first_leaf(self.value)
        world.calls[site].append((trio.current_time(), None if leaf is None else leaf.id, self.role))
        if leaf is not None and self.role in ("fn", "divert"):
            seen = SEEN.get()
            if seen is not None and root_of(seen) != root_of(leaf.id):
                world.violate("P18a context", f"a call of {self.role} sees what that of another item set")
            SEEN.set(leaf.id)
        world.running[site] += 1
        limit = world.concurrency.get(site)
        if limit is not None and self.role in ("fn", "divert") and world.running[site] > limit:
            world.violate("concurrency", f"{world.running[site]} calls at once, {limit} allowed")
        world.at(site, self.role)

    def __exit__(self, *_: object) -> None:
        self.world.running[self.fn.site] -= 1


# ---- sources


class Feed:
    """One source, or what a flat_map makes of one item. Who asks for its items depends on its kind."""

    def __init__(self, world: World, spec: Source, value: Any = None, count: int | None = None) -> None:
        self.world, self.spec, self.value = world, spec, value
        self.parent = first_leaf(value)
        if self.parent is not None:
            world.families[self.parent.id] = [leaf.id for leaf in leaves(value)]
        self.count = spec.count if count is None else count
        self.k = 0
        self.failed: set[int] = set()
        self.clock = 0.0  # when its next item is due, if it is always asked

    def make(self, k: int) -> Any:
        program = self.world.program
        kind = HashableItem if program.hashable else ItemError if program.error_items and k % 3 == 1 else Item
        if self.parent is None:
            return kind((self.spec.site, k), 100 * self.spec.site + k)
        return kind((self.parent.id, self.spec.site, k), self.parent.num)

    def all(self) -> list[Any]:
        return [self.make(k) for k in range(self.count)]

    def hand(self, item: Any) -> Any:
        if self.parent is None:
            kind = self.spec.kind  # what is sent may be gone before the sender hears of it
            self.world.handed(self.spec.site, item, counted=kind != "channel", sent=kind == "producer")
        else:
            self.world.children.append(item.id)
            self.world.touched[item.id] = self.world.given[item.id] = trio.current_time()
        self.k += 1
        return item

    def check(self) -> None:
        """Tell that it is asked, and fail if it is to fail here (once: a source that restarts goes on behind it)."""
        self.world.at(self.spec.site, "source")
        if (kind := self.spec.fail.get(self.k)) and self.k not in self.failed:
            self.failed.add(self.k)
            self.fail(kind, "source")

    def fail(self, kind: str, role: str) -> None:
        if self.parent is not None:
            self.world.gone(self.value)
            self.world.touch(self.value)
        self.world.fail(kind, self.spec.site, role, None)

    def step(self) -> Any:
        """Give the next item, or None at the end."""
        self.check()
        return self.hand(self.make(self.k)) if self.k < self.count else self.over()

    def over(self) -> None:
        if self.parent is not None:
            self.world.gone(self.value)

    async def rest(self) -> None:
        seconds = self.spec.sleeps[self.k % len(self.spec.sleeps)]
        if self.k >= self.count and self.spec.silent:
            await trio.sleep_forever()
        if seconds >= 0:
            await trio.sleep(seconds)
        self.clock += max(seconds, 0)
        if self.k < self.count:
            self.world.due[self.make(self.k).id] = self.clock

    # ---- opened, closed

    def opened(self) -> int:
        token = len(self.world.trace), id(self)
        self.clock = trio.current_time()
        self.world.opened_sites.add(self.spec.site)
        self.world.open_sources[hash(token)] = (self.spec.site, trio.lowlevel.current_task())
        self.world.trace.append((trio.current_time(), self.spec.site, "open"))
        return hash(token)

    def closed(self, token: int) -> None:
        world = self.world
        world.trace.append((trio.current_time(), self.spec.site, "closed"))
        if token not in world.open_sources:
            world.violate("P7 closed twice", f"a {self.spec.kind} source")
            return
        _, task = world.open_sources.pop(token)
        if task is not trio.lowlevel.current_task() and not (self.parent is not None and self.spec.kind == "gen"):
            world.violate("P7 closed in another task", f"a {self.spec.kind} source")

    def close_now(self, token: int) -> None:
        self.world.at(self.spec.site, "close")
        self.closed(token)
        if self.spec.close == "fail":
            self.fail("error", "close")

    async def close(self, token: int, given_time: bool, stopped: bool = True) -> None:
        """Close as the program says. Its waits must not be cut before the deadline of cleanup, if it began at peace."""
        world, start = self.world, trio.current_time()
        try:
            world.at(self.spec.site, "close")
            limit = world.program.cleanup_timeout
            seconds = {"quick": 0.5, "slow": 2 * limit, "stuck": INF, "fail": 0.25}.get(self.spec.close)
            if seconds is not None and (stopped or seconds < limit):  # what it does at its own end is not cleanup
                try:
                    await trio.sleep_until(start + seconds)
                except trio.Cancelled:
                    world.replaced.add(self.spec.site)
                    if given_time and trio.current_time() - start < min(limit, seconds) - 1e-6:
                        world.violate("P9 cleanup cut short", f"after {trio.current_time() - start:g} s")
                    raise
        finally:
            world.touch(self.value)
            self.closed(token)
        if self.spec.close == "fail":
            self.fail("error", "close")

    # ---- the kinds

    def gen(self) -> Iterator[Any]:
        token = self.opened()
        try:
            while (item := self.step()) is not None:
                yield item
        finally:
            self.close_now(token)

    async def agen(self) -> Any:
        token, at_yield, stopped = self.opened(), False, False
        try:
            async with _holding(self.spec.hold):
                while True:
                    await self.rest()
                    if (item := self.step()) is None:
                        break
                    at_yield = True
                    yield item
                    at_yield = False
        except (GeneratorExit, trio.Cancelled) as error:
            stopped = not any(raised.error is error for raised in self.world.raised)
            raise
        finally:
            await self.close(token, at_yield, stopped)

    async def produce(self, channel: trio.MemorySendChannel[Any]) -> None:
        token = self.opened()
        try:
            async with channel:
                while True:
                    await self.rest()
                    self.check()
                    if self.k >= self.count:
                        break
                    item = self.make(self.k)
                    await channel.send(item)
                    self.hand(item)
        finally:
            self.close_now(token)

    async def send(self, channel: trio.MemorySendChannel[Any]) -> None:
        """Fill a channel of the user's own."""
        try:
            while self.k < self.count:
                await self.rest()
                item = self.make(self.k)
                await channel.send(item)
                self.hand(item)
            if not self.spec.silent:
                await channel.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


@asynccontextmanager
async def _holding(kind: str) -> Any:
    """Hold a scope or a nursery open, as a connection with a heartbeat does."""
    if kind == "scope":
        with trio.CancelScope():
            yield
    elif kind == "deadline":
        with trio.move_on_after(3):
            yield
    elif kind == "nursery":
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    yield
                finally:
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
    else:
        yield


class Stepper:
    """An iterator class; `__iter__` begins anew, as in many a tutorial."""

    def __init__(self, feed: Feed) -> None:
        self.feed, self.iters, self.token = feed, 0, 0

    def __iter__(self) -> Stepper:
        self.iters += 1
        if self.iters > 1:
            self.feed.k = 0
        else:
            self.token = self.feed.opened()
        return self

    def __next__(self) -> Any:
        if (item := self.feed.step()) is None:
            raise StopIteration
        return item

    def close(self) -> None:
        self.feed.close_now(self.token)


class BareAsyncStepper:
    """An async iterator class that cannot be closed."""

    def __init__(self, feed: Feed) -> None:
        self.feed, self.token = feed, 0

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        await self.feed.rest()
        if (item := self.feed.step()) is None:
            raise StopAsyncIteration
        return item


class AsyncStepper(BareAsyncStepper):
    """One that can, and must be."""

    def __aiter__(self) -> Any:
        if not self.token:
            self.token = self.feed.opened()
        return self

    async def aclose(self) -> None:
        await self.feed.close(self.token, True)


class StepperChannel(trio.abc.ReceiveChannel[Any]):
    """A receive channel of the user's own kind; opened when the run starts."""

    def __init__(self, feed: Feed) -> None:
        self.feed, self.token, self.closings = feed, 0, 0

    async def receive(self) -> Any:
        if not self.token:
            self.token = self.feed.opened()
        await self.feed.rest()
        if (item := self.feed.step()) is None:
            raise trio.EndOfChannel
        return item

    async def aclose(self) -> None:
        self.closings += 1
        if self.token:
            await self.feed.close(self.token, True)


def opener(world: World, spec: Source) -> Callable[[], Any]:
    """Make what opens a source anew each time."""
    feed = Feed(world, spec)

    def open() -> Any:
        return feed.agen() if spec.kind in ("agen", "restarting") else feed.gen()

    open.__name__ = f"s{spec.site}"
    return open
