"""What a `flat_map` makes of one item, watched: how many values, and how long to each of them?

A recorded stream passes everything on to the user's, also what is thrown into it, and has just the methods that it has:
a run closes it, and shelters the scopes that it holds open, as without it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import trio

from .._plan.nodes import plan_of
from .._runtime.core.signals import PENDING
from .._runtime.reports.report import Report
from .._runtime.run.run import Consumer
from .._runtime.run.witness import Witness
from .run_tapes import Tapes
from .tapes import FailureKind

REFUSED = "TypeError"
"""The type of the error by which a run refuses what cannot be iterated."""


def recorded_children(
    tapes: Tapes, name: str, fn: Callable[[Any], Iterable[Any]], item: Any, path: str = "fn"
) -> Iterable[Any]:
    """Return the children of an item; how many were taken is noted when they are closed."""
    add = tapes.tape(name, path, "counts").add
    try:
        made = fn(item)
        if plan_of(made) is not None or not hasattr(type(made), "__iter__"):
            add([0, FailureKind(REFUSED)])
            return made
        children = iter(made)
    except Exception as error:
        add([0, tapes.failure(name, error)])
        raise
    return Counted(tapes, name, children, add)


class Counted:
    """The children of an item; adds how many were taken, when they end or it is closed."""

    def __init__(self, tapes: Tapes, name: str, children: Iterator[Any], add: Callable[[Any], None]) -> None:
        self._tapes = tapes  # of the run
        self._name = name  # of the part
        self._children = children  # the user's
        self._hint = getattr(type(children), "__length_hint__", None)  # tells how many are left; None: nothing does
        self._add: Callable[[Any], None] | None = add  # None when it was called
        self._count = 0  # of those that were taken

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            child = next(self._children)
        except StopIteration:
            self._note(None)
            raise
        except Exception as error:
            self._note(self._tapes.failure(self._name, error))
            raise
        self._count += 1
        return child

    def _note(self, failure: FailureKind | None) -> None:
        if self._add is not None:
            tells = failure is None and self._hint is not None
            self._add(self._count if tells else [self._count, failure])
            self._add = None

    def __length_hint__(self) -> int:
        """Tell what the user's iterator tells: a run asks whether more may come."""
        return NotImplemented if self._hint is None else self._hint(self._children)

    def close(self) -> None:
        self._note(None)
        close = getattr(self._children, "close", None)
        if close is not None:
            close()


def recorded_stream(tapes: Tapes, name: str, since: float, segments: list[Any], made: Any) -> Any:
    """Return what a function of a `flat_map` made, watched from `since` on: each way to a child is a segment."""
    plan = plan_of(made)
    if plan is not None:
        tapes.inner[id(plan)] = plan, InnerRun(tapes, name, since, segments)
        return made
    if hasattr(type(made), "__aiter__"):
        return _Stream(tapes, name, since, segments, aiter(made))
    if hasattr(type(made), "__iter__"):
        return _timed(tapes, name, since, segments, made)
    segments.append([tapes.now() - since, FailureKind(REFUSED)])
    return made


def _timed(tapes: Tapes, name: str, since: float, segments: list[Any], made: Iterable[Any]) -> Iterator[Any]:
    asked = since
    try:
        for child in made:
            segments.append(tapes.now() - asked)
            yield child
            asked = tapes.now()
    except BaseException as error:
        segments.append(tapes.ending(name, asked, error))
        raise
    else:
        segments.append(tapes.now() - asked)


class InnerRun(Witness):
    """A pipeline inside of an item, watched where its results are taken."""

    def __init__(self, tapes: Tapes, name: str, since: float, segments: list[Any]) -> None:
        self._tapes = tapes  # of the run around it
        self._name = name  # of the part
        self._since: float | None = since  # when it was asked for what it gives next; None while it is not asked
        self._segments = segments  # the way to each result, and to the end

    def attach(self, consumer: Consumer) -> None:
        take, now, is_over = consumer.take, self._tapes.now, False

        def taken() -> Any:
            nonlocal is_over
            if is_over:
                return take()  # it raises the same again
            since = self._since = now() if self._since is None else self._since
            try:
                item = take()
            except Exception as error:
                self._since, is_over = None, True
                ended = isinstance(error, trio.EndOfChannel)
                self._segments.append(now() - since if ended else self._tapes.ending(self._name, since, error))
                raise
            if item is not PENDING:
                self._since = None
                self._segments.append(now() - since)
            return item

        consumer.take = taken

    def end(self, consumer: Consumer, report: Report) -> None:
        if self._since is not None:  # it was cut off
            self._segments.append([self._tapes.now() - self._since])


class _Stream:
    """An async iterator, watched."""

    def __init__(self, tapes: Tapes, name: str, since: float, segments: list[Any], stream: AsyncIterator[Any]) -> None:
        self._tapes = tapes  # of the run
        self._name = name  # of the part
        self._since: float | None = since  # when it was asked first, which is when its function was called
        self._segments = segments  # the way to each child, and to the end
        self._stream = stream  # the user's

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)  # `aclose` and `athrow`, if it has them

    async def __anext__(self) -> Any:
        since, self._since = self._tapes.now() if self._since is None else self._since, None
        try:
            child = await self._stream.__anext__()
        except StopAsyncIteration:
            self._segments.append(self._tapes.now() - since)
            raise
        except BaseException as error:
            self._segments.append(self._tapes.ending(self._name, since, error))
            raise
        self._segments.append(self._tapes.now() - since)
        return child
