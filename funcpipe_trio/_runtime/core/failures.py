"""User code raised: is that a failure of its item or source, or must it pass? And how is it reported?

A failure      any `Exception`; and a stray `Cancelled`: no scope around the call was cancelled, so it comes from
               somewhere else (a cache returned it, say). If it passed, it would end the run silently.
It must pass   a `Cancelled` of a scope around the call; KeyboardInterrupt, SystemExit and the like.

Reporting an error never fails: an exception may refuse notes, have no text, or be false.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Final

import trio

from ..._base.shown import named, told
from .log import LOGGER

MOST_NOTES: Final = 32
"""The most notes on one exception."""
_ENDS = (StopIteration, StopAsyncIteration, trio.EndOfChannel)


def failure_of(error: BaseException) -> Exception | None:
    """Return what an item or a source failed with; None if the error must pass."""
    if isinstance(error, Exception):
        return error
    if not is_cancellation(error) or trio.current_effective_deadline() == -math.inf:
        return None
    return stray(error)


def stray(error: BaseException) -> Exception:
    """Return the error that stands for a `Cancelled` which no scope around the call caused."""
    failure = RuntimeError("Cancelled was raised, though no scope around it was cancelled")
    failure.__cause__ = error
    return failure


def is_cancellation(error: BaseException | None) -> bool:
    """Whether it is a cancellation, alone or in a group that holds nothing but those and `Exception`s."""
    if isinstance(error, trio.Cancelled):
        return True
    leaves = list(leaves_of(error)) if isinstance(error, BaseExceptionGroup) else []
    return any(isinstance(leaf, trio.Cancelled) for leaf in leaves) and all(
        isinstance(leaf, trio.Cancelled | Exception) for leaf in leaves
    )


def follow(error: BaseException, before: BaseException) -> None:
    """Put an error behind the one that was met before it: as its context, or as that of the first one of its own."""
    seen = [error]
    while (cause := seen[-1].__context__) is not None:
        if any(cause is each for each in (before, *seen)):
            return
        seen.append(cause)
    each: BaseException | None = before
    while each is not None:  # one object may be raised again and again: no circle
        if any(each is other for other in seen):
            return
        each = each.__context__
    seen[-1].__context__ = before


def leaves_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield each error in a group, at any depth; an error that is not a group, itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves_of(inner)
    elif error is not None:
        yield error


def is_caused_by_cancelling(error: BaseException) -> bool:
    """Whether a cancellation is among the causes and contexts of an error, or in its groups."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or any(each is other for other in seen):
            continue
        if isinstance(each, trio.Cancelled):
            return True
        seen.append(each)
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
    return False


def noted(error: Exception, name: str, number: int | None, attempts: str = "") -> Exception:
    """Add a note of where the error was raised, and return it; one that would read as an end of stream is wrapped."""
    if isinstance(error, _ENDS):
        cause = error
        error = RuntimeError(
            f"stage {named(name)} raised {type(cause).__name__}, which is not an end here but an error"
        )
        error.__cause__ = cause
    add_note(error, f"in stage {named(name)}" + ("" if number is None else f", item {number}{attempts}"))
    return error


def add_note(error: BaseException, note: str) -> None:
    """Add a note once, and at most `MOST_NOTES`: one exception object may be raised for many items.

    An exception that refuses notes (a frozen dataclass) gets none.
    """
    with contextlib.suppress(Exception):
        notes = getattr(error, "__notes__", ())
        if len(notes) < MOST_NOTES and note not in notes:
            error.add_note(note)


def warn_of(name: str, errors: Sequence[BaseException], count: int) -> None:
    """Log errors of cleanup, for a caller that gets no report to find them in."""
    if not errors:
        return
    first = errors[0]
    logged = "%s: %d errors in addition to the result, the first: %s"
    with contextlib.suppress(Exception):  # raised by a filter of the user's
        LOGGER.warning(logged, name, count, told(first), exc_info=(type(first), first, first.__traceback__))
