"""Sources: what kinds are there, and how is each asked for an item?

A sync iterable is an inlet without a task of its own: the stage behind it opens, pulls and closes it. The others are
stages that ask (`asking`): `next` waits for one item.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import trio

from ..._base.functions import is_async
from ..._plan.nodes import Source
from ..._sansio.multiples import Multiples
from ..core.failures import failure_of, is_caused_by_cancelling, noted
from ..core.lifetime import thrown
from ..core.protocols import Host, Outlet, Receiver
from ..core.signals import END, ENDED, IDLE, PENDING, READY, FailureMark, Readiness, reason_behind
from ..core.step_counters import StepCounters
from ..core.user_code import interruptible, interruptibly
from ..fair_channel.fair_channel import FairChannel
from ..operations.base import FusedOperation
from .asking import AskingStage
from .chain import Chain


def opened(origin: Any, iterate: Callable[[Any], Any], method: str) -> Any:
    """Make the iterator of an iterable, or of what a zero-argument callable makes."""
    return iterate(origin if hasattr(type(origin), method) else origin())


class IterableInlet:
    """A sync iterable as an inlet: the stage behind it opens, pulls and closes it."""

    def __init__(self, source: Source) -> None:
        self.chain: Chain  # what takes from here
        self.receiver: Receiver  # its stage
        self._source = source  # what is opened, and its name
        self._over = False  # no more is taken
        self._paused = False  # none is taken for now
        self._halted = False  # `_over or _paused`, kept as one flag because it is checked for each item
        self.failure: FailureMark | None = None  # the error that ended it
        self.exhausted = False  # read to its end
        self.taken = 0  # items that it gave

    def start(self) -> None:
        """Nothing runs upstream."""

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def items(self) -> Iterator[Any]:
        iterator = None
        try:
            while not self._stops():
                if self._paused:
                    yield PENDING
                    continue
                if iterator is None:
                    iterator = opened(self._source.origin.value, iter, "__iter__")
                for item in iterator:  # once: some iterators begin again at `iter`
                    self.taken += 1
                    yield item
                    if self._halted:
                        while self.state() is IDLE:
                            yield PENDING
                        if self._stops():
                            break
                break
            self.exhausted = True
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None:
                raise
            self.exhausted = True
            self.failure = FailureMark(noted(error, self._source.name, self.taken), self.chain)
        finally:
            self.chain.close_stream(iterator)

    def state(self) -> Readiness:
        if self.exhausted:
            return ENDED
        return IDLE if self._paused and not self._over else READY

    def release(self, *, parking: bool = False) -> None:
        """Nobody upstream waits for room."""

    def close(self, reason: str) -> None:
        self._over = self._halted = True

    def drain(self) -> None:
        """Take no more."""
        self._over = self._halted = True
        self.receiver.on_input()

    def pause(self) -> None:
        """Take no more until it is resumed."""
        self._paused = self._halted = True

    def resume(self) -> None:
        """Take items again."""
        self._paused, self._halted = False, self._over
        self.receiver.on_input()

    def _stops(self) -> bool:
        return self._over


class AsyncSource(AskingStage):
    """A source that waits for its items."""

    def __init__(
        self,
        host: Host,
        source: Source,
        outlet: Outlet,
        fused: Sequence[FusedOperation],
        *,
        counters: StepCounters | None = None,
    ) -> None:
        super().__init__(host, source.name, outlet, fused, kind="source", counters=counters)
        self.source = source  # what it opens
        self.opened_in: float = 0.0  # seconds that it took to open what it takes from, before it asked for an item

    def waits_for(self) -> str | None:
        if self._is_asking:
            return "source"
        return "paused" if self._resumed is not None and self.parked_for is None else super().waits_for()

    def drain(self) -> None:
        """Take no more; what was taken is passed on."""
        self._is_drained = True
        if self._is_asking:
            self._taking.cancel()
        elif self.parked_for is not None:
            self.wake()
        self.resume()

    def pause(self) -> None:
        """Ask for no item until it is resumed; one that was asked for may still come."""
        self._resumed = self._resumed or trio.Event()


class AsyncIterableSource(AsyncSource):
    """An async iterable, or a callable that makes one."""

    def __init__(self, host: Host, source: Source, outlet: Outlet, fused: Sequence[FusedOperation]) -> None:
        super().__init__(host, source, outlet, fused)
        self._iterator: AsyncIterator[Any] | None = None  # None until the first item is asked for

    async def next(self) -> Any:
        if self._iterator is None:
            self.life.begin()
            self._iterator = opened(self.source.origin.value, aiter, "__aiter__")
        try:
            return await anext(self._iterator)
        except StopAsyncIteration:
            return END

    async def rethrow(self, error: BaseException) -> Any:
        return await thrown(self._iterator, error, END)

    async def close_source(self) -> None:
        await self.end_life(getattr(self._iterator, "aclose", None))


class ChannelSource(AsyncSource):
    """A receive channel that the run owns: it is closed even if it was never asked.

    What is in its buffer when it is closed would be lost. So that is taken out first, all at once, because a sender
    must not be able to prolong this: a drained run delivers it, any other early end discards it. In a user's own kind
    of channel, the buffer is what its `statistics` report; without them the channel is only closed.
    """

    def __init__(self, host: Host, source: Source, outlet: Outlet, fused: Sequence[FusedOperation]) -> None:
        super().__init__(host, source, outlet, fused)
        self._rest: deque[Any] = deque()
        """What was in the channel when it was emptied, and was not passed on yet; it does not count as taken."""

    def drain(self) -> None:
        super().drain()
        self._empty()
        close = getattr(self.source.origin.value, "close", None)
        if close is not None and not is_async(close):  # now, so that sending fails from here on
            interruptibly(self.chain.close_stream, self.source.origin.value)

    def _empty(self) -> None:
        """Take out of the channel what it can give now."""
        channel = self.source.origin.value
        nowait = getattr(channel, "receive_nowait", None)
        if nowait is None or is_async(nowait):
            return
        most = interruptibly(_buffered, channel)
        while len(self._rest) < most:
            try:
                self._rest.append(interruptibly(nowait))
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError):
                return
            except Exception as error:
                self.chain.keep_cleanup_error(error)
                return

    def _is_shared(self) -> bool:
        """Whether another receiver is left that can take what is in the channel."""
        if not isinstance(self.source.origin.value, trio.MemoryReceiveChannel):
            return False
        return self.source.origin.value.statistics().open_receive_channels > 1

    def has_rest(self) -> bool:
        return bool(self._rest)

    def take_rest(self) -> None:
        if self._rest:
            self.inbox.put(self._rest.popleft())
        else:
            self.inbox.end()

    def held(self) -> list[Any]:
        self.inbox.taken += len(self._rest)
        rest, self._rest = self._rest, deque()
        return [*super().held(), *rest]

    def stop(self, reason: str) -> bool:
        stopped = super().stop(reason)
        if not self.started:  # a later input of a concat: its senders must learn that nothing will be taken
            self.start()
        return stopped

    async def next(self) -> Any:
        channel = self.source.origin.value
        nowait = getattr(channel, "receive_nowait", None)
        try:
            if nowait is not None:
                try:
                    return nowait()
                except trio.WouldBlock:
                    pass
            return await channel.receive()
        except trio.EndOfChannel:
            return END

    async def close_source(self) -> None:
        try:
            if not self._is_shared():
                self._empty()
        finally:
            self.life.begin()
            await self.end_life(self.source.origin.value.aclose)  # noqa: ASYNC102  # shielded there


def _buffered(channel: Any) -> float:
    """How many items are in a channel that would be lost with it.

    A user's own kind of channel that does not report this may fetch more whenever it is asked, so it is not asked.
    """
    if isinstance(channel, trio.MemoryReceiveChannel | FairChannel):
        return math.inf
    statistics = getattr(channel, "statistics", None)
    if not callable(statistics) or is_async(statistics):
        return 0
    try:
        used = statistics().current_buffer_used
    except Exception:  # a method of this name that means something else
        return 0
    return used if isinstance(used, int) else 0


class ProducerSource(AsyncSource):
    """An async function that sends; it runs in a task of its own and is cancelled when no more is needed.

    Its channel has capacity zero: what it sends is the sender's until this stage takes it.
    """

    def __init__(self, host: Host, source: Source, outlet: Outlet, fused: Sequence[FusedOperation]) -> None:
        super().__init__(host, source, outlet, fused)
        self._send, self._receive = trio.open_memory_channel[Any](0)  # the producer's end, and the stage's
        self._error: Exception | None = None  # what the producer raised, until it is raised here
        self._returned = trio.Event()  # the producer has ended

    async def take(self) -> None:
        try:
            if self.is_stopping():  # before it began
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._produce, name=f"{self.name} (producer)")
                await super().take()
                nursery.cancel_scope.cancel()
        finally:
            self._send.close()
            self._keep_unread()

    def _keep_unread(self) -> None:
        """Keep the error of a producer if the stage did not ask for the item in whose place it stands."""
        error, self._error = self._error, None
        if error is not None:
            reason = self.chain.stopped or reason_behind(self.chain.failure)
            self.chain.host.ledger.unread(FailureMark(noted(error, self.name, self.inbox.taken), self.chain), reason)

    async def _produce(self) -> None:
        try:
            await interruptible(self.source.origin.value, self._send)
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None:
                raise
            is_cancelled = trio.current_effective_deadline() == -math.inf and is_caused_by_cancelling(error)
            if self._receive_open() and not is_cancelled:
                self._error = error
            else:
                self.chain.keep_cleanup_error(error)
        finally:
            self._send.close()
            self._returned.set()

    def _receive_open(self) -> bool:
        """Whether the stage still takes."""
        return not self.is_stopping() and self.chain.failure is None

    async def next(self) -> Any:
        with suppress(trio.EndOfChannel):
            return await self._receive.receive()
        await self._returned.wait()  # the producer may close the channel first, and then raise
        error, self._error = self._error, None
        if error is None:
            return END
        raise error  # not in a handler: the context of the user's error stays the user's

    async def close_source(self) -> None:
        self._receive.close()


class TickSource(AsyncSource):
    """0, 1, 2, ...: each at the first multiple of the period after the one before was taken."""

    def __init__(self, host: Host, source: Source, outlet: Outlet, fused: Sequence[FusedOperation]) -> None:
        super().__init__(host, source, outlet, fused)
        self._multiples = Multiples(source.period)  # when a tick is due
        self._number = -1  # of the last tick

    async def next(self) -> Any:
        if self._number < 0:
            self._multiples.begin(self.chain.began)
            await trio.sleep_until(self.chain.began)
        else:
            await trio.sleep_until(self._multiples.after(trio.current_time()))
        self._number += 1
        return self._number
