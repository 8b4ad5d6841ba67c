"""How often is a call tried, on which errors, and with what wait in between?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, field
from typing import TypeAlias

from .._base import checks
from .._base.frozen import dataclass
from .._base.functions import function_name

__all__ = ["Backoff", "ErrorFilter", "Retry", "error_filter", "filter_name", "needs_seed"]

ErrorFilter: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Which errors match: a type, several types (a group matches if all its leaves do), or a sync predicate."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt.

    The wait after the k-th failed attempt is ``min(initial * factor**(k-1), maximum) * (1 + jitter * u)``, where ``u``,
    in [-1, 1], is computed from a seed, the name of the stage, the number of the item and k: it does not depend on
    what else runs.

    Without a `seed` each run draws one, and so does each start of a step: calls that fail at the same time do not all
    retry at the same time. The report shows the seed (``report.seed``); pass it as `seed` to repeat the waits of that
    run. Under any clock except trio's own (`testing.run_virtual`, a ``MockClock``) nothing is drawn: the runs of such a
    program are numbered, so its waits are the same each time.

    Args:
      initial: seconds >= 0 after the first failed attempt.
      factor: by which each wait is longer than the previous one, >= 1.
      maximum: seconds >= 0 that no wait exceeds (apart from jitter); None (the default) is 10, or `initial` if that is
        more.
      jitter: fraction of the wait by which it may be shorter or longer, 0 to 1.
      seed: an int, for the same jitter in every run; None (the default) for the seed of the run.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if an argument is out of range.
    """

    initial: float = 0.1
    factor: float = 2.0
    maximum: float | None = None
    jitter: float = 0.1
    seed: int | None = None

    def __post_init__(self) -> None:
        checks.seconds("Backoff", "initial", self.initial, positive=False)
        checks.number("Backoff", "factor", self.factor, at_least=1)
        if self.maximum is not None:
            checks.seconds("Backoff", "maximum", self.maximum, positive=False)
        checks.number("Backoff", "jitter", self.jitter, at_least=0, at_most=1)
        if self.seed is not None:
            checks.any_integer("Backoff", "seed", self.seed)

    @property
    def longest(self) -> float:
        """Seconds that no wait exceeds (apart from jitter)."""
        return max(10.0, self.initial) if self.maximum is None else self.maximum

    def describe(self) -> str:
        """One-line description."""
        grown = f" x {self.factor:g}" if self.factor > 1 else ""
        swing = f" +-{self.jitter:.0%}" if self.jitter else ""
        return f"{self.initial:g} s{grown} up to {self.longest:g} s{swing}"


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a call is tried.

    When the attempts are used up, or an error is not one to retry, the last error itself is raised, with a note on the
    attempts and the waits. The same happens if the next wait would end at or after the deadline of a timeout around the
    retry in its step. A cancellation, KeyboardInterrupt, SystemExit or GeneratorExit is never retried.

    Args:
      attempts: calls in total, an int >= 1; 1 means no retry.
      on: the errors to retry: an exception type, a tuple of them, or a sync predicate ``on(error) -> bool``. A
        `CircuitOpen` is retried only if it is named here (or the predicate accepts it). Types also match an
        `ExceptionGroup` if they match all its leaves, as from a call with a nursery inside; a predicate gets the group
        as it is.
      backoff: how long to wait in between.
      retry_after: ``retry_after(error)`` returns the seconds to wait instead of the backoff (from the ``Retry-After``
        header of an HTTP response, for example), or None; a time in the past (< 0) means at once. A sync function; it
        also gets a group as it is.
      pauses_limit: whether a wait that `retry_after` names is one for all: the rate limits inside the retry (of a
        shared `RateLimiter`, for all who share it) let nothing start before it is over. So one answer "too many
        requests" stops all calls, and not only its own. It counts for each failed call, also for the last attempt, or
        one that is too late for another: then `retry_after` is asked as well.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if an argument is out of range, or `pauses_limit` comes without `retry_after`.
    """

    attempts: int = 3
    on: ErrorFilter = field(default=Exception, hash=False)
    backoff: Backoff = field(default_factory=Backoff)
    _: KW_ONLY
    retry_after: Callable[[Exception], float | None] | None = field(default=None, hash=False)
    pauses_limit: bool = False

    def __post_init__(self) -> None:
        checks.integer("Retry", "attempts", self.attempts, at_least=1)
        error_filter("Retry", "on", self.on)
        if not isinstance(self.backoff, Backoff):
            raise checks.refuse(TypeError, "Retry", "backoff", "be a Backoff", self.backoff)
        if self.retry_after is not None:
            checks.sync_callable("Retry", "retry_after", self.retry_after)
        if checks.boolean("Retry", "pauses_limit", self.pauses_limit) and self.retry_after is None:
            raise ValueError(
                "Retry: pauses_limit must come with retry_after, which names the wait\n"
                "Use Retry(retry_after=fn, pauses_limit=True)."
            )

    def describe(self) -> str:
        """One-line description."""
        says = "" if self.retry_after is None else f"what {function_name(self.retry_after)} says"
        waits = f", waits {self.backoff.describe()}{says and f', or {says}'}" if self.attempts > 1 else ""
        pauses = f", pauses its rate limits for {says}" if self.pauses_limit else ""
        return f"up to {self.attempts} attempts on {filter_name(self.on)}{waits}{pauses}"


def needs_seed(retry: Retry) -> bool:
    """Return whether a wait may depend on a seed that the policy does not have."""
    return retry.attempts > 1 and retry.backoff.seed is None and retry.backoff.jitter > 0


def error_filter(where: str, name: str, value: object) -> None:
    """Check a value that selects errors."""
    rule = "be an exception type, a tuple of them, or a sync predicate"
    kinds = value if isinstance(value, tuple) else (value,)
    if isinstance(value, type | tuple):
        if not kinds or not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
            raise checks.refuse(TypeError, where, name, rule, value)
        if not all(issubclass(kind, Exception) for kind in kinds):
            rule = "name Exception or subclasses of it: policies never handle what ends a task"
            raise checks.refuse(ValueError, where, name, rule, value)
    elif not callable(value):
        raise checks.refuse(TypeError, where, name, rule, value)
    else:
        checks.sync_callable(where, name, value)


def filter_name(value: ErrorFilter) -> str:
    """Return the errors as the plan names them."""
    return " or ".join(map(function_name, value)) if isinstance(value, tuple) else function_name(value)
