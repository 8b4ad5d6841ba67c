"""Is a failed call tried again, and after how long? One machine for one item, told each error as it comes.

The rule: attempts are counted from 1; an error that the policy names is answered with a wait while attempts are left,
any other with None, which is final. The wait is the policy's backoff, or what ``retry_after`` says of the error.

It only ever hears of an `Exception`: what cancels a task or ends the program is no event of a retry.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from .._errors import CircuitOpen
from ..policies import _check
from ..policies._functions import function_name
from ..policies._shown import cut, escaped, type_name
from ..policies.retry import ErrorFilter, Retry
from .backoff import backoff_delay

__all__ = ["Attempts", "is_meant"]

_SHOWN = 8


class Attempts:
    """The attempts of one item under one `Retry`."""

    number: int
    """The attempt that runs, from 1."""

    def __init__(self, retry: Retry, item: int, *, stage: str = "", seed: int = 0) -> None:
        self._retry = retry
        self._item = item
        self._stage = stage
        self._seed = seed
        self._waits: list[float] = []
        self.number = 1

    def failed(self, error: Exception) -> float | None:
        """Answer the seconds to wait before the next attempt, or None: the error is final."""
        retry = self._retry
        if self.number >= retry.attempts or not _is_retried(retry.on, error):
            return None
        asked = None if retry.retry_after is None else retry.retry_after(error)
        if asked is None:
            wait = backoff_delay(retry.backoff, self._item, self.number, stage=self._stage, seed=self._seed)
        else:
            wait = max(0.0, _check.number("Retry", f"what retry_after({type_name(error)}) gives", asked))
        self._waits.append(wait)
        self.number += 1
        return wait

    def note(self) -> str | None:
        """Tell of the waits, for the final error; None if there were none."""
        if not self._waits:
            return None
        shown = ", ".join(f"{wait:.6g}" for wait in self._waits[:_SHOWN])
        more = f", ... ({len(self._waits)} waits, {sum(self._waits):.6g} s in all)" if self._waits[_SHOWN:] else " s"
        return f"waited {shown}{more} between its attempts"


def is_meant(meant: ErrorFilter, error: Exception) -> bool:
    """Tell whether a filter of errors means an error."""
    if isinstance(meant, type | tuple):
        return isinstance(error, meant)
    answer: Any = meant(error)
    if isinstance(answer, Awaitable):  # which would always mean yes
        raise TypeError(
            f"{cut(escaped(function_name(meant)))} must be a sync predicate, but returned something to await"
        )
    return bool(answer)


def _is_retried(meant: ErrorFilter, error: Exception) -> bool:
    if isinstance(error, CircuitOpen) and isinstance(meant, type | tuple):
        kinds = meant if isinstance(meant, tuple) else (meant,)
        return isinstance(error, tuple(kind for kind in kinds if issubclass(kind, CircuitOpen)))  # Exception is no name
    return is_meant(meant, error)
