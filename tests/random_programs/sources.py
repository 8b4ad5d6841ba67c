"""Sources that tell what they do: each is a `Feed`, asked by an iterator, a generator, a channel or a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests._kit import connection

from .items import HashableItem, Item, ItemError, first_leaf, leaves
from .program import INF, Source
from .world import World


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
        self.world.fail(kind, self.spec.site, role, self.value)

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

    def close_now(self, token: int, stopped: bool) -> None:
        self.world.at(self.spec.site, "close")
        self.closed(token)
        if self.spec.close == "fail":
            self.fail("error", "cleanup" if stopped else "close")

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
            self.fail("error", "cleanup" if stopped else "close")

    # ---- the kinds

    def gen(self) -> Iterator[Any]:
        token, stopped = self.opened(), False
        try:
            while (item := self.step()) is not None:
                yield item
        except GeneratorExit:
            stopped = True
            raise
        finally:
            self.close_now(token, stopped)

    async def agen(self) -> Any:
        token, at_yield, at_peace, stopped = self.opened(), False, False, False
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
            at_peace = at_yield and isinstance(error, GeneratorExit)
            raise
        finally:
            await self.close(token, at_peace, stopped)

    async def produce(self, channel: trio.MemorySendChannel[Any]) -> None:
        token, stopped = self.opened(), False
        try:
            with channel:
                while True:
                    await self.rest()
                    self.check()
                    if self.k >= self.count:
                        break
                    item = self.make(self.k)
                    await channel.send(item)
                    self.hand(item)
        except (trio.Cancelled, trio.BrokenResourceError) as error:
            stopped = not any(raised.error is error for raised in self.world.raised)
            raise
        finally:
            self.close_now(token, stopped)

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
        async with connection():
            yield
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
        self.feed.close_now(self.token, True)


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
