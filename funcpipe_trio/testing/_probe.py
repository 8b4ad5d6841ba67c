"""A consumer that takes items on demand, and records when each one arrived."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

import trio

from .._runtime.run.run import Run
from .._runtime.run.run_context import RunContext
from ..pipeline import Pipeline

__all__ = ["Probe"]

T = TypeVar("T")


class Probe(Generic[T]):
    """Open a pipeline for the duration of a block, and take items from it one by one.

    ``log`` holds every ``(virtual time, item)``, with times relative to the opening. A failed expectation shows it.

    Args:
      pipeline: the pipeline to run; the items it discards are kept in ``discarded``.

    Example::

        async with Probe(pipeline) as probe:
            await probe.expect("a", at=0)
            await probe.expect_nothing(5)
            await probe.expect_end()
    """

    def __init__(self, pipeline: Pipeline[T]) -> None:
        self.log: list[tuple[float, T]] = []
        self.discarded: list[tuple[Any, str, str]] = []
        self._block: RunContext[T] = pipeline.open(on_discard=lambda *given: self.discarded.append(given))
        self._run: Run[T] | None = None
        self._start = 0.0

    @property
    def run(self) -> Run[T]:
        """The run, to inspect, drain or abort."""
        assert self._run is not None, "the block of the probe was not entered"
        return self._run

    @property
    def items(self) -> list[T]:
        """The items taken so far."""
        return [item for _, item in self.log]

    async def __aenter__(self) -> Probe[T]:
        self._start = trio.current_time()
        self._run = await self._block.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return await self._block.__aexit__(kind, error, traceback)  # noqa: ASYNC102  # the run's own exit

    async def take(self, count: int = 1) -> list[T]:
        """Take `count` items, waiting for each."""
        for _ in range(count):
            item = await self.run.receive()
            self.log.append((self._now(), item))
        return self.items[len(self.log) - count :]

    async def expect(self, *items: T, at: float | None = None) -> None:
        """Take as many items as given, and compare; with `at`, the last must arrive at that time.

        Raises:
          AssertionError: if they differ, or the stream ends early.
        """
        for expected in items:
            try:
                item = (await self.take())[0]
            except trio.EndOfChannel:
                raise AssertionError(self._told(f"expected {expected!r}, but the stream ended")) from None
            if item != expected:
                raise AssertionError(self._told(f"expected {expected!r}, not {item!r}"))
        if at is not None and self._now() != at:
            raise AssertionError(self._told(f"expected {items[-1]!r} at {at:g} s, not at {self._now():g} s"))

    async def expect_nothing(self, seconds: float) -> None:
        """Wait, and check that no item arrives; one that does is added to the log.

        Raises:
          AssertionError: if an item arrives, or the stream ends.
        """
        with trio.move_on_after(seconds):
            try:
                await self.take()
            except trio.EndOfChannel:
                raise AssertionError(self._told(f"expected nothing for {seconds:g} s, but the stream ended")) from None
            raise AssertionError(self._told(f"expected nothing for {seconds:g} s, but an item arrived"))

    async def expect_end(self, *, at: float | None = None) -> None:
        """Check that the stream ends now.

        Raises:
          AssertionError: if another item arrives, or the stream ends at another time.
        """
        try:
            await self.take()
        except trio.EndOfChannel:
            if at is not None and self._now() != at:
                raise AssertionError(self._told(f"expected the end at {at:g} s, not at {self._now():g} s")) from None
        else:
            raise AssertionError(self._told("expected the end, but an item arrived"))

    async def expect_error(self, kind: type[Exception]) -> Exception:
        """Check that the stream fails now, and return the error.

        Raises:
          AssertionError: if an item arrives, or the stream ends normally.
        """
        try:
            await self.take()
        except trio.EndOfChannel:
            raise AssertionError(self._told(f"expected {kind.__name__}, but the stream ended")) from None
        except kind as error:
            return error
        raise AssertionError(self._told(f"expected {kind.__name__}, but an item arrived"))

    def _now(self) -> float:
        return trio.current_time() - self._start

    def _told(self, problem: str) -> str:
        return "\n".join([problem, "log:", *_lines(self.log), f"now: {self._now():g} s"])


def _lines(log: Sequence[tuple[float, object]]) -> list[str]:
    return [f"  {time:>8g} s  {item!r}" for time, item in log] or ["  (nothing arrived)"]
