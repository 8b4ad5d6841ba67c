"""What user code sees and does while a program runs: a `World` is made for each run, and the oracle judges it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import trio

from funcpipe_trio import Run
from tests._kit import Boom

from .items import ERRORS, first_leaf, leaves, num, num_of, root_of
from .program import INF, Fn, Program, Source

SEEN: ContextVar[Any] = ContextVar("seen", default=None)


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
    logged: list[Any] = field(default_factory=list)
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
    keyed: set[int] = field(default_factory=set)
    busy_keys: set[tuple[int, int]] = field(default_factory=set)
    pools: dict[int, int] = field(default_factory=dict)  # of an operation: the site of its function
    ended: Counter[int] = field(default_factory=Counter)  # how often each `on_end` was told, outside of a flat_map
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
        if site in world.keyed and self.role == "fn" and leaf is not None:
            if (site, leaf.num % 3) in world.busy_keys:
                world.violate("key", "two calls of one key at once")
            world.busy_keys.add((site, leaf.num % 3))
        world.running[site] += 1
        limit = world.concurrency.get(site)
        if limit is not None and self.role in ("fn", "divert") and world.running[site] > limit:
            world.violate("concurrency", f"{world.running[site]} calls at once, {limit} allowed")
        world.at(site, self.role)

    def __exit__(self, *_: object) -> None:
        self.world.running[self.fn.site] -= 1
        self.world.busy_keys.discard((self.fn.site, num(self.value) % 3))
