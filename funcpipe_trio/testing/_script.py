"""A source written as a timeline: what it yields and when, and a record of how it was used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import trio

from .._base import checks
from .._base.shown import option

__all__ = ["Fail", "Script"]


@dataclass(frozen=True, slots=True)
class Fail:
    """In a `Script`: raise this error here."""

    error: Exception


class Script:
    """Make a source from a timeline; pass it to ``Pipeline.from_async_iterable``.

    As text, each character is one step of time: a letter or digit is an item, ``-`` is a step without one, ``(abc)``
    are items at the same time, ``#`` fails with a `RuntimeError`, ``|`` ends the stream. As pairs, ``(time, item)`` or
    ``(time, Fail(error))``, with times in seconds from the start of the run. An item whose time has passed before it
    was asked for comes at once.

    Args:
      timeline: the text, or the pairs in order of time.
      step: seconds per character.

    Raises:
      TypeError: if the timeline is neither text nor pairs.
      ValueError: if the text has an unknown character, or times go backwards.
    """

    def __init__(self, timeline: str | Iterable[tuple[float, Any]], *, step: float = 1.0) -> None:
        checks.seconds("Script", "step", step)
        if not isinstance(timeline, Iterable):
            raise _not_a_timeline(timeline)
        self.timeline: tuple[tuple[float, Any], ...] = (
            tuple(_parsed(timeline, step)) if isinstance(timeline, str) else tuple(_pair(pair) for pair in timeline)
        )
        if any(late[0] < early[0] for early, late in zip(self.timeline, self.timeline[1:], strict=False)):
            raise ValueError("Script: timeline must not go backwards in time")
        self.asked: int = 0
        """How many items the last run asked for."""
        self.opened: int = 0
        """How many runs opened it."""
        self.closed: int = 0
        """How many runs closed it or reached its end."""
        self.cancelled: bool = False
        """Whether the last run cancelled it while asking for an item."""
        self.cancel_reason: str | None = None
        """Why, as reported by trio."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._play()

    async def _play(self) -> AsyncIterator[Any]:
        self.opened += 1
        self.asked, self.cancelled, self.cancel_reason = 0, False, None
        start = trio.current_time()
        try:
            for at, event in self.timeline:
                self.asked += 1
                await trio.sleep_until(start + at)
                if isinstance(event, Fail):
                    raise event.error
                if event is not _END:
                    yield event
        except trio.Cancelled as cancelled:
            self.cancelled, self.cancel_reason = True, getattr(cancelled, "reason", None)
            raise
        finally:
            self.closed += 1


_END = object()


def _not_a_timeline(value: Any) -> Exception:
    return checks.refuse(TypeError, "Script", "timeline", "be text, or (time, item) pairs", value)


def _pair(pair: Any) -> tuple[float, Any]:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise _not_a_timeline(pair)
    return checks.seconds("Script", "time", pair[0], positive=False), pair[1]


def _parsed(text: str, step: float) -> Iterable[tuple[float, Any]]:
    at, grouped = 0, False
    for character in text:
        if character == "(" and not grouped:
            grouped = True
            continue
        if character == ")" and grouped:
            grouped = False
        elif character == "|":
            yield at * step, _END
        elif character == "#":
            yield at * step, Fail(RuntimeError("scripted failure"))
        elif character.isalnum():
            yield at * step, character
        elif character != "-" or grouped:
            raise ValueError(f"Script: timeline must be letters, digits, '-', '(..)', '#', '|', not {character!r}")
        at += not grouped
    if grouped:
        raise checks.refuse(ValueError, "Script", "timeline", "close its '('", text, show=option)
