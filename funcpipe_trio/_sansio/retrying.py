"""Is a failed call tried again, and after how long? One machine for one item, told each error as it comes.

The rule: attempts are counted from 1; for an error that the policy names the answer is a wait while attempts are left,
for any other None, which is final. The wait is the policy's backoff, or what ``retry_after`` returns for the error. A
group of errors is named if all its leaves are. (A policy that pauses its limits asks at the last attempt as well: the
wait is for others.) A wait that would end at or after a known deadline is not begun: the
next attempt could not be made, and what went wrong is already known.

It is only told of an `Exception`: what cancels a task or ends the program is not an event of a retry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from math import inf
from typing import Any

from .._base import checks
from .._base.errors import CircuitOpen, MisuseError, is_misuse
from .._base.functions import function_name
from .._base.shown import cut, escaped, type_name
from ..policies.retry import ErrorFilter, Retry
from .backoff import backoff_delay

_SHOWN = 8


class RetryState:
    """The attempts of one item under one `Retry`."""

    number: int
    """The number of the current attempt, from 1."""
    named: float
    """The seconds that ``retry_after`` named for the last error; 0 if it named none."""

    def __init__(self, retry: Retry, item: int, *, stage: str = "", seed: int = 0) -> None:
        self._retry = retry
        self._item = item
        self._stage = stage
        self._seed = seed
        self._waits: list[float] = []
        self._too_late = ""
        self.number = 1
        self.named = 0.0

    def failed(self, error: Exception, now: float = 0.0, deadline: float = inf) -> float | None:
        """Return the seconds to wait before the next attempt, or None: the error is final.

        Args:
          error: what the attempt failed with.
          now: seconds, on the clock of the deadline.
          deadline: when it is too late for one more attempt.
        """
        retry, self.named = self._retry, 0.0
        is_last = self.number >= retry.attempts
        if (is_last and not retry.pauses_limit) or not is_retried(retry.on, error):
            return None
        asked = None if retry.retry_after is None else retry.retry_after(error)
        if asked is None:
            wait = backoff_delay(retry.backoff, self._item, self.number, stage=self._stage, seed=self._seed)
        else:
            wait = max(0.0, checks.number("Retry", f"what retry_after({type_name(error)}) gives", asked))
            self.named = wait
        if is_last:
            return None
        if now + wait >= deadline:  # as deadlines are counted: a difference may be rounded
            left = max(0.0, deadline - now)
            self._too_late = (
                f"not tried again: the next attempt is due in {wait:.6g} s, its timeout is over in {left:.6g} s"
            )
            return None
        self._waits.append(wait)
        self.number += 1
        return wait

    def note(self) -> str | None:
        """Describe the waits, and one that would have been too long, for the final error; None if there were none."""
        return "; ".join(filter(None, (self._waited(), self._too_late))) or None

    def _waited(self) -> str:
        if not self._waits:
            return ""
        shown = ", ".join(f"{wait:.6g}" for wait in self._waits[:_SHOWN])
        more = f", ... ({len(self._waits)} waits, {sum(self._waits):.6g} s in all)" if self._waits[_SHOWN:] else " s"
        return f"waited {shown}{more} between its attempts"


def is_meant(meant: ErrorFilter, error: Exception) -> bool:
    """Return whether an error filter matches an error.

    Types match their instances, and a group if they match all its leaves, since nurseries raise groups. A predicate
    gets the group as it is. No filter matches a mistake in the program.
    """
    if is_misuse(error):
        return False
    if isinstance(meant, type | tuple):
        return all(isinstance(part, meant) for part in _parts(error, meant))
    answer: Any = meant(error)
    if isinstance(answer, Awaitable):  # which is always true
        raise MisuseError(
            f"{cut(escaped(function_name(meant)))} must be a sync predicate, but returned something to await"
        )
    return bool(answer)


def is_retried(meant: ErrorFilter, error: Exception) -> bool:
    if isinstance(meant, type | tuple):
        kinds = meant if isinstance(meant, tuple) else (meant,)
        named = tuple(kind for kind in kinds if issubclass(kind, CircuitOpen))  # on=Exception does not name it
        if any(isinstance(part, CircuitOpen) and not isinstance(part, named) for part in _parts(error)):
            return False
    return is_meant(meant, error)


def _parts(error: BaseException, whole: type[Exception] | tuple[type[Exception], ...] = ()) -> Iterator[BaseException]:
    """Yield the leaves of a group, except that an inner group of one of the `whole` types is yielded itself.

    A loop, since groups may be nested deeper than the stack.
    """
    waiting = [error]
    while waiting:
        part = waiting.pop()
        if isinstance(part, BaseExceptionGroup) and not isinstance(part, whole):
            waiting += part.exceptions
        else:
            yield part
